from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from models.artifacts import ArtifactRefused, ArtifactStore, read_verified


def test_a_file_is_named_by_its_hash_and_read_back(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    stored = store.put_model(b"a model")
    assert stored.sha256 == hashlib.sha256(b"a model").hexdigest()
    assert stored.path == f"models/{stored.sha256}.onnx"
    assert stored.bytes == 7
    assert store.read(stored.path, stored.sha256) == b"a model"
    assert store.put_model(b"a model") == stored
    assert os.listdir(tmp_path / "models") == [f"{stored.sha256}.onnx"]


def test_a_changed_file_is_refused_with_both_hashes(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    stored = store.put_snapshot(b"rows")
    store.path(stored.path).write_bytes(b"rowz")
    with pytest.raises(ArtifactRefused, match=stored.sha256):
        store.read(stored.path, stored.sha256)


def test_an_absent_or_too_large_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactRefused, match="No such file"):
        read_verified(tmp_path / "none", "0" * 64)
    large = tmp_path / "large"
    large.write_bytes(b"123")
    with pytest.raises(ArtifactRefused, match="more than 2 bytes"):
        read_verified(large, hashlib.sha256(b"123").hexdigest(), limit=2)


@pytest.mark.parametrize(
    "name",
    [
        "../secret",
        "models/../../etc/passwd",
        f"models/{'0' * 64}.pkl",
        f"/models/{'0' * 64}.onnx",
        f"models/{'0' * 64}.onnx\n",
        f"models/{'A' * 64}.onnx",
        "",
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ArtifactRefused, match="no name of an artifact"):
        ArtifactStore(tmp_path).path(name)


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        ArtifactStore(tmp_path).put_model(b"a model")
    assert os.listdir(tmp_path / "models") == []
