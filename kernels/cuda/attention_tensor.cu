// Attention on tensor cores: out = softmax(scale * Q K^T) V of halves (-DHALF) or bfloat16 (-DBF16), summed in float.
//
// Grid: (ceil(queries / ROWS), heads). Block: 32 * WARPS; a warp has 16 queries and keeps them, their scores and
// their output in registers: the scores' accumulators are, lane by lane, the left operand of the product with V
// (Dao, "FlashAttention-2", 2023). Tiles of KEYS keys and values travel through two stages of shared memory; the
// next arrive while these are multiplied. -DCAUSAL: query i sees keys 0 .. i. -DGELU_OUT: GeLU of the result.

#include "element.cuh"
#include "gelu.cuh"
#include "mma.cuh"
#include "rows.cuh"

#ifndef HEAD_DIM
#define HEAD_DIM 64
#endif
#ifndef WARPS
#define WARPS 8
#endif
#ifndef KEYS
#define KEYS 64
#endif
#define ROWS (16 * WARPS)
#define THREADS (32 * WARPS)
#define CHUNKS (HEAD_DIM / 8)
#define TILE_BYTES (KEYS * HEAD_DIM * 2)

__device__ __forceinline__ void copy_rows(Copies &copies, unsigned char *to, const T *from, int count, int first,
                                          int rows)
{
#pragma unroll 4
    for (int at = threadIdx.x; at < count * CHUNKS; at += THREADS) {
        const int row = at / CHUNKS, chunk = at % CHUNKS;
        const bool valid = first + row < rows;
        const T *source = valid ? from + static_cast<long long>(first + row) * HEAD_DIM + chunk * 8 : from;
        copies.copy16(to + swizzled<CHUNKS>(row, chunk), source, valid);
    }
}

// score (16, KEYS) += the warp's queries times the tile's keys
__device__ __forceinline__ void add_scores(float (&score)[KEYS / 8][4], const unsigned (&query)[HEAD_DIM / 16][4],
                                           const unsigned char *tile)
{
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < HEAD_DIM / 16; ++i)
#pragma unroll
        for (int j = 0; j < KEYS / 16; ++j) {
            unsigned key[4];
            load_matrices(key, tile + swizzled<CHUNKS>(j * 16 + lane % 8 + lane / 16 * 8, i * 2 + lane / 8 % 2));
            multiply_add(score[j * 2], query[i], key[0], key[1]);
            multiply_add(score[j * 2 + 1], query[i], key[2], key[3]);
        }
}

// result (16, HEAD_DIM) += probabilities (16, KEYS) times the tile's values
__device__ __forceinline__ void add_values(float (&result)[HEAD_DIM / 8][4], const float (&p)[KEYS / 8][4],
                                           const unsigned char *tile)
{
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < KEYS / 16; ++i) {
        const unsigned left[4] = {packed(p[i * 2][0], p[i * 2][1]), packed(p[i * 2][2], p[i * 2][3]),
                                  packed(p[i * 2 + 1][0], p[i * 2 + 1][1]), packed(p[i * 2 + 1][2], p[i * 2 + 1][3])};
#pragma unroll
        for (int j = 0; j < HEAD_DIM / 16; ++j) {
            unsigned value[4];
            load_transposed(value, tile + swizzled<CHUNKS>(i * 16 + lane % 16, j * 2 + lane / 16));
            multiply_add(result[j * 2], left, value[0], value[1]);
            multiply_add(result[j * 2 + 1], left, value[2], value[3]);
        }
    }
}

