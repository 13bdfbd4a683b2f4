// Histograms of many columns over frozen bins: see kernels/cpu/histogram.py, whose counts these equal.
//
// A block counts its share of the rows in shared memory and adds that to the whole at the end. Counts are
// integers: the order in which atomics arrive changes nothing. A value's bin is found by a binary search in
// shared memory; up to 32 edges its steps meet no bank twice.
// Source for privatised histograms: Gomez-Luna et al., "An optimized approach to histogram computation on GPU" (2013).
//
//   histogram       x by columns, rows of several slots (the windows of a stream)
//   histogram_all   x by columns, all rows of one slot
//   histogram_rows  x by rows, as tables of features are: a warp takes 32 columns side by side
#include "common.cuh"

#ifndef T  // of the values and edges: float or double
#define T double
#endif

constexpr int UNROLL = 4;  // loads of a thread on their way at once

// Edges from `stride` to `stride` elements, padded with NaN, which lies below nothing; NaN: the last bin.
__device__ __forceinline__ int bin_of(T value, const T *edge, int stride, int size, int bins)
{
    int at = 0;
    for (int half = size >> 1; half > 0; half >>= 1)
        at += value >= edge[(at + half - 1) * stride] ? half : 0;
    return value == value ? at : bins - 1;
}

// Counts of the rows of one column that lie in slots first .. first + slots_here - 1. A lane has one of `copies`
// (a power of two up to 32) counters of each bin, side by side: with 32 no two lanes meet in a bank.
__device__ void count_column(const T *__restrict__ values, const T *edges, const int *__restrict__ slot, long long n,
                             int levels, int bins, int first, int slots_here, int copies, unsigned long long *counts)
{
    DYNAMIC_SHARED(T, edge);
    const int size = 1 << levels;
    const int cells = slots_here * bins;
    unsigned int *count = reinterpret_cast<unsigned int *>(edge + size);

    for (int i = threadIdx.x; i < size; i += blockDim.x)
        edge[i] = edges[i];
    for (int i = threadIdx.x; i < copies * cells; i += blockDim.x)
        count[i] = 0;
    __syncthreads();

    unsigned int *mine = count + (threadIdx.x & (copies - 1));
    const long long step = static_cast<long long>(gridDim.x) * blockDim.x;
    long long row = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    for (; row < n; row += UNROLL * step) {
        T value[UNROLL];
        int place[UNROLL];
#pragma unroll
        for (int k = 0; k < UNROLL; ++k) {
            const long long at = row + k * step;
            value[k] = at < n ? __ldcs(&values[at]) : static_cast<T>(0);
            place[k] = at >= n ? -1 : slot == nullptr ? 0 : slot[at] < 0 ? -1 : slot[at] - first;
        }
#pragma unroll
        for (int k = 0; k < UNROLL; ++k)
            if (place[k] >= 0 && place[k] < slots_here)
                atomicAdd(&mine[(place[k] * bins + bin_of(value[k], edge, 1, size, bins)) * copies], 1u);
    }
    __syncthreads();

    for (int i = threadIdx.x; i < cells; i += blockDim.x) {
        unsigned long long total = 0;
        for (int copy = 0; copy < copies; ++copy)
            total += count[i * copies + ((copy + i) & (copies - 1))];
        const long long place = first + i / bins;
        if (total > 0)
            atomicAdd(&counts[(place * gridDim.y + blockIdx.y) * bins + i % bins], total);
    }
}

// Grid: (blocks, columns). x: [columns][n]. edges: [columns][1 << levels], ascending, padded with NaN.
// slot: [n], negative for none. counts: [slots][columns][bins], where the last bin is the missing.
// Only slots first .. first + slots_here - 1 are counted: as many as shared memory holds.
// Shared: (1 << levels) edges, then slots_here * bins * copies counters of 32 bits.
extern "C" __global__ void histogram(const T *x, const T *edges, const int *slot, long long n, int levels, int bins,
                                     int first, int slots_here, int copies, unsigned long long *counts)
{
    count_column(x + blockIdx.y * n, edges + (static_cast<long long>(blockIdx.y) << levels), slot, n, levels, bins,
                 first, slots_here, copies, counts);
}

// The same where all rows belong to one slot.
extern "C" __global__ void histogram_all(const T *x, const T *edges, long long n, int levels, int bins, int copies,
                                         unsigned long long *counts)
{
    count_column(x + blockIdx.y * n, edges + (static_cast<long long>(blockIdx.y) << levels), nullptr, n, levels, bins,
                 0, 1, copies, counts);
}

// Grid: (blocks, columns / 32). x: [n][columns]. edges: [columns][1 << levels]. counts: [columns][bins].
// A lane has a column: its edges and counters lie in its own bank. The block's threads are a multiple of 32.
// Shared: 32 << levels edges, then 32 * bins counters of 32 bits.
extern "C" __global__ void histogram_rows(const T *__restrict__ x, const T *edges, long long n, int columns, int levels,
                                          int bins, unsigned long long *counts)
{
    DYNAMIC_SHARED(T, edge);
    const int size = 1 << levels;
    unsigned int *count = reinterpret_cast<unsigned int *>(edge + 32 * size);
    const int lane = threadIdx.x % 32, column = blockIdx.y * 32 + lane;

    for (int i = threadIdx.x; i < 32 * size; i += blockDim.x) {
        const int of = blockIdx.y * 32 + i / size;  // read in order, written in turns
        edge[i % size * 32 + i / size] = of < columns ? edges[static_cast<long long>(of) * size + i % size] : static_cast<T>(0);
    }
    for (int i = threadIdx.x; i < 32 * bins; i += blockDim.x)
        count[i] = 0;
    __syncthreads();

    const long long step = static_cast<long long>(gridDim.x) * (blockDim.x / 32);
    long long row = static_cast<long long>(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32;
    for (; column < columns && row < n; row += UNROLL * step) {
        T value[UNROLL];
#pragma unroll
        for (int k = 0; k < UNROLL; ++k)
            value[k] = row + k * step < n ? __ldcs(&x[(row + k * step) * columns + column]) : static_cast<T>(0);
#pragma unroll
        for (int k = 0; k < UNROLL; ++k)
            if (row + k * step < n)
                atomicAdd(&count[bin_of(value[k], edge + lane, 32, size, bins) * 32 + lane], 1u);
    }
    __syncthreads();

    for (int i = threadIdx.x; i < 32 * bins; i += blockDim.x) {
        const int of = blockIdx.y * 32 + i / bins;
        const unsigned total = count[i % bins * 32 + i / bins];
        if (of < columns && total > 0)
            atomicAdd(&counts[static_cast<long long>(of) * bins + i % bins], static_cast<unsigned long long>(total));
    }
}
