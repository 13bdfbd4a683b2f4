// Sums of the leaves that rows reach in an ensemble of decision trees: gradient boosting, random forests.
//
// A thread per row, trees in their order, so that sums are the same on every run and on every device. A node is 16
// bytes, one load; the children of a node lie side by side. Thresholds are double: a float value compares exactly.
// A row's features are staged in shared memory where they fit (-DSTAGED), an odd number of words apart.
//
// -DX=float or double: features. -DSUM=float or double: leaves and their sums. OUTPUTS: sums per row (classes);
// WIDTH: values per leaf, added to the tree's outputs first .. first + WIDTH - 1. -DBASE_LAST: base added at the end.

#include "common.cuh"

#ifndef X
#define X float
#endif
#ifndef SUM
#define SUM double
#endif
#ifndef OUTPUTS
#define OUTPUTS 1
#endif
#ifndef WIDTH
#define WIDTH 1
#endif
#ifndef BLOCK
#define BLOCK 128
#endif

#define MISSING_LEFT 0x40000000

struct alignas(16) Node {
    double threshold;  // value <= threshold goes left
    int feature;       // -1: a leaf; bit 30: a missing value (NaN) goes left
    int left;          // of a leaf: its place among the values
};

// nodes: all trees'. roots, firsts: (trees,). values: (leaves, WIDTH). base: (OUTPUTS,). x: (n, features).
// out: (n, OUTPUTS). Block: BLOCK. Grid: any. Shared (STAGED): BLOCK * (features | 1) of X.
extern "C" __global__ void __launch_bounds__(BLOCK)
    trees_sum(const Node *nodes, const int *roots, const int *firsts, const SUM *values, const SUM *base, const X *x,
              SUM *out, long long n, int features, int trees)
{
#ifdef STAGED
    DYNAMIC_SHARED(X, shared);
    const int stride = features | 1;
#endif
    for (long long first = static_cast<long long>(blockIdx.x) * BLOCK; first < n;
         first += static_cast<long long>(gridDim.x) * BLOCK) {
        const long long row = first + threadIdx.x;
#ifdef STAGED
        __syncthreads();
        const long long cells = min(static_cast<long long>(BLOCK), n - first) * features;
        for (int i = threadIdx.x; i < cells; i += BLOCK)
            shared[i / features * stride + i % features] = x[first * features + i];
        __syncthreads();
        const X *mine = shared + threadIdx.x * stride;
#else
        const X *mine = x + row * features;
#endif
        if (row < n) {
            SUM sum[OUTPUTS];
#pragma unroll
            for (int i = 0; i < OUTPUTS; ++i)
#ifdef BASE_LAST
                sum[i] = 0;
#else
                sum[i] = base[i];
#endif
            for (int tree = 0; tree < trees; ++tree) {
                Node node = nodes[roots[tree]];
                while (node.feature >= 0) {
                    const double value = static_cast<double>(mine[node.feature & ~MISSING_LEFT]);
                    const bool left = value != value ? (node.feature & MISSING_LEFT) != 0 : value <= node.threshold;
                    node = nodes[node.left + !left];
                }
                const int output = OUTPUTS > 1 ? firsts[tree] : 0;
#pragma unroll
                for (int i = 0; i < OUTPUTS; ++i)
                    if (OUTPUTS == 1 || (i >= output && i < output + WIDTH))
                        sum[i] += values[static_cast<long long>(node.left) * WIDTH + i - output];
            }
#pragma unroll
            for (int i = 0; i < OUTPUTS; ++i)
#ifdef BASE_LAST
                out[row * OUTPUTS + i] = sum[i] + base[i];
#else
                out[row * OUTPUTS + i] = sum[i];
#endif
        }
    }
}
