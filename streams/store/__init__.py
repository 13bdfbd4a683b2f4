"""Local state that outgrows memory: a log-structured merge tree for fixed-width rows, batch by batch."""

from streams.store.errors import StoreCorrupt, StoreError, StoreInUse
from streams.store.hits import Hits, Store
from streams.store.memory import MemoryStore
from streams.store.tree import Tree

__all__ = ["Hits", "MemoryStore", "Store", "StoreCorrupt", "StoreError", "StoreInUse", "Tree"]
