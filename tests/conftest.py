"""Settings that all tests share."""

from __future__ import annotations

from hypothesis import settings

# The first call of a compiled loop takes seconds, and times are never asserted here.
settings.register_profile("search", deadline=None, print_blob=True)
# A run's verdict is about the code alone: the same examples each time. `make fuzz` looks for new ones.
settings.register_profile("driftlog", deadline=None, derandomize=True)
settings.load_profile("driftlog")
