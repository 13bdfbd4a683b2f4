// A warpgroup's tensor-core instructions of Hopper (sm_90a): wgmma, whose operands lie in shared memory.
//
// Operands are tiles whose rows of 128 bytes are swizzled as mma.cuh does (`swizzled<8>`), which is the layout that
// the instruction set calls 128-byte swizzle; they begin at multiples of 1024 bytes (PTX ISA, "Asynchronous
// warpgroup level matrix instructions": canonical layouts, matrix descriptor).
//   a: rows of 64 values along k. `stride`: bytes from eight rows to the next eight.
//   b: rows of 64 values along n. `stride`: bytes from eight values of k to the next eight; `leading`: from 64
//      values of n to the next 64.
// The sums of m64nNk16 lie as those of m16n8k16 (see mma.cuh), warp by warp and eight columns by eight.
//
// On a processor (CUDA_EMULATOR) the operands are read by the same rules when the instruction is issued: layouts
// and indices are checked there, the instruction, its fences and its waits only on a GPU.

#pragma once

struct Operand {
    const unsigned char *at;
    unsigned leading, stride;
};

#ifndef CUDA_EMULATOR

#ifdef HALF
#define ELEMENT "f16"
#else
#define ELEMENT "bf16"
#endif

__device__ __forceinline__ unsigned long long described(const Operand &operand)
{
    const unsigned at = static_cast<unsigned>(__cvta_generic_to_shared(operand.at));
    return static_cast<unsigned long long>((at & 0x3ffff) >> 4) | static_cast<unsigned long long>(operand.leading >> 4) << 16
           | static_cast<unsigned long long>(operand.stride >> 4) << 32 | 1ull << 62;  // 1: 128-byte swizzle
}

// What this thread has written to shared memory is there for the tensor cores, once a barrier has been passed.
__device__ __forceinline__ void publish() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Before the first instruction on registers that other instructions wrote.
__device__ __forceinline__ void begin_group() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

__device__ __forceinline__ void end_group() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Returns when all but the latest GROUPS groups are done.
template <int GROUPS> __device__ __forceinline__ void wait_groups()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(GROUPS) : "memory");
}

// After a wait: keeps the compiler from reading registers of a group before it.
template <int N> __device__ __forceinline__ void hold(float (&values)[N])
{
#pragma unroll
    for (int i = 0; i < N; ++i)
        asm volatile("" : "+f"(values[i])::"memory");
}

#define SUMS4(i) "+f"(sum[i]), "+f"(sum[i + 1]), "+f"(sum[i + 2]), "+f"(sum[i + 3])
#define SUMS8(i) SUMS4(i), SUMS4(i + 4)

