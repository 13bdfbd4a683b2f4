// Prefix sums of any length: y[i] = x[0] + ... + x[i], or up to x[i - 1] if EXCLUSIVE.
//
// Grid: a block of THREADS a tile of THREADS * ITEMS elements. Tiles are numbered as blocks begin (a ticket), so
// that a tile waits only for those that run already. Elements are read and written side by side and turned
// round in shared memory, where a thread has ITEMS neighbours; the padding keeps its banks apart.
// T: element; ACC: what it is summed in (double for float, so that the order of look-back hardly shows).
//
//   scan        one pass, decoupled look-back (lookback.cuh). Integers are exact; of floats the last bit may
//               change from run to run, as the tiles it looked back over do.
//   tile_sums   and
//   scan_given  two passes: with the sums of the tiles before (scanned in between) the bits are always the same.
#include "common.cuh"
#include "lookback.cuh"

#ifndef T
#define T float
#define ACC double
#endif
#ifndef EXCLUSIVE
#define EXCLUSIVE 0
#endif
#ifndef THREADS
#define THREADS 256
#endif

constexpr int ITEMS = 64 / sizeof(T);
constexpr int TILE = THREADS * ITEMS;

struct Sum {
    __device__ ACC operator()(ACC a, ACC b) const { return a + b; }
};

__device__ __forceinline__ int padded(int i) { return i + i / ITEMS; }

// The tile's elements into shared memory; the sum of this thread's.
__device__ ACC load(const T *x, long long first, long long n, T *items)
{
    T loaded[ITEMS];
#pragma unroll
    for (int k = 0; k < ITEMS; ++k) {
        const long long i = first + k * THREADS + threadIdx.x;
        loaded[k] = i < n ? __ldcs(&x[i]) : static_cast<T>(0);
    }
#pragma unroll
    for (int k = 0; k < ITEMS; ++k)
        items[padded(k * THREADS + threadIdx.x)] = loaded[k];
    __syncthreads();
    ACC sum = 0;
#pragma unroll
    for (int k = 0; k < ITEMS; ++k)
        sum += items[padded(threadIdx.x * ITEMS + k)];
    return sum;
}

// The elements are read again: kept in registers, they would halve the number of warps.
__device__ void store(T *y, long long first, long long n, ACC before, T *items)
{
#pragma unroll
    for (int k = 0; k < ITEMS; ++k) {
        T &item = items[padded(threadIdx.x * ITEMS + k)];
        const ACC after = before + item;
        item = static_cast<T>(EXCLUSIVE ? before : after);
        before = after;
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < ITEMS; ++k) {
        const long long i = first + k * THREADS + threadIdx.x;
        if (i < n)
            __stcs(&y[i], items[padded(k * THREADS + threadIdx.x)]);
    }
}

// status: [tiles] zeros. words: [tiles][2]. ticket: 0.
extern "C" __global__ void __launch_bounds__(THREADS, 1024 / THREADS)
    scan(const T *x, T *y, long long n, unsigned *status, unsigned long long *words, unsigned *ticket)
{
    __shared__ T items[TILE + THREADS];
    __shared__ ACC warps[THREADS / 32];
    __shared__ ACC before_tile;
    __shared__ unsigned tile;
    if (threadIdx.x == 0)
        tile = atomicAdd(ticket, 1u);
    __syncthreads();
    const long long first = static_cast<long long>(tile) * TILE;
    ACC total;
    const ACC mine = load(x, first, n, items);
    const ACC before = block_exclusive<THREADS>(mine, static_cast<ACC>(0), Sum(), warps, total);
    if (threadIdx.x < 32) {
        Board<ACC> board = {status, words};
        if (threadIdx.x == 0 && tile > 0)
            board.publish(tile, AGGREGATE, total);
        const ACC prefix = look_back(board, tile, static_cast<ACC>(0), Sum());
        if (threadIdx.x == 0) {
            board.publish(tile, PREFIX, prefix + total);
            before_tile = prefix;
        }
    }
    __syncthreads();
    store(y, first, n, before_tile + before, items);
}

// sums: [tiles].
extern "C" __global__ void __launch_bounds__(THREADS, 1024 / THREADS) tile_sums(const T *x, long long n, ACC *sums)
{
    __shared__ T items[TILE + THREADS];
    __shared__ ACC warps[THREADS / 32];
    ACC total;
    const ACC mine = load(x, static_cast<long long>(blockIdx.x) * TILE, n, items);
    block_exclusive<THREADS>(mine, static_cast<ACC>(0), Sum(), warps, total);
    if (threadIdx.x == 0)
        sums[blockIdx.x] = total;
}

// before: [tiles], the sum of what lies before each tile.
extern "C" __global__ void __launch_bounds__(THREADS, 1024 / THREADS)
    scan_given(const T *x, T *y, long long n, const ACC *before_tiles)
{
    __shared__ T items[TILE + THREADS];
    __shared__ ACC warps[THREADS / 32];
    const long long first = static_cast<long long>(blockIdx.x) * TILE;
    ACC total;
    const ACC mine = load(x, first, n, items);
    const ACC before = block_exclusive<THREADS>(mine, static_cast<ACC>(0), Sum(), warps, total);
    store(y, first, n, before_tiles[blockIdx.x] + before, items);
}
