// Steps of a ring all-reduce over `ranks` buffers of n elements, cut into as many chunks.
//
// Reduce-scatter, steps 0 .. ranks - 2: rank r takes chunk r - 1 - step from its left neighbour and adds it to its
// own; at the end rank r has the sum of chunk r + 1. All-gather, as many steps: rank r copies chunk r - step from
// its left neighbour. In a step each rank reads one chunk and writes another, so that all may go at once.
// Grid: (blocks, ranks). Between devices a step is a copy over the link; here all buffers lie on one.
// Source: Patarasuk & Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations" (2009).
#include "common.cuh"

#ifndef T
#define T float
#endif

struct Span {
    long long first, end;
};

// Chunk c of n elements: sizes differ by at most one.
__device__ Span chunk_of(long long n, int ranks, int c)
{
    c = (c % ranks + ranks) % ranks;
    return {n * c / ranks, n * (c + 1) / ranks};
}

// buffers: [ranks] addresses.
extern "C" __global__ void ring_reduce(T *const *buffers, long long n, int ranks, int step)
{
    const int rank = blockIdx.y, left = (rank + ranks - 1) % ranks;
    const Span chunk = chunk_of(n, ranks, rank - 1 - step);
    const T *from = buffers[left];
    T *to = buffers[rank];
    const long long stride = static_cast<long long>(gridDim.x) * blockDim.x;
    for (long long i = chunk.first + static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x; i < chunk.end; i += stride)
        to[i] = from[i] + to[i];
}

extern "C" __global__ void ring_gather(T *const *buffers, long long n, int ranks, int step)
{
    const int rank = blockIdx.y, left = (rank + ranks - 1) % ranks;
    const Span chunk = chunk_of(n, ranks, rank - step);
    const T *from = buffers[left];
    T *to = buffers[rank];
    const long long stride = static_cast<long long>(gridDim.x) * blockDim.x;
    for (long long i = chunk.first + static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x; i < chunk.end; i += stride)
        to[i] = from[i];
}