// sum (64, N) += a (64, 16) b (16, N), for N = 128 and 256.
__device__ __forceinline__ void multiply_group(float (&sum)[64], const Operand &a, const Operand &b)
{
    asm volatile("{ .reg .pred add; setp.ne.b32 add, 1, 0; "
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32." ELEMENT "." ELEMENT " {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
                 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
                 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63 "
                 "}, %64, %65, add, 1, 1, 0, 1; }"
                 : SUMS8(0), SUMS8(8), SUMS8(16), SUMS8(24), SUMS8(32), SUMS8(40), SUMS8(48), SUMS8(56)
                 : "l"(described(a)), "l"(described(b)));
}

__device__ __forceinline__ void multiply_group(float (&sum)[128], const Operand &a, const Operand &b)
{
    asm volatile("{ .reg .pred add; setp.ne.b32 add, 1, 0; "
                 "wgmma.mma_async.sync.aligned.m64n256k16.f32." ELEMENT "." ELEMENT " {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
                 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
                 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
                 "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
                 "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
                 "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "
                 "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127 "
                 "}, %128, %129, add, 1, 1, 0, 1; }"
                 : SUMS8(0), SUMS8(8), SUMS8(16), SUMS8(24), SUMS8(32), SUMS8(40), SUMS8(48), SUMS8(56),
                 SUMS8(64), SUMS8(72), SUMS8(80), SUMS8(88), SUMS8(96), SUMS8(104), SUMS8(112), SUMS8(120)
                 : "l"(described(a)), "l"(described(b)));
}

// sum (64, 128) += a (64, 16) b (128, 16) transposed: b's rows, too, lie along k. If not `begun`, sum = that.
__device__ __forceinline__ void multiply_keys(float (&sum)[64], const Operand &a, const Operand &b, bool begun)
{
    asm volatile("{ .reg .pred add; setp.ne.b32 add, %66, 0; "
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32." ELEMENT "." ELEMENT " {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
                 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
                 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63 "
                 "}, %64, %65, add, 1, 1, 0, 0; }"
                 : SUMS8(0), SUMS8(8), SUMS8(16), SUMS8(24), SUMS8(32), SUMS8(40), SUMS8(48), SUMS8(56)
                 : "l"(described(a)), "l"(described(b)), "r"(static_cast<int>(begun)));
}

// sum (64, N) += a (64, 16) b (16, N), a in registers as in m16n8k16, warp by warp; for N = 64 and 128.
__device__ __forceinline__ void multiply_values(float (&sum)[32], const unsigned (&a)[4], const Operand &b)
{
    asm volatile("{ .reg .pred add; setp.ne.b32 add, 1, 0; "
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32." ELEMENT "." ELEMENT " {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31 "
                 "}, {%32, %33, %34, %35}, %36, add, 1, 1, 1; }"
                 : SUMS8(0), SUMS8(8), SUMS8(16), SUMS8(24)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(described(b)));
}

__device__ __forceinline__ void multiply_values(float (&sum)[64], const unsigned (&a)[4], const Operand &b)
{
    asm volatile("{ .reg .pred add; setp.ne.b32 add, 1, 0; "
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32." ELEMENT "." ELEMENT " {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
                 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
                 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63 "
                 "}, {%64, %65, %66, %67}, %68, add, 1, 1, 1; }"
                 : SUMS8(0), SUMS8(8), SUMS8(16), SUMS8(24), SUMS8(32), SUMS8(40), SUMS8(48), SUMS8(56)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(described(b)));
}

#else  // the same on a processor

__device__ inline void publish() {}
__device__ inline void begin_group() {}
__device__ inline void end_group() { cuda_emulator::end_held_group(); }
template <int GROUPS> __device__ void wait_groups() { cuda_emulator::release_groups(GROUPS); }
template <int N> __device__ void hold(float (&)[N]) {}

// Rows of 128 bytes, eight by eight; `at` may begin within the first row.
__device__ inline void hold_rows(const unsigned char *at, int rows, unsigned stride)
{
    const unsigned char *row = at - reinterpret_cast<unsigned long long>(at) % 128;
    for (int eight = 0; eight < rows / 8; ++eight)
        cuda_emulator::hold_still(row + eight * stride, 8 * 128);
}

__device__ inline void hold_columns(const Operand &b, int columns)
{
    for (int block = 0; block < columns / 64; ++block)
        hold_rows(b.at + block * b.leading, 16, b.stride);
}

__device__ inline float value_at(const unsigned char *start, unsigned offset)
{
    unsigned long long at = reinterpret_cast<unsigned long long>(start) + offset;
    at ^= (at >> 7 & 7) << 4;
    return to_float(*reinterpret_cast<const T *>(at));
}

template <int SUMS> __device__ void multiply_group(float (&sum)[SUMS], const Operand &a, const Operand &b)
{
    hold_rows(a.at, 64, a.stride);
    hold_columns(b, 2 * SUMS);
    const int row0 = threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4, column0 = threadIdx.x % 4 * 2;
    for (int i = 0; i < SUMS; ++i) {
        const int row = row0 + i / 2 % 2 * 8, column = i / 4 * 8 + column0 + i % 2;
        for (int k = 0; k < 16; ++k)
            sum[i] += value_at(a.at, row / 8 * a.stride + row % 8 * 128 + k * 2)
                      * value_at(b.at, column / 64 * b.leading + column % 64 * 2 + k / 8 * b.stride + k % 8 * 128);
    }
}

template <int SUMS>
__device__ void multiply_keys(float (&sum)[SUMS], const Operand &a, const Operand &b, bool begun)
{
    hold_rows(a.at, 64, a.stride);
    hold_rows(b.at, 2 * SUMS, b.stride);
    const int row0 = threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4, column0 = threadIdx.x % 4 * 2;
    for (int i = 0; i < SUMS; ++i) {
        const int row = row0 + i / 2 % 2 * 8, column = i / 4 * 8 + column0 + i % 2;
        sum[i] = begun ? sum[i] : 0.0f;
        for (int k = 0; k < 16; ++k)
            sum[i] += value_at(a.at, row / 8 * a.stride + row % 8 * 128 + k * 2)
                      * value_at(b.at, column / 8 * b.stride + column % 8 * 128 + k * 2);
    }
}

template <int SUMS> __device__ void multiply_values(float (&sum)[SUMS], const unsigned (&a)[4], const Operand &b)
{
    hold_columns(b, 2 * SUMS);
    const int lane = threadIdx.x % 32, column0 = lane % 4 * 2;
    for (int k = 0; k < 16; ++k)
        for (int half = 0; half < 2; ++half) {
            const unsigned pair = __shfl_sync(0xffffffffu, a[k / 8 * 2 + half], lane / 4 * 4 + k % 8 / 2);
            T two[2];
            std::memcpy(two, &pair, 4);
            for (int i = 0; i < SUMS; ++i) {
                const int column = i / 4 * 8 + column0 + i % 2;
                if (i / 2 % 2 == half)
                    sum[i] += to_float(two[k % 2])
                              * value_at(b.at, column / 64 * b.leading + column % 64 * 2 + k / 8 * b.stride
                                                   + k % 8 * 128);
            }
        }
}

#endif
