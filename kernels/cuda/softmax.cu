// Softmax of each row: y = exp(x - max) / sum of exp(x - max). T is float, half or bfloat16; sums are float.
//
// softmax_warp: a warp per row, the row in registers (columns <= 32 * PACK * STEPS): read once, written once.
// softmax_block: a block per row of any length. One pass keeps the largest value and the sum relative to it,
// rescaling the sum when a larger value comes (Milakov & Gimelshein, "Online normalizer calculation for
// softmax", 2018); a second pass, which the L2 cache serves, writes.
//
// A row with a NaN, or with an infinity as its largest value, is NaN; -inf gives 0; a row of -inf alone is NaN.

#include "element.cuh"
#include "rows.cuh"

#ifndef STEPS
#define STEPS 8  // packs per lane
#endif
#ifndef BLOCK
#define BLOCK 256
#endif

// Block: (32, warps). Grid: (ceil(rows / warps)). columns must be a multiple of PACK.
extern "C" __global__ void __launch_bounds__(BLOCK) softmax_warp(const T *x, T *y, int rows, int columns)
{
    const int row = blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows)
        return;
    const int lane = threadIdx.x;
    const long long start = static_cast<long long>(row) * columns;
    float value[STEPS][PACK];
    float largest = -INFINITY;
#pragma unroll
    for (int step = 0; step < STEPS; ++step) {
        const int column = (step * 32 + lane) * PACK;
        Pack pack;
        if (column < columns)
            pack = *reinterpret_cast<const Pack *>(x + start + column);
#pragma unroll
        for (int i = 0; i < PACK; ++i) {
            const float each = column < columns ? to_float(pack.at[i]) : -INFINITY;
            value[step][i] = each;
            largest = each != each ? each : largest != largest ? largest : fmaxf(largest, each);
        }
    }
    largest = warp_max(largest);
    float sum = 0.0f;
#pragma unroll
    for (int step = 0; step < STEPS; ++step) {
        const bool inside = (step * 32 + lane) * PACK < columns;
#pragma unroll
        for (int i = 0; i < PACK; ++i) {
            value[step][i] = inside ? expf(value[step][i] - largest) : 0.0f;
            sum += value[step][i];
        }
    }
    const float scale = 1.0f / warp_sum(sum);
#pragma unroll
    for (int step = 0; step < STEPS; ++step) {
        const int column = (step * 32 + lane) * PACK;
        if (column >= columns)
            break;
        Pack pack;
#pragma unroll
        for (int i = 0; i < PACK; ++i)
            pack.at[i] = from_float(value[step][i] * scale);
        *reinterpret_cast<Pack *>(y + start + column) = pack;
    }
}

struct Online {  // the largest value so far, and the sum of exp(value - largest)
    float largest = -INFINITY, sum = 0.0f;

    __device__ void add(float value)
    {
        if (value > largest) {
            sum = sum * expf(largest - value) + 1.0f;
            largest = value;
        } else {  // -inf before anything else counts nothing; NaN makes the sum NaN
            sum += value == -INFINITY ? 0.0f : expf(value - largest);
        }
    }

    __device__ void merge(float other_largest, float other_sum)
    {
        const float both = fmaxf(largest, other_largest);
        if (both == -INFINITY) {
            sum += other_sum;  // nothing yet, or NaN
            return;
        }
        sum = sum * expf(largest - both) + other_sum * expf(other_largest - both);
        largest = both;
    }
};

// Block: BLOCK threads (a multiple of 32). Grid: (rows). columns must be a multiple of PACK.
extern "C" __global__ void __launch_bounds__(BLOCK) softmax_block(const T *x, T *y, int columns)
{
    __shared__ float largest[BLOCK / 32], sum[BLOCK / 32];
    const long long start = static_cast<long long>(blockIdx.x) * columns;
    Online mine;
    for (int column = threadIdx.x * PACK; column < columns; column += BLOCK * PACK) {
        const Pack pack = *reinterpret_cast<const Pack *>(x + start + column);
#pragma unroll
        for (int i = 0; i < PACK; ++i)
            mine.add(to_float(pack.at[i]));
    }
    for (int lanes = 16; lanes > 0; lanes >>= 1) {
        const float other = __shfl_xor_sync(FULL_WARP, mine.largest, lanes);
        mine.merge(other, __shfl_xor_sync(FULL_WARP, mine.sum, lanes));
    }
    if (threadIdx.x % 32 == 0) {
        largest[threadIdx.x / 32] = mine.largest;
        sum[threadIdx.x / 32] = mine.sum;
    }
    __syncthreads();
    Online all;
#pragma unroll
    for (int warp = 0; warp < BLOCK / 32; ++warp)
        all.merge(largest[warp], sum[warp]);
    const float scale = fabsf(all.largest) == INFINITY ? NAN : 1.0f / all.sum;
    for (int column = threadIdx.x * PACK; column < columns; column += BLOCK * PACK) {
        Pack pack = *reinterpret_cast<const Pack *>(x + start + column);
#pragma unroll
        for (int i = 0; i < PACK; ++i)
            pack.at[i] = from_float(expf(to_float(pack.at[i]) - all.largest) * scale);
        *reinterpret_cast<Pack *>(y + start + column) = pack;
    }
}
