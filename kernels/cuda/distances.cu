// Distances of many pairs of histograms: see kernels/cpu/distances.py, whose operations and order these repeat, so
// that both lie within the same tolerance of the reference. Fused multiply-add would change
// the bits.
// nvcc: --fmad=false

struct Sum {  // Neumaier: `rest` collects what each addition rounds away
    double total = 0.0, rest = 0.0;

    __device__ void add(double term)
    {
        const double after = total + term;
        rest += fabs(total) >= fabs(term) ? (total - after) + term : (term - after) + total;
        total = after;
    }

    __device__ double value() const { return total + rest; }
};

__device__ double psi(const long long *a, const long long *b, int size, double n, double m, int bins)
{
    const double w = bins / 2.0 / (fmin(n, m) + bins / 2.0);
    Sum sum;
    for (int i = 0; i < size; ++i) {
        if (a[i] + b[i] > 0) {
            const double p = (1 - w) * a[i] / n + w / bins;
            const double q = (1 - w) * b[i] / m + w / bins;
            sum.add((p - q) * log(p / q));
        }
    }
    return fmax(0.0, sum.value());
}

__device__ double ks(const long long *a, const long long *b, int size, double n, double m)
{
    long long below_a = 0, below_b = 0;
    double widest = 0.0;
    for (int i = 0; i < size; ++i) {
        below_a += a[i];
        below_b += b[i];
        widest = fmax(widest, fabs(below_a / n - below_b / m));
    }
    return widest;
}

__device__ double js(const long long *a, const long long *b, int size, double n, double m)
{
    Sum sum;
    bool equal = true;
    for (int i = 0; i < size; ++i) {
        const double p = a[i] / n, q = b[i] / m, middle = (p + q) / 2;
        equal = equal && p == q;
        if (p > 0)
            sum.add(p * log2(p / middle));
        if (q > 0)
            sum.add(q * log2(q / middle));
    }
    return equal ? 0.0 : sqrt(fmin(1.0, fmax(1e-300, sum.value() / 2)));
}

// p, q: [rows][width] counts, of which row i has sizes[i]. out: [3][rows], PSI, KS and JS. A thread a row.
extern "C" __global__ void distances(const long long *p, const long long *q, const long long *sizes, int rows,
                                     int width, double *out)
{
    const int row = blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= rows)
        return;
    const long long *a = p + static_cast<long long>(row) * width;
    const long long *b = q + static_cast<long long>(row) * width;
    const int size = static_cast<int>(sizes[row]);
    long long n = 0, m = 0;
    int bins = 0;
    for (int i = 0; i < size; ++i) {
        n += a[i];
        m += b[i];
        bins += a[i] + b[i] > 0;
    }
    const bool evidence = n > 0 && m > 0;
    out[row] = evidence ? psi(a, b, size, n, m, bins) : 0.0;
    out[rows + row] = evidence ? ks(a, b, size, n, m) : 0.0;
    out[2 * static_cast<long long>(rows) + row] = evidence ? js(a, b, size, n, m) : 0.0;
}
