"""Building blocks of neural networks on the right device: matmul, softmax, layer norm, GeLU, attention.

Operands are float32, float16 or bfloat16 (ml_dtypes), all of one type, in the processor's memory (NumPy, or
torch and others through DLPack) or on a GPU (`__cuda_array_interface__`; no copy). Results are of that type
and lie where the operands lie; a result on a GPU is a `kernels.gpu.runtime.Buffer`. Sums run in float32. NaN
and infinities go through as in the formulas. Against float64, results err by a few units in the last place of
their type, a matrix product by about 1e-7 * sqrt(k) of its terms' size: devices differ by that much, too.

Raises ValueError for shapes that do not fit, TypeError for other types.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kernels import arrays, dispatch
from kernels.cpu import neural as cpu
from kernels.gpu import attention as gpu_attention
from kernels.gpu import matmul as gpu_matmul
from kernels.gpu import rows as gpu_rows
from kernels.gpu.elements import FLOAT32, NAMES, ceil_div
from kernels.gpu.runtime import Buffer, Runtime
from kernels.gpu.tuned import parameter

Result: TypeAlias = Any
"""A NumPy array, or a Buffer where the operands lie on a GPU."""


def matmul(a: Any, b: Any) -> Result:
    """(m, n) = a (m, k) times b (k, n). On a GPU, 16-bit operands need k and n in multiples of 8."""
    there = arrays.resident(a=a, b=b)
    left, right = arrays.taken(a, "a", NAMES, 2), arrays.taken(b, "b", NAMES, 2)
    arrays.same_dtype(a=left, b=right)
    (m, k), (rows, n) = arrays.shape_of(left), arrays.shape_of(right)
    if k != rows:
        raise ValueError(f"a has {k} columns and b {rows} rows")
    if there:
        return dispatch.run("matmul", m * n, lambda r: _matmul(r, a, b), _nobody, resident=True)

    def device(runtime: Runtime) -> NDArray[Any]:
        wide = left.dtype != FLOAT32
        sent = runtime.send(_padded(right, 8, 8) if wide else right)

        def part(rows: NDArray[Any]) -> NDArray[Any]:
            mine = runtime.send(_padded(rows, 1, 8) if wide else rows)
            return _matmul(runtime, mine, sent).get()[:, :n]

        return _by_rows(left, (m, n), part)

    return dispatch.run("matmul", m * n * k, device, lambda: cpu.matmul(left, right))


def softmax(x: Any) -> Result:
    """exp(x - max) / sum, along the last axis; NaN for a row with a NaN or an infinite maximum."""
    return _row_wise("softmax", x, gpu_rows.softmax, cpu.softmax)


def layer_norm(x: Any, weight: Any, bias: Any, epsilon: float = 1e-5) -> Result:
    """(x - mean) / sqrt(variance + epsilon) * weight + bias along the last axis; weight, bias: (columns,)."""
    columns = _columns(x)
    for name, vector in (("weight", weight), ("bias", bias)):
        _check_vector(name, vector, columns)
    return _row_wise(
        "layer_norm",
        x,
        lambda r, rows, w, b: gpu_rows.layer_norm(r, rows, w, b, epsilon),
        lambda rows, w, b: cpu.layer_norm(rows, w, b, epsilon),
        weight=weight,
        bias=bias,
    )


def gelu(x: Any, bias: Any = None, *, tanh: bool = False) -> Result:
    """x times the normal distribution's share below x, of x + bias if given; bias: (columns,), fused.

    `tanh`: the approximation x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))).
    """
    more = {} if bias is None else {"bias": bias}
    if bias is not None:
        _check_vector("bias", bias, _columns(x))
    return _row_wise(
        "gelu",
        x,
        lambda r, rows, *with_: gpu_rows.gelu(r, rows, *with_, tanh=tanh),
        lambda rows, *with_: cpu.gelu(rows, with_[0] if with_ else None, tanh=tanh),
        **more,
    )


def attention(
    q: Any, k: Any, v: Any, *, causal: bool = False, scale: float | None = None, gelu: str = ""
) -> Result:
    """softmax(scale q k^T) v, no more than a tile of the scores at a time (FlashAttention-2; Dao, 2023).

    q: (heads, queries, d); k, v: (heads, keys, d); heads of several batches lie one after the other. On a
    device d is 64 or 128; other sizes go to the processor. `causal`: query i sees keys 0 .. i. `scale` > 0:
    1 / sqrt(d) if None. `gelu`: 'exact' or 'tanh' applies GeLU to the result in the same pass.
    """
    there = arrays.resident(q=q, k=k, v=v)
    operands = tuple(arrays.taken(x, n, NAMES, 3) for n, x in (("q", q), ("k", k), ("v", v)))
    arrays.same_dtype(**dict(zip("qkv", operands, strict=True)))
    (heads, queries, d), keys, values = map(arrays.shape_of, operands)
    if keys != values or keys[0] != heads or keys[2] != d or not keys[1] or not d:
        raise ValueError(f"q, k and v have the shapes {(heads, queries, d)}, {keys} and {values}")
    factor = d**-0.5 if scale is None else float(scale)
    if not 0 < factor < np.inf or gelu not in ("", "exact", "tanh"):
        raise ValueError(f"scale {factor} must be above 0, and gelu {gelu!r} '', 'exact' or 'tanh'")
    options: dict[str, Any] = {"causal": causal, "scale": factor, "gelu": gelu}
    if there:
        if d not in gpu_attention.HEAD_DIMS:
            raise ValueError(f"heads of {d} columns; a device has {gpu_attention.HEAD_DIMS}")
        return dispatch.run(
            "attention",
            heads * queries,
            lambda r: gpu_attention.attention(r, *map(r.borrow, operands), **options),
            _nobody,
            resident=True,
        )

    def device(runtime: Runtime) -> NDArray[Any]:
        out: NDArray[Any] = np.empty_like(operands[0])

        def some(start: int, stop: int) -> None:
            sent = (runtime.send(x[start:stop]) for x in operands)
            out[start:stop] = gpu_attention.attention(runtime, *sent, **options).get()

        dispatch.in_chunks(heads, some)
        return out

    def processor() -> NDArray[Any]:
        return cpu.attention(*operands, **options)

    size = heads * queries * keys[1] * d if d in gpu_attention.HEAD_DIMS else 0
    return dispatch.run("attention", size, device, processor)


def _row_wise(
    name: str,
    x: Any,
    on_gpu: Callable[..., Buffer],
    on_cpu: Callable[..., NDArray[Any]],
    **vectors: Any,
) -> Result:
    """A function of each row (the last axis) of x, with vectors that all rows share."""
    columns, shape = _columns(x), _shape(x)
    there = arrays.resident(x=x, **vectors)
    given = arrays.taken(x, "x", NAMES, len(shape))
    shared = [arrays.taken(vector, key, NAMES) for key, vector in vectors.items()]
    arrays.same_dtype(x=given, **dict(zip(vectors, shared, strict=True)))
    if there:
        if len(shape) != 2:
            raise ValueError(f"x has the shape {shape} on a GPU; it needs two axes there")
        return dispatch.run(
            name, 0, lambda r: on_gpu(r, *map(r.borrow, (given, *shared))), _nobody, resident=True
        )
    rows = given.reshape(-1, columns) if columns else given.reshape(0, 1)

    def device(runtime: Runtime) -> NDArray[Any]:
        sent = [runtime.send(vector) for vector in shared]
        return _by_rows(
            rows,
            rows.shape,
            lambda part: on_gpu(runtime, runtime.send(part), *sent).get(),
        )

    result = dispatch.run(name, rows.size, device, lambda: on_cpu(rows, *shared))
    return np.asarray(result).reshape(shape)


def _by_rows(
    x: NDArray[Any], shape: tuple[int, ...], work: Callable[[NDArray[Any]], NDArray[Any]]
) -> NDArray[Any]:
    """work(rows) of all rows of x, in as few parts as the device's memory allows."""
    out = np.empty(shape, x.dtype)

    def some(start: int, stop: int) -> None:
        out[start:stop] = work(x[start:stop])

    dispatch.in_chunks(len(x), some)
    return out


