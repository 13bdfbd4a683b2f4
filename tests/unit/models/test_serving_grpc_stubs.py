"""The checked-in stubs are what the .proto files give."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.infra.project_files import ROOT

FOLDER = Path("models/serving/grpc")


@pytest.mark.parametrize("proto", ["driftlog", "inference"])
def test_make_proto_would_change_nothing(proto: str, tmp_path: Path) -> None:
    outputs = [f"--python_out={tmp_path}", f"--grpc_python_out={tmp_path}"]
    command = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        "-I.",
        *outputs,
        f"{FOLDER}/{proto}.proto",
    ]
    subprocess.run(command, cwd=ROOT, check=True)
    for kind in ("pb2", "pb2_grpc"):
        name = FOLDER / f"{proto}_{kind}.py"
        assert (ROOT / name).read_text() == (tmp_path / name).read_text(), "run: make proto"
