"""The emulator runs CUDA C as a device would, and says what a kernel does wrong."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from kernels.gpu import emulator as module
from kernels.gpu.emulator import EmulatedKernel, Emulator
from kernels.gpu.runtime import DeviceFailed, OutOfMemory, Runtime

SOURCE = (Path(__file__).parent / "emulated.cu").read_text()


@pytest.fixture(scope="module", params=[False, True])
def source(request: pytest.FixtureRequest, emulator: Runtime) -> dict[str, EmulatedKernel]:
    del emulator  # it skips where there is no g++
    library = module.compiled(SOURCE, "test.cu", ())
    names = module._KERNEL.findall(SOURCE)
    return {
        name: EmulatedKernel(library, name, request.param) for name in names if name != "left_out"
    }


@pytest.fixture(scope="module")
def memory() -> Emulator:
    return Emulator(1 << 24)


ONE = 1, 1, 1


def test_a_tree_in_shared_memory(source: dict, memory: Emulator) -> None:
    x = np.arange(200, dtype=np.float32)
    out = memory.empty(1, np.float32)
    source["tree"](memory.send(x), out, np.int32(200), grid=(3, 1, 1), block=(256, 1, 1))
    assert out.get()[0] == x.sum()


def test_a_shuffle_of_warps(source: dict, memory: Emulator) -> None:
    x = np.arange(96, dtype=np.float64)
    out = memory.empty(3, np.float64)
    source["warps"](memory.send(x), out, grid=ONE, block=(96, 1, 1))
    assert out.get().tolist() == x.reshape(3, 32).sum(axis=1).tolist()


def test_groups_of_a_divergent_warp(source: dict, memory: Emulator) -> None:
    x = memory.send(np.arange(32, dtype=np.int32))
    source["groups"](x, grid=ONE, block=(32, 1, 1))
    assert x.get()[:8].tolist() == [1, 2, 3, 3, 5, 6, 7, 7]
    assert set(x.get()[16:]) == {8}


def test_three_dimensions(source: dict, memory: Emulator) -> None:
    x = memory.empty(24 * 24, np.int32)
    source["indices"](x, grid=(2, 3, 4), block=(4, 3, 2))
    assert np.array_equal(x.get().reshape(24, 24), 1000 * np.arange(24)[:, None] + np.arange(24))


def test_sixteen_bit_floats_are_rounded_to_the_nearest(source: dict, memory: Emulator) -> None:
    rng = np.random.default_rng(1)
    near = rng.normal(size=3072).astype(np.float32) * np.exp2(rng.integers(-30, 18, 3072))
    odd = rng.integers(0, 1 << 32, 1024, np.uint64).astype(np.uint32).view(np.float32)
    with np.errstate(invalid="ignore"):  # NaNs that signal
        x = np.concatenate([near, odd]).astype(np.float32)
    for part in x.reshape(-1, 512):
        half, bfloat = memory.empty(512, np.float16), memory.empty(512, np.uint16)
        source["rounded"](memory.send(part), half, bfloat, grid=ONE, block=(512, 1, 1))
        with np.errstate(over="ignore", invalid="ignore"):
            assert np.array_equal(half.get(), part.astype(np.float16), equal_nan=True)
        wide = (bfloat.get().astype(np.uint32) << 16).view(np.float32)
        sane = np.abs(part) < 3e38
        assert np.all(np.abs(wide - part)[sane] <= np.abs(part[sane]) / 256 + 1e-40)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lonely_barrier", "thread 0 waits at a barrier .* thread 3 has ended"),
        ("other_barrier", "divergent: thread 0 waits at a barrier"),
        ("lonely_warp", "thread 0 waits at a warp collective .* thread 16 waits at a barrier"),
        ("absent_lane", "shuffles from lane 20, which takes no part"),
        ("not_in_mask", "the mask 0000000f of __syncwarp leaves out the caller"),
        ("deep", "a stack that overflowed"),
        ("by_zero", "divided by zero"),
        ("beyond", "an access beyond memory"),
        ("misaligned", "a misaligned access"),
        ("trap", r"thread \(5, 0, 0\): __trap"),
    ],
)
def test_what_a_kernel_does_wrong_is_an_error_and_the_process_lives(
    source: dict, memory: Emulator, name: str, said: str
) -> None:
    x = memory.zeros(64, np.int32)
    with pytest.raises(DeviceFailed, match=said):
        source[name](x, grid=ONE, block=(32, 1, 1))
    source["indices"](x, grid=ONE, block=(64, 1, 1))
    assert x.get()[63] == 63


def test_a_kernel_that_waits_for_ever_is_stopped(source: dict, memory: Emulator) -> None:
    x = memory.zeros(64, np.int32)
    library = module.compiled(SOURCE, "test.cu", ())
    with pytest.raises(DeviceFailed, match="it ran too long"):
        EmulatedKernel(library, "endless", limit_s=0.2)(x, grid=ONE, block=(32, 1, 1))
    source["indices"](x, grid=ONE, block=(64, 1, 1))
    assert x.get()[63] == 63


def test_it_runs_in_any_thread(source: dict, memory: Emulator) -> None:
    said = []

    def work() -> None:
        for _ in range(3):
            with pytest.raises(DeviceFailed) as error:
                source["beyond"](memory.zeros(64, np.int32), grid=ONE, block=(32, 1, 1))
            said.append(str(error.value))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(said) == 6


def test_nobody_clears_shared_memory(source: dict, memory: Emulator) -> None:
    x = memory.zeros(2, np.int32)
    source["shared_unset"](x, grid=(2, 1, 1), block=ONE, shared=16)
    assert x.get().tolist() == [-1, -1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((np.float32(1), np.float32(1), np.int32(1)), "argument 0 is float32"),
        (("x", "x"), "takes 3 arguments; 2 were given"),
        (("x", "x", np.int64(1)), "argument 2 is int64; the source declares i4"),
        (("x", "x", 1), "argument 2 is int; the source declares i4"),
        (("i", "x", np.int32(1)), "argument 0 is a buffer of int32; the source declares .f4"),
    ],
)
def test_arguments_have_the_declared_types(
    source: dict, memory: Emulator, arguments: tuple, said: str
) -> None:
    buffers = {"x": memory.zeros(9, np.float32), "i": memory.zeros(9, np.int32)}
    given = [buffers[a] if isinstance(a, str) else a for a in arguments]
    with pytest.raises(DeviceFailed, match=said):
        source["tree"](*given, grid=ONE, block=(32, 1, 1))


def test_a_launch_that_no_device_takes_is_refused(source: dict, memory: Emulator) -> None:
    x = memory.zeros(9, np.int32)
    for grid, block, shared in (((0, 1, 1), ONE, 0), (ONE, (33, 32, 1), 0), (ONE, ONE, 1 << 18)):
        with pytest.raises(DeviceFailed, match=r"a grid of|a block of|of shared memory"):
            source["indices"](x, grid=grid, block=block, shared=shared)


def test_memory_has_an_end_and_is_given_back() -> None:
    memory = Emulator(1 << 24)  # nobody else's
    x = memory.zeros((1 << 20) + 1, np.float64)
    with pytest.raises(OutOfMemory, match="out of memory: 8,388,608 bytes asked for"):
        memory.empty(1 << 20, np.float64)
    del x
    assert memory.memory_used == 0


def test_memory_is_lent_without_a_copy(memory: Emulator) -> None:
    x = memory.send(np.arange(6.0).reshape(2, 3))
    same = memory.borrow(x)
    same.set(np.ones((2, 3)))
    assert x.get().tolist() == [[1.0] * 3] * 2 and same.shape == (2, 3)
    with pytest.raises(TypeError, match="ndarray has no __cuda_array_interface__"):
        memory.borrow(np.zeros(3))


def test_memory_in_another_order_is_not_lent(memory: Emulator) -> None:
    class Transposed:
        __cuda_array_interface__ = memory.zeros((3, 2), np.float64).__cuda_array_interface__ | {
            "strides": (8, 24)
        }

    with pytest.raises(ValueError, match=r"strides \(8, 24\): make it contiguous first"):
        memory.borrow(Transposed())


def test_an_array_that_does_not_fit_a_buffer_is_refused(memory: Emulator) -> None:
    with pytest.raises(ValueError, match=r"float64\(3,\) does not fit a buffer of float32\(3,\)"):
        memory.zeros(3, np.float32).set(np.zeros(3))


def test_a_source_that_does_not_compile_says_why(emulator: Runtime) -> None:
    with pytest.raises(DeviceFailed, match=r"broken\.cu:1"):
        module.compiled("nonsense", "broken.cu", ())
    with pytest.raises(DeviceFailed, match="has no kernel 'nothing'"):
        emulator.kernel("vector_add.cu", "nothing")
