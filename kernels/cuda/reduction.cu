// Sum, minimum or maximum of an array, in four steps that a learner can follow and a benchmark compare.
//
//   reduce_atomic   every element is an atomic on one address
//   reduce_tree     a block's threads meet in shared memory, in halves
//   reduce_warp     the last five halves are shuffles within a warp, without barriers
//   reduce_vector   and loads are 16 bytes a thread, four of them on their way at once
//
// Grid: any number of blocks of BLOCK threads, a grid-stride loop. All but the first write one partial result a
// block; the block that finishes last combines them in their order, so that the bits depend on n and the grid
// alone. T: element; ACC: what it is summed in (double for float, or long long). OP: 0 sum, 1 minimum,
// 2 maximum (a NaN stays, as in NumPy).
// Source: Harris, "Optimizing parallel reduction in CUDA" (2007); the last block: CUDA samples, threadFenceReduction.
#include "common.cuh"

#ifndef T
#define T float
#define ACC double
#define VECTOR float4
#define OP 0
#endif
#ifndef BLOCK
#define BLOCK 256
#endif

constexpr unsigned ALL = 0xffffffffu;
constexpr int WIDTH = sizeof(VECTOR) / sizeof(T);
constexpr int UNROLL = 4;

__device__ __forceinline__ ACC combined(ACC a, ACC b)
{
#if OP == 0
    return a + b;
#elif OP == 1
    return b < a || b != b ? b : a;
#else
    return a < b || b != b ? b : a;
#endif
}

#if OP == 0
__device__ void atomic_combine(double *address, double value) { atomicAdd(address, value); }
__device__ void atomic_combine(long long *address, long long value)
{
    atomicAdd(reinterpret_cast<unsigned long long *>(address), static_cast<unsigned long long>(value));
}
#else  // minima and maxima of floats, in which a NaN stays, have no atomic of their own
__device__ void atomic_combine(ACC *address, ACC value)
{
    static_assert(sizeof(ACC) == 8, "the atomic exchanges eight bytes");
    unsigned long long *bits = reinterpret_cast<unsigned long long *>(address), before;
    unsigned long long seen = *const_cast<volatile unsigned long long *>(bits);  // others write there meanwhile
    do {
        before = seen;
        ACC old;
        memcpy(&old, &before, sizeof old);
        const ACC fresh = combined(old, value);
        unsigned long long after;
        memcpy(&after, &fresh, sizeof after);
        if (after == before)
            return;
        seen = atomicCAS(bits, before, after);
    } while (seen != before);
}
#endif

__device__ ACC by_tree(ACC mine, ACC *shared)
{
    shared[threadIdx.x] = mine;
    __syncthreads();
    for (int half = BLOCK / 2; half > 0; half /= 2) {
        if (threadIdx.x < half)
            shared[threadIdx.x] = combined(shared[threadIdx.x], shared[threadIdx.x + half]);
        __syncthreads();
    }
    return shared[0];
}

__device__ ACC by_warps(ACC mine, ACC *shared)
{
    for (int distance = 16; distance > 0; distance /= 2)
        mine = combined(mine, __shfl_down_sync(ALL, mine, distance));
    if (threadIdx.x % 32 == 0)
        shared[threadIdx.x / 32] = mine;
    __syncthreads();
    if (threadIdx.x < 32) {
        mine = shared[threadIdx.x % (BLOCK / 32)];
        for (int distance = BLOCK / 64; distance > 0; distance /= 2)
            mine = combined(mine, __shfl_down_sync(ALL, mine, distance));
    }
    return mine;  // of thread 0
}

