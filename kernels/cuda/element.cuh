// The element type T of a kernel: float, or (with -DHALF or -DBF16) a 16-bit type that is computed in float.
// A pack is what one thread moves at a time: PACK elements in one 16-byte access, or single elements.

#pragma once

#include "common.cuh"

#if defined(HALF)
typedef __half T;
__device__ __forceinline__ float to_float(T value) { return __half2float(value); }
__device__ __forceinline__ T from_float(float value) { return __float2half_rn(value); }
#elif defined(BF16)
typedef __nv_bfloat16 T;
__device__ __forceinline__ float to_float(T value) { return __bfloat162float(value); }
__device__ __forceinline__ T from_float(float value) { return __float2bfloat16_rn(value); }
#else
typedef float T;
__device__ __forceinline__ float to_float(T value) { return value; }
__device__ __forceinline__ T from_float(float value) { return value; }
#endif

#ifndef PACK
#define PACK 1  // 16 / sizeof(T) where all rows begin at multiples of 16 bytes
#endif

struct alignas(PACK * sizeof(T)) Pack {
    T at[PACK];
};
