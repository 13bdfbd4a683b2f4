// Matrix multiply in float: C (m, n) = A (m, k) B (k, n), all row-major. Three steps, each faster than the last:
//
// matmul_naive: a thread per result, all operands from device memory (2 loads per multiply-add).
// matmul_shared: a block per TILE x TILE results stages tiles of A and B in shared memory (2 / TILE loads).
// matmul_registers: a block per BM x BN results, a thread per 8 x 8 of them in registers, so that 16 values from
//   shared memory feed 64 multiply-adds; the next tiles travel from device memory while this one is computed
//   (double buffering). Layout as in "Anatomy of high-performance matrix multiplication" (Goto & van de Geijn,
//   2008), one level down: registers for its cache blocks.

#ifndef TILE
#define TILE 32
#endif

// Block: (TILE, TILE). Grid: (ceil(n / TILE), ceil(m / TILE)).
extern "C" __global__ void matmul_naive(const float *a, const float *b, float *c, int m, int n, int k)
{
    const int column = blockIdx.x * TILE + threadIdx.x, row = blockIdx.y * TILE + threadIdx.y;
    if (row >= m || column >= n)
        return;
    float sum = 0.0f;
    for (int i = 0; i < k; ++i)
        sum += a[static_cast<long long>(row) * k + i] * b[static_cast<long long>(i) * n + column];
    c[static_cast<long long>(row) * n + column] = sum;
}

// Block: (TILE, TILE). Grid: (ceil(n / TILE), ceil(m / TILE)).
extern "C" __global__ void matmul_shared(const float *a, const float *b, float *c, int m, int n, int k)
{
    __shared__ float tile_a[TILE][TILE], tile_b[TILE][TILE];
    const int x = threadIdx.x, y = threadIdx.y;
    const int column = blockIdx.x * TILE + x, row = blockIdx.y * TILE + y;
    float sum = 0.0f;
    for (int first = 0; first < k; first += TILE) {
        tile_a[y][x] = row < m && first + x < k ? a[static_cast<long long>(row) * k + first + x] : 0.0f;
        tile_b[y][x] = column < n && first + y < k ? b[static_cast<long long>(first + y) * n + column] : 0.0f;
        __syncthreads();
#pragma unroll
        for (int i = 0; i < TILE; ++i)
            sum += tile_a[y][i] * tile_b[i][x];
        __syncthreads();
    }
    if (row < m && column < n)
        c[static_cast<long long>(row) * n + column] = sum;
}

#define BM 128
#define BN 128
#ifndef BK
#ifdef ALIGNED
#define BK 16
#else
#define BK 8  // single loads need more registers
#endif
#endif
#define THREADS 256
#define LOADS_A (BM * BK / 4 / THREADS)
#define LOADS_B (BK * BN / 4 / THREADS)
#define PAD 4  // columns, so that the transposed stores of a warp meet in two banks and not in sixteen

// Four values of a row; what lies beyond the matrix is 0. With ALIGNED rows begin at multiples of 16 bytes.
__device__ __forceinline__ float4 load4(const float *matrix, int row, int rows, int column, int columns)
{
    float4 four = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (row >= rows || column >= columns)
        return four;
    const float *from = matrix + static_cast<long long>(row) * columns + column;
#ifdef ALIGNED
    return *reinterpret_cast<const float4 *>(from);
#else
    four.x = from[0];
    if (column + 1 < columns)
        four.y = from[1];
    if (column + 2 < columns)
        four.z = from[2];
    if (column + 3 < columns)
        four.w = from[3];
    return four;
#endif
}

__device__ __forceinline__ void store4(float *matrix, const float *four, int row, int rows, int column, int columns)
{
    if (row >= rows || column >= columns)
        return;
    float *to = matrix + static_cast<long long>(row) * columns + column;
#ifdef ALIGNED
    *reinterpret_cast<float4 *>(to) = make_float4(four[0], four[1], four[2], four[3]);
#else
    for (int i = 0; i < 4 && column + i < columns; ++i)
        to[i] = four[i];
#endif
}

// Block: 256. Grid: (ceil(n / 128), ceil(m / 128)). The warps lie 4 x 2, each over 32 x 64 results; a lane holds
// four 4 x 4 pieces of those, 16 rows and 32 columns apart, so that a warp's reads of shared memory are one
// 128-byte row of B and four broadcasts of A.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
    matmul_registers(const float *a, const float *b, float *c, int m, int n, int k)
{
    __shared__ __align__(16) float tile_a[2][BK][BM + PAD];  // transposed: a column of A is a row here
    __shared__ __align__(16) float tile_b[2][BK][BN];
    const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    const int row0 = blockIdx.y * BM, column0 = blockIdx.x * BN;
    const int mine_m = warp / 2 * 32 + lane / 8 * 4, mine_n = warp % 2 * 64 + lane % 8 * 4;
    float4 next_a[LOADS_A], next_b[LOADS_B];
    float sum[8][8] = {};

    const int tiles = (k + BK - 1) / BK;
    for (int tile = -1; tile < tiles; ++tile) {
        const int first = (tile + 1) * BK;
        if (tile + 1 < tiles) {
#pragma unroll
            for (int i = 0; i < LOADS_A; ++i) {
                const int at = thread + i * THREADS;
                next_a[i] = load4(a, row0 + at / (BK / 4), m, first + at % (BK / 4) * 4, k);
            }
#pragma unroll
            for (int i = 0; i < LOADS_B; ++i) {
                const int at = thread + i * THREADS;
                next_b[i] = load4(b, first + at / (BN / 4), k, column0 + at % (BN / 4) * 4, n);
            }
        }
        if (tile >= 0) {
            const int from = tile & 1;
#pragma unroll
            for (int i = 0; i < BK; ++i) {
                float left[8], right[8];
                *reinterpret_cast<float4 *>(left) = *reinterpret_cast<float4 *>(&tile_a[from][i][mine_m]);
                *reinterpret_cast<float4 *>(left + 4) = *reinterpret_cast<float4 *>(&tile_a[from][i][mine_m + 16]);
                *reinterpret_cast<float4 *>(right) = *reinterpret_cast<float4 *>(&tile_b[from][i][mine_n]);
                *reinterpret_cast<float4 *>(right + 4) = *reinterpret_cast<float4 *>(&tile_b[from][i][mine_n + 32]);
#pragma unroll
                for (int y = 0; y < 8; ++y)
#pragma unroll
                    for (int x = 0; x < 8; ++x)
                        sum[y][x] += left[y] * right[x];
            }
        }
        if (tile + 1 < tiles) {
            const int to = (tile + 1) & 1;
#pragma unroll
            for (int i = 0; i < LOADS_A; ++i) {
                const int at = thread + i * THREADS, row = at / (BK / 4), column = at % (BK / 4) * 4;
                tile_a[to][column][row] = next_a[i].x;
                tile_a[to][column + 1][row] = next_a[i].y;
                tile_a[to][column + 2][row] = next_a[i].z;
                tile_a[to][column + 3][row] = next_a[i].w;
            }
#pragma unroll
            for (int i = 0; i < LOADS_B; ++i) {
                const int at = thread + i * THREADS;
                *reinterpret_cast<float4 *>(&tile_b[to][at / (BN / 4)][at % (BN / 4) * 4]) = next_b[i];
            }
            __syncthreads();
        }
    }
#pragma unroll
    for (int y = 0; y < 8; ++y) {
        const int row = row0 + mine_m + y / 4 * 16 + y % 4;
        store4(c, sum[y], row, m, column0 + mine_n, n);
        store4(c, sum[y] + 4, row, m, column0 + mine_n + 32, n);
    }
}
