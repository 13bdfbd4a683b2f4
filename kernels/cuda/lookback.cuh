// Scans of any length in one pass over the data: a tile's block learns what lies before it from the tiles that
// came first, looking back over their aggregates until it meets one whose whole prefix is known.
// Source: Merrill & Garland, "Single-pass parallel prefix scan with decoupled look-back" (2016).
#pragma once

constexpr unsigned ALL_LANES = 0xffffffffu;
enum TileState : unsigned { NOTHING = 0, AGGREGATE = 1, PREFIX = 2 };

// A value moves between lanes in words of eight bytes.
template <typename V> __device__ V from_lane_below(V value, int distance)
{
    constexpr int WORDS = (sizeof(V) + 7) / 8;
    unsigned long long words[WORDS] = {};
    memcpy(words, &value, sizeof value);
#pragma unroll
    for (int k = 0; k < WORDS; ++k)
        words[k] = __shfl_up_sync(ALL_LANES, words[k], distance);
    memcpy(&value, words, sizeof value);
    return value;
}

template <typename V> __device__ V from_lane_above(V value, int distance)
{
    constexpr int WORDS = (sizeof(V) + 7) / 8;
    unsigned long long words[WORDS] = {};
    memcpy(words, &value, sizeof value);
#pragma unroll
    for (int k = 0; k < WORDS; ++k)
        words[k] = __shfl_down_sync(ALL_LANES, words[k], distance);
    memcpy(&value, words, sizeof value);
    return value;
}

// What tiles say of themselves, in device memory; status is NOTHING before the launch.
template <typename V> struct Board {
    static constexpr int WORDS = (sizeof(V) + 7) / 8;
    volatile unsigned *status;            // [tiles]
    volatile unsigned long long *words;   // [tiles][2][WORDS]: the aggregate and the prefix

    __device__ void publish(long long tile, TileState state, V value)
    {
        unsigned long long bits[WORDS] = {};
        memcpy(bits, &value, sizeof value);
#pragma unroll
        for (int k = 0; k < WORDS; ++k)
            words[(2 * tile + state - 1) * WORDS + k] = bits[k];
        __threadfence();  // the value is seen before the state that announces it
        status[tile] = state;
    }

    __device__ unsigned wait_for(long long tile, V &value)
    {
        unsigned state = status[tile];
        while (state == NOTHING)
            state = status[tile];
        __threadfence();
        unsigned long long bits[WORDS];
#pragma unroll
        for (int k = 0; k < WORDS; ++k)
            bits[k] = words[(2 * tile + state - 1) * WORDS + k];
        memcpy(&value, bits, sizeof value);
        return state;
    }
};

// The combination of all tiles before `tile`, in their order; the lanes of one warp call it together.
template <typename V, typename Combine> __device__ V look_back(Board<V> board, long long tile, V identity, Combine combine)
{
    const int lane = threadIdx.x % 32;
    V prefix = identity;
    for (long long nearest = tile - 1;; nearest -= 32) {
        V value = identity;
        unsigned state = PREFIX;  // of nothing, before the first tile
        if (nearest - lane >= 0)
            state = board.wait_for(nearest - lane, value);
        const unsigned known = __ballot_sync(ALL_LANES, state == PREFIX);
        if (known != 0 && lane >= __ffs(static_cast<int>(known)))
            value = identity;  // the prefix before it includes this tile
        for (int distance = 1; distance < 32; distance *= 2) {  // a higher lane holds an earlier tile
            const V earlier = from_lane_above(value, distance);
            if (lane + distance < 32)
                value = combine(earlier, value);
        }
        prefix = combine(value, prefix);
        if (known != 0)
            return prefix;  // of lane 0
    }
}

// The combination of the values of the threads before this one; `total`: of all SIZE threads of the block.
// shared: [SIZE / 32].
template <int SIZE, typename V, typename Combine>
__device__ V block_exclusive(V mine, V identity, Combine combine, V *shared, V &total)
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    V inclusive = mine;
    for (int distance = 1; distance < 32; distance *= 2) {
        const V before = from_lane_below(inclusive, distance);
        if (lane >= distance)
            inclusive = combine(before, inclusive);
    }
    if (lane == 31)
        shared[warp] = inclusive;
    V exclusive = from_lane_below(inclusive, 1);
    if (lane == 0)
        exclusive = identity;
    __syncthreads();
    V warps_before = identity;
    total = identity;
#pragma unroll
    for (int w = 0; w < SIZE / 32; ++w) {
        if (w == warp)
            warps_before = total;
        total = combine(total, shared[w]);
    }
    return combine(warps_before, exclusive);
}
