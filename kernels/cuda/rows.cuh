// Reductions of a warp's lanes, and of a block's warps, that every thread gets the result of.

#pragma once

#define FULL_WARP 0xffffffffu

__device__ __forceinline__ float warp_sum(float value)
{
    for (int lanes = 16; lanes > 0; lanes >>= 1)
        value += __shfl_xor_sync(FULL_WARP, value, lanes);
    return value;
}

__device__ __forceinline__ float warp_max(float value)
{
    for (int lanes = 16; lanes > 0; lanes >>= 1) {
        const float other = __shfl_xor_sync(FULL_WARP, value, lanes);
        value = value != value || other != other ? value + other : fmaxf(value, other);  // NaN stays
    }
    return value;
}

// Over the four lanes that hold a row of a fragment of mma.
__device__ __forceinline__ float quad_max(float value)
{
    value = fmaxf(value, __shfl_xor_sync(FULL_WARP, value, 1));
    return fmaxf(value, __shfl_xor_sync(FULL_WARP, value, 2));
}

__device__ __forceinline__ float quad_sum(float value)
{
    value += __shfl_xor_sync(FULL_WARP, value, 1);
    return value + __shfl_xor_sync(FULL_WARP, value, 2);
}
