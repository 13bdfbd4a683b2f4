"""A task file loads, or one line says what is wrong with it, where, and what to do."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import examples
from streams.task import TaskError
from streams.task_file import load_task, load_tasks

TASK = """\
from driftlog import Numeric, Task
task = Task(name="churn", label="leaves", features=(Numeric("age"),))
"""


@pytest.fixture(autouse=True)
def _imports_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a task file imports or adds to the path is forgotten after the test."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def refusal(path: Path) -> str:
    with pytest.raises(TaskError) as caught:
        load_task(path)
    message = str(caught.value)
    assert "\n" not in message
    assert path.name in message
    return message


def test_a_file_gives_its_task(tmp_path: Path) -> None:
    assert load_task(write(tmp_path / "churn.py", TASK)).name == "churn"


def test_a_relative_path_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "churn.py", TASK)
    monkeypatch.chdir(tmp_path)
    assert load_task(Path("churn.py")).name == "churn"


def test_one_task_under_two_names_is_one_task(tmp_path: Path) -> None:
    assert load_task(write(tmp_path / "churn.py", TASK + "same = task\n")).name == "churn"


def test_a_changed_file_is_read_anew(tmp_path: Path) -> None:
    path = write(tmp_path / "churn.py", TASK)
    load_task(path)
    write(path, TASK.replace("churn", "crowd"))  # as long, and in the same second
    assert load_task(path).name == "crowd"


def test_examples_in_a_package_load_with_their_imports() -> None:
    folder = Path(examples.__file__).parent
    names = [task.name for task in load_tasks([folder / "flights.py", folder / "loans.py"])]
    assert names == ["flights", "loans"]


def test_a_neighbour_can_be_imported_even_when_the_source_runs(tmp_path: Path) -> None:
    write(
        tmp_path / "churn_events.py", "from driftlog import Truth\nMOMENTS = [Truth(1, 'a', 1)]\n"
    )
    lazy = "def source():\n    from churn_events import MOMENTS\n    return iter(MOMENTS)\n"
    text = lazy + TASK.replace("))", "), source=source)")
    source = load_task(write(tmp_path / "churn.py", text)).source
    assert source is not None
    assert [moment.time for moment in source()] == [1]


def test_relative_imports_work_inside_a_package(tmp_path: Path) -> None:
    write(tmp_path / "churn_house" / "__init__.py", "")
    write(tmp_path / "churn_house" / "names.py", "NAME = 'churn'\n")
    text = "from .names import NAME\n" + TASK.replace('"churn"', "NAME")
    assert load_task(write(tmp_path / "churn_house" / "churn.py", text)).name == "churn"


def test_a_package_called_like_one_that_is_loaded_keeps_its_neighbours(tmp_path: Path) -> None:
    write(tmp_path / "examples" / "__init__.py", "")
    write(tmp_path / "examples" / "churn_names.py", "NAME = 'churn'\n")
    text = "from examples.churn_names import NAME\n" + TASK.replace('"churn"', "NAME")
    before = list(examples.__path__)
    try:
        assert load_task(write(tmp_path / "examples" / "churn.py", text)).name == "churn"
    finally:
        examples.__path__[:] = before


def test_a_task_file_may_be_called_like_a_module_and_takes_nothing_from_it(tmp_path: Path) -> None:
    import json

    assert load_task(write(tmp_path / "json.py", TASK)).name == "churn"
    assert sys.modules["json"] is json


def test_a_neighbour_hidden_by_a_module_of_the_same_name_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "models.py", "X = 1\n")
    message = refusal(write(tmp_path / "churn.py", "import os\nfrom models import X\n" + TASK))
    assert "churn.py:2: import models:" in message
    assert message.endswith("give it another name")


def test_a_missing_file(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.py").startswith(f"there is no file {tmp_path / 'none.py'}")


def test_a_folder_names_the_files_in_it(tmp_path: Path) -> None:
    write(tmp_path / "tasks" / "churn.py", TASK)
    assert "is a folder (it holds churn.py)" in refusal(tmp_path / "tasks")


def test_another_kind_of_file(tmp_path: Path) -> None:
    assert "is no Python file" in refusal(write(tmp_path / "churn.yaml", "name: churn\n"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (TASK + "task = = 1\n", "churn.py:3: syntax error: invalid syntax"),
        (TASK + "def f(:\n", "churn.py:3: syntax error: "),
        (TASK + "\n1 / 0\n", "churn.py:4: ZeroDivisionError: division by zero"),
        ("def f():\n    return None + 1\n\nf()\n", "churn.py:2: TypeError: unsupported operand"),
        ("import churn_nowhere\n", "churn.py:1: there is no module 'churn_nowhere': install it"),
        ("\nraise SystemExit(3)\n", "churn.py:2: the file ends the program"),
        (
            TASK.replace("label", "lable"),
            "churn.py:2: TypeError: Task.__init__() got an unexpected",
        ),
        (TASK.replace('"age"', '"Age"'), "churn.py:2: task churn: feature name 'Age'"),
        (TASK.replace('Numeric("age"),', ""), "churn.py:2: task churn: it has no features"),
        (TASK.replace('"churn"', '"driftlog"'), "churn.py:2: task name 'driftlog'"),
        ("x = 1\ny = 2\n", "churn.py defines no Task, only x, y: write `task = Task(...)`"),
        ("", "churn.py defines no Task: write"),
        (
            TASK + "other = Task(name='other', label='b', features=(Numeric('x'),))\n",
            "churn.py defines 2 tasks, task = 'churn' (line 2), other = 'other' (line 3)",
        ),
    ],
)
def test_an_error_in_the_file_names_its_line(tmp_path: Path, text: str, expected: str) -> None:
    assert f"{tmp_path}/{expected}" in refusal(write(tmp_path / "churn.py", text))


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "churn.py").write_bytes(b"x = '\xff\xfe'\n")
    assert "churn.py:1: " in refusal(tmp_path / "churn.py")
    (tmp_path / "churn.py").write_bytes(b"x = 1\0\n")
    assert "null bytes" in refusal(tmp_path / "churn.py")


def test_a_broken_neighbour_is_named_with_its_line(tmp_path: Path) -> None:
    write(tmp_path / "churn_broken.py", "x = 1\nx = = 2\n")
    message = refusal(write(tmp_path / "churn.py", "import churn_broken\n"))
    assert "churn.py:1: syntax error in " in message
    assert "churn_broken.py, line 2" in message


def test_a_file_that_fails_leaves_no_module_behind(tmp_path: Path) -> None:
    before = set(sys.modules)
    refusal(write(tmp_path / "churn.py", "1 / 0\n"))
    assert set(sys.modules) == before


def test_two_files_may_not_define_one_task(tmp_path: Path) -> None:
    one, two = write(tmp_path / "one.py", TASK), write(tmp_path / "two.py", TASK)
    with pytest.raises(TaskError, match=r"two\.py and .*one\.py both define the task 'churn'"):
        load_tasks([one, two])
    with pytest.raises(TaskError, match=r"one\.py is given twice"):
        load_tasks([one, one])


def test_tasks_come_in_the_order_of_their_files(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{name}.py", TASK.replace("churn", name)) for name in ("b", "a")]
    assert [task.name for task in load_tasks(files)] == ["b", "a"]
    assert load_tasks([]) == []
