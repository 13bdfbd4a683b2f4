// GeLU of every element, alone or fused with the bias that comes before it. -DTANH: the tanh approximation.
//
// Block: any. Grid: any; a thread steps over the grid, a pack (16 bytes where all is aligned) at a time.
// Memory-bound: fusing the bias spares a pass over x.

#include "element.cuh"
#include "gelu.cuh"

// n: elements, a multiple of PACK.
extern "C" __global__ void gelu(const T *x, T *y, long long n)
{
    const long long step = static_cast<long long>(gridDim.x) * blockDim.x * PACK;
    for (long long at = (static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x) * PACK; at < n; at += step) {
        Pack pack = *reinterpret_cast<const Pack *>(x + at);
#pragma unroll
        for (int i = 0; i < PACK; ++i)
            pack.at[i] = from_float(GELU(to_float(pack.at[i])));
        *reinterpret_cast<Pack *>(y + at) = pack;
    }
}

// y = GeLU(x + bias). x: (n / columns, columns), bias: (columns,). columns: a multiple of PACK.
extern "C" __global__ void bias_gelu(const T *x, const T *bias, T *y, long long n, int columns)
{
    const long long step = static_cast<long long>(gridDim.x) * blockDim.x * PACK;
    for (long long at = (static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x) * PACK; at < n; at += step) {
        Pack pack = *reinterpret_cast<const Pack *>(x + at);
        const Pack more = *reinterpret_cast<const Pack *>(bias + at % columns);
#pragma unroll
        for (int i = 0; i < PACK; ++i)
            pack.at[i] = from_float(GELU(to_float(pack.at[i]) + to_float(more.at[i])));
        *reinterpret_cast<Pack *>(y + at) = pack;
    }
}
