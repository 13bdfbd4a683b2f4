"""One real cluster for all tests that only need one; tests that break brokers start their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from infra.settings import Settings
from tests.integration.clusters import CLUSTER, running


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Three brokers, Redis and the schema registry, all ready, until the last test is over.

    It is shared and never emptied: name topics, groups and subjects after the test.
    """
    with running(tmp_path_factory.mktemp("cluster"), CLUSTER) as settings:
        yield settings
