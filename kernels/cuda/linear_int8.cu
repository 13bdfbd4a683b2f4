// A linear layer in signed bytes: y (m, n) = x (m, k) W^T (k, n), W being (n, k), x quantised per row and W per row
// (output channel), symmetrically: value = byte * scale. The sum of products is an exact 32-bit integer
// (k < 2^31 / 127^2 = 133,152), so that every path gives the same bits: y = float(sum) * (scale_x * scale_w) + bias.
//
// quantise_rows: a warp per row, scale = largest |x| / 127, bytes rounded to nearest even.
// linear_dp4a: four products per instruction (__dp4a). A block per 64 x 64 results, a thread per 4 x 4.
// linear_mma: tensor cores, m16n8k32, with the tiles and stages of matmul_tensor.cu.

#include "element.cuh"
#include "mma.cuh"
#include "rows.cuh"

// x: (rows, columns) float. bytes: (rows, stride), zeros beyond columns. scales: (rows,). A row with a NaN or an
// infinity gets the scale NaN and bytes 0; one of zeros the scale 0. Block: (32, 8). Grid: (ceil(rows / 8)).
extern "C" __global__ void quantise_rows(const float *x, signed char *bytes, float *scales, int rows, int columns,
                                         int stride)
{
    const int row = blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows)
        return;
    const float *from = x + static_cast<long long>(row) * columns;
    signed char *to = bytes + static_cast<long long>(row) * stride;
    float largest = 0.0f;
    for (int column = threadIdx.x; column < columns; column += 32) {
        const float size = fabsf(from[column]);
        largest = largest != largest || size != size ? NAN : fmaxf(largest, size);
    }
    largest = warp_max(largest);
    const bool finite = largest < INFINITY;
    const float scale = finite ? __fdiv_rn(largest, 127.0f) : NAN;
    for (int column = threadIdx.x; column < stride; column += 32) {
        float value = column < columns && finite && scale > 0.0f ? rintf(__fdiv_rn(from[column], scale)) : 0.0f;
        value = fminf(fmaxf(value, -127.0f), 127.0f);  // a denormal scale has few digits
        to[column] = static_cast<signed char>(value);
    }
    if (threadIdx.x == 0)
        scales[row] = scale;
}

__device__ __forceinline__ float dequantised(int sum, float scale_x, float scale_w, float bias)
{
    return __fadd_rn(__fmul_rn(static_cast<float>(sum), __fmul_rn(scale_x, scale_w)), bias);
}

// k: a multiple of 16 (rows padded with zeros). bias: (n,). Block: 256. Grid: (ceil(n / 64), ceil(m / 64)).
extern "C" __global__ void __launch_bounds__(256)
    linear_dp4a(const signed char *x, const float *scale_x, const signed char *w, const float *scale_w,
                const float *bias, float *y, int m, int n, int k)
{
    const int words = k / 4;
    const int *words_x = reinterpret_cast<const int *>(x), *words_w = reinterpret_cast<const int *>(w);
    __shared__ int tile_x[64][17], tile_w[64][17];
    const int across = threadIdx.x % 16, down = threadIdx.x / 16;
    const int row0 = blockIdx.y * 64, column0 = blockIdx.x * 64;
    int sum[4][4] = {};
    for (int first = 0; first < words; first += 16) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int line = down + 16 * i, word = first + across;
            tile_x[line][across]
                = row0 + line < m && word < words ? words_x[static_cast<long long>(row0 + line) * words + word] : 0;
            tile_w[line][across]
                = column0 + line < n && word < words ? words_w[static_cast<long long>(column0 + line) * words + word] : 0;
        }
        __syncthreads();
#pragma unroll
        for (int word = 0; word < 16; ++word)
#pragma unroll
            for (int i = 0; i < 4; ++i)
#pragma unroll
                for (int j = 0; j < 4; ++j)
                    sum[i][j] = __dp4a(tile_x[down + 16 * i][word], tile_w[across + 16 * j][word], sum[i][j]);
        __syncthreads();
    }
    for (int i = 0; i < 4; ++i)
        for (int j = 0; j < 4; ++j) {
            const int row = row0 + down + 16 * i, column = column0 + across + 16 * j;
            if (row < m && column < n)
                y[static_cast<long long>(row) * n + column]
                    = dequantised(sum[i][j], scale_x[row], scale_w[column], bias[column]);
        }
}

