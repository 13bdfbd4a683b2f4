// Matrix multiply on Hopper's warpgroups: C (m, n) = A (m, k) B (k, n), row-major, of halves (-DHALF) or bfloat16
// (-DBF16), summed in float, rounded once at the end.
// nvcc: -arch=sm_90a
//
// A block has 128 x BN results, each of its two warpgroups 64 x BN in registers. Tiles of 64 along k travel through
// STAGES of shared memory (cp.async), from where wgmma reads them. While one tile is multiplied, the next waits in
// line, so that the tensor cores never stand still at a barrier: a stage is filled again two tiles after its own.

#include "element.cuh"
#include "mma.cuh"
#include "hopper.cuh"

#ifndef BN
#define BN 256  // or 128
#endif
#ifndef STAGES
#define STAGES 4
#endif
#ifndef GROUP
#define GROUP 8  // rows of blocks that run together, so that they share their columns of B in the L2 cache
#endif
#define BM 128
#define BK 64
#define THREADS 256
#define BYTES_A (BM * BK * 2)
#define PANEL (BK * 128)  // bytes of 64 columns of B
#define BYTES (BYTES_A + BN / 64 * PANEL)

__device__ __forceinline__ void load_tiles(Copies &copies, unsigned char *stage, const T *a, const T *b, int row0,
                                           int column0, int first, int m, int n, int k)
{
#pragma unroll
    for (int at = threadIdx.x; at < BM * 8; at += THREADS) {
        const int row = at / 8, chunk = at % 8, i = first + chunk * 8;
        const bool valid = row0 + row < m && i < k;
        const T *from = valid ? a + static_cast<long long>(row0 + row) * k + i : a;
        copies.copy16(stage + swizzled<8>(row, chunk), from, valid);
    }
#pragma unroll
    for (int at = threadIdx.x; at < BK * BN / 8; at += THREADS) {
        const int row = at / (BN / 8), chunk = at % (BN / 8), column = column0 + chunk * 8;
        const bool valid = first + row < k && column < n;
        const T *from = valid ? b + static_cast<long long>(first + row) * n + column : b;
        copies.copy16(stage + BYTES_A + chunk / 8 * PANEL + swizzled<8>(row, chunk % 8), from, valid);
    }
}

// n and k: multiples of 8, rows at multiples of 16 bytes. Block: 256. Grid: ceil(m / 128) * ceil(n / BN).
// Shared: STAGES * BYTES + 1024 bytes.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    matmul_wgmma(const T *a, const T *b, T *c, int m, int n, int k)
{
    DYNAMIC_SHARED(unsigned char, raw);
    unsigned char *shared = raw + (1024 - reinterpret_cast<unsigned long long>(raw) % 1024) % 1024;
    const int down = (m + BM - 1) / BM, across = (n + BN - 1) / BN;
    const int group = blockIdx.x / (GROUP * across), inside = blockIdx.x % (GROUP * across);
    const int rows = min(GROUP, down - group * GROUP);
    const int row0 = (group * GROUP + inside % rows) * BM, column0 = inside / rows * BN;
    const int warpgroup = threadIdx.x / 128;
    Copies copies;
    float sum[BN / 2];
#pragma unroll
    for (int i = 0; i < BN / 2; ++i)
        sum[i] = 0.0f;

    const int tiles = (k + BK - 1) / BK;
    for (int tile = 0; tile < STAGES - 2; ++tile) {
        if (tile < tiles)
            load_tiles(copies, shared + tile * BYTES, a, b, row0, column0, tile * BK, m, n, k);
        copies.commit();
    }
    for (int tile = 0; tile < tiles; ++tile) {
        copies.wait<STAGES - 3>();
        publish();
        __syncthreads();  // the tile is here for all, and nobody reads the one before the last any more
        const unsigned char *stage = shared + tile % STAGES * BYTES;
        begin_group();
#pragma unroll
        for (int i = 0; i < BK / 16; ++i) {
            const Operand left{stage + warpgroup * 64 * 128 + i * 32, 16, 1024};
            const Operand right{stage + BYTES_A + i * 2048, PANEL, 1024};
            multiply_group(sum, left, right);
        }
        end_group();
        const int next = tile + STAGES - 2;
        if (next < tiles)
            load_tiles(copies, shared + next % STAGES * BYTES, a, b, row0, column0, next * BK, m, n, k);
        copies.commit();
        wait_groups<1>();  // the tile before is done
    }
    wait_groups<0>();
    hold(sum);
    const int row = row0 + warpgroup * 64 + threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4;
#pragma unroll
    for (int i = 0; i < BN / 2; i += 2) {
        const int at = row + i / 2 % 2 * 8, column = column0 + i / 4 * 8 + threadIdx.x % 4 * 2;
        if (at < m && column < n) {
            const T two[2] = {from_float(sum[i]), from_float(sum[i + 1])};
            *reinterpret_cast<unsigned *>(c + static_cast<long long>(at) * n + column) = bits_of(two);
        }
    }
}
