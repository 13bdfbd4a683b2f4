// One warp's tensor-core instructions, and copies that run while it computes: the PTX of sm_80 and later.
//
// Registers of m16n8k16 (PTX ISA, "Matrix fragments"; group = lane / 4, member = lane % 4; a register holds two
// 16-bit values, or four of 8 bits, that lie side by side along k):
//   a[0] row group, k 2 member; a[1] row group + 8; a[2] row group, k + 8; a[3] row group + 8, k + 8
//   b[0] column group, k 2 member; b[1] k + 8.   c[0], c[1] row group, columns 2 member, + 1; c[2], c[3] row + 8
//
// On a processor (CUDA_EMULATOR) the same functions follow that table with shuffles, and a copy takes place when
// it is waited for: indices, swizzles and missing waits are checked there, the PTX itself only on a GPU.

#pragma once

__device__ __forceinline__ unsigned bits_of(const void *two_values)
{
    return *static_cast<const unsigned *>(two_values);
}

// Two numbers as a register of 16-bit values (see element.cuh, which comes first).
__device__ __forceinline__ unsigned packed(float first, float second)
{
    const T two[2] = {from_float(first), from_float(second)};
    return bits_of(two);
}

#ifndef CUDA_EMULATOR

// Four 8 x 8 matrices of 16-bit values: lane l names the 16 bytes of row l % 8 of matrix l / 8.
__device__ __forceinline__ void load_matrices(unsigned (&out)[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(static_cast<unsigned>(__cvta_generic_to_shared(row)))
                 : "memory");
}

// The same, each matrix transposed.
__device__ __forceinline__ void load_transposed(unsigned (&out)[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(static_cast<unsigned>(__cvta_generic_to_shared(row)))
                 : "memory");
}

#define MMA(shape, c_constraint)                                                                              \
    asm volatile("mma.sync.aligned." shape " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"       \
                 : c_constraint(c[0]), c_constraint(c[1]), c_constraint(c[2]), c_constraint(c[3])                     \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1))

// c += a b, of halves or bfloat16, summed in float.
__device__ __forceinline__ void multiply_add(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1)
{
#ifdef HALF
    MMA("m16n8k16.row.col.f32.f16.f16.f32", "+f");
#else
    MMA("m16n8k16.row.col.f32.bf16.bf16.f32", "+f");
#endif
}

// c += a b, of signed bytes (k is 32), summed in int.
__device__ __forceinline__ void multiply_add(int (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1)
{
    MMA("m16n8k32.row.col.s32.s8.s8.s32", "+r");
}

// Copies of 16 bytes from device to shared memory that need no registers. Committed ones form a group.
struct Copies {
    // Zeros if not `valid`; `from` must be a readable address in any case.
    __device__ __forceinline__ void copy16(void *to, const void *from, bool valid)
    {
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(
                         static_cast<unsigned>(__cvta_generic_to_shared(to))),
                     "l"(from), "r"(valid ? 16 : 0)
                     : "memory");
    }

    __device__ __forceinline__ void commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

    // Returns when all but the latest `GROUPS` groups of this thread have arrived.
    template <int GROUPS> __device__ __forceinline__ void wait()
    {
        asm volatile("cp.async.wait_group %0;" ::"n"(GROUPS) : "memory");
    }
};

#else  // the same on a processor

#include <cstring>
#include <deque>
#include <vector>

__device__ inline const unsigned char *row_of(const void *row, int lane)
{
    return reinterpret_cast<const unsigned char *>(
        __shfl_sync(0xffffffffu, reinterpret_cast<unsigned long long>(row), lane));
}

__device__ inline void load_matrices(unsigned (&out)[4], const void *row)
{
    const int lane = threadIdx.x % 32;
    for (int matrix = 0; matrix < 4; ++matrix)
        std::memcpy(&out[matrix], row_of(row, matrix * 8 + lane / 4) + lane % 4 * 4, 4);
}

__device__ inline void load_transposed(unsigned (&out)[4], const void *row)
{
    const int lane = threadIdx.x % 32;
    for (int matrix = 0; matrix < 4; ++matrix) {
        unsigned short low, high;
        std::memcpy(&low, row_of(row, matrix * 8 + lane % 4 * 2) + lane / 4 * 2, 2);
        std::memcpy(&high, row_of(row, matrix * 8 + lane % 4 * 2 + 1) + lane / 4 * 2, 2);
        out[matrix] = low | static_cast<unsigned>(high) << 16;
    }
}

__device__ inline float products(unsigned a, unsigned b, float sum)
{
    T left[2], right[2];
    std::memcpy(left, &a, 4);
    std::memcpy(right, &b, 4);
    return sum + to_float(left[0]) * to_float(right[0]) + to_float(left[1]) * to_float(right[1]);
}

__device__ inline int products(unsigned a, unsigned b, int sum)
{
    return __dp4a(static_cast<int>(a), static_cast<int>(b), sum);
}

template <typename C> __device__ void multiply_add(C (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1)
{
    const int group = threadIdx.x % 32 / 4, pair = threadIdx.x % 4 * 2;
    for (int member = 0; member < 4; ++member) {
        unsigned left[4], right[2][2];
        for (int i = 0; i < 4; ++i)
            left[i] = __shfl_sync(0xffffffffu, a[i], group * 4 + member);
        for (int column = 0; column < 2; ++column) {
            right[column][0] = __shfl_sync(0xffffffffu, b0, (pair + column) * 4 + member);
            right[column][1] = __shfl_sync(0xffffffffu, b1, (pair + column) * 4 + member);
        }
        for (int i = 0; i < 4; ++i)
            c[i] = products(left[i / 2 + 2], right[i % 2][1], products(left[i / 2], right[i % 2][0], c[i]));
    }
}

struct Copies {
    struct Copy {
        void *to;
        const void *from;
        bool valid;
    };
    std::vector<Copy> open;
    std::deque<std::vector<Copy>> groups;

    // It may take place at any time until it is waited for: whoever still reads what lies there is too late.
    __attribute__((noinline)) void copy16(void *to, const void *from, bool valid)
    {
        CUDA_TOUCH(to, 16, cuda_emulator::WRITE);
        open.push_back({to, from, valid});
    }

    void commit()
    {
        groups.push_back(open);
        open.clear();
    }

    template <int GROUPS> void wait()
    {
        for (; groups.size() > GROUPS; groups.pop_front())
            for (const Copy &copy : groups.front())
                copy.valid ? std::memcpy(copy.to, copy.from, 16) : std::memset(copy.to, 0, 16);
    }
};

#endif

// Where 16-byte chunk `chunk` of row `row` lies in a tile with CHUNKS chunks a row (4 or a multiple of 8), in bytes:
// eight rows' chunks of one column, which a warp reads at once, fall into different banks.
template <int CHUNKS> __device__ __forceinline__ int swizzled(int row, int chunk)
{
    static_assert(CHUNKS == 4 || CHUNKS % 8 == 0, "rows of 64 bytes or of multiples of 128");
    const int turn = CHUNKS == 4 ? row / 2 % 4 : row % 8;
    return (row * CHUNKS + (chunk ^ turn)) * 16;
}
