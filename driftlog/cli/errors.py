"""What a command says when it cannot do its work."""

from __future__ import annotations


class CliError(Exception):
    """One line for the user: what happened, where, what next. The command exits with status 1."""
