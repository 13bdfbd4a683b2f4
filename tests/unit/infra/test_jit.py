"""Machine code on disk: never that of another signature, never that of an older source."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

CALLEE = """
from infra.jit import compiled

STEP = {step}

@compiled
def step(x):
    return x {sign} STEP
"""
CALLER = """
import sys
import numpy as np
from infra.jit import compiled
import callee

@compiled
def total(values):
    found = 0
    for value in values:
        found += callee.step(value)
    return found

for kind in sys.argv[1:]:
    print(total(np.arange(5).astype(kind)))
stats = total.stats
print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
"""


CLOSURES = """
import sys
from infra.jit import compiled

def adds(n):
    @compiled
    def add(x):
        return x + n
    return add

add_1, add_2, add_3 = map(adds, (1, 2, 3))

@compiled
def all_of_them(x):
    return add_1(x), add_2(x), add_3(x)

for name in sys.argv[1:]:
    print(globals()[name](100))
"""


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    (tmp_path / "caller.py").write_text(CALLER)
    write_callee(tmp_path, "+", 1)
    return tmp_path


def write_callee(folder: Path, sign: str, step: int) -> None:
    (folder / "callee.py").write_text(CALLEE.format(sign=sign, step=step))


def run(folder: Path, *words: str, script: str = "caller.py") -> list[str]:
    """What it prints: of the caller sums by kind of number, then "hits misses" of the cache."""
    # Beside the source, whatever this run's own settings say; bytecode would be taken by its second.
    env = {k: v for k, v in os.environ.items() if not k.startswith("NUMBA_")}
    env |= {"PYTHONPATH": f"{folder}:{Path.cwd()}", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, str(folder / script), *words]
    ended = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    return ended.stdout.splitlines()


def files_of(folder: Path, name: str) -> set[Path]:
    return set((folder / "__pycache__").glob(f"{name}-*.nbc"))


def test_what_was_compiled_is_loaded(sources: Path) -> None:
    assert run(sources, "i8", "f8") == ["15", "15.0", "0 2"]
    assert run(sources, "f8", "i8") == ["15.0", "15", "2 0"]


def test_code_of_another_signature_is_not_run(sources: Path) -> None:
    run(sources, "i8")
    (whole,) = files_of(sources, "caller.total")
    run(sources, "f8")
    (real,) = files_of(sources, "caller.total") - {whole}
    shutil.copy(whole, real)
    assert run(sources, "f8") == ["15.0", "0 1"]
    assert run(sources, "f8") == ["15.0", "1 0"]


@pytest.mark.parametrize(("sign", "step", "expected"), [("*", 1, "10"), ("+", 2, "20")])
def test_a_function_compiled_in_from_another_file_changes_its_callers(
    sources: Path, sign: str, step: int, expected: str
) -> None:
    assert run(sources, "i8")[0] == "15"
    write_callee(sources, sign, step)
    assert run(sources, "i8") == [expected, "0 1"]
    assert run(sources, "i8") == [expected, "1 0"]


def test_closures_that_several_processes_compiled_stay_apart(tmp_path: Path) -> None:
    (tmp_path / "closures.py").write_text(CLOSURES)
    assert run(tmp_path, "add_1", script="closures.py") == ["101"]
    assert run(tmp_path, "add_2", "all_of_them", script="closures.py") == ["102", "(101, 102, 103)"]
    assert run(tmp_path, "all_of_them", script="closures.py") == ["(101, 102, 103)"]


def test_code_of_an_older_source_is_removed(sources: Path) -> None:
    run(sources, "i8")
    (old,) = files_of(sources, "caller.total")
    (sources / "caller.py").write_text(CALLER + "\n")
    run(sources, "i8")
    (new,) = files_of(sources, "caller.total")
    assert new != old


def test_a_constant_of_another_module_is_part_of_the_code() -> None:
    from infra.jit import _Files, compiled

    def made(table: np.ndarray) -> tuple[object, ...]:
        @compiled
        def look_up(i: int) -> float:
            return table[i]

        files = look_up._cache._cache_file  # type: ignore[attr-defined]
        assert isinstance(files, _Files)
        return files._made_of

    one, same, other = np.zeros(3), np.zeros(3), np.ones(3)
    assert made(one) == made(same) != made(other)
