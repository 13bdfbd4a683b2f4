// The start of the tumbling window of each event: the multiple of `size` at or before its time.
//
// Grid: any number of blocks of any size, a grid-stride loop.
// Division rounds toward zero, so that times before the epoch, which are negative, go one window further back.
#include "common.cuh"

// times, starts: [n]. size > 0.
extern "C" __global__ void window_starts(const long long *__restrict__ times, long long size,
                                         long long *__restrict__ starts, long long n)
{
    const long long step = static_cast<long long>(gridDim.x) * blockDim.x;
    for (long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += step) {
        const long long time = __ldcs(&times[i]), rest = time % size;
        starts[i] = time - rest - (rest < 0 ? size : 0);
    }
}
