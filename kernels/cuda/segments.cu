// Runs of equal keys: prefix sums that begin anew with each run, and one sum and count a run.
//
// A scan of pairs (runs begun so far, sum since the last beginning), which combine to
// (a.runs + b.runs, b.runs > 0 ? b.sum : a.sum + b.sum): associative, so that it is scanned as scan.cu does,
// with the same tiles and look-back. Integers are exact; floats are summed in double.
// Grid: a block of THREADS a tile of THREADS * ITEMS elements. T: element; ACC: what it is summed in.
// Source: Blelloch, "Prefix sums and their applications" (1990), segmented scans; Merrill & Garland (2016).
#include "common.cuh"
#include "lookback.cuh"

#ifndef T
#define T long long
#define ACC long long
#endif
#ifndef THREADS
#define THREADS 256
#endif

constexpr int ITEMS = 8;
constexpr int TILE = THREADS * ITEMS;

struct Pair {
    long long runs;
    ACC sum;
};

struct Join {
    __device__ Pair operator()(Pair a, Pair b) const { return {a.runs + b.runs, b.runs > 0 ? b.sum : a.sum + b.sum}; }
};

// For each element of this thread whether a run begins there; its value; the pairs before and after.
struct Scanned {
    long long first;   // element of the thread
    long long runs;    // begun before it
    ACC sum;           // of the run that goes on, before it
    T values[ITEMS];
    unsigned begins;   // a bit for each element, one more for what follows the last
};

__device__ Scanned scanned(const long long *keys, const T *x, long long n, unsigned *status, unsigned long long *words,
                           unsigned *ticket)
{
    __shared__ Pair warps[THREADS / 32];
    __shared__ Pair before_tile;
    __shared__ unsigned tile;
    __shared__ T values[TILE + THREADS];
    __shared__ unsigned char begins[TILE + THREADS];
    if (threadIdx.x == 0)
        tile = atomicAdd(ticket, 1u);
    __syncthreads();
    const long long base = static_cast<long long>(tile) * TILE;
#pragma unroll
    for (int k = 0; k < ITEMS; ++k) {
        const int at = k * THREADS + threadIdx.x;
        const long long i = base + at;
        values[at + at / ITEMS] = i < n ? x[i] : static_cast<T>(0);
        begins[at + at / ITEMS] = i < n && (i == 0 || keys[i] != keys[i - 1]);  // the neighbour is in the cache
    }
    __syncthreads();
    Scanned mine;
    mine.first = base + threadIdx.x * ITEMS;
    mine.begins = 0;
    Pair own = {0, 0};
#pragma unroll
    for (int k = 0; k < ITEMS; ++k) {
        const int at = threadIdx.x * (ITEMS + 1) + k;
        mine.values[k] = values[at];
        const unsigned begin = begins[at];
        mine.begins |= begin << k;
        own = Join()(own, Pair{static_cast<long long>(begin), static_cast<ACC>(values[at])});
    }
    const long long next = mine.first + ITEMS;
    mine.begins |= static_cast<unsigned>(next >= n || keys[next] != keys[next - 1]) << ITEMS;
    const Pair nothing = {0, 0};
    Pair total;
    const Pair before = block_exclusive<THREADS>(own, nothing, Join(), warps, total);
    if (threadIdx.x < 32) {
        Board<Pair> board = {status, words};
        if (threadIdx.x == 0 && tile > 0)
            board.publish(tile, AGGREGATE, total);
        const Pair prefix = look_back(board, tile, nothing, Join());
        if (threadIdx.x == 0) {
            board.publish(tile, PREFIX, Join()(prefix, total));
            before_tile = prefix;
        }
    }
    __syncthreads();
    const Pair all_before = Join()(before_tile, before);
    mine.runs = all_before.runs;
    mine.sum = all_before.sum;
    return mine;
}

// keys, x, y: [n]. status: [tiles] zeros. words: [tiles][2][2]. ticket: 0.
extern "C" __global__ void __launch_bounds__(THREADS)
    segmented_scan(const long long *keys, const T *x, T *y, long long n, unsigned *status, unsigned long long *words,
                   unsigned *ticket)
{
    Scanned mine = scanned(keys, x, n, status, words, ticket);
#pragma unroll
    for (int k = 0; k < ITEMS; ++k) {
        mine.sum = (mine.begins >> k & 1u) ? static_cast<ACC>(mine.values[k]) : mine.sum + mine.values[k];
        if (mine.first + k < n)
            y[mine.first + k] = static_cast<T>(mine.sum);
    }
}

// For each run, at its last element: its key, the place after it, and its sum; `runs`: how many there are.
// run_keys, run_ends, run_sums: as long as there may be runs, at most [n].
extern "C" __global__ void __launch_bounds__(THREADS)
    segmented_sums(const long long *keys, const T *x, long long n, unsigned *status, unsigned long long *words,
                   unsigned *ticket, long long *run_keys, long long *run_ends, ACC *run_sums, long long *runs)
{
    Scanned mine = scanned(keys, x, n, status, words, ticket);
    long long run = mine.runs - 1;
#pragma unroll
    for (int k = 0; k < ITEMS; ++k) {
        const long long i = mine.first + k;
        const bool begins = mine.begins >> k & 1u;
        mine.sum = begins ? static_cast<ACC>(mine.values[k]) : mine.sum + mine.values[k];
        run += begins;
        if (i < n && (i == n - 1 || (mine.begins >> (k + 1) & 1u))) {
            run_keys[run] = keys[i];
            run_ends[run] = i + 1;
            run_sums[run] = mine.sum;
            if (i == n - 1)
                *runs = run + 1;
        }
    }
}
