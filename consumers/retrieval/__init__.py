"""Retrieval: exact nearest vectors, from an index that is a fold over events."""
