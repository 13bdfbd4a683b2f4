"""nvcc: where it is, and what a source costs on a device, found out without one."""

from __future__ import annotations

import hashlib
import importlib.util
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from infra.files import write_whole
from kernels.gpu.cache import cache_folder
from kernels.gpu.runtime import DeviceFailed, macros_of, source_options, source_text, with_macros

SOURCES = Path(__file__).parent.parent / "cuda"
ARCHITECTURE = "sm_90"
FLAGS = "-cubin", "--resource-usage", "-std=c++17", "-Werror", "all-warnings"
_ENTRY = re.compile(
    r"entry function '(?P<name>\w+)'.*?(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, "
    r"(?P<loads>\d+) bytes spill loads.*?Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.DOTALL,
)
_SHARED = re.compile(r"(\d+) bytes smem")


@dataclass(frozen=True, slots=True)
class Resources:
    """What a kernel needs, as the assembler says."""

    registers: int
    """Of a thread."""
    spilled: int
    """Bytes of a thread that are stored and loaded again for want of registers."""
    stack: int
    """Bytes of a thread in local memory, spilled or indexed at run time."""
    shared: int
    """Static bytes of a block."""


def find() -> Path | None:
    """The compiler: on the PATH, else in the wheel `nvidia-cuda-nvcc`; None without either."""
    on_path = shutil.which("nvcc")
    if on_path is not None:
        return Path(on_path)
    try:
        spec = importlib.util.find_spec("nvidia")
    except ModuleNotFoundError:
        return None
    for place in (spec.submodule_search_locations or ()) if spec else ():
        for nvcc in sorted(Path(place).glob("*/bin/nvcc"), reverse=True):
            return nvcc
    return None


def _compiled(nvcc: Path, source: str, text: str, options: list[str]) -> str:
    """What the compiler and the assembler said."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / source
        file.write_text(text, "utf-8")
        done = subprocess.run(
            [str(nvcc), *options, f"-I{SOURCES}", str(file), "-o", f"{file}.cubin"],
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise DeviceFailed(f"nvcc: {(done.stderr + done.stdout).strip()[:3000]}")
    return done.stderr + done.stdout


def _digest(nvcc: Path, text: str, options: list[str]) -> str:
    """Of everything that decides what is said."""
    at = nvcc.stat()
    digest = hashlib.sha256(repr((str(nvcc), at.st_mtime_ns, at.st_size, text, options)).encode())
    for header in sorted(SOURCES.glob("*.cuh")):
        digest.update(header.read_bytes())
    return digest.hexdigest()[:24]


def resources(
    source: str, defines: dict[str, int | str], architecture: str = ARCHITECTURE
) -> dict[str, Resources]:
    """Compile a file of `kernels/cuda` to machine code: what each of its kernels needs.

    What was said of the same source is kept, so that only a changed one is compiled again.

    Raises DeviceFailed if it does not compile without a warning, FileNotFoundError without nvcc.
    """
    nvcc = find()
    if nvcc is None:
        raise FileNotFoundError("nvcc is neither on the PATH nor installed as nvidia-cuda-nvcc")
    text = source_text(source)
    whole = with_macros(text, source, macros_of(defines))
    more, architecture = source_options(text, architecture)
    options = [*FLAGS, f"-arch={architecture}", *more]
    said = cache_folder() / "nvcc" / f"{_digest(nvcc, whole, options)}.txt"
    if not said.exists():
        write_whole(said, _compiled(nvcc, source, whole, options))
    found = {}
    for entry in _ENTRY.finditer(said.read_text("utf-8")):
        shared = _SHARED.search(entry["rest"])
        found[entry["name"]] = Resources(
            int(entry["registers"]),
            int(entry["stores"]) + int(entry["loads"]),
            int(entry["stack"]),
            int(shared[1]) if shared else 0,
        )
    return found
