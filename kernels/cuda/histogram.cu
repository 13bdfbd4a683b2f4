// Histograms of many columns over frozen bins: see kernels/cpu/histogram.py, whose counts these equal.
//
// Grid: (blocks, columns). A block counts its share of the rows of one column in shared memory, `copies`
// histograms of every slot so that warps rarely meet, and adds them to the whole at the end. Counts are
// integers: the order in which atomics arrive changes nothing.

#include "common.cuh"

#ifndef T  // of the values and edges: float or double
#define T double
#endif

// Counts of the rows of one column that lie in slots first .. first + slots_here - 1.
__device__ void count_rows(const T *values, const T *edges, const int *slot, long long n, int levels, int bins,
                           int first, int slots_here, int copies, unsigned long long *counts)
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

    unsigned int *mine = count + static_cast<int>(threadIdx.x / 32) % copies * cells;
    const long long step = static_cast<long long>(gridDim.x) * blockDim.x;
    for (long long row = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x; row < n; row += step) {
        const int place = slot == nullptr ? 0 : slot[row] - first;
        if (place < 0 || place >= slots_here || (slot != nullptr && slot[row] < 0))
            continue;
        const T value = values[row];
        int at = 0;
        for (int half = size >> 1; half > 0; half >>= 1)
            at += value >= edge[at + half - 1] ? half : 0;
        atomicAdd(&mine[place * bins + (value == value ? at : bins - 1)], 1u);
    }
    __syncthreads();

    for (int i = threadIdx.x; i < cells; i += blockDim.x) {
        unsigned long long total = 0;
        for (int copy = 0; copy < copies; ++copy)
            total += count[copy * cells + i];
        const long long place = first + i / bins;
        if (total > 0)
            atomicAdd(&counts[(place * gridDim.y + blockIdx.y) * bins + i % bins], total);
    }
}

// x: [columns][n]. edges: [columns][1 << levels], ascending and padded with NaN, which lies below nothing.
// slot: [n], negative for none. counts: [slots][columns][bins], where the last bin is the missing.
// Only slots first .. first + slots_here - 1 are counted: as many as shared memory holds.
// Shared: (1 << levels) edges, then copies * slots_here * bins counters of 32 bits.
extern "C" __global__ void histogram(const T *x, const T *edges, const int *slot, long long n, int levels, int bins,
                                     int first, int slots_here, int copies, unsigned long long *counts)
{
    count_rows(x + blockIdx.y * n, edges + (static_cast<long long>(blockIdx.y) << levels), slot, n, levels, bins,
               first, slots_here, copies, counts);
}

// The same where all rows belong to one slot.
extern "C" __global__ void histogram_all(const T *x, const T *edges, long long n, int levels, int bins, int first,
                                         int slots_here, int copies, unsigned long long *counts)
{
    count_rows(x + blockIdx.y * n, edges + (static_cast<long long>(blockIdx.y) << levels), nullptr, n, levels, bins,
               first, slots_here, copies, counts);
}
