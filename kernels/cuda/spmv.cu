// y = A x for a sparse matrix in compressed rows (CSR): row i holds columns[k] and values[k] for
// offsets[i] <= k < offsets[i + 1].
//
//   spmv_scalar  a thread a row: for short rows; its neighbours read far apart
//   spmv_warp    `lanes` threads a row (2, 4, ... 32): they read side by side and add up by shuffles
//
// Grid: enough blocks for all rows. The order of a row's additions is fixed. T: float or double; sums are of ACC.
// Source: Bell & Garland, "Implementing sparse matrix-vector multiplication on throughput-oriented processors" (2009).
#include "common.cuh"

#ifndef T
#define T float
#define ACC double
#endif

extern "C" __global__ void spmv_scalar(const long long *offsets, const int *columns, const T *values, const T *x, T *y,
                                       long long rows)
{
    const long long row = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (row >= rows)
        return;
    ACC sum = 0;
    for (long long k = offsets[row]; k < offsets[row + 1]; ++k)
        sum += static_cast<ACC>(values[k]) * __ldg(&x[columns[k]]);
    y[row] = static_cast<T>(sum);
}

// The block's threads are a multiple of 32.
extern "C" __global__ void spmv_warp(const long long *offsets, const int *columns, const T *values, const T *x, T *y,
                                     long long rows, int lanes)
{
    const long long row = (static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x) / lanes;
    const int lane = threadIdx.x % lanes;
    ACC sum = 0;
    if (row < rows)
        for (long long k = offsets[row] + lane; k < offsets[row + 1]; k += lanes)
            sum += static_cast<ACC>(__ldcs(&values[k])) * __ldg(&x[__ldcs(&columns[k])]);
    for (int distance = lanes / 2; distance > 0; distance /= 2)
        sum += __shfl_down_sync(0xffffffffu, sum, distance, lanes);
    if (row < rows && lane == 0)
        y[row] = static_cast<T>(sum);
}
