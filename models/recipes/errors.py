"""What a recipe refuses with."""

from __future__ import annotations


class CannotTrain(Exception):
    """No model can come out of these rows with this recipe; the message says why."""
