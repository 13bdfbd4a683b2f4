"""PSI, KS and JS of many pairs of histograms on a device."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels.gpu.runtime import Runtime

THREADS = 256


def distances(
    runtime: Runtime, p: NDArray[np.int64], q: NDArray[np.int64], sizes: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(3, m): PSI, KS and JS before rounding, within the tolerances of `kernels.cpu.distances`.

    p, q: (m, B). sizes: (m,). Shapes are checked by the caller.
    """
    if len(p) == 0:
        return np.empty((3, 0))
    kernel = runtime.kernel("distances.cu", "distances")
    sent = [runtime.send(np.ascontiguousarray(a, np.int64)) for a in (p, q, sizes)]
    out = runtime.empty((3, len(p)), np.float64)
    kernel(
        *sent,
        np.int32(len(p)),
        np.int32(p.shape[1]),
        out,
        grid=(-(-len(p) // THREADS), 1, 1),
        block=(THREADS, 1, 1),
    )
    return out.get().astype(np.float64, copy=False)
