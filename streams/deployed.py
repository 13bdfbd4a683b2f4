"""Which deployment events count: a policy's decision holds only for the champion that it speaks of."""

from __future__ import annotations

POLICY = "policy"
"""Actor of what a rollout or a watch decides."""


def counts(actor: str, previous: str | None, champion: str | None) -> bool:
    """Compare-and-set: a policy decides on what it has read, which a person may have overtaken meanwhile."""
    return actor != POLICY or previous == champion
