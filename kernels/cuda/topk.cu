// The k rows of a matrix with the largest cosine to each query, ties to the smaller row: dot products and selection
// in one pass, so that the scores (rows x queries) never reach device memory.
//
// topk_scan: for few queries; memory-bound. A warp reads 8 rows at a time, coalesced, its queries in registers.
// topk_tiles: for many; a block multiplies 128 rows with 64 queries as matmul_registers does, then selects.
// topk_merge: the blocks' lists of each query become one.
// rescore: the order among candidates, in double (see kernels/calls/retrieval.py for why that settles it).
// inverse_lengths: what rows are scaled with, in double.
//
// Scores are dot(row, query) * inverse[row] in float; queries have length 1. Lists: see best.cuh.

#include "best.cuh"
#include "common.cuh"

#ifndef DIM
#define DIM 384  // columns, rounded up to a multiple of 128
#endif
#ifndef QUERIES
#define QUERIES 1  // of a block of topk_scan, at most 8
#endif
#define WARPS 8
#if DIM * QUERIES <= 768 && LIST == 32
#define QUERY(q, i) query[q][i]
#define SHARED_QUERIES 0
#else  // too many registers: from shared memory
#define QUERY(q, i) *reinterpret_cast<const float4 *>(query_tile + (q) * DIM + (i) * 128 + lane * 4)
#define SHARED_QUERIES 1
#endif

__device__ __forceinline__ float4 four_of(const float *row, int column, int columns)
{
    return column < columns ? __ldg(reinterpret_cast<const float4 *>(row + column))
                            : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
}

// Sums of 8 values over the warp at once, in 9 shuffles: lane l gets that of value l / 4.
__device__ __forceinline__ float eight_sums(float (&value)[8], int lane)
{
#pragma unroll
    for (int keep = 4; keep > 0; keep >>= 1) {
        const bool upper = lane & keep * 4;
#pragma unroll
        for (int i = 0; i < keep; ++i) {
            const float sent = upper ? value[i] : value[i + keep], kept = upper ? value[i + keep] : value[i];
            value[i] = kept + __shfl_xor_sync(FULL_WARP, sent, keep * 4);
        }
    }
    value[0] += __shfl_xor_sync(FULL_WARP, value[0], 2);
    return value[0] + __shfl_xor_sync(FULL_WARP, value[0], 1);
}

// vectors: (n, columns), inverse: (n,), queries: (count, columns); columns: a multiple of 4, rows 16-byte aligned.
// lists: (count, gridDim.x, LIST). Block: 256. Grid: (any, ceil(count / QUERIES)).
// Shared: WARPS * QUERIES * 2 * LIST keys; if SHARED_QUERIES, then DIM * QUERIES floats.
extern "C" __global__ void __launch_bounds__(256, 2)
    topk_scan(const float *vectors, const float *inverse, const float *queries, Key *lists, int n, int count,
              int columns, int k)
{
    DYNAMIC_SHARED(Key, shared);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, query0 = blockIdx.y * QUERIES;
#if SHARED_QUERIES
    float *query_tile = reinterpret_cast<float *>(shared + WARPS * QUERIES * 2 * LIST);
    for (int at = threadIdx.x * 4; at < QUERIES * DIM; at += 1024) {
        const float *from = queries + static_cast<long long>(min(query0 + at / DIM, count - 1)) * columns;
        *reinterpret_cast<float4 *>(query_tile + at) = four_of(from, at % DIM, columns);
    }
    __syncthreads();
#else
    float4 query[QUERIES][DIM / 128];
#endif
    Best best[QUERIES];
#pragma unroll
    for (int q = 0; q < QUERIES; ++q) {
#if !SHARED_QUERIES
        const float *from = queries + static_cast<long long>(min(query0 + q, count - 1)) * columns;
#pragma unroll
        for (int i = 0; i < DIM / 128; ++i)
            query[q][i] = four_of(from, i * 128 + lane * 4, columns);
#endif
        best[q].begin(shared + (q * WARPS + warp) * 2 * LIST, lane);
    }
    const long long step = static_cast<long long>(gridDim.x) * WARPS * 32;
    for (long long first = (static_cast<long long>(blockIdx.x) * WARPS + warp) * 32; first < n; first += step) {
        float score[QUERIES];
#pragma unroll 1
        for (int batch = 0; batch < 4; ++batch) {
            float sum[QUERIES][8] = {};
#if SHARED_QUERIES
#pragma unroll 1
#else
#pragma unroll
#endif
            for (int i = 0; i < DIM / 128; ++i) {
                float4 row[8];
#pragma unroll
                for (int r = 0; r < 8; ++r) {
                    const long long at = min(first + batch * 8 + r, static_cast<long long>(n - 1));
                    row[r] = four_of(vectors + at * columns, i * 128 + lane * 4, columns);
                }
#pragma unroll
                for (int q = 0; q < QUERIES; ++q) {
                    const float4 with = QUERY(q, i);
#pragma unroll
                    for (int r = 0; r < 8; ++r)
                        sum[q][r] += row[r].x * with.x + row[r].y * with.y + row[r].z * with.z + row[r].w * with.w;
                }
            }
#pragma unroll
            for (int q = 0; q < QUERIES; ++q) {
                const float total = eight_sums(sum[q], lane);
                score[q] = lane % 4 == batch ? total : score[q];
            }
        }
        const long long row = first + lane % 4 * 8 + lane / 4;
        const float scale = row < n ? inverse[row] : 0.0f;
#pragma unroll
        for (int q = 0; q < QUERIES; ++q)
            best[q].offer(key_of(score[q] * scale, static_cast<int>(row)), row < n, k, lane);
    }
#pragma unroll
    for (int q = 0; q < QUERIES; ++q)
        best[q].sort_in(k, lane);
    __syncthreads();
    for (int q = warp; q < QUERIES && query0 + q < count; q += WARPS) {
        Key *mine = shared + q * WARPS * 2 * LIST;
        merge_lists(mine, 2 * LIST, WARPS, k, lane);
        Key *to = lists + (static_cast<long long>(query0 + q) * gridDim.x + blockIdx.x) * LIST;
        for (int i = lane; i < LIST; i += 32)
            to[i] = mine[i];
    }
}

