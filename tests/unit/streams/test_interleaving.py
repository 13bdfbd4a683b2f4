"""Team draft: both rankers have their say, and clicks go to who picked."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from streams.interleaving import CHALLENGER, CHAMPION, team_draft

RANKINGS = st.lists(st.integers(0, 30), unique=True, max_size=12)


@given(RANKINGS, RANKINGS, st.integers(0, 12), st.text(max_size=5))
def test_a_draft_holds_each_item_once_and_is_fair(
    one: list[int], other: list[int], length: int, seed: str
) -> None:
    drafted = team_draft(one, other, length, seed)
    assert drafted == team_draft(one, other, length, seed)
    assert len(set(drafted.items)) == len(drafted.items)
    assert len(drafted.items) == min(length, len({*one, *other}))
    for team, ranking in ((CHAMPION, one), (CHALLENGER, other)):
        picked = [i for i, t in zip(drafted.items, drafted.teams, strict=True) if t == team]
        assert picked == sorted(picked, key=ranking.index)
    if length <= min(len(one), len(other)) and len({*one, *other}) >= 2 * length:
        assert abs(drafted.teams.count(CHAMPION) - drafted.teams.count(CHALLENGER)) <= 1


def test_what_both_have_on_top_belongs_to_nobody() -> None:
    drafted = team_draft("abxy", "abpq", 4, "s")
    assert drafted.teams[:2] == ("", "")
    assert drafted.winner("ab") == ""


def test_clicks_go_to_who_picked() -> None:
    drafted = team_draft([1, 2, 3], [4, 5, 6], 4, "s")
    mine = [i for i, t in zip(drafted.items, drafted.teams, strict=True) if t == CHALLENGER]
    assert drafted.credit([*mine, mine[0], 99]) == {CHALLENGER: len(mine)}
    assert drafted.winner(mine) == CHALLENGER


def test_the_better_ranker_wins_and_equal_ones_do_not() -> None:
    """Clicks follow relevance with some noise; the champion's ranking is shuffled."""
    rng = random.Random(1)
    votes = {"better": 0, "equal": 0}
    for n in range(600):
        relevance = {item: rng.random() for item in range(20)}
        good = sorted(relevance, key=relevance.__getitem__, reverse=True)
        poor = rng.sample(good, len(good))
        other = sorted(
            relevance, key=lambda item: relevance[item] + rng.gauss(0, 1e-9), reverse=True
        )
        for kind, (one, two) in {
            "better": (poor, good),
            "equal": (poor, rng.sample(other, 20)),
        }.items():
            drafted = team_draft(one, two, 10, f"{n}")
            clicked = [item for item in drafted.items if rng.random() < relevance[item] ** 3]
            winner = drafted.winner(clicked)
            votes[kind] += (winner == CHALLENGER) - (winner == CHAMPION)
    assert votes["better"] > 300
    assert abs(votes["equal"]) < 80
