"""Settings that all tests share."""

from __future__ import annotations

from hypothesis import settings

# The first call of a compiled loop takes seconds, and times are never asserted here.
settings.register_profile("driftlog", deadline=None)
settings.load_profile("driftlog")
