"""What can be tuned, and `python -m kernels.tuner.tunables` to do it on this machine's device."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable

import numpy as np

from infra.settings import DEVICES
from kernels.gpu import attention, elementwise, histogram, matmul, scan
from kernels.gpu.elements import BFLOAT16
from kernels.gpu.runtime import NoGpu, Runtime
from kernels.gpu.tuned import Parameters
from kernels.tuner.search import Cache, Tunable, tune

SIZES = 1 << 20, 1 << 24, 1 << 27
Launch = Callable[[Parameters], object]


def _threads(*sizes: int) -> list[Parameters]:
    return [{"threads": threads} for threads in sizes]


def _add(runtime: Runtime, n: int) -> Launch:
    a, b, out = (runtime.zeros(n, np.float32) for _ in range(3))
    return lambda p: elementwise.add(runtime, a, b, out, threads=p["threads"])


def _scan(runtime: Runtime, n: int) -> Launch:
    x, out = (runtime.zeros(n, np.float32) for _ in range(2))
    return lambda p: scan.scan(runtime, x, out=out, threads=p["threads"])


def _histogram(runtime: Runtime, n: int) -> Launch:
    columns = 32
    values = np.linspace(-1, 1, max(1, n // columns), dtype=np.float32)
    x = runtime.send(np.tile(values, (columns, 1)))
    edges = [np.linspace(-0.9, 0.9, 19)] * columns
    return lambda p: histogram.histograms(
        runtime, x, edges, threads=p["threads"], copies=p["copies"]
    )


def _matmul(runtime: Runtime, n: int) -> Launch:
    side = max(8, math.isqrt(n) // 8 * 8)
    a, b = (runtime.zeros((side, side), BFLOAT16) for _ in range(2))
    return lambda p: matmul.matmul_tensor(runtime, a, b, tiles=matmul.TILES[p["tiles"]])


def _attention(runtime: Runtime, n: int) -> Launch:
    """Heads of 2048 queries, or fewer, and 128 columns."""
    length = min(2048, max(1, n // 128))
    shape = max(1, n // (128 * length)), length, 128
    q, k, v = (runtime.zeros(shape, BFLOAT16) for _ in range(3))
    return lambda p: attention.attention(runtime, q, k, v, causal=True, scale=0.1, step=p["step"])


TUNABLES = [
    # Not the reduction: the size of its blocks decides the order of the additions, so the bits of a sum.
    Tunable("add", "vector_add.cu", _threads(128, 256, 512, 1024), _add),
    Tunable("scan", "scan.cu", _threads(128, 256, 512), _scan),
    Tunable(
        "histogram",
        "histogram.cu",
        [{"threads": t, "copies": c} for t in (128, 256, 512) for c in (4, 8, 16, 32)],
        _histogram,
    ),
    Tunable(
        "matmul_mma",
        "matmul_tensor.cu",
        [{"tiles": place} for place in range(len(matmul.TILES))],
        _matmul,
    ),
    Tunable(
        "attention_16",
        "attention_hopper.cu",
        [{"step": place} for place in range(len(attention.STEPS))],
        _attention,
    ),
]


def main() -> int:
    """Tune every kernel for a few sizes on the chosen device; print what was found."""
    from kernels.devices import chosen, tuned_file

    parser = argparse.ArgumentParser(prog="python -m kernels.tuner.tunables", description=__doc__)
    parser.add_argument("--device", choices=DEVICES, default="cuda")
    parser.add_argument("--size", type=int, action="append", help="elements; may be repeated")
    arguments = parser.parse_args()
    try:
        device = chosen(arguments.device)
    except NoGpu as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if device is None:
        sys.stderr.write("the processor's kernels have no launch parameters\n")
        return 1
    cache = Cache(tuned_file())
    for tunable in TUNABLES:
        for n in arguments.size or SIZES:
            best = tune(device.runtime, tunable, n, cache)
            sys.stdout.write(f"{tunable.name} {n:,}: {dict(best)}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
