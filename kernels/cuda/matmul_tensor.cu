// Matrix multiply on tensor cores: C (m, n) = A (m, k) B (k, n), row-major, of halves (-DHALF) or bfloat16 (-DBF16),
// summed in float, rounded once at the end.
//
// matmul_wmma: the smallest step, a warp per 16 x 16 results through the WMMA interface, all from device memory.
// matmul_mma: a block per BM x BN results. STAGES tiles travel through shared memory (cp.async), swizzled so that
//   ldmatrix meets no bank twice; a warp multiplies WM x WN with mma.sync m16n8k16. A warpgroup version (wgmma)
//   would keep the tiles and stages and replace the inner loop.

#include "element.cuh"
#include "mma.cuh"

#ifndef BM
#define BM 128
#endif
#ifndef BN
#define BN 128
#endif
#ifndef BK
#define BK 32
#endif
#ifndef STAGES
#define STAGES 4
#endif
#ifndef WARPS_M
#define WARPS_M 2
#endif
#ifndef WARPS_N
#define WARPS_N 4
#endif
#ifndef GROUP
#define GROUP 8  // rows of blocks that run together, so that they share their columns of B in the L2 cache
#endif
#define WM (BM / WARPS_M)
#define WN (BN / WARPS_N)
#define THREADS (32 * WARPS_M * WARPS_N)
#define BYTES_A (BM * BK * 2)
#define BYTES_B (BK * BN * 2)

#ifndef CUDA_EMULATOR
#include <mma.h>

// Block: (32, 4). Grid: (n / 16, ceil(m / 64)). m, n and k: multiples of 16.
extern "C" __global__ void matmul_wmma(const T *a, const T *b, T *c, int m, int n, int k)
{
    using namespace nvcuda;
    __shared__ __align__(16) float result[4][16 * 16];
    const int row = (blockIdx.y * 4 + threadIdx.y) * 16, column = blockIdx.x * 16;
    if (row >= m)
        return;
    wmma::fragment<wmma::matrix_a, 16, 16, 16, T, wmma::row_major> left;
    wmma::fragment<wmma::matrix_b, 16, 16, 16, T, wmma::row_major> right;
    wmma::fragment<wmma::accumulator, 16, 16, 16, float> sum;
    wmma::fill_fragment(sum, 0.0f);
    for (int i = 0; i < k; i += 16) {
        wmma::load_matrix_sync(left, a + static_cast<long long>(row) * k + i, k);
        wmma::load_matrix_sync(right, b + static_cast<long long>(i) * n + column, n);
        wmma::mma_sync(sum, left, right, sum);
    }
    wmma::store_matrix_sync(result[threadIdx.y], sum, 16, wmma::mem_row_major);
    __syncwarp();
    for (int i = threadIdx.x; i < 256; i += 32)
        c[static_cast<long long>(row + i / 16) * n + column + i % 16] = from_float(result[threadIdx.y][i]);
}
#endif

// This block's tile: GROUP rows of tiles are walked column by column.
__device__ __forceinline__ void tile_of_block(int m, int n, int &row0, int &column0)
{
    const int down = (m + BM - 1) / BM, across = (n + BN - 1) / BN;
    const int group = blockIdx.x / (GROUP * across), first = group * GROUP;
    const int rows = min(GROUP, down - first), inside = blockIdx.x - group * GROUP * across;
    row0 = (first + inside % rows) * BM;
    column0 = inside / rows * BN;
}

__device__ __forceinline__ void load_tiles(Copies &copies, unsigned char *stage, const T *a, const T *b, int row0,
                                           int column0, int first, int m, int n, int k)
{
#pragma unroll
    for (int at = threadIdx.x; at < BM * BK / 8; at += THREADS) {
        const int row = at / (BK / 8), chunk = at % (BK / 8), i = first + chunk * 8;
        const bool valid = row0 + row < m && i < k;
        const T *from = valid ? a + static_cast<long long>(row0 + row) * k + i : a;
        copies.copy16(stage + swizzled<BK / 8>(row, chunk), from, valid);
    }
#pragma unroll
    for (int at = threadIdx.x; at < BK * BN / 8; at += THREADS) {
        const int row = at / (BN / 8), chunk = at % (BN / 8), column = column0 + chunk * 8;
        const bool valid = first + row < k && column < n;
        const T *from = valid ? b + static_cast<long long>(first + row) * n + column : b;
        copies.copy16(stage + BYTES_A + swizzled<BN / 8>(row, chunk), from, valid);
    }
}

// n and k: multiples of 8, rows at multiples of 16 bytes. Block: THREADS. Grid: ceil(m / BM) * ceil(n / BN).
// Shared: STAGES * (BYTES_A + BYTES_B) bytes.
extern "C" __global__ void __launch_bounds__(THREADS)
    matmul_mma(const T *a, const T *b, T *c, int m, int n, int k)
{
    DYNAMIC_SHARED(unsigned char, shared);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int warp_m = warp / WARPS_N * WM, warp_n = warp % WARPS_N * WN;
    int row0, column0;
    tile_of_block(m, n, row0, column0);
    Copies copies;
    float sum[WM / 16][WN / 8][4] = {};

    const int tiles = (k + BK - 1) / BK;
    for (int tile = 0; tile < STAGES - 1; ++tile) {
        if (tile < tiles)
            load_tiles(copies, shared + tile * (BYTES_A + BYTES_B), a, b, row0, column0, tile * BK, m, n, k);
        copies.commit();
    }
    for (int tile = 0; tile < tiles; ++tile) {
        copies.wait<STAGES - 2>();
        __syncthreads();  // the tile is here for all, and all are done with the one before
        const int next = tile + STAGES - 1;
        if (next < tiles)
            load_tiles(copies, shared + next % STAGES * (BYTES_A + BYTES_B), a, b, row0, column0, next * BK, m, n, k);
        copies.commit();
        const unsigned char *tile_a = shared + tile % STAGES * (BYTES_A + BYTES_B), *tile_b = tile_a + BYTES_A;
#pragma unroll
        for (int i = 0; i < BK; i += 16) {
            unsigned left[WM / 16][4], right[WN / 16][4];
#pragma unroll
            for (int y = 0; y < WM / 16; ++y)
                load_matrices(left[y],
                              tile_a + swizzled<BK / 8>(warp_m + y * 16 + lane % 16, i / 8 + lane / 16));
#pragma unroll
            for (int x = 0; x < WN / 16; ++x)
                load_transposed(right[x],
                                tile_b + swizzled<BN / 8>(i + lane % 16, (warp_n + x * 16) / 8 + lane / 16));
#pragma unroll
            for (int y = 0; y < WM / 16; ++y)
#pragma unroll
                for (int x = 0; x < WN / 8; ++x)
                    multiply_add(sum[y][x], left[y], right[x / 2][x % 2 * 2], right[x / 2][x % 2 * 2 + 1]);
        }
    }
#pragma unroll
    for (int y = 0; y < WM / 16; ++y)
#pragma unroll
        for (int x = 0; x < WN / 8; ++x)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const int row = row0 + warp_m + y * 16 + half * 8 + lane / 4;
                const int column = column0 + warp_n + x * 8 + lane % 4 * 2;
                if (row < m && column < n)
                    *reinterpret_cast<unsigned *>(c + static_cast<long long>(row) * n + column)
                        = packed(sum[y][x][half * 2], sum[y][x][half * 2 + 1]);
            }
}
