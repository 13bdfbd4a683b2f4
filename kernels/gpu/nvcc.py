"""nvcc: where it is, and what a source costs on a device, found out without one."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from kernels.gpu.runtime import DeviceFailed, macros_of, source_options, source_text, with_macros

SOURCES = Path(__file__).parent.parent / "cuda"
ARCHITECTURE = "sm_90"
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


def resources(
    source: str, defines: dict[str, int | str], architecture: str = ARCHITECTURE
) -> dict[str, Resources]:
    """Compile a file of `kernels/cuda` to machine code: what each of its kernels needs.

    Raises DeviceFailed if it does not compile without a warning, FileNotFoundError without nvcc.
    """
    nvcc = find()
    if nvcc is None:
        raise FileNotFoundError("nvcc is neither on the PATH nor installed as nvidia-cuda-nvcc")
    text = source_text(source)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / source
        file.write_text(with_macros(text, source, macros_of(defines)), "utf-8")
        command = [str(nvcc), "-cubin", "--resource-usage", "-std=c++17", f"-arch={architecture}"]
        command += ["-Werror", "all-warnings"]
        done = subprocess.run(
            [*command, *source_options(text), f"-I{SOURCES}", str(file), "-o", f"{file}.cubin"],
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise DeviceFailed(f"nvcc: {(done.stderr + done.stdout).strip()[:3000]}")
    found = {}
    for entry in _ENTRY.finditer(done.stderr + done.stdout):
        shared = _SHARED.search(entry["rest"])
        found[entry["name"]] = Resources(
            int(entry["registers"]),
            int(entry["stores"]) + int(entry["loads"]),
            int(entry["stack"]),
            int(shared[1]) if shared else 0,
        )
    return found
