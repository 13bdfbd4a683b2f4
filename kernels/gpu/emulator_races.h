// Finds accesses that nothing orders: g++ calls __tsan_* before each load and store (-fsanitize=thread), and what
// is said there is compared with who touched the same byte before.
//
// Two accesses of one byte, one of them a write, not both atomic or volatile, must be separated: threads of a block by
// a barrier, lanes of a warp by it or by __syncwarp (a shuffle or a vote orders no memory), blocks by an atomic
// or volatile access that was written behind a __threadfence and then read. It errs towards silence: such a
// read counts for all that ran before the write.
// Source of the clocks: Flanagan & Freund, "FastTrack: efficient and precise dynamic race detection" (2009).
#pragma once

#include "emulator_block.h"

namespace cuda_emulator {

enum Kind : std::uint16_t { READ = 0, WRITE = 1, STRONG = 2, RELEASED = 4 };

}  // namespace cuda_emulator

#ifndef CUDA_RACES

namespace cuda_emulator {

inline void watch(const void *, std::size_t, bool) {}
inline void forget_regions() {}
inline void begin_watched_block() {}
static void join_clocks(unsigned, unsigned) {}
inline void fence() {}
inline void hold_still(const void *, std::size_t) {}
inline void end_held_group() {}
inline void release_groups(unsigned) {}

}  // namespace cuda_emulator

#define UNWATCHED
#define CUDA_TOUCH(address, bytes, kind)

#else

#include <sys/mman.h>

#define UNWATCHED __attribute__((no_sanitize("thread")))
// An access by a function of ours; it counts as its caller's, so that function must not be inlined.
#define CUDA_TOUCH(address, bytes, kind) cuda_emulator::seen(address, bytes, kind, __builtin_return_address(0))

extern "C" const char __ehdr_start[] __attribute__((visibility("hidden")));

namespace cuda_emulator {

struct Access {
    std::uint32_t epoch;  // 0: none
    std::uint16_t thread, kind;
    std::uint32_t clock, place;
};

struct Cell {
    Access write, other;  // the latest writer, and one before it with which it did not race
    Access reads[2];      // the latest readers, of different warps if there are such
};

struct Region {
    std::uintptr_t begin, end;
    Cell *cells;
    bool shared;
};

// Shared memory that an instruction of this thread goes on to read until it is waited for.
struct Held {
    std::uintptr_t begin, end;
    unsigned thread, group;
    std::uint32_t place;
};

constexpr unsigned MOST_REGIONS = 64, MOST_HELD = 1024;
static Held held[MOST_HELD];
static unsigned held_count = 0;
static unsigned groups[MOST_THREADS];  // committed so far
static Region regions[MOST_REGIONS];
static unsigned region_count = 0;
static std::uint32_t acquired;  // what other blocks did up to this epoch is known to this one
static bool fenced[MOST_THREADS];
static std::uint32_t clocks[MOST_THREADS][LANES] = {};  // what a thread knows of the lanes of its warp

UNWATCHED static void watch(const void *begin, std::size_t bytes, bool shared)
{
    if (bytes == 0)
        return;
    if (region_count == MOST_REGIONS)
        fail("more than %u buffers", MOST_REGIONS);
    void *cells = mmap(nullptr, bytes * sizeof(Cell), PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (cells == MAP_FAILED)
        fail("no memory to watch %zu bytes", bytes);
    const std::uintptr_t at = reinterpret_cast<std::uintptr_t>(begin);
    regions[region_count++] = {at, at + bytes, static_cast<Cell *>(cells), shared};
}

UNWATCHED static void forget_regions()
{
    while (region_count > 0) {
        const Region &region = regions[--region_count];
        munmap(region.cells, (region.end - region.begin) * sizeof(Cell));
    }
}

UNWATCHED static void begin_watched_block()
{
    block_epoch = ++epoch;
    acquired = held_count = 0;
    for (unsigned t = 0; t < threads; ++t) {
        fenced[t] = false;
        groups[t] = 0;
        for (unsigned lane = 0; lane < LANES; ++lane)
            clocks[t][lane] = lane == t % LANES;
    }
}

// What the lanes of a __syncwarp did before it, all of them know after it.
UNWATCHED static void join_clocks(unsigned first, unsigned mask)
{
    std::uint32_t known[LANES] = {};
    const auto takes_part = [&](unsigned lane) {
        return mask >> lane & 1u && first + lane < threads && fibers[first + lane].state != ENDED;
    };
    for (unsigned lane = 0; lane < LANES; ++lane)
        for (unsigned of = 0; takes_part(lane) && of < LANES; ++of)
            known[of] = known[of] < clocks[first + lane][of] ? clocks[first + lane][of] : known[of];
    for (unsigned lane = 0; lane < LANES; ++lane) {
        for (unsigned of = 0; takes_part(lane) && of < LANES; ++of)
            clocks[first + lane][of] = known[of];
        if (takes_part(lane))
            ++clocks[first + lane][lane];
    }
}

UNWATCHED inline void fence() { fenced[current] = true; }

// From now until the group is waited for nobody may write there. An instruction of four warps counts once.
UNWATCHED __attribute__((noinline)) void hold_still(const void *begin, std::size_t bytes)
{
    if (current % 128 != 0)
        return;
    if (held_count == MOST_HELD)
        fail("more than %u operands that were not waited for", MOST_HELD);
    const std::uintptr_t at = reinterpret_cast<std::uintptr_t>(begin);
    const void *from = __builtin_return_address(0);
    held[held_count++] = {at, at + bytes, current, groups[current],
                          static_cast<std::uint32_t>(static_cast<const char *>(from) - __ehdr_start)};
}

UNWATCHED inline void end_held_group() { ++groups[current]; }

// All but the latest `open` groups of this thread are done.
UNWATCHED static void release_groups(unsigned open)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < held_count; ++i)
        if (held[i].thread != current || held[i].group + open >= groups[current])
            held[kept++] = held[i];
    held_count = kept;
}

