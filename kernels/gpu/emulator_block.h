// One block of the emulator: fibers, the barriers and warp collectives at which they meet, and their scheduler.
#pragma once

#include <csetjmp>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <ucontext.h>

#include "emulator_types.h"

static uint3 threadIdx, blockIdx;
static dim3 blockDim, gridDim;
constexpr int warpSize = 32;

namespace cuda_emulator {

constexpr std::size_t STACK = 64 * 1024, GUARD = 4096;
constexpr unsigned MOST_THREADS = 1024, LANES = 32;

enum State { READY, AT_COLLECTIVE, AT_BARRIER, ENDED };
enum Collective { SYNC, SHUFFLE, BALLOT };
static const char *const COLLECTIVES[] = {"__syncwarp", "a shuffle", "a vote"};

struct Fiber {
    ucontext_t context;
    jmp_buf jump;
    bool entered;
    State state;
    int line;
    Collective collective;
    unsigned mask, source;
    std::uint64_t value, result;
};

static Fiber fibers[MOST_THREADS];
static jmp_buf scheduler;
static sigjmp_buf aborted;
static unsigned current = 0, threads = 0;
static void (*body)(void **) = nullptr;
static void **body_arguments = nullptr;
static char *message = nullptr;
static std::size_t message_size = 0;
static std::uint32_t epoch = 0, block_epoch = 0;  // barriers so far, and when this block began

[[noreturn]] static void fail(const char *format, ...)
{
    const int used = std::snprintf(message, message_size, "block (%u, %u, %u), thread (%u, %u, %u): ", blockIdx.x,
                                   blockIdx.y, blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z);
    va_list values;
    va_start(values, format);
    std::vsnprintf(message + used, message_size - used, format, values);
    va_end(values);
    siglongjmp(aborted, 1);
}

static void wait()  // back to the scheduler, until it comes here again
{
    if (_setjmp(fibers[current].jump) == 0)
        _longjmp(scheduler, 1);
}

static void fiber()
{
    for (;;) {
        body(body_arguments);
        fibers[current].state = ENDED;
        wait();
    }
}

static void resume(unsigned thread)
{
    Fiber &next = fibers[thread];
    current = thread;
    threadIdx.x = thread % blockDim.x;
    threadIdx.y = thread / blockDim.x % blockDim.y;
    threadIdx.z = thread / blockDim.x / blockDim.y;
    if (_setjmp(scheduler) == 0) {
        if (next.entered)
            _longjmp(next.jump, 1);
        next.entered = true;
        setcontext(&next.context);
    }
}

static void join_clocks(unsigned first, unsigned mask);  // see emulator_races.h

// Lets the lanes of `thread`'s collective go on if all of them have come; those that ended are not waited for.
static bool meet(unsigned thread)
{
    const Fiber &mine = fibers[thread];
    const unsigned first = thread / LANES * LANES;
    std::uint64_t votes = 0;
    for (unsigned lane = 0; lane < LANES && first + lane < threads; ++lane) {
        const Fiber &other = fibers[first + lane];
        if (!(mine.mask >> lane & 1u) || other.state == ENDED)
            continue;
        if (other.state != AT_COLLECTIVE || other.mask != mine.mask || other.collective != mine.collective)
            return false;
        votes |= static_cast<std::uint64_t>(other.value != 0) << lane;
    }
    for (unsigned lane = 0; lane < LANES && first + lane < threads; ++lane) {
        Fiber &other = fibers[first + lane];
        if (!(mine.mask >> lane & 1u) || other.state == ENDED)
            continue;
        if (mine.collective == BALLOT)
            other.result = votes;
        if (mine.collective == SHUFFLE) {
            const unsigned from = first + other.source;
            if (from >= threads || fibers[from].state == ENDED || !(mine.mask >> other.source & 1u))
                fail("line %d: lane %u shuffles from lane %u, which takes no part", other.line, lane, other.source);
            other.result = fibers[from].value;
        }
    }
    const unsigned mask = mine.mask;
    if (mine.collective == SYNC)
        join_clocks(first, mask);
    for (unsigned lane = 0; lane < LANES && first + lane < threads; ++lane)
        if (mask >> lane & 1u && fibers[first + lane].state != ENDED)
            fibers[first + lane].state = READY;
    return true;
}

static std::uint64_t collective(int line, Collective kind, unsigned mask, std::uint64_t value, unsigned source)
{
    Fiber &mine = fibers[current];
    if (!(mask >> current % LANES & 1u))
        fail("line %d: the mask %08x of %s leaves out the caller, lane %u", line, mask, COLLECTIVES[kind],
             current % LANES);
    mine.state = AT_COLLECTIVE;
    mine.line = line;
    mine.collective = kind;
    mine.mask = mask;
    mine.value = value;
    mine.source = source;
    if (!meet(current))
        wait();
    return mine.result;
}

static void barrier(int line, int predicate = 0)
{
    fibers[current].state = AT_BARRIER;
    fibers[current].line = line;
    fibers[current].value = predicate != 0;
    wait();
}

static unsigned barrier_count(int line, int predicate)
{
    barrier(line, predicate);
    return static_cast<unsigned>(fibers[current].result);
}

[[noreturn]] static void explain_stuck()
{
    static const char *const WORDS[] = {"runs", "waits at a warp collective", "waits at a barrier", "has ended"};
    unsigned other = 1;
    while (other + 1 < threads && fibers[other].state == fibers[0].state && fibers[other].line == fibers[0].line)
        ++other;
    fail("divergent: thread 0 %s (line %d), thread %u %s (line %d)", WORDS[fibers[0].state], fibers[0].line, other,
         WORDS[fibers[other].state], fibers[other].line);
}

static void release_barrier()
{
    ++epoch;
    std::uint64_t count = 0;
    for (unsigned t = 0; t < threads; ++t) {
        if (fibers[t].line != fibers[0].line)
            explain_stuck();
        count += fibers[t].value;
    }
    for (unsigned t = 0; t < threads; ++t) {
        fibers[t].result = count;
        fibers[t].state = READY;
    }
}

static void run_block(bool reverse)
{
    for (unsigned t = 0; t < threads; ++t) {
        fibers[t].state = READY;
        fibers[t].line = 0;
    }
    for (;;) {
        bool progress = false;
        for (unsigned i = 0; i < threads; ++i) {
            const unsigned t = reverse ? threads - 1 - i : i;
            if (fibers[t].state == READY) {
                resume(t);
                progress = true;
            }
        }
        if (progress)
            continue;
        unsigned ended = 0, at_barrier = 0;
        bool met = false;
        for (unsigned t = 0; t < threads; ++t) {
            ended += fibers[t].state == ENDED;
            at_barrier += fibers[t].state == AT_BARRIER;
            met = met || (fibers[t].state == AT_COLLECTIVE && meet(t));  // its other lanes have ended
        }
        if (ended == threads)
            return;
        if (at_barrier == threads)
            release_barrier();
        else if (!met)
            explain_stuck();
    }
}

}  // namespace cuda_emulator
