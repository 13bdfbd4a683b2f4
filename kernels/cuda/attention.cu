// Attention in float: out = softmax(scale * Q K^T) V, a query at a time never seeing more than one tile of keys.
//
// Grid: (ceil(queries / 64), heads). Block: 256 as 16 x 16; thread (x, y) holds rows 4 y .. 4 y + 3: their scores
// with keys x, x + 16, x + 32, x + 48 of the tile, and every 16th group of four columns of their output.
// The softmax is online: the largest score and the sum so far are kept per row, and what has been summed is
// rescaled when a larger score comes; one division at the end (Dao, "FlashAttention-2", 2023).
// -DCAUSAL: query i sees keys 0 .. i. -DGELU_OUT: GeLU of the result, fused.

#include "element.cuh"
#include "gelu.cuh"
#include "rows.cuh"

#ifndef HEAD_DIM
#define HEAD_DIM 64
#endif
#define ROWS 64
#define KEYS 64
#define PAD 4  // floats, so that 8 keys' float4s fall into 32 banks
#define STRIDE_K (HEAD_DIM + PAD)
#define STRIDE_P (KEYS + PAD)
#define COLUMNS (HEAD_DIM / 64)  // groups of four output columns per thread

// Rows first .. first + 63 of a (rows, HEAD_DIM) matrix into shared memory; zeros beyond its end.
__device__ __forceinline__ void load_rows(float *to, int stride, const float *from, int first, int rows)
{
    for (int at = threadIdx.x; at < 64 * HEAD_DIM / 4; at += 256) {
        const int row = at / (HEAD_DIM / 4), column = at % (HEAD_DIM / 4) * 4;
        float4 four = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (first + row < rows)
            four = *reinterpret_cast<const float4 *>(from + static_cast<long long>(first + row) * HEAD_DIM + column);
        *reinterpret_cast<float4 *>(to + row * stride + column) = four;
    }
}

__device__ __forceinline__ float half_warp_max(float value)
{
    for (int lanes = 8; lanes > 0; lanes >>= 1)
        value = fmaxf(value, __shfl_xor_sync(FULL_WARP, value, lanes));
    return value;
}

__device__ __forceinline__ float half_warp_sum(float value)
{
    for (int lanes = 8; lanes > 0; lanes >>= 1)
        value += __shfl_xor_sync(FULL_WARP, value, lanes);
    return value;
}

// q, out: (heads, queries, HEAD_DIM). k, v: (heads, keys, HEAD_DIM). keys > 0. scale: usually 1 / sqrt(HEAD_DIM).
// Shared: floats, 64 * HEAD_DIM of queries, 64 * STRIDE_K of keys or values, 64 * STRIDE_P of probabilities.
extern "C" __global__ void __launch_bounds__(256, 2)
    attention(const float *q, const float *k, const float *v, float *out, int queries, int keys, float scale)
{
    DYNAMIC_SHARED(float, shared);
    float *tile_q = shared, *tile_k = tile_q + ROWS * HEAD_DIM, *tile_v = tile_k;
    float *tile_p = tile_k + KEYS * STRIDE_K;
    const int x = threadIdx.x % 16, y = threadIdx.x / 16;
    const int first_query = (gridDim.x - 1 - blockIdx.x) * ROWS;  // causal: those with most keys begin first
    const long long head = blockIdx.y;
    k += head * keys * HEAD_DIM;
    v += head * keys * HEAD_DIM;
    const float scale2 = scale * 1.4426950408889634f;  // exp(s) = exp2(s log2 e)
    load_rows(tile_q, HEAD_DIM, q + head * queries * HEAD_DIM, first_query, queries);

    float largest[4], sum[4], result[4][COLUMNS][4] = {};
    for (int r = 0; r < 4; ++r) {
        largest[r] = -INFINITY;
        sum[r] = 0.0f;
    }
#ifdef CAUSAL
    const int last_key = min(keys, first_query + ROWS);
#else
    const int last_key = keys;
#endif
    for (int first = 0; first < last_key; first += KEYS) {
        __syncthreads();  // all are done with the values before
        load_rows(tile_k, STRIDE_K, k, first, keys);
        __syncthreads();
        float score[4][4] = {};
#pragma unroll 4
        for (int i = 0; i < HEAD_DIM; i += 4) {
            float4 query[4], key[4];
#pragma unroll
            for (int r = 0; r < 4; ++r)
                query[r] = *reinterpret_cast<float4 *>(tile_q + (y * 4 + r) * HEAD_DIM + i);
#pragma unroll
            for (int j = 0; j < 4; ++j)
                key[j] = *reinterpret_cast<float4 *>(tile_k + (x + 16 * j) * STRIDE_K + i);
#pragma unroll
            for (int r = 0; r < 4; ++r)
#pragma unroll
                for (int j = 0; j < 4; ++j)
                    score[r][j] += query[r].x * key[j].x + query[r].y * key[j].y + query[r].z * key[j].z
                                   + query[r].w * key[j].w;
        }
        __syncthreads();  // all are done with the keys
        load_rows(tile_v, HEAD_DIM, v, first, keys);
#pragma unroll
        for (int r = 0; r < 4; ++r) {
            float highest = largest[r];
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const int key = first + x + 16 * j;
#ifdef CAUSAL
                const bool hidden = key >= keys || key > first_query + y * 4 + r;
#else
                const bool hidden = key >= keys;
#endif
                score[r][j] = hidden ? -INFINITY : score[r][j] * scale2;
                highest = fmaxf(highest, score[r][j]);
            }
            highest = half_warp_max(highest);
            const float base = highest == -INFINITY ? 0.0f : highest;
            const float shrink = exp2f(largest[r] - base);
            largest[r] = highest;
            float more = 0.0f;
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const float p = exp2f(score[r][j] - base);
                more += p;
                tile_p[(y * 4 + r) * STRIDE_P + x + 16 * j] = p;
            }
            sum[r] = sum[r] * shrink + more;
#pragma unroll
            for (int j = 0; j < COLUMNS; ++j)
#pragma unroll
                for (int i = 0; i < 4; ++i)
                    result[r][j][i] *= shrink;
        }
        __syncthreads();  // values and probabilities are there
#pragma unroll 4
        for (int key = 0; key < KEYS; ++key) {
            float p[4];
#pragma unroll
            for (int r = 0; r < 4; ++r)
                p[r] = tile_p[(y * 4 + r) * STRIDE_P + key];
#pragma unroll
            for (int j = 0; j < COLUMNS; ++j) {
                const float4 value = *reinterpret_cast<float4 *>(tile_v + key * HEAD_DIM + j * 64 + x * 4);
#pragma unroll
                for (int r = 0; r < 4; ++r) {
                    result[r][j][0] += p[r] * value.x;
                    result[r][j][1] += p[r] * value.y;
                    result[r][j][2] += p[r] * value.z;
                    result[r][j][3] += p[r] * value.w;
                }
            }
        }
    }
#pragma unroll
    for (int r = 0; r < 4; ++r) {
        const float scale_out = 1.0f / half_warp_sum(sum[r]);
        const int row = first_query + y * 4 + r;
        if (row >= queries)
            continue;
#pragma unroll
        for (int j = 0; j < COLUMNS; ++j) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                result[r][j][i] *= scale_out;
#ifdef GELU_OUT
                result[r][j][i] = GELU(result[r][j][i]);
#endif
            }
            float *to = out + (head * queries + row) * HEAD_DIM + j * 64 + x * 4;
            *reinterpret_cast<float4 *>(to)
                = make_float4(result[r][j][0], result[r][j][1], result[r][j][2], result[r][j][3]);
        }
    }
}
