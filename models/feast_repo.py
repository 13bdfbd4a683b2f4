"""A Feast repository of a task's computed features: definitions, and their values as Parquet files.

Feast's point-in-time join takes the newest row at or before a moment. With a row for each change of a value
it finds what serving answered with; `feast materialize` brings the newest rows to its online store.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from infra.files import write_whole
from models.feature_changes import TIMESTAMP, observed_changes, rate_changes
from models.history import History
from streams.task import Observed, Rate, Task

_HEAD = '''"""The computed features of task {task}; written by `driftlog features export`."""

from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Float64

DATA = Path(__file__).parent / "data"'''


@dataclass(frozen=True, slots=True)
class View:
    """Features that are looked up by the same given features: rates, or observations."""

    name: str
    by: tuple[str, ...]
    rates: tuple[Rate, ...] = ()
    observed: tuple[Observed, ...] = ()

    @property
    def features(self) -> tuple[Rate | Observed, ...]:
        return (*self.rates, *self.observed)


def views(task: Task) -> list[View]:
    """The feature views of a task, rates first."""
    rates: dict[tuple[str, ...], list[Rate]] = {}
    observed: dict[str, list[Observed]] = {}
    for feature in task.features:
        if isinstance(feature, Rate):
            rates.setdefault(feature.by, []).append(feature)
        elif isinstance(feature, Observed):
            observed.setdefault(feature.by, []).append(feature)
    made = [
        View(f"{task.name}_rates{''.join(f'_by_{name}' for name in by)}", by, rates=tuple(features))
        for by, features in rates.items()
    ]
    return made + [
        View(f"{task.name}_observed_by_{by}", (by,), observed=tuple(features))
        for by, features in observed.items()
    ]


def write_repo(
    history: History,
    task: Task,
    folder: Path,
    span: tuple[int, int],
    on_view: Callable[[View, int], None] = lambda view, rows: None,
) -> list[View]:
    """Write the repository of a span of event time (ms, [from, to)); `on_view` is told of each file's rows.

    Raises HistoryUnavailable, TooMuch or OSError.
    """
    made = views(task)
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for view in made:
        if view.rates:
            rows = rate_changes(history, task, view.by, view.rates, span)
        else:
            rows = observed_changes(history, task, view.by[0], view.observed, span)
        pq.write_table(rows, folder / "data" / f"{view.name}.parquet", compression="zstd")
        on_view(view, len(rows))
    write_whole(folder / "feature_store.yaml", _settings(task))
    write_whole(folder / "definitions.py", definitions(task, made))
    return made


def definitions(task: Task, made: Sequence[View]) -> str:
    """`definitions.py`: entities, feature views and a feature service that has the task's name."""
    names = dict.fromkeys(name for view in made for name in view.by)
    entities = [f"{name} = Entity(name={name!r}, value_type=ValueType.STRING)" for name in names]
    service = ", ".join(view.name for view in made)
    blocks = [
        _HEAD.format(task=task.name),
        "\n".join(entities),
        *map(_view, made),
        f"{task.name} = FeatureService(name={task.name!r}, features=[{service}])\n",
    ]
    return "\n\n".join(block for block in blocks if block)


def _view(view: View) -> str:
    fields = "".join(
        f"        Field(name={feature.name!r}, dtype=Float64, description={feature.doc!r}),\n"
        for feature in view.features
    )
    return (
        f"{view.name} = FeatureView(\n"
        f"    name={view.name!r},\n"
        f"    entities=[{', '.join(view.by)}],\n"
        "    ttl=timedelta(0),  # a value holds until the next one, which may be a null\n"
        f"    schema=[\n{fields}    ],\n"
        f"    source=FileSource(\n"
        f"        path=str(DATA / {f'{view.name}.parquet'!r}),\n"
        f"        timestamp_field={TIMESTAMP!r},\n"
        "    ),\n"
        ")"
    )


def _settings(task: Task) -> str:
    return (
        f"project: driftlog_{task.name}\n"
        "provider: local\n"
        "registry: data/registry.db\n"
        "offline_store:\n"
        "  type: file\n"
        "online_store:  # filled by `feast materialize`\n"
        "  type: sqlite\n"
        "  path: data/online.db\n"
        "entity_key_serialization_version: 3\n"
    )
