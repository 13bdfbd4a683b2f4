"""Who answers a request: the champion, or a challenger for its share of the keys; and who only watches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import compress

from models.serving.core import Champion, Dealt
from models.serving.ring import Deal
from streams.rollout_evidence import CHALLENGER, CHAMPION, NULL
from streams.rollout_state import Traffic
from streams.task import Ask


@dataclass(frozen=True, slots=True)
class Lineup:
    """A version beside the champion, loaded and warm. Holds for one champion: `traffic.baseline`."""

    traffic: Traffic
    challenger: Champion
    deal: Deal = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "deal", Deal(self.traffic.id, self.traffic.share))

    @property
    def splits(self) -> bool:
        """Whether the requests of callers are dealt, in whatever shares."""
        return self.traffic.step > 0 and not self.traffic.shadow

    def key(self, ask: Ask) -> str:
        """What decides who answers: the event id, or the feature that the policy sticks to."""
        sticky = self.traffic.sticky_by
        return ask.id if sticky is None else str(ask.instance.get(sticky))

    def shadows(self, time: int) -> bool:
        """Whether an answer of event time `time` (ms) is scored in the shadow, too."""
        until = self.traffic.until
        return self.traffic.shadow and (until is None or time < until)


def deal(champion: Champion, lineup: Lineup | None, asks: Sequence[Ask]) -> list[Dealt]:
    """Each ask to one version; all to the champion where nothing is rolled out."""
    everything = tuple(range(len(asks)))
    if lineup is None or lineup.traffic.baseline != champion.version or not lineup.splits:
        return [Dealt(champion, everything, None)]
    taken = [lineup.deal.takes(lineup.key(ask)) for ask in asks]
    route = lineup.traffic.route
    mine = tuple(compress(everything, taken))
    theirs = tuple(index for index in everything if not taken[index])
    parts = [
        Dealt(champion, theirs, f"{route}/{CHAMPION}"),
        Dealt(lineup.challenger, mine, f"{route}/{CHALLENGER}", f"{route}/{NULL}"),
    ]
    return [part for part in parts if part.indices]
