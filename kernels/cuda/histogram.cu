// Histograms of many columns over frozen bins: see kernels/counting.py, whose counts these equal.
//
// Grid: (blocks, columns). A block counts its share of the rows of one column in shared memory, `copies`
// histograms of every slot so that warps rarely meet, and adds them to the whole at the end. Counts are
// integers: the order in which atomics arrive changes nothing.

#ifndef DYNAMIC_SHARED
#define DYNAMIC_SHARED(name) extern __shared__ double name[]
#endif

// x: [columns][n]. edges: [columns][1 << levels], ascending and padded with NaN, which lies below nothing.
// slot: [n], negative for none. counts: [slots][columns][bins], where the last bin is the missing.
// Only slots first .. first + slots_here - 1 are counted: as many as shared memory holds.
// Shared: (1 << levels) doubles, then copies * slots_here * bins counters of 32 bits.
extern "C" __global__ void histogram(const double *x, const double *edges, const int *slot, long long n,
                                     int levels, int bins, int first, int slots_here, int copies,
                                     unsigned long long *counts)
{
    DYNAMIC_SHARED(shared);
    const int size = 1 << levels;
    const int column = blockIdx.y;
    const int cells = slots_here * bins;
    double *edge = shared;
    unsigned int *count = reinterpret_cast<unsigned int *>(shared + size);

    for (int i = threadIdx.x; i < size; i += blockDim.x)
        edge[i] = edges[static_cast<long long>(column) * size + i];
    for (int i = threadIdx.x; i < copies * cells; i += blockDim.x)
        count[i] = 0;
    __syncthreads();

    unsigned int *mine = count + static_cast<int>(threadIdx.x / 32) % copies * cells;
    const double *values = x + column * n;
    const long long step = static_cast<long long>(gridDim.x) * blockDim.x;
    for (long long row = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x; row < n; row += step) {
        const int place = slot[row] - first;
        if (slot[row] < 0 || place < 0 || place >= slots_here)
            continue;
        const double value = values[row];
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
            atomicAdd(&counts[(place * gridDim.y + column) * bins + i % bins], total);
    }
}
