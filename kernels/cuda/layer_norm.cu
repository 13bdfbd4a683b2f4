// Layer normalisation of each row: y = (x - mean) / sqrt(variance + epsilon) * weight + bias (Ba, Kiros & Hinton,
// "Layer normalization", 2016); the variance is that of the row itself, divided by its length.
//
// The deviations of almost equal numbers are as small as what rounding takes from their mean, so the mean is two
// floats: `mean`, and `rest`, which it lacks.
//
// layer_norm_warp: a warp per row, the row in registers (columns <= 32 * PACK * STEPS): the mean first, then the
// sum, which is its rest, and the squares about it, so that a large mean costs no digits.
// layer_norm_block: a block per row of any length; mean and squares in one pass (Welford, 1962), the mean's steps
// summed as Kahan (1965) does, merged over lanes and warps as Chan, Golub & LeVeque (1979) do; a second pass, which
// the L2 cache serves, writes.

#include "element.cuh"
#include "rows.cuh"

#ifndef STEPS
#define STEPS 8  // packs per lane
#endif
#ifndef BLOCK
#define BLOCK 256
#endif

__device__ __forceinline__ float normalised(float value, float mean, float rest, float scale, const T *weight,
                                            const T *bias, int column)
{
    return (value - mean - rest) * scale * to_float(weight[column]) + to_float(bias[column]);
}

// weight, bias: (columns,). Block: (32, warps). Grid: (ceil(rows / warps)). columns: a multiple of PACK.
extern "C" __global__ void __launch_bounds__(BLOCK) layer_norm_warp(const T *x, const T *weight, const T *bias, T *y,
                                                                    int rows, int columns, float epsilon)
{
    const int row = blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows)
        return;
    const int lane = threadIdx.x;
    const long long start = static_cast<long long>(row) * columns;
    float value[STEPS][PACK];
    float sum = 0.0f;
#pragma unroll
    for (int step = 0; step < STEPS; ++step) {
        const int column = (step * 32 + lane) * PACK;
        Pack pack;
        if (column < columns)
            pack = *reinterpret_cast<const Pack *>(x + start + column);
#pragma unroll
        for (int i = 0; i < PACK; ++i) {
            value[step][i] = column < columns ? to_float(pack.at[i]) : 0.0f;
            sum += value[step][i];
        }
    }
    const float mean = warp_sum(sum) / columns;
    float aparts = 0.0f, squares = 0.0f;
#pragma unroll
    for (int step = 0; step < STEPS; ++step) {
        const bool inside = (step * 32 + lane) * PACK < columns;
#pragma unroll
        for (int i = 0; i < PACK; ++i) {
            const float apart = inside ? value[step][i] - mean : 0.0f;
            aparts += apart;
            squares += apart * apart;
        }
    }
    const float rest = warp_sum(aparts) / columns;
    const float variance = fmaxf(warp_sum(squares) / columns - rest * rest, 0.0f);
    const float scale = 1.0f / sqrtf(variance + epsilon);
#pragma unroll
    for (int step = 0; step < STEPS; ++step) {
        const int column = (step * 32 + lane) * PACK;
        if (column >= columns)
            break;
        Pack pack;
#pragma unroll
        for (int i = 0; i < PACK; ++i)
            pack.at[i] = from_float(normalised(value[step][i], mean, rest, scale, weight, bias, column + i));
        *reinterpret_cast<Pack *>(y + start + column) = pack;
    }
}

struct Moments {  // count, mean and what it lacks, sum of squares about both
    float count, mean, rest, squares;

    __device__ void add(float value)
    {
        count += 1.0f;
        const float apart = value - mean - rest;
        move(apart / count);
        squares += apart * (value - mean - rest);
    }

    __device__ void merge(const Moments &other)
    {
        const float both = count + other.count;
        if (both == 0.0f)
            return;
        const float apart = other.mean - mean + (other.rest - rest);
        move(apart * (other.count / both));
        squares += other.squares + apart * apart * (count * other.count / both);
        count = both;
    }

  private:
    __device__ void move(float step)
    {
        step += rest;
        const float moved = mean + step;
        rest = step - (moved - mean);
        mean = moved;
    }
};

__device__ __forceinline__ Moments from_below(const Moments &mine, int lanes)
{
    return {__shfl_down_sync(FULL_WARP, mine.count, lanes), __shfl_down_sync(FULL_WARP, mine.mean, lanes),
            __shfl_down_sync(FULL_WARP, mine.rest, lanes), __shfl_down_sync(FULL_WARP, mine.squares, lanes)};
}

// Block: BLOCK threads (a multiple of 32). Grid: (rows). columns: a multiple of PACK.
extern "C" __global__ void __launch_bounds__(BLOCK) layer_norm_block(const T *x, const T *weight, const T *bias, T *y,
                                                                     int columns, float epsilon)
{
    __shared__ Moments parts[BLOCK / 32];
    const long long start = static_cast<long long>(blockIdx.x) * columns;
    Moments mine = {};
    for (int column = threadIdx.x * PACK; column < columns; column += BLOCK * PACK) {
        const Pack pack = *reinterpret_cast<const Pack *>(x + start + column);
#pragma unroll
        for (int i = 0; i < PACK; ++i)
            mine.add(to_float(pack.at[i]));
    }
    for (int lanes = 16; lanes > 0; lanes >>= 1)
        mine.merge(from_below(mine, lanes));
    if (threadIdx.x % 32 == 0)
        parts[threadIdx.x / 32] = mine;
    __syncthreads();
    Moments all = parts[0];
#pragma unroll
    for (int warp = 1; warp < BLOCK / 32; ++warp)
        all.merge(parts[warp]);
    const float scale = 1.0f / sqrtf(all.squares / columns + epsilon);
    for (int column = threadIdx.x * PACK; column < columns; column += BLOCK * PACK) {
        Pack pack = *reinterpret_cast<const Pack *>(x + start + column);
#pragma unroll
        for (int i = 0; i < PACK; ++i)
            pack.at[i] = from_float(normalised(to_float(pack.at[i]), all.mean, all.rest, scale, weight, bias, column + i));
        *reinterpret_cast<Pack *>(y + start + column) = pack;
    }
}