// q, out: (heads, queries, HEAD_DIM). k, v: (heads, keys, HEAD_DIM). keys > 0. scale: usually 1 / sqrt(HEAD_DIM).
// Shared: bytes, ROWS * HEAD_DIM * 2 of queries, then two stages of a tile of keys and one of values.
extern "C" __global__ void __launch_bounds__(THREADS)
    attention_mma(const T *q, const T *k, const T *v, T *out, int queries, int keys, float scale)
{
    DYNAMIC_SHARED(unsigned char, shared);
    unsigned char *tile_q = shared, *stages = shared + ROWS * HEAD_DIM * 2;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int first_query = (gridDim.x - 1 - blockIdx.x) * ROWS;  // causal: those with most keys begin first
    const long long head = blockIdx.y;
    q += head * queries * HEAD_DIM;
    k += head * keys * HEAD_DIM;
    v += head * keys * HEAD_DIM;
    const float scale2 = scale * 1.4426950408889634f;  // exp(s) = exp2(s log2 e)
    Copies copies;
    copy_rows(copies, tile_q, q, ROWS, first_query, queries);
    copy_rows(copies, stages, k, KEYS, 0, keys);
    copy_rows(copies, stages + TILE_BYTES, v, KEYS, 0, keys);
    copies.commit();
    copies.wait<0>();
    __syncthreads();
    unsigned query[HEAD_DIM / 16][4];
#pragma unroll
    for (int i = 0; i < HEAD_DIM / 16; ++i)
        load_matrices(query[i], tile_q + swizzled<CHUNKS>(warp * 16 + lane % 16, i * 2 + lane / 16));

    const int row = first_query + warp * 16 + lane / 4;  // and row + 8
    float largest[2] = {-INFINITY, -INFINITY}, sum[2] = {0.0f, 0.0f};
    float result[HEAD_DIM / 8][4] = {};
#ifdef CAUSAL
    const int last_key = min(keys, first_query + ROWS);
#else
    const int last_key = keys;
#endif
    for (int first = 0; first < last_key; first += KEYS) {
        const unsigned char *tile_k = stages + first / KEYS % 2 * 2 * TILE_BYTES, *tile_v = tile_k + TILE_BYTES;
        copies.wait<0>();
        __syncthreads();  // this tile is here for all, and all are done with the one before
        if (first + KEYS < last_key) {
            unsigned char *next = stages + (first / KEYS + 1) % 2 * 2 * TILE_BYTES;
            copy_rows(copies, next, k, KEYS, first + KEYS, keys);
            copy_rows(copies, next + TILE_BYTES, v, KEYS, first + KEYS, keys);
        }
        copies.commit();
        float score[KEYS / 8][4] = {};
        add_scores(score, query, tile_k);
#ifdef CAUSAL
        const bool whole = first + KEYS <= keys && first + KEYS - 1 <= first_query + warp * 16;
#else
        const bool whole = first + KEYS <= keys;
#endif
        if (!whole) {
#pragma unroll
            for (int j = 0; j < KEYS / 8; ++j)
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const int key = first + j * 8 + lane % 4 * 2 + i % 2;
#ifdef CAUSAL
                    const bool hidden = key >= keys || key > row + i / 2 * 8;
#else
                    const bool hidden = key >= keys;
#endif
                    score[j][i] = hidden ? -INFINITY : score[j][i];
                }
        }
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float highest = largest[half];
#pragma unroll
            for (int j = 0; j < KEYS / 8; ++j)
                highest = fmaxf(highest, fmaxf(score[j][half * 2], score[j][half * 2 + 1]));
            highest = quad_max(highest);
            const float base = highest == -INFINITY ? 0.0f : highest * scale2;
            const float shrink = exp2f(largest[half] * scale2 - base);
            largest[half] = highest;
            sum[half] *= shrink;
#pragma unroll
            for (int j = 0; j < KEYS / 8; ++j)
#pragma unroll
                for (int i = half * 2; i < half * 2 + 2; ++i) {
                    score[j][i] = exp2f(score[j][i] * scale2 - base);
                    sum[half] += score[j][i];
                }
#pragma unroll
            for (int j = 0; j < HEAD_DIM / 8; ++j) {
                result[j][half * 2] *= shrink;
                result[j][half * 2 + 1] *= shrink;
            }
        }
        add_values(result, score, tile_v);
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const float scale_out = 1.0f / quad_sum(sum[half]);
        if (row + half * 8 >= queries)
            continue;
        T *to = out + (head * queries + row + half * 8) * HEAD_DIM + lane % 4 * 2;
#pragma unroll
        for (int j = 0; j < HEAD_DIM / 8; ++j) {
            float first = result[j][half * 2] * scale_out, second = result[j][half * 2 + 1] * scale_out;
#ifdef GELU_OUT
            first = GELU(first);
            second = GELU(second);
#endif
            *reinterpret_cast<unsigned *>(to + j * 8) = packed(first, second);
        }
    }
}
