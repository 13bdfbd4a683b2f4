"""Errors of this house: each says what happened, where, and what to do next."""

from __future__ import annotations


class InfraError(Exception):
    """A part of the local system that cannot be prepared, started, found or stopped."""
