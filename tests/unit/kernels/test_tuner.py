"""Occupancy by NVIDIA's rules; a search that remembers; the roofline."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kernels.gpu import tuned
from kernels.gpu.emulator import Emulator
from kernels.gpu.runtime import DeviceFailed, Properties, Runtime
from kernels.tuner import search
from kernels.tuner.occupancy import occupancy
from kernels.tuner.roofline import Point, Roof, plot
from kernels.tuner.search import Cache, Tunable, tune
from kernels.tuner.tunables import TUNABLES

HOPPER = Properties(
    name="a device of compute capability 9.0",
    compute_capability=(9, 0),
    multiprocessors=132,
    warp=32,
    threads_per_multiprocessor=2048,
    registers_per_multiprocessor=65536,
    shared_per_multiprocessor=228 * 1024,
    shared_per_block=227 * 1024,
    l2_bytes=50 << 20,
    clock_hz=1e9,
    memory_bandwidth=1e12,
    total_memory=1 << 30,
)


@pytest.mark.parametrize(
    ("threads", "registers", "shared", "blocks", "limit"),
    [
        (256, 32, 0, 8, "warps"),
        (256, 33, 0, 6, "registers"),  # 40 are handed out: 12 warps in each partition
        (256, 64, 0, 4, "registers"),
        (256, 65, 0, 3, "registers"),
        (128, 255, 0, 2, "registers"),
        (1024, 64, 0, 1, "registers"),
        (1024, 65, 0, 0, "registers"),
        (32, 16, 0, 32, "blocks"),
        (96, 32, 0, 21, "warps"),
        (256, 32, 48 * 1024, 4, "shared memory"),
        (256, 32, 100 * 1024, 2, "shared memory"),
        (256, 32, 227 * 1024, 1, "shared memory"),
        (256, 32, 228 * 1024, 0, "shared memory"),
        (2048, 16, 0, 0, "warps"),
    ],
)
def test_occupancy(threads: int, registers: int, shared: int, blocks: int, limit: str) -> None:
    found = occupancy(HOPPER, threads, registers, shared)
    assert found.blocks == blocks
    assert found.limit == limit or blocks == 0
    assert found.share == pytest.approx(blocks * -(-threads // 32) / 64)


def test_a_device_whose_rules_are_not_known_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(12, 3\): not known"):
        occupancy(replace(HOPPER, compute_capability=(12, 3)), 256, 32)


@pytest.fixture
def fresh(emulator: Runtime) -> Iterator[Emulator]:
    del emulator  # it skips where there is no g++
    yield Emulator()
    tuned.forget("emulator")


def timed_by(key: str, wanted: int) -> object:
    """A clock under which the nearest to `wanted` is the fastest."""

    def seconds(runtime: Runtime, launch: object, candidate: tuned.Parameters) -> float:
        launch(candidate)  # type: ignore[operator]
        return 1.0 + abs(candidate.get(key, wanted) - wanted)

    return seconds


def test_the_fastest_is_used_stored_and_found_again(
    fresh: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "_seconds", timed_by("threads", 500))
    cache = Cache(tmp_path / "deep" / "tuned.json")
    for tunable in TUNABLES:
        assert tune(fresh, tunable, 1000, cache).get("threads", 512) == 512
    assert tuned.parameter(fresh, "scan", 900, "threads", 7) == 512
    assert tuned.parameter(fresh, "scan", 2000, "threads", 7) == 7
    tuned.forget("emulator")
    assert tuned.parameter(fresh, "scan", 900, "threads", 7) == 7
    assert cache.load(fresh, TUNABLES) == len(TUNABLES)
    assert tuned.parameter(fresh, "scan", 900, "threads", 7) == 512
    x = np.arange(900, dtype=np.float32)
    from kernels.gpu.scan import scan

    assert np.array_equal(scan(fresh, fresh.send(x)).get(), np.cumsum(x))


def test_a_result_for_another_source_or_in_a_damaged_file_counts_no_more(
    fresh: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "_seconds", timed_by("threads", 500))
    file = tmp_path / "tuned.json"
    tune(fresh, TUNABLES[0], 1000, Cache(file))
    everything = json.loads(file.read_text())
    everything["emulator"]["add 2^10"]["source"] = "another"
    file.write_text(json.dumps(everything))
    assert Cache(file).load(fresh, TUNABLES) == 0
    file.write_text("{")
    assert Cache(file).load(fresh, TUNABLES) == 0


def test_what_a_device_refuses_is_not_chosen(fresh: Emulator, tmp_path: Path) -> None:
    def prepare(runtime: Runtime, n: int) -> object:
        def launch(p: tuned.Parameters) -> None:
            if p["threads"] > 256:
                raise DeviceFailed("too many resources requested for launch")

        return launch

    many = Tunable("many", "scan.cu", [{"threads": t} for t in (512, 256)], prepare)  # type: ignore[arg-type]
    assert tune(fresh, many, 10, Cache(tmp_path / "t.json"))["threads"] == 256
    none = replace(many, candidates=many.candidates[:1])
    with pytest.raises(DeviceFailed, match="no parameters can be launched: too many resources"):
        tune(fresh, none, 10, Cache(tmp_path / "t.json"))


def test_a_point_under_its_roof(tmp_path: Path) -> None:
    roof = Roof("a device", bandwidth=100e9, peak=1e12, how="for a test")
    memory, arithmetic = Point("add", 1e9, 12e9, 0.24), Point("matmul", 1e12, 1e10, 2.0)
    assert memory.share(roof) == pytest.approx(0.5) and arithmetic.share(roof) == pytest.approx(0.5)
    plot([memory, arithmetic], roof, tmp_path / "roof.png")
    assert (tmp_path / "roof.png").read_bytes().startswith(b"\x89PNG")
