// c = a + b, the first kernel: one thread for four neighbours, so that a warp moves 512 bytes at a time.
//
// Grid: any number of blocks of any size; each thread goes on by the size of the grid (a grid-stride loop).
// T: float, double, int or long long; VECTOR: its vector of 16 bytes; WIDE: 1 if that has four elements, not two.
// Source: CUDA C++ Programming Guide, "Device Memory Accesses" (vector loads need aligned addresses).
#include "common.cuh"

#ifndef T
#define T float
#define VECTOR float4
#define WIDE 1
#endif

constexpr int WIDTH = sizeof(VECTOR) / sizeof(T);

// The naive step: one element a thread.
extern "C" __global__ void vector_add_scalar(const T *__restrict__ a, const T *__restrict__ b, T *__restrict__ c,
                                             long long n)
{
    const long long step = static_cast<long long>(gridDim.x) * blockDim.x;
    for (long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += step)
        c[i] = a[i] + b[i];
}

// a, b, c: [n], aligned to 16 bytes.
extern "C" __global__ void vector_add(const T *__restrict__ a, const T *__restrict__ b, T *__restrict__ c, long long n)
{
    const long long step = static_cast<long long>(gridDim.x) * blockDim.x;
    const long long first = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    const long long vectors = n / WIDTH;
    const VECTOR *a4 = reinterpret_cast<const VECTOR *>(a), *b4 = reinterpret_cast<const VECTOR *>(b);
    VECTOR *c4 = reinterpret_cast<VECTOR *>(c);
    for (long long i = first; i < vectors; i += step) {
        const VECTOR x = __ldcs(&a4[i]), y = __ldcs(&b4[i]);  // read once: do not keep it in the cache
        VECTOR sum;
        sum.x = x.x + y.x;
        sum.y = x.y + y.y;
#if WIDE
        sum.z = x.z + y.z;
        sum.w = x.w + y.w;
#endif
        __stcs(&c4[i], sum);
    }
    for (long long i = vectors * WIDTH + first; i < n; i += step)
        c[i] = a[i] + b[i];
}
