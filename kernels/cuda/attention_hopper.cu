// Attention on Hopper's warpgroups: out = softmax(scale * Q K^T) V of halves (-DHALF) or bfloat16 (-DBF16), summed in
// float. The algorithm of attention_tensor.cu; wgmma reads queries, keys and values from shared memory.
// nvcc: -arch=sm_90a
//
// Grid: (ceil(queries / 128), heads). Block: 256, two warpgroups of 64 queries each. Tiles of 128 keys and values travel
// through three stages. While the values of a tile are multiplied, the scores of the next one are, too, and its
// exponentials are taken (the order of Shah et al., "FlashAttention-3", 2024, within a warpgroup).
// -DCAUSAL: query i sees keys 0 .. i. -DGELU_OUT: GeLU of the result.

#include "element.cuh"
#include "gelu.cuh"
#include "mma.cuh"
#include "hopper.cuh"
#include "rows.cuh"

#ifndef HEAD_DIM
#define HEAD_DIM 64
#endif
#define ROWS 128
#define KEYS 128
#define STAGES 3
#define THREADS 256
#define PANEL (128 * 128)  // bytes of 64 columns of a tile of 128 rows
#define TILE_BYTES (HEAD_DIM / 64 * PANEL)

// Rows first .. first + 127 in panels of 64 columns; zeros beyond the end.
__device__ __forceinline__ void copy_tile(Copies &copies, unsigned char *to, const T *from, int first, int rows)
{
#pragma unroll 4
    for (int at = threadIdx.x; at < 128 * (HEAD_DIM / 8); at += THREADS) {
        const int row = at / (HEAD_DIM / 8), chunk = at % (HEAD_DIM / 8);
        const bool valid = first + row < rows;
        const T *source = valid ? from + static_cast<long long>(first + row) * HEAD_DIM + chunk * 8 : from;
        copies.copy16(to + chunk / 8 * PANEL + swizzled<8>(row, chunk % 8), source, valid);
    }
}

// A warpgroup's part of the work: 64 queries, of which a thread has some columns of rows `row` and `row + 8`.
struct Part {
    float score[KEYS / 2], result[HEAD_DIM / 2];
    float largest[2], sum[2], shrink[2];
    unsigned p[KEYS / 16][4];
};

__device__ __forceinline__ void begin_scores(Part &part, const unsigned char *tile_q, const unsigned char *tile_k)
{
    begin_group();
#pragma unroll
    for (int i = 0; i < HEAD_DIM / 16; ++i) {
        const int at = i / 4 * PANEL + i % 4 * 32;
        multiply_keys(part.score, Operand{tile_q + at, 16, 1024}, Operand{tile_k + at, 16, 1024}, i > 0);
    }
    end_group();
}

__device__ __forceinline__ void begin_values(Part &part, const unsigned char *tile_v)
{
    begin_group();
#pragma unroll
    for (int i = 0; i < KEYS / 16; ++i)
        multiply_values(part.result, part.p[i], Operand{tile_v + i * 2048, PANEL, 1024});
    end_group();
}

// Scores become powers; largest and sum go on, and `shrink` is what the result so far is to be multiplied with.
__device__ __forceinline__ void take_powers(Part &part, int first, int row, int keys, float scale2)
{
    const int lane = threadIdx.x % 32;
#ifdef CAUSAL
    const bool whole = first + KEYS <= keys && first + KEYS - 1 <= row - lane / 4;
#else
    const bool whole = first + KEYS <= keys;
#endif
    if (!whole) {
#pragma unroll
        for (int i = 0; i < KEYS / 2; ++i) {
            const int key = first + i / 4 * 8 + lane % 4 * 2 + i % 2;
#ifdef CAUSAL
            const bool hidden = key >= keys || key > row + i / 2 % 2 * 8;
#else
            const bool hidden = key >= keys;
#endif
            part.score[i] = hidden ? -INFINITY : part.score[i];
        }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        float highest = part.largest[half];
#pragma unroll
        for (int i = half * 2; i < KEYS / 2; i += 4)
            highest = fmaxf(highest, fmaxf(part.score[i], part.score[i + 1]));
        highest = quad_max(highest);
        const float base = highest == -INFINITY ? 0.0f : highest * scale2;
        part.shrink[half] = exp2f(part.largest[half] * scale2 - base);
        part.largest[half] = highest;
        part.sum[half] *= part.shrink[half];
#pragma unroll
        for (int i = half * 2; i < KEYS / 2; i += 4) {
            part.score[i] = exp2f(part.score[i] * scale2 - base);
            part.score[i + 1] = exp2f(part.score[i + 1] * scale2 - base);
            part.sum[half] += part.score[i] + part.score[i + 1];
        }
    }
}

