"""The task that `benchmarks.serving` serves: eight numbers and two categories, all from the caller."""

from __future__ import annotations

from driftlog import Category, Numeric, Task

NUMBERS = tuple(f"x{number}" for number in range(8))
CATEGORIES = {"carrier": 16, "origin": 3}
"""Name -> how many values it has."""
GIVEN = (*map(Numeric, NUMBERS), *map(Category, CATEGORIES))

task = Task(name="bench", label="y", features=GIVEN)
