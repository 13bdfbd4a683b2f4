"""Thousands of seeded histories with faults end in the same state as the fault-free run, to the bit."""

from __future__ import annotations

import multiprocessing
import os
import random
from concurrent.futures import ProcessPoolExecutor

from schemas.catalogue import DRIFT_SCORES, RETRAIN_REQUESTS
from streams.simulation import Faults
from tests.simulation.histories import live_through

HISTORIES = int(os.environ.get("DRIFTLOG_HISTORIES", "2000"))
INPUTS = 10
"""Different inputs; each is lived through many times with other faults."""
CHUNKS = 4


def faults_of(seed: int) -> Faults:
    rng = random.Random(seed)
    return Faults(
        repeat=rng.choice([0.0, 0.05, 0.3]),
        crash_before_append=rng.choice([0.0, 0.05, 0.15]),
        crash_before_commit=rng.choice([0.0, 0.05, 0.15]),
        max_poll=rng.choice([5, 20, 80]),
        hold_back=rng.choice([0, 0, 2]),
    )


def compare(first: int, last: int) -> tuple[list[str], int, int]:
    """Histories [first, last): what differs, crashes met, repeats met."""
    calm: dict[int, dict[str, str]] = {}
    wrong, crashes, repeats = [], 0, 0
    for seed in range(first, last):
        which = seed % INPUTS
        if which not in calm:
            calm[which] = live_through(which, Faults(), 0)[0]
        prints, crashed, log = live_through(which, faults_of(seed), seed)
        crashes += crashed
        for records in log.records.values():
            repeats += len(records) - len({event.id for event in records})
        wrong += [
            f"history {seed}: {name}"
            for name, print_ in prints.items()
            if print_ != calm[which][name]
        ]
    return wrong, crashes, repeats


def test_every_history_with_faults_ends_like_the_fault_free_one() -> None:
    share = -(-HISTORIES // CHUNKS)
    # Spawned: a process that other tests have filled with threads must not be forked.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=os.cpu_count(), mp_context=spawn) as pool:
        results = list(
            pool.map(compare, range(0, HISTORIES, share), range(share, HISTORIES + share, share))
        )
    wrong = [line for lines, _, _ in results for line in lines]
    assert wrong == []
    assert sum(crashes for _, crashes, _ in results) > HISTORIES / 4  # the faults were there
    assert sum(repeats for _, _, repeats in results) > HISTORIES


def test_the_histories_have_something_to_decide() -> None:
    _, _, log = live_through(1, Faults(), 0)
    drifted = [e for e in log.records[DRIFT_SCORES, 0] if e.data["drifted"]]
    assert drifted
    assert log.ids(RETRAIN_REQUESTS)


def test_a_fold_that_counts_repeats_would_be_caught() -> None:
    """The comparison can fail: without the projector's memory of ids the ledger differs."""
    calm, _, _ = live_through(3, Faults(), 0)
    noisy, _, log = live_through(3, Faults(repeat=0.5), 7)
    assert calm == noisy
    raw = {key: len(records) for key, records in log.records.items()}
    distinct = {key: len({e.id for e in records}) for key, records in log.records.items()}
    assert raw != distinct
