"""Settings: where everything listens and lives. Read once from the environment, then passed as a value."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

HOST = "127.0.0.1"
BROKER_PORTS = (19092, 29092, 39092)
CONTROLLER_PORTS = (19093, 29093, 39093)
DEVICES = ("auto", "cpu", "cuda", "emulator")
"""What may run the kernels: a GPU if there is one, the processor, a GPU, CUDA's sources on the processor."""
DURABILITIES = ("durable", "spool")
"""When serving answers: once the log has the events, or once a local file has them."""

_RANGES = {
    "port_offset": (0, 20_000),
    "window_workers": (1, 8),
    "serving_replicas": (1, 8),
    "serving_drain_s": (0, 300),
    "serving_cache": (0, 10_000_000),
}


class SettingsError(ValueError):
    """A `DRIFTLOG_*` setting that cannot be used; the message names it and its value."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Addresses, folders and sizes of one driftlog instance.

    An address that is given (`*_url`, `kafka_bootstrap`) points to a server that somebody else runs;
    one that is empty means the embedded server, whose port is `base port + port_offset`.
    """

    home: Path = Path(".driftlog")
    port_offset: int = 0
    kafka_bootstrap: str = ""
    registry_url: str = ""
    clickhouse_url: str = ""
    redis_url: str = ""
    qdrant_url: str = ""
    cache: Path = Path("~/.cache/driftlog")
    broker_heap_mb: int = 384
    partitions: int = 4
    """Partitions of each task topic (system topics have one: their total order is part of the design)."""
    window_workers: int = 1
    """Processes that share the partitions of the drift windows, 1 to 8."""
    metrics_host: str = HOST
    """Where `/metrics` of the services without an API listens: another address for a scraper elsewhere."""
    serving_replicas: int = 1
    """Serving processes, 1 to 8, each on ports of its own."""
    serving_drain_s: int = 1
    """How long a serving process that was told to stop says so before it closes its door."""
    device: str = "auto"
    """What runs the kernels on large batches: one of DEVICES."""
    serving_durability: str = "durable"
    """When serving answers: one of DURABILITIES."""
    serving_spool_mb: int = 1024
    """Most that serving spools for a log that is away, MiB; beyond it, requests are refused."""
    serving_spool_fsync: int = 0
    """1: an answer waits until the disk has it, and survives a loss of power; 0: it survives kill -9."""
    keyring: str = ""
    """File of the master key of personal data; empty: one in the data folder."""

    serving_cache: int = 10_000
    """Rows whose scores serving keeps, of each version that takes long for one; 0: none."""

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Settings:
        """Read `DRIFTLOG_<FIELD>` for each field; raises SettingsError for a value of the wrong type."""
        values: dict[str, object] = {}
        for field in dataclasses.fields(cls):
            name = f"DRIFTLOG_{field.name.upper()}"
            if name not in env or env[name] == "":
                continue
            try:
                values[field.name] = _parse(field.default, env[name])
            except ValueError as error:
                raise SettingsError(f"{name}={env[name]!r}: {error}") from error
        settings = cls(**values)  # type: ignore[arg-type]
        for name, (low, high) in _RANGES.items():
            if not low <= getattr(settings, name) <= high:
                raise SettingsError(
                    f"DRIFTLOG_{name.upper()}={getattr(settings, name)}:"
                    f" must lie between {low} and {high}"
                )
        if settings.device not in DEVICES:
            raise SettingsError(f"DRIFTLOG_DEVICE={settings.device!r}: one of {', '.join(DEVICES)}")
        if settings.serving_durability not in DURABILITIES:
            raise SettingsError(
                f"DRIFTLOG_SERVING_DURABILITY={settings.serving_durability!r}:"
                f" one of {', '.join(DURABILITIES)}"
            )
        if settings.serving_spool_mb < 1:
            raise SettingsError(
                f"DRIFTLOG_SERVING_SPOOL_MB={settings.serving_spool_mb}: must be 1 or more"
            )
        return dataclasses.replace(
            settings,
            home=settings.home.expanduser().absolute(),
            cache=settings.cache.expanduser().absolute(),
            keyring=settings.keyring and str(Path(settings.keyring).expanduser().absolute()),
        )

    def to_env(self) -> dict[str, str]:
        """The `DRIFTLOG_*` variables that make a child process read the same settings."""
        return {
            f"DRIFTLOG_{field.name.upper()}": str(getattr(self, field.name))
            for field in dataclasses.fields(self)
        }

    def port(self, base: int) -> int:
        """The port that stands for `base` in this instance."""
        return base + self.port_offset

    @property
    def broker_ports(self) -> tuple[int, ...]:
        return tuple(self.port(base) for base in BROKER_PORTS)

    @property
    def bootstrap(self) -> str:
        """Kafka `bootstrap.servers`."""
        return self.kafka_bootstrap or ",".join(f"{HOST}:{port}" for port in self.broker_ports)

    @property
    def replication(self) -> int:
        """Replication factor of every topic: 3, or as many as the external bootstrap list names."""
        return min(3, len(self.bootstrap.split(",")))

    @property
    def registry(self) -> str:
        return self.registry_url or f"http://{HOST}:{self.port(18081)}"

    @property
    def clickhouse(self) -> str:
        return self.clickhouse_url or f"http://{HOST}:{self.port(18123)}"

    @property
    def history_base(self) -> int:
        """Base port of the history service: ClickHouse's own, unless a server of its own has that."""
        return 18005 if self.clickhouse_url else 18123

    @property
    def redis(self) -> str:
        return self.redis_url or f"redis://{HOST}:{self.port(16379)}/0"

    @property
    def rest(self) -> str:
        """REST of the first serving replica."""
        return self.replicas[0]

    @property
    def replicas(self) -> tuple[str, ...]:
        """REST of each serving replica."""
        numbers = range(1, self.serving_replicas + 1)
        return tuple(f"http://{HOST}:{self.port(serving_port(number))}" for number in numbers)

    @property
    def grpc(self) -> str:
        """gRPC address of the first serving replica, host:port."""
        return f"{HOST}:{self.port(serving_port(1) + 1)}"

    @property
    def artifacts(self) -> Path:
        """Content-addressed files: models and dataset snapshots."""
        return self.home / "artifacts"

    @property
    def spool(self) -> Path:
        """Answered events on their way to the log (serving in spool mode)."""
        return self.home / "spool"

    @property
    def key_store(self) -> Path:
        """Keys of the persons in personal data: not part of the log, so that they can be destroyed."""
        return self.home / "keys" / "persons.sqlite"

    @property
    def master_key(self) -> Path:
        """What wraps them."""
        own = self.home / "keys" / "master.key"
        return Path(self.keyring) if self.keyring else own

    @property
    def logs(self) -> Path:
        return self.home / "logs"


def serving_port(number: int) -> int:
    """Base port of the n-th serving replica's REST; its gRPC listens on the port after it."""
    return 18000 if number == 1 else 18096 + 2 * number


def _parse(default: object, text: str) -> object:
    if isinstance(default, int):
        return int(text)
    return Path(text) if isinstance(default, Path) else text
