"""The services table: what runs in an instance, in which order, and how each is known to be ready.

`python -m driftlog.services NAME [--task FILE ...]` runs one of our own services in the foreground.
"""

from __future__ import annotations

import argparse
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from driftlog.reach import own_tls, serving_url
from infra.errors import InfraError
from infra.processes import Service
from infra.settings import DURABILITIES, HOST, Settings, SettingsError, serving_port
from streams.task import Task, TaskError

OWN = ("registry", "history", "worker", "windows", "control", "trainer", "serving")
"""In the order of what they need."""
METRICS_PORTS = {"worker": 18002, "control": 18003, "trainer": 18004, "windows": 18006}
ALIVE = {"serving": "/healthz"}
"""Where a group's processes say that they live, if not at their metrics (which may ask for a key)."""
EXTRA = tuple(f"{name}-{number}" for name in ("windows", "serving") for number in range(2, 9))
"""More members of the window workers' group (DRIFTLOG_WINDOW_WORKERS), on the ports after 18006, and more
serving replicas (DRIFTLOG_SERVING_REPLICAS), on 18100, 18102 and so on."""

_ENVIRONMENT = {
    # Small matrices: threads that spin for each other cost more than they bring on few cores.
    "OMP_NUM_THREADS": "2",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONUNBUFFERED": "1",
    # Thousands of modules each: compiled once, also where an image says that bytecode is not kept.
    "PYTHONDONTWRITEBYTECODE": "",
}


def service_table(
    settings: Settings,
    task_files: Sequence[Path],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Service]:
    """All services of this instance; a part that a setting says runs elsewhere is left out.

    Fetches what is missing (Kafka's jars), with `progress(done, total)` in bytes. Raises InfraError.
    """
    from infra.kafka import broker_services
    from infra.redis import redis_service

    table: list[Service] = []
    if not settings.kafka_bootstrap:
        table += broker_services(settings, progress)
    if not settings.redis_url:
        table.append(redis_service(settings))
    present = {service.name for service in table}
    brokers = tuple(sorted(name for name in present if name.startswith("broker-")))
    if not settings.registry_url:
        table.append(_own(settings, task_files, "registry", brokers, 18081, "/subjects"))
        brokers = ("registry",)
    table.append(_own(settings, task_files, "history", brokers, settings.history_base, "/readyz"))
    stores = tuple(name for name in ("redis",) if name in present)
    table.append(_own(settings, task_files, "worker", (*brokers, *stores), 18002, "/metrics"))
    for number in range(1, settings.window_workers + 1):
        name = member("windows", number)
        table.append(_own(settings, task_files, name, brokers, 18005 + number, "/metrics"))
    table.append(_own(settings, task_files, "control", brokers, 18003, "/metrics"))
    table.append(_own(settings, task_files, "trainer", brokers, 18004, "/metrics"))
    for number in range(1, settings.serving_replicas + 1):
        name, port = member("serving", number), serving_port(number)
        one = _own(settings, task_files, name, (*brokers, *stores), port, "/readyz")
        patience = one.stop_timeout_s + settings.serving_drain_s
        ports = (*one.ports, settings.port(port + 1))
        table.append(replace(one, ports=ports, stop_timeout_s=patience))
    return table


def member(group: str, number: int) -> str:
    """The name of the n-th process of a group: windows, windows-2, ..."""
    return group if number == 1 else f"{group}-{number}"


def replica_of(name: str, group: str = "serving") -> bool:
    """Whether a service is one of a group's processes."""
    return name == group or name.startswith(f"{group}-")


def number_of(name: str) -> int:
    """Which of its group's processes a service is, from 1."""
    return int(name.rpartition("-")[2]) if "-" in name else 1


def _own(
    settings: Settings,
    task_files: Sequence[Path],
    name: str,
    depends_on: tuple[str, ...],
    base_port: int,
    path: str,
) -> Service:
    port = settings.port(base_port)
    group = name.partition("-")[0]
    url = serving_url(settings, base_port) if group == "serving" else f"http://{HOST}:{port}"
    tasks = [word for file in task_files for word in ("--task", str(Path(file).absolute()))]
    return Service(
        name=name,
        argv=(sys.executable, "-m", "driftlog.services", name, *tasks),
        ready=partial(answers, url + path),
        # Slow is not dead: only a service that says nothing for a minute is started anew.
        healthy=partial(answers, url + ALIVE.get(group, "/metrics")),
        unhealthy_after_s=60.0,
        env=_ENVIRONMENT,
        depends_on=depends_on,
        ports=(port,),
    )


def answers(url: str) -> bool:
    """True if a GET is answered with 200."""
    tls = own_tls() if url.startswith("https:") else None
    try:
        with urllib.request.urlopen(url, timeout=3, context=tls) as response:  # noqa: S310 - our own
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError, ValueError):
        return False


def run(name: str, settings: Settings, tasks: Sequence[Task]) -> int:
    """Run one of our own services until SIGTERM; its exit status."""
    if name == "registry":
        from schemas.registry import app as registry

        registry.main(settings)
        return 0
    _prepare(settings, tasks)
    if name == "history":
        from consumers.history import app as history
        from streams.log import all_topics

        return history.main(settings, all_topics(settings, tasks))
    if name == "worker":
        from streams.app import run_worker

        run_worker(settings, tasks)
    elif name.startswith("windows"):
        from streams.app import run_windows

        run_windows(settings, tasks, name, METRICS_PORTS["windows"] + number_of(name) - 1)
    elif name == "control":
        from models.registry import Registry
        from models.serving.guards.access import AccessKeys
        from streams.app import run_control
        from streams.rollout_state import Rollouts

        run_control(settings, tasks, [Registry(), Rollouts(), AccessKeys()])
    elif name == "trainer":
        from models import app as trainer

        trainer.main(settings, tasks)
    elif name.startswith("serving"):
        from models.serving import app as serving

        serving.main(settings, tasks, serving_port(number_of(name)))
    return 0


def _prepare(settings: Settings, tasks: Sequence[Task]) -> None:
    """Topics and schemas exist before anybody reads or writes; every service may be the first."""
    from schemas.registry.client import RegistryClient
    from streams.log import all_topics
    from streams.topics import ensure_topics, register_schemas

    topics = all_topics(settings, tasks)
    ensure_topics(settings.bootstrap, topics, settings.replication)
    register_schemas(RegistryClient(settings.registry, settings.home / "schemas"), topics)


def main(argv: Sequence[str] | None = None) -> int:
    from schemas.errors import SchemaError
    from streams.log import LogUnavailable
    from streams.task_file import load_tasks

    parser = argparse.ArgumentParser(prog="python -m driftlog.services", description=__doc__)
    parser.add_argument("name", choices=("supervise", *OWN, *EXTRA), metavar="NAME")
    parser.add_argument("--task", action="append", default=[], type=Path, metavar="FILE")
    parser.add_argument("--durability", choices=DURABILITIES, help="of serving (else as set)")
    arguments = parser.parse_args(argv)
    try:
        settings = Settings.from_env(os.environ)
        if arguments.durability:
            settings = replace(settings, serving_durability=arguments.durability)
        tasks = load_tasks(arguments.task)
        if arguments.name == "supervise":
            from infra.supervisor import run_foreground

            run_foreground(settings, service_table(settings, arguments.task))
        else:
            return run(arguments.name, settings, tasks)
    except (SettingsError, TaskError, InfraError, SchemaError, LogUnavailable) as error:
        print(f"{arguments.name}: {error}", file=sys.stderr)  # noqa: T201 - its log
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
