// The k best of a stream of keys, kept by one warp in shared memory: 2 * LIST keys, of which the first LIST are the
// best so far in falling order and the others wait. A key that cannot be among the k best is dropped at once, so
// that a long stream in random order costs about k ln(n / k) insertions; waiting keys are sorted in when they fill
// up (bitonic network; Batcher, "Sorting networks and their applications", 1968).
//
// A key is a score and a row in 64 bits, so ordered that the larger score is the larger key and, of equal scores,
// the smaller row. Keys are distinct: the k best are the same in whatever order they come.

#pragma once

#include "rows.cuh"

#ifndef LIST
#define LIST 32  // a power of two, at least 32 and at least k
#endif

typedef unsigned long long Key;

__device__ __forceinline__ Key key_of(float score, int row)
{
    const unsigned bits = __float_as_uint(score + 0.0f);  // one zero: -0 + 0 is 0
    const unsigned ordered = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return static_cast<Key>(ordered) << 32 | (0xffffffffu - static_cast<unsigned>(row));
}

__device__ __forceinline__ void sort_falling(Key *keys, int lane)
{
#pragma unroll 1
    for (int size = 2; size <= 2 * LIST; size *= 2)
#pragma unroll 1
        for (int apart = size / 2; apart > 0; apart /= 2) {
            for (int i = lane; i < LIST; i += 32) {
                const int low = 2 * i - (i & (apart - 1)), high = low + apart;
                const Key first = keys[low], second = keys[high];
                const bool falling = (low & size) == 0;
                if (falling ? first < second : first > second) {
                    keys[low] = second;
                    keys[high] = first;
                }
            }
            __syncwarp();
        }
}

// All members are called by whole warps. Only `sort_in` looks at what other lanes have written.
struct Best {
    Key *keys;
    Key least;  // the k-th best so far: what is not above it is out
    int waiting;

    __device__ __forceinline__ void begin(Key *place, int lane)
    {
        keys = place;
        least = 0;
        waiting = 0;
        for (int i = lane; i < LIST; i += 32)
            keys[i] = 0;
    }

    __device__ __forceinline__ void offer(Key key, bool valid, int k, int lane)
    {
        const bool better = valid && key > least;
        const unsigned lanes = __ballot_sync(FULL_WARP, better);
        if (lanes == 0)
            return;
        if (better)
            keys[LIST + waiting + __popc(lanes & ((1u << lane) - 1))] = key;
        waiting += __popc(lanes);
        if (waiting > LIST - 32)
            sort_in(k, lane);
    }

    __device__ __forceinline__ void sort_in(int k, int lane)
    {
        for (int i = waiting + lane; i < LIST; i += 32)
            keys[LIST + i] = 0;
        __syncwarp();
        sort_falling(keys, lane);
        least = keys[k - 1];
        waiting = 0;
    }
};

// The best of `lists` sorted lists, LIST keys each and 2 * LIST apart, gathered in the first of them by one warp.
__device__ __forceinline__ void merge_lists(Key *first, int apart, int lists, int k, int lane)
{
    Best best{first, first[k - 1], 0};
    for (int other = 1; other < lists; ++other)
        for (int i = lane; i < LIST; i += 32)
            best.offer(first[static_cast<long long>(other) * apart + i], true, k, lane);
    best.sort_in(k, lane);
}