// Whether what was done before happened before what `current` does now.
UNWATCHED static bool ordered(const Access &before, bool shared)
{
    if (before.epoch < block_epoch)
        return shared || before.epoch <= acquired;  // another block's shared memory is another memory
    if (before.epoch < epoch || before.thread == current)
        return true;
    return before.thread / LANES == current / LANES
           && clocks[current][before.thread % LANES] >= before.clock;
}

UNWATCHED static void compare(const Access &before, int kind, std::uint32_t place, const Region &region, std::size_t byte)
{
    if (before.epoch == 0 || (before.kind & kind & STRONG) || ordered(before, region.shared))
        return;
    fail("a race: it %s byte %zu of %s memory <%x>, which thread %u%s %s <%x>, and nothing orders the two",
         kind & WRITE ? "writes" : "reads", byte, region.shared ? "shared" : "device", place, before.thread,
         before.epoch < block_epoch ? " of another block" : "", before.kind & WRITE ? "wrote" : "read", before.place);
}

UNWATCHED static void seen(const volatile void *address, std::size_t bytes, int kind, const void *from)
{
    const std::uintptr_t at = reinterpret_cast<std::uintptr_t>(address);
    const Region *region = regions;
    while (region < regions + region_count && !(region->begin <= at && at < region->end))
        ++region;
    if (region == regions + region_count)
        return;
    const std::uint32_t place = static_cast<std::uint32_t>(static_cast<const char *>(from) - __ehdr_start);
    for (unsigned i = 0; kind & WRITE && i < held_count; ++i)
        if (at < held[i].end && held[i].begin < at + bytes)
            fail("a race: it writes byte %zu of shared memory <%x>, which an instruction of thread %u still reads <%x>",
                 at - region->begin, place, held[i].thread, held[i].place);
    if (kind & STRONG && kind & WRITE && fenced[current])
        kind |= RELEASED;
    const Access now = {epoch, static_cast<std::uint16_t>(current), static_cast<std::uint16_t>(kind),
                        clocks[current][current % LANES], place};
    for (std::uintptr_t byte = at; byte < at + bytes && byte < region->end; ++byte) {
        Cell &cell = region->cells[byte - region->begin];
        const Access &last = cell.write;
        if (kind & STRONG && last.kind & RELEASED && last.epoch < block_epoch && last.epoch > acquired)
            acquired = last.epoch;
        compare(last, kind, place, *region, byte - region->begin);
        compare(cell.other, kind, place, *region, byte - region->begin);
        if (kind & WRITE) {
            if (last.thread != current)
                cell.other = last;
            compare(cell.reads[0], kind, place, *region, byte - region->begin);
            compare(cell.reads[1], kind, place, *region, byte - region->begin);
            cell.write = now;
            cell.reads[0].epoch = cell.reads[1].epoch = 0;
        } else {
            const Access &first = cell.reads[0];
            if (first.epoch == epoch && first.thread / LANES != current / LANES)
                cell.reads[1] = first;
            cell.reads[0] = now;
        }
    }
}

}  // namespace cuda_emulator

#define CUDA_HOOK extern "C" __attribute__((visibility("hidden"))) UNWATCHED void
#define CUDA_SEEN(name, bytes, kind)                                                                         \
    CUDA_HOOK __tsan_##name(void *address)                                                                   \
    {                                                                                                        \
        cuda_emulator::seen(address, bytes, kind, __builtin_return_address(0));                              \
    }
#define CUDA_SEEN_SIZE(size)                                                                                 \
    CUDA_SEEN(read##size, size, cuda_emulator::READ)                                                         \
    CUDA_SEEN(write##size, size, cuda_emulator::WRITE)                                                       \
    CUDA_SEEN(unaligned_read##size, size, cuda_emulator::READ)                                               \
    CUDA_SEEN(unaligned_write##size, size, cuda_emulator::WRITE)                                             \
    CUDA_SEEN(volatile_read##size, size, cuda_emulator::READ | cuda_emulator::STRONG)                        \
    CUDA_SEEN(volatile_write##size, size, cuda_emulator::WRITE | cuda_emulator::STRONG)                      \
    CUDA_SEEN(unaligned_volatile_read##size, size, cuda_emulator::READ | cuda_emulator::STRONG)              \
    CUDA_SEEN(unaligned_volatile_write##size, size, cuda_emulator::WRITE | cuda_emulator::STRONG)
CUDA_SEEN_SIZE(1)
CUDA_SEEN_SIZE(2)
CUDA_SEEN_SIZE(4)
CUDA_SEEN_SIZE(8)
CUDA_SEEN_SIZE(16)
#undef CUDA_SEEN_SIZE
#undef CUDA_SEEN

#define CUDA_SEEN_RANGE(name, kind)                                                                          \
    CUDA_HOOK __tsan_##name(void *address, std::size_t bytes)                                                \
    {                                                                                                        \
        cuda_emulator::seen(address, bytes, kind, __builtin_return_address(0));                              \
    }
CUDA_SEEN_RANGE(read_range, cuda_emulator::READ)
CUDA_SEEN_RANGE(write_range, cuda_emulator::WRITE)
#undef CUDA_SEEN_RANGE

CUDA_HOOK __tsan_init() {}
CUDA_HOOK __tsan_func_entry(void *) {}
CUDA_HOOK __tsan_func_exit() {}
CUDA_HOOK __tsan_vptr_update(void **, void *) {}
CUDA_HOOK __tsan_vptr_read(void **) {}

#endif
