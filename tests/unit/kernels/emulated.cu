// Kernels that the emulator's tests run: some right, some wrong in one way each.
#include "common.cuh"
extern "C" __global__ void __launch_bounds__(256, 2) tree(const float *x, float *out, int n)
{
    __shared__ float sums[256];
    sums[threadIdx.x] = threadIdx.x < n ? x[threadIdx.x] : 0.0f;
    __syncthreads();
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half)
            sums[threadIdx.x] += sums[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0)
        out[0] = sums[0];
}
extern "C" __global__ void warps(const double *x, double *out)
{
    double sum = x[threadIdx.x];
    for (int distance = 16; distance > 0; distance /= 2)
        sum += __shfl_xor_sync(0xffffffffu, sum, distance);
    if (threadIdx.x % 32 == 0)
        out[threadIdx.x / 32] = sum;
}
extern "C" __global__ void groups(int *x)
{
    const int lane = threadIdx.x;
    const unsigned mask = lane < 16 ? 0x0000ffffu : 0xffff0000u;
    if (lane < 16)
        x[lane] = __shfl_down_sync(mask, x[lane], 1, 4);
    else
        x[lane] = __popc(__ballot_sync(mask, lane % 2));
}
extern "C" __global__ void indices(int *x)
{
    const int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    const int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    x[block * blockDim.x * blockDim.y * blockDim.z + thread] = 1000 * block + thread;
}
extern "C" __global__ void rounded(const float *x, __half *half, __nv_bfloat16 *bfloat)
{
    half[threadIdx.x] = __float2half(x[threadIdx.x]);
    bfloat[threadIdx.x] = __float2bfloat16(x[threadIdx.x]);
}
extern "C" __global__ void lonely_barrier(int *x) { if (threadIdx.x < 3) __syncthreads(); }
extern "C" __global__ void other_barrier(int *x)
{
    if (threadIdx.x < 3)
        __syncthreads();
    else
        __syncthreads();
}
extern "C" __global__ void lonely_warp(int *x) { if (threadIdx.x < 16) __syncwarp(); else __syncthreads(); }
extern "C" __global__ void absent_lane(int *x) { if (threadIdx.x < 16) x[0] = __shfl_sync(0xffffu, x[0], 20); }
extern "C" __global__ void not_in_mask(int *x) { __syncwarp(0xfu); }
extern "C" __global__ void deep(int *x) { volatile char big[100000]; for (int i = 99999; i >= 0; --i) big[i] = 1; x[0] = big[9]; }
extern "C" __global__ void by_zero(int *x) { x[1] = 5 / x[0]; }
extern "C" __global__ void beyond(int *x) { x[64 + threadIdx.x] = 1; }
extern "C" __global__ void misaligned(int *x) { *reinterpret_cast<int4 *>(x + 1) = make_int4(1, 2, 3, 4); }
extern "C" __global__ void trap(int *x) { if (threadIdx.x == 5) __trap(); }
extern "C" __global__ void shared_unset(int *x) { __shared__ int cell; DYNAMIC_SHARED(int, more); x[0] = cell; x[1] = more[0]; cell = more[0] = 7; }
extern "C" __global__ void endless(int *x) { while (*static_cast<volatile int *>(x) == 0) {} }
#ifdef LEFT_OUT
extern "C" __global__ void left_out(int *x) { this does not compile }
#endif