#define BM 128
#define BQ 64
#define BK 16
#define STRIDE_M (BM + 4)
#define STRIDE_Q (BQ + 4)
#define STRIDE_S (BM + 1)

// As topk_scan, but a block has BQ queries. Block: 256. Grid: (any, ceil(count / BQ)). Shared: BQ * 2 * LIST keys,
// then floats: BK * STRIDE_M, BK * STRIDE_Q, BQ * STRIDE_S.
extern "C" __global__ void __launch_bounds__(256, 2)
    topk_tiles(const float *vectors, const float *inverse, const float *queries, Key *lists, int n, int count,
               int columns, int k)
{
    DYNAMIC_SHARED(Key, shared);
    float *tile_m = reinterpret_cast<float *>(shared + BQ * 2 * LIST), *tile_q = tile_m + BK * STRIDE_M;
    float *scores = tile_q + BK * STRIDE_Q;
    const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32, query0 = blockIdx.y * BQ;
    const int mine_m = thread / 16 * 8, mine_q = thread % 16 * 4;
    Best best[BQ / WARPS];
#pragma unroll
    for (int q = 0; q < BQ / WARPS; ++q)
        best[q].begin(shared + (warp * (BQ / WARPS) + q) * 2 * LIST, lane);
    const long long step = static_cast<long long>(gridDim.x) * BM;
    for (long long first = static_cast<long long>(blockIdx.x) * BM; first < n; first += step) {
        float sum[8][4] = {};
        for (int column = 0; column < columns; column += BK) {
            __syncthreads();  // all are done with the tiles, and with the scores before
#pragma unroll
            for (int at = thread; at < BM * BK / 4; at += 256) {
                const int row = at / (BK / 4), i = at % (BK / 4) * 4;
                const long long from = min(first + row, static_cast<long long>(n - 1));
                const float4 four = four_of(vectors + from * columns, column + i, columns);
                tile_m[i * STRIDE_M + row] = four.x;
                tile_m[(i + 1) * STRIDE_M + row] = four.y;
                tile_m[(i + 2) * STRIDE_M + row] = four.z;
                tile_m[(i + 3) * STRIDE_M + row] = four.w;
            }
            const int row = thread / (BK / 4), i = thread % (BK / 4) * 4;
            const long long from = min(query0 + row, count - 1);
            const float4 four = four_of(queries + from * columns, column + i, columns);
            tile_q[i * STRIDE_Q + row] = four.x;
            tile_q[(i + 1) * STRIDE_Q + row] = four.y;
            tile_q[(i + 2) * STRIDE_Q + row] = four.z;
            tile_q[(i + 3) * STRIDE_Q + row] = four.w;
            __syncthreads();
#pragma unroll
            for (int at = 0; at < BK; ++at) {
                float left[8], right[4];
                *reinterpret_cast<float4 *>(left) = *reinterpret_cast<float4 *>(tile_m + at * STRIDE_M + mine_m);
                *reinterpret_cast<float4 *>(left + 4)
                    = *reinterpret_cast<float4 *>(tile_m + at * STRIDE_M + mine_m + 4);
                *reinterpret_cast<float4 *>(right) = *reinterpret_cast<float4 *>(tile_q + at * STRIDE_Q + mine_q);
#pragma unroll
                for (int r = 0; r < 8; ++r)
#pragma unroll
                    for (int q = 0; q < 4; ++q)
                        sum[r][q] += left[r] * right[q];
            }
        }
#pragma unroll
        for (int r = 0; r < 8; ++r)
#pragma unroll
            for (int q = 0; q < 4; ++q)
                scores[(mine_q + q) * STRIDE_S + mine_m + r] = sum[r][q];
        __syncthreads();
        for (int part = 0; part < BM; part += 32) {
            const long long row = first + part + lane;
            const float scale = row < n ? inverse[row] : 0.0f;
#pragma unroll
            for (int q = 0; q < BQ / WARPS; ++q) {
                const float score = scores[(warp * (BQ / WARPS) + q) * STRIDE_S + part + lane] * scale;
                best[q].offer(key_of(score, static_cast<int>(row)), row < n, k, lane);
            }
        }
    }
#pragma unroll
    for (int q = 0; q < BQ / WARPS; ++q) {
        best[q].sort_in(k, lane);
        const int query = query0 + warp * (BQ / WARPS) + q;
        if (query >= count)
            continue;
        Key *to = lists + (static_cast<long long>(query) * gridDim.x + blockIdx.x) * LIST;
        for (int i = lane; i < LIST; i += 32)
            to[i] = best[q].keys[i];
    }
}