def _matmul(runtime: Runtime, a: Any, b: Any) -> Buffer:
    left, right = arrays.on(runtime, a), arrays.on(runtime, b)
    if left.dtype == FLOAT32:
        return gpu_matmul.matmul(runtime, left, right)
    small = left.shape[0] * right.shape[1] < 128 * 128 * runtime.properties.multiprocessors
    fitting = gpu_matmul.SMALL if small else 0
    size = left.shape[0] * right.shape[1]
    tiles = gpu_matmul.TILES[parameter(runtime, "matmul_mma", size, "tiles", fitting)]
    return gpu_matmul.matmul_tensor(runtime, left, right, tiles=tiles)


def _padded(x: NDArray[Any], rows: int, columns: int) -> NDArray[Any]:
    """x with zeros up to multiples of `rows` and `columns`."""
    more = [
        (0, ceil_div(size, by) * by - size)
        for size, by in zip(x.shape, (rows, columns), strict=True)
    ]
    return np.ascontiguousarray(np.pad(x, more))


def _shape(x: Any) -> tuple[int, ...]:
    return tuple(getattr(x, "shape", None) or np.shape(x))


def _columns(x: Any) -> int:
    if not _shape(x):
        raise ValueError("x is a single number; it needs an axis")
    return int(_shape(x)[-1])


def _check_vector(name: str, vector: Any, columns: int) -> None:
    if _shape(vector) != (columns,):
        raise ValueError(f"{name} has the shape {_shape(vector)}; x has {columns} columns")


def _nobody() -> Any:
    raise AssertionError("operands on a GPU go to the device or fail")