#ifndef BM
#define BM 128
#endif
#ifndef BN
#define BN 128
#endif
#ifndef BK
#define BK 64  // bytes
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
#define WM (BM / WARPS_M)
#define WN (BN / WARPS_N)
#define THREADS (32 * WARPS_M * WARPS_N)
#define STAGE_BYTES ((BM + BN) * BK)

__device__ __forceinline__ void copy_tile(Copies &copies, unsigned char *to, const signed char *from, int lines,
                                          int line0, int count, int first, int k)
{
#pragma unroll
    for (int at = threadIdx.x; at < lines * (BK / 16); at += THREADS) {
        const int line = at / (BK / 16), chunk = at % (BK / 16), i = first + chunk * 16;
        const bool valid = line0 + line < count && i < k;
        const signed char *source = valid ? from + static_cast<long long>(line0 + line) * k + i : from;
        copies.copy16(to + swizzled<BK / 16>(line, chunk), source, valid);
    }
}

// k: a multiple of 16. Block: THREADS. Grid: (ceil(n / BN), ceil(m / BM)). Shared: STAGES * STAGE_BYTES.
extern "C" __global__ void __launch_bounds__(THREADS)
    linear_mma(const signed char *x, const float *scale_x, const signed char *w, const float *scale_w,
               const float *bias, float *y, int m, int n, int k)
{
    DYNAMIC_SHARED(unsigned char, shared);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int warp_m = warp / WARPS_N * WM, warp_n = warp % WARPS_N * WN;
    const int row0 = blockIdx.y * BM, column0 = blockIdx.x * BN;
    Copies copies;
    int sum[WM / 16][WN / 8][4] = {};
    const int tiles = (k + BK - 1) / BK;
    for (int tile = 0; tile < STAGES - 1; ++tile) {
        if (tile < tiles) {
            copy_tile(copies, shared + tile * STAGE_BYTES, x, BM, row0, m, tile * BK, k);
            copy_tile(copies, shared + tile * STAGE_BYTES + BM * BK, w, BN, column0, n, tile * BK, k);
        }
        copies.commit();
    }
    for (int tile = 0; tile < tiles; ++tile) {
        copies.wait<STAGES - 2>();
        __syncthreads();  // the tile is here for all, and all are done with the one before
        const int next = tile + STAGES - 1;
        if (next < tiles) {
            unsigned char *stage = shared + next % STAGES * STAGE_BYTES;
            copy_tile(copies, stage, x, BM, row0, m, next * BK, k);
            copy_tile(copies, stage + BM * BK, w, BN, column0, n, next * BK, k);
        }
        copies.commit();
        const unsigned char *tile_x = shared + tile % STAGES * STAGE_BYTES, *tile_w = tile_x + BM * BK;
#pragma unroll
        for (int chunk = 0; chunk < BK / 16; chunk += 2) {
            unsigned left[WM / 16][4], right[WN / 16][4];
#pragma unroll
            for (int i = 0; i < WM / 16; ++i)
                load_matrices(left[i], tile_x + swizzled<BK / 16>(warp_m + i * 16 + lane % 16, chunk + lane / 16));
#pragma unroll
            for (int j = 0; j < WN / 16; ++j)
                load_matrices(right[j], tile_w + swizzled<BK / 16>(warp_n + j * 16 + lane % 8 + lane / 16 * 8,
                                                                   chunk + lane / 8 % 2));
#pragma unroll
            for (int i = 0; i < WM / 16; ++i)
#pragma unroll
                for (int j = 0; j < WN / 8; ++j)
                    multiply_add(sum[i][j], left[i], right[j / 2][j % 2 * 2], right[j / 2][j % 2 * 2 + 1]);
        }
    }
#pragma unroll
    for (int i = 0; i < WM / 16; ++i)
#pragma unroll
        for (int j = 0; j < WN / 8; ++j)
#pragma unroll
            for (int at = 0; at < 4; ++at) {
                const int row = row0 + warp_m + i * 16 + at / 2 * 8 + lane / 4;
                const int column = column0 + warp_n + j * 8 + lane % 4 * 2 + at % 2;
                if (row < m && column < n)
                    y[static_cast<long long>(row) * n + column]
                        = dequantised(sum[i][j][at], scale_x[row], scale_w[column], bias[column]);
            }
}
