// Runs CUDA C on a processor: each thread of a block is a fiber, blocks run one after the other, in order.
//
// It shows indices, barriers, shared memory, warp collectives and arithmetic, and it is strict: a barrier or a
// collective that some threads never reach, a mask that does not fit, an access beyond an array's end and a
// stack that overflows end the launch with a message, and so do races if asked for (emulator_races.h). It cannot
// show: memory ordering, tensor cores, inline PTX, speed.
// Shared variables in templates and inline functions are not supported; `__constant__` has no setter.
#pragma once

#include <csetjmp>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "emulator_block.h"
#include "emulator_races.h"
#include "emulator_types.h"

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __shared__ static __attribute__((section("cuda_shared")))
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define DYNAMIC_SHARED(type, name) type *name = reinterpret_cast<type *>(cuda_emulator::dynamic_shared)

// Static shared variables lie in a section of their own, so that each block finds garbage in them.
extern "C" char __start_cuda_shared[] __attribute__((weak, visibility("hidden")));
extern "C" char __stop_cuda_shared[] __attribute__((weak, visibility("hidden")));

namespace cuda_emulator {

struct Span {
    void *address;
    std::uint64_t bytes;
};

struct Launch {
    unsigned grid[3], block[3];
    std::uint64_t shared;
    char *stacks;  // MOST_THREADS of STACK bytes, each with a page at its end that nobody may touch
    int reverse;   // threads and blocks from the last to the first
    double limit;  // seconds after which it is stopped
    const Span *buffers;  // its arguments that are some
    unsigned buffer_count;
};

static void *dynamic_shared = nullptr;
static pthread_t launcher;

static void on_signal(int number, siginfo_t *, void *)
{
    if (!pthread_equal(pthread_self(), launcher)) {
        std::signal(number, SIG_DFL);
        return;
    }
    if (number == SIGRTMAX)
        fail("it ran too long (does it wait for a block that has not begun?)");
    fail("%s", number == SIGFPE    ? "an integer was divided by zero"
               : number == SIGABRT ? "it aborted (an assertion?)"
               : number == SIGILL  ? "a misaligned access"
                                   : "an access beyond memory, or a stack that overflowed");
}

static void make_fibers(char *stacks)
{
    for (unsigned t = 0; t < threads; ++t) {
        getcontext(&fibers[t].context);
        fibers[t].context.uc_stack.ss_sp = stacks + t * STACK;
        fibers[t].context.uc_stack.ss_size = STACK;
        fibers[t].context.uc_link = nullptr;
        makecontext(&fibers[t].context, fiber, 0);
        fibers[t].entered = false;
    }
}

static void run_grid(const Launch &launch)
{
    static void *shared_memory = nullptr;
    static std::size_t shared_size = 0;
    const std::size_t want = (launch.shared + GUARD - 1) / GUARD * GUARD;
    if (shared_memory == nullptr || shared_size != want) {  // ends where a page does that nobody may touch
        if (shared_memory != nullptr)
            munmap(shared_memory, shared_size + GUARD);
        shared_memory = mmap(nullptr, want + GUARD, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        shared_size = want;
        mprotect(static_cast<char *>(shared_memory) + want, GUARD, PROT_NONE);
    }
    const std::size_t bytes = (launch.shared + 15) / 16 * 16;
    dynamic_shared = static_cast<char *>(shared_memory) + want - bytes;
    gridDim = dim3(launch.grid[0], launch.grid[1], launch.grid[2]);
    blockDim = dim3(launch.block[0], launch.block[1], launch.block[2]);
    threads = blockDim.x * blockDim.y * blockDim.z;
    make_fibers(launch.stacks);
    watch(dynamic_shared, bytes, true);
    if (__start_cuda_shared != nullptr)
        watch(__start_cuda_shared, __stop_cuda_shared - __start_cuda_shared, true);
    for (unsigned i = 0; i < launch.buffer_count; ++i)
        watch(launch.buffers[i].address, launch.buffers[i].bytes, false);
    const std::uint64_t blocks = static_cast<std::uint64_t>(gridDim.x) * gridDim.y * gridDim.z;
    for (std::uint64_t i = 0; i < blocks; ++i) {
        const std::uint64_t b = launch.reverse ? blocks - 1 - i : i;
        blockIdx.x = static_cast<unsigned>(b % gridDim.x);
        blockIdx.y = static_cast<unsigned>(b / gridDim.x % gridDim.y);
        blockIdx.z = static_cast<unsigned>(b / gridDim.x / gridDim.y);
        std::memset(dynamic_shared, 0xff, bytes);  // NaN, -1: nobody clears it
        if (__start_cuda_shared != nullptr)
            std::memset(__start_cuda_shared, 0xff, __stop_cuda_shared - __start_cuda_shared);
        begin_watched_block();
        run_block(launch.reverse != 0);
    }
}

// Sends SIGRTMAX to this very thread when the time is over.
static timer_t begin_limit(double seconds)
{
    struct sigevent event = {};
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = SIGRTMAX;
    event._sigev_un._tid = static_cast<pid_t>(syscall(SYS_gettid));
    timer_t timer;
    timer_create(CLOCK_MONOTONIC, &event, &timer);
    struct itimerspec until = {};
    until.it_value.tv_sec = static_cast<time_t>(seconds);
    until.it_value.tv_nsec = static_cast<long>((seconds - static_cast<double>(until.it_value.tv_sec)) * 1e9);
    timer_settime(timer, 0, &until, nullptr);
    return timer;
}

static int run(const Launch &launch, void (*kernel)(void **), void **arguments, char *text, std::size_t size)
{
    static char signal_stack[64 * 1024];
    const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGRTMAX};
    struct sigaction before[6], action = {};
    stack_t stack_before, stack = {};
    body = kernel;
    body_arguments = arguments;
    message = text;
    message_size = size;
    launcher = pthread_self();
    stack.ss_sp = signal_stack;
    stack.ss_size = sizeof signal_stack;
    sigaltstack(&stack, &stack_before);
    action.sa_sigaction = on_signal;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    for (int i = 0; i < 6; ++i)
        sigaction(signals[i], &action, &before[i]);
    const timer_t timer = begin_limit(launch.limit);
    volatile int failed = 1;
    if (sigsetjmp(aborted, 1) == 0) {
        run_grid(launch);
        failed = 0;
    }
    forget_regions();
    timer_delete(timer);
    for (int i = 0; i < 6; ++i)
        sigaction(signals[i], &before[i], nullptr);
    sigaltstack(&stack_before, nullptr);
    return failed;
}

// The launcher of a kernel, for any parameters: `arguments[i]` points to the i-th.
template <typename... P, std::size_t... I>
void call(void (*kernel)(P...), void **arguments, std::index_sequence<I...>)
{
    kernel(*static_cast<std::remove_reference_t<P> *>(arguments[I])...);
}

template <typename... P> void call(void (*kernel)(P...), void **arguments)
{
    call(kernel, arguments, std::index_sequence_for<P...>());
}

// One word for each parameter: kind and bytes, such as i4 or f8; of what a pointer points to after a *.
template <typename T> int describe(char *out, std::size_t size)
{
    using V = std::remove_cv_t<std::remove_pointer_t<T>>;
    constexpr bool plain = !std::is_void_v<V>;
    const char kind = std::is_floating_point_v<V> ? 'f' : std::is_integral_v<V> ? 'i' : 'x';
    unsigned bytes = 0;
    if constexpr (plain)
        bytes = sizeof(V);
    return std::snprintf(out, size, "%s%c%u ", std::is_pointer_v<T> ? "*" : "", kind, bytes);
}

template <typename... P> void describe_all(void (*)(P...), char *out, std::size_t size)
{
    std::size_t used = 0;
    out[0] = 0;
    ((used += describe<P>(out + used, size - used)), ...);
}

}  // namespace cuda_emulator

#define CUDA_EMULATOR_EXPORT(name)                                                                           \
    extern "C" int emulator_run_##name(const cuda_emulator::Launch *launch, void **arguments, char *text,    \
                                       std::size_t size)                                                     \
    {                                                                                                        \
        return cuda_emulator::run(*launch, [](void **a) { cuda_emulator::call(name, a); }, arguments, text,  \
                                  size);                                                                     \
    }                                                                                                        \
    extern "C" void emulator_describe_##name(char *out, std::size_t size)                                    \
    {                                                                                                        \
        cuda_emulator::describe_all(name, out, size);                                                        \
    }

extern "C" std::size_t emulator_shared_static()
{
    return __start_cuda_shared == nullptr ? 0 : __stop_cuda_shared - __start_cuda_shared;
}

#include "emulator_intrinsics.h"
