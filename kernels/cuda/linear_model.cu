// Margins of a linear model: intercept + sum of weight * (x - center); a missing value (NaN) counts as its center.
//
// A thread per row; products are rounded and added feature by feature, the intercept last, so that the bits do not
// depend on the batch or the device. Rows pass through shared memory, an odd number of words apart, so that they
// are read coalesced. Memory-bound.

#include "common.cuh"

#ifndef BLOCK
#define BLOCK 128
#endif

// x: (n, features). center, weight: (features,). out: (n,). Block: BLOCK. Grid: any.
// Shared: BLOCK * (features | 1) + 2 * features floats.
extern "C" __global__ void __launch_bounds__(BLOCK)
    linear_margins(const float *x, const float *center, const float *weight, float intercept, float *out, long long n,
                   int features)
{
    DYNAMIC_SHARED(float, shared);
    const int stride = features | 1;
    float *centers = shared + BLOCK * stride, *weights = centers + features;
    for (int i = threadIdx.x; i < features; i += BLOCK) {
        centers[i] = center[i];
        weights[i] = weight[i];
    }
    for (long long first = static_cast<long long>(blockIdx.x) * BLOCK; first < n;
         first += static_cast<long long>(gridDim.x) * BLOCK) {
        __syncthreads();
        const long long cells = min(static_cast<long long>(BLOCK), n - first) * features;
        for (int i = threadIdx.x; i < cells; i += BLOCK)
            shared[i / features * stride + i % features] = x[first * features + i];
        __syncthreads();
        const long long row = first + threadIdx.x;
        if (row < n) {
            float sum = 0.0f;
            for (int i = 0; i < features; ++i) {
                const float value = shared[threadIdx.x * stride + i];
                const float apart = value != value ? 0.0f : __fsub_rn(value, centers[i]);
                const float product = __fmul_rn(apart, weights[i]);
                sum = i == 0 ? product : __fadd_rn(sum, product);
            }
            out[row] = __fadd_rn(sum, intercept);
        }
    }
}
