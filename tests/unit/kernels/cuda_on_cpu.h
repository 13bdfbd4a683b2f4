// Runs CUDA C on a processor, for tests: each thread of a block is a fiber, blocks run one after the other.
//
// What it shows: indices, barriers, shared memory and arithmetic. What it cannot: races between blocks or
// between threads that do not meet at a barrier, warps, and speed. 1-dimensional blocks only.

#include <cmath>
#include <cstdlib>
#include <functional>
#include <ucontext.h>
#include <vector>

using std::fabs;
using std::fmax;
using std::fmin;

#define __global__
#define __device__
#define DYNAMIC_SHARED(name) double *name = cuda_on_cpu::shared.data()

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};
static dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace cuda_on_cpu {

constexpr std::size_t STACK = 64 * 1024;
static std::vector<double> shared;
static ucontext_t scheduler;
static ucontext_t *running = nullptr;
static std::function<void()> body;
static unsigned finished = 0;

static void fiber()
{
    body();
    ++finished;
    swapcontext(running, &scheduler);
}

static void run_block(unsigned threads)
{
    std::vector<ucontext_t> fibers(threads);
    std::vector<char> stacks(threads * STACK);
    for (unsigned t = 0; t < threads; ++t) {
        getcontext(&fibers[t]);
        fibers[t].uc_stack.ss_sp = stacks.data() + t * STACK;
        fibers[t].uc_stack.ss_size = STACK;
        fibers[t].uc_link = nullptr;
        makecontext(&fibers[t], fiber, 0);
    }
    for (finished = 0; finished < threads;) {  // a round: every thread runs to its next barrier or its end
        for (unsigned t = 0; t < threads; ++t) {
            threadIdx.x = t;
            running = &fibers[t];
            swapcontext(&scheduler, running);
        }
        if (finished != 0 && finished != threads)
            std::abort();  // some threads wait at a barrier that others never reach
    }
}

static void launch(dim3 grid, unsigned threads, std::size_t shared_bytes, std::function<void()> kernel)
{
    gridDim = grid;
    blockDim.x = threads;
    body = kernel;
    for (blockIdx.y = 0; blockIdx.y < grid.y; ++blockIdx.y) {
        for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x) {
            shared.assign(shared_bytes / sizeof(double) + 1, std::nan(""));  // nobody clears it
            run_block(threads);
        }
    }
}

}  // namespace cuda_on_cpu

static void __syncthreads() { swapcontext(cuda_on_cpu::running, &cuda_on_cpu::scheduler); }

template <typename T> static T atomicAdd(T *address, T value)
{
    const T before = *address;
    *address += value;
    return before;
}
