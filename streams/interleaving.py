"""Team-draft interleaving: two rankings in one list, and which of them its clicks speak for.

Radlinski, Kurup and Joachims, "How does clickthrough data reflect retrieval quality?" (CIKM 2008). Pure: the
coins come from a seed, which belongs into the event that says what was shown.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

CHAMPION, CHALLENGER = "champion", "challenger"


@dataclass(frozen=True, slots=True)
class Drafted(Generic[T]):
    """What is shown, best first, and the team that picked each; '' for what both had in common on top."""

    items: tuple[T, ...]
    teams: tuple[str, ...]

    def credit(self, clicked: Iterable[T]) -> Counter[str]:
        """Clicks by team; each item counts once, and what was not shown or has no team counts for nobody."""
        team_of = dict(zip(self.items, self.teams, strict=True))
        return Counter(team for item in set(clicked) if (team := team_of.get(item)))

    def winner(self, clicked: Iterable[T]) -> str:
        """The team with more clicks, '' for a tie: one vote for the test over many lists."""
        credit = self.credit(clicked)
        difference = credit[CHALLENGER] - credit[CHAMPION]
        return CHALLENGER if difference > 0 else CHAMPION if difference < 0 else ""


def team_draft(
    champion: Sequence[T], challenger: Sequence[T], length: int, seed: str
) -> Drafted[T]:
    """The first `length` items of both rankings (each without repeats), drafted in turns.

    The team with fewer picks goes next, a coin decides a tie; it picks its best item that is not there yet.
    What both rank alike at the top belongs to nobody: a click there tells nothing (Chapelle et al. 2012).
    """
    shared = 0
    for one, other in zip(champion, challenger, strict=False):
        if one != other or shared == length:
            break
        shared += 1
    items = list(champion[:shared])
    teams = [""] * shared
    taken = set(items)
    rankings = {CHAMPION: iter(champion[shared:]), CHALLENGER: iter(challenger[shared:])}
    picks = dict.fromkeys(rankings, 0)
    while len(items) < length and rankings:
        team = _next(rankings, picks, f"{seed}|{len(items)}")
        item = next((item for item in rankings[team] if item not in taken), None)
        if item is None:
            del rankings[team]
            continue
        picks[team] += 1
        items.append(item)
        teams.append(team)
        taken.add(item)
    return Drafted(tuple(items), tuple(teams))


def _next(rankings: Iterable[str], picks: dict[str, int], coin: str) -> str:
    fewest = min(picks[team] for team in rankings)
    tied = [team for team in rankings if picks[team] == fewest]
    heads = hashlib.blake2b(coin.encode(), digest_size=1).digest()[0] & 1
    return tied[heads % len(tied)]