// The powers as left operands, and the result shrunk: when nothing reads or writes them any more.
__device__ __forceinline__ void settle(Part &part)
{
#pragma unroll
    for (int i = 0; i < HEAD_DIM / 2; ++i)
        part.result[i] *= part.shrink[i / 2 % 2];
#pragma unroll
    for (int i = 0; i < KEYS / 16; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j)
            part.p[i][j] = packed(part.score[i * 8 + j * 2], part.score[i * 8 + j * 2 + 1]);
}

// q, out: (heads, queries, HEAD_DIM). k, v: (heads, keys, HEAD_DIM). keys > 0. scale: usually 1 / sqrt(HEAD_DIM).
// Shared: bytes, TILE_BYTES of queries, STAGES tiles of keys and as many of values, and 1024.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    attention_wgmma(const T *q, const T *k, const T *v, T *out, int queries, int keys, float scale)
{
    DYNAMIC_SHARED(unsigned char, raw);
    unsigned char *tile_q = raw + (1024 - reinterpret_cast<unsigned long long>(raw) % 1024) % 1024;
    unsigned char *stages = tile_q + TILE_BYTES;
    const int lane = threadIdx.x % 32, warpgroup = threadIdx.x / 128;
    const int first_query = (gridDim.x - 1 - blockIdx.x) * ROWS;  // causal: those with most keys begin first
    const int row = first_query + warpgroup * 64 + threadIdx.x % 128 / 32 * 16 + lane / 4;
    const long long head = blockIdx.y;
    q += head * queries * HEAD_DIM;
    k += head * keys * HEAD_DIM;
    v += head * keys * HEAD_DIM;
    const float scale2 = scale * 1.4426950408889634f;  // exp(s) = exp2(s log2 e)
#ifdef CAUSAL
    const int tiles = (min(keys, first_query + ROWS) + KEYS - 1) / KEYS;
#else
    const int tiles = (keys + KEYS - 1) / KEYS;
#endif
    Copies copies;
    copy_tile(copies, tile_q, q, first_query, queries);
    for (int tile = 0; tile < 2; ++tile) {
        if (tile < tiles) {
            copy_tile(copies, stages + tile * 2 * TILE_BYTES, k, tile * KEYS, keys);
            copy_tile(copies, stages + tile * 2 * TILE_BYTES + TILE_BYTES, v, tile * KEYS, keys);
        }
        copies.commit();
    }
    Part part;
#pragma unroll
    for (int i = 0; i < HEAD_DIM / 2; ++i)
        part.result[i] = 0.0f;
    part.largest[0] = part.largest[1] = -INFINITY;
    part.sum[0] = part.sum[1] = 0.0f;

    copies.wait<1>();
    publish();
    __syncthreads();
    const unsigned char *mine = tile_q + warpgroup * 64 * 128;
    begin_scores(part, mine, stages);
    wait_groups<0>();
    hold(part.score);
    take_powers(part, 0, row, keys, scale2);
    settle(part);
    for (int tile = 0; tile + 1 < tiles; ++tile) {
        copies.wait<0>();
        publish();
        __syncthreads();  // the next tile is here for all, and nobody reads the one before this any more
        if (tile + 2 < tiles) {
            unsigned char *stage = stages + (tile + 2) % STAGES * 2 * TILE_BYTES;
            copy_tile(copies, stage, k, (tile + 2) * KEYS, keys);
            copy_tile(copies, stage + TILE_BYTES, v, (tile + 2) * KEYS, keys);
        }
        copies.commit();
        begin_scores(part, mine, stages + (tile + 1) % STAGES * 2 * TILE_BYTES);
        begin_values(part, stages + tile % STAGES * 2 * TILE_BYTES + TILE_BYTES);
        wait_groups<1>();
        hold(part.score);
        take_powers(part, (tile + 1) * KEYS, row, keys, scale2);
        wait_groups<0>();
        hold(part.result);
        hold(part.score);
        settle(part);
    }
    begin_values(part, stages + (tiles - 1) % STAGES * 2 * TILE_BYTES + TILE_BYTES);
    wait_groups<0>();
    hold(part.result);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const float scale_out = 1.0f / quad_sum(part.sum[half]);
        if (row + half * 8 >= queries)
            continue;
        T *to = out + (head * queries + row + half * 8) * HEAD_DIM + lane % 4 * 2;
#pragma unroll
        for (int i = half * 2; i < HEAD_DIM / 2; i += 4) {
            float first = part.result[i] * scale_out, second = part.result[i + 1] * scale_out;
#ifdef GELU_OUT
            first = GELU(first);
            second = GELU(second);
#endif
            *reinterpret_cast<unsigned *>(to + i / 4 * 8) = packed(first, second);
        }
    }
}