// lists: (count, keys), each query's in any order. out: (count, k), falling. Block: 256. Grid: (count).
extern "C" __global__ void __launch_bounds__(256) topk_merge(const Key *lists, Key *out, int keys, int k)
{
    __shared__ Key kept[WARPS * 2 * LIST];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const Key *from = lists + static_cast<long long>(blockIdx.x) * keys;
    Best best;
    best.begin(kept + warp * 2 * LIST, lane);
    for (int first = warp * 32; first < keys; first += WARPS * 32) {
        const bool valid = first + lane < keys;
        best.offer(valid ? from[first + lane] : 0, valid, k, lane);
    }
    best.sort_in(k, lane);
    __syncthreads();
    if (warp > 0)
        return;
    merge_lists(kept, 2 * LIST, WARPS, k, lane);
    for (int i = lane; i < k; i += 32)
        out[static_cast<long long>(blockIdx.x) * k + i] = kept[i];
}

// A warp's dot product in double, in every lane. Products of floats are exact in double; lane l adds columns l,
// l + 32, ... in order, then the lanes' sums in a tree: the same bits as kernels/cpu/retrieval.py.
__device__ __forceinline__ double dot(const float *x, const float *y, int columns)
{
    double sum = 0.0;
    for (int column = threadIdx.x; column < columns; column += 32)
        sum += static_cast<double>(x[column]) * static_cast<double>(y[column]);
    for (int lanes = 16; lanes > 0; lanes >>= 1)
        sum += __shfl_xor_sync(FULL_WARP, sum, lanes);
    return sum;
}

// scores[q][c] = cosine of query q and row candidates[q][c]; -inf for a candidate below 0. vectors, queries:
// (., columns) float, and the inverses of their lengths. A warp per candidate.
// Block: (32, 8). Grid: (ceil(count * each / 8)).
extern "C" __global__ void rescore(const float *vectors, const double *inverse, const float *queries,
                                   const double *inverse_query, const long long *candidates, double *scores,
                                   int count, int each, int columns)
{
    const long long at = static_cast<long long>(blockIdx.x) * blockDim.y + threadIdx.y;
    if (at >= static_cast<long long>(count) * each)
        return;
    const long long row = candidates[at], query = at / each;
    if (row < 0) {
        scores[at] = -INFINITY;
        return;
    }
    const double sum = dot(vectors + row * columns, queries + query * columns, columns);
    if (threadIdx.x == 0)
        scores[at] = __dmul_rn(__dmul_rn(sum, inverse[row]), inverse_query[query]);
}

// inverse[row] = 1 / length, 0 for a row of zeros, NaN for one that is not finite. A warp per row.
// Block: (32, 8). Grid: (ceil(n / 8)).
extern "C" __global__ void inverse_lengths(const float *vectors, double *inverse, long long n, int columns)
{
    const long long row = static_cast<long long>(blockIdx.x) * blockDim.y + threadIdx.y;
    if (row >= n)
        return;
    const double squares = dot(vectors + row * columns, vectors + row * columns, columns);
    if (threadIdx.x == 0)
        inverse[row] = squares > 0.0 && squares < INFINITY ? 1.0 / sqrt(squares) : squares == 0.0 ? 0.0 : NAN;
}