// Thread 0 has the block's result; the last block to come here writes the whole.
template <ACC (*of_block)(ACC, ACC *)>
__device__ void finish(ACC mine, ACC identity, ACC *partials, unsigned *finished, ACC *out, ACC *shared)
{
    const bool first = threadIdx.x == 0;
    if (first) {
        partials[blockIdx.x] = mine;
        __threadfence();
    }
    bool is_last = first && atomicAdd(finished, 1u) == gridDim.x - 1;
    if (!__syncthreads_or(is_last))
        return;
    __threadfence();
    ACC sum = identity;
    for (int i = threadIdx.x; i < gridDim.x; i += BLOCK)
        sum = combined(sum, __ldcg(&partials[i]));
    sum = of_block(sum, shared);
    if (first) {
        *out = sum;
        *finished = 0;  // ready for the next launch
    }
}

// out: one value, `identity` before. The order of the additions, so the last bits, changes from run to run.
extern "C" __global__ void reduce_atomic(const T *x, long long n, ACC *out)
{
    const long long step = static_cast<long long>(gridDim.x) * BLOCK;
    for (long long i = static_cast<long long>(blockIdx.x) * BLOCK + threadIdx.x; i < n; i += step)
        atomic_combine(out, x[i]);
}

// partials: [gridDim.x]. finished: 0 before and after. identity: 0, or the type's greatest or least value.
extern "C" __global__ void __launch_bounds__(BLOCK)
    reduce_tree(const T *x, long long n, ACC identity, ACC *partials, unsigned *finished, ACC *out)
{
    __shared__ ACC shared[BLOCK];
    const long long step = static_cast<long long>(gridDim.x) * BLOCK;
    ACC mine = identity;
    for (long long i = static_cast<long long>(blockIdx.x) * BLOCK + threadIdx.x; i < n; i += step)
        mine = combined(mine, x[i]);
    finish<by_tree>(by_tree(mine, shared), identity, partials, finished, out, shared);
}

extern "C" __global__ void __launch_bounds__(BLOCK)
    reduce_warp(const T *x, long long n, ACC identity, ACC *partials, unsigned *finished, ACC *out)
{
    __shared__ ACC shared[BLOCK / 32];
    const long long step = static_cast<long long>(gridDim.x) * BLOCK;
    ACC mine = identity;
    for (long long i = static_cast<long long>(blockIdx.x) * BLOCK + threadIdx.x; i < n; i += step)
        mine = combined(mine, x[i]);
    finish<by_warps>(by_warps(mine, shared), identity, partials, finished, out, shared);
}

// x: aligned to 16 bytes.
extern "C" __global__ void __launch_bounds__(BLOCK)
    reduce_vector(const T *x, long long n, ACC identity, ACC *partials, unsigned *finished, ACC *out)
{
    __shared__ ACC shared[BLOCK / 32];
    const long long step = static_cast<long long>(gridDim.x) * BLOCK;
    const long long first = static_cast<long long>(blockIdx.x) * BLOCK + threadIdx.x;
    const long long vectors = n / WIDTH;
    const VECTOR *x4 = reinterpret_cast<const VECTOR *>(x);
    ACC mine = identity;
    long long i = first;
    for (; i + (UNROLL - 1) * step < vectors; i += UNROLL * step) {
        VECTOR loaded[UNROLL];
#pragma unroll
        for (int k = 0; k < UNROLL; ++k)
            loaded[k] = __ldcs(&x4[i + k * step]);
#pragma unroll
        for (int k = 0; k < UNROLL; ++k) {
            const T *each = reinterpret_cast<const T *>(&loaded[k]);
#pragma unroll
            for (int j = 0; j < WIDTH; ++j)
                mine = combined(mine, each[j]);
        }
    }
    for (; i < vectors; i += step) {
        const VECTOR loaded = __ldcs(&x4[i]);
        const T *each = reinterpret_cast<const T *>(&loaded);
#pragma unroll
        for (int j = 0; j < WIDTH; ++j)
            mine = combined(mine, each[j]);
    }
    for (i = vectors * WIDTH + first; i < n; i += step)
        mine = combined(mine, x[i]);
    finish<by_warps>(by_warps(mine, shared), identity, partials, finished, out, shared);
}
