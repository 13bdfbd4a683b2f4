"""The brokers' storage: properties, identity and first metadata records, written once for each broker."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from infra.errors import InfraError
from infra.jvm import Jvm
from infra.kafka_jars import jar_folder, locked
from infra.settings import Settings

BROKER_CLASS = "kafka.Kafka"
_CLUSTER_NAMESPACE = uuid.UUID("6f1c1a52-6b0c-5c0e-9d7e-3f0b1c5a7d21")


def broker_name(node_id: int) -> str:
    return f"broker-{node_id}"


def storage_folder(settings: Settings, node_id: int) -> Path:
    return settings.home / "kafka" / broker_name(node_id)


def format_storage(settings: Settings, jvm: Jvm, node_id: int, entries: Mapping[str, str]) -> None:
    """Write the broker's properties anew, and the rest only if the folder has none yet.

    Kafka's own tool does the latter in a JVM of its own for each broker; but the metadata records are
    the same for all, so it runs once on a machine, and the identity is four lines of text.
    """
    folder = storage_folder(settings, node_id)
    folder.mkdir(parents=True, exist_ok=True)
    write_properties(folder.with_suffix(".properties"), entries)
    identity = folder / "meta.properties"
    if identity.exists():
        return
    shutil.copyfile(bootstrap_checkpoint(settings, jvm, entries), folder / "bootstrap.checkpoint")
    fresh = folder / "meta.properties.new"
    cluster = uuid.uuid5(_CLUSTER_NAMESPACE, str(settings.home))
    write_properties(
        fresh,
        {
            "version": "1",
            "cluster.id": _kafka_uuid(cluster),
            "node.id": str(node_id),
            "directory.id": _kafka_uuid(uuid.uuid4()),
        },
    )
    os.replace(fresh, identity)


def bootstrap_checkpoint(settings: Settings, jvm: Jvm, entries: Mapping[str, str]) -> Path:
    """The metadata records that a new cluster begins with, as Kafka's tool writes them; cached."""
    folder = jar_folder(settings)
    checkpoint = folder / "bootstrap.checkpoint"
    with locked(folder):
        if not checkpoint.exists():
            with tempfile.TemporaryDirectory(dir=folder, prefix="format-") as scratch:
                run_storage_tool(jvm, Path(scratch), entries)
                os.replace(Path(scratch) / "data" / checkpoint.name, checkpoint)
    return checkpoint


def run_storage_tool(
    jvm: Jvm, scratch: Path, entries: Mapping[str, str], more: Sequence[str] = ()
) -> Path:
    """Format `scratch/data` for a broker with these properties; returns its properties file.

    `more`: further arguments of the tool, such as `--add-scram`, which makes a cluster's first user.
    """
    config = scratch / "server.properties"
    write_properties(config, {**entries, "log.dirs": str(scratch / "data")})
    tool = ("kafka.tools.StorageTool", "format", "-c", str(config))
    cluster = ("-t", _kafka_uuid(_CLUSTER_NAMESPACE))
    done = subprocess.run(
        jvm.command(*tool, *cluster, *more),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise InfraError(f"Kafka's storage tool failed: {said[-1] if said else done.returncode}")
    return config


def write_properties(path: Path, entries: Mapping[str, str]) -> None:
    path.write_text("".join(f"{key}={value}\n" for key, value in entries.items()), "utf-8")


def _kafka_uuid(value: uuid.UUID) -> str:
    return base64.urlsafe_b64encode(value.bytes).rstrip(b"=").decode()
