// CUDA's functions, for the emulator: barriers, warp collectives, atomics, loads, arithmetic.
#pragma once

#include <cmath>

#define __syncthreads() cuda_emulator::barrier(__LINE__)
#define __syncthreads_count(predicate) static_cast<int>(cuda_emulator::barrier_count(__LINE__, (predicate)))
#define __syncthreads_or(predicate) static_cast<int>(cuda_emulator::barrier_count(__LINE__, (predicate)) > 0)
#define __syncthreads_and(predicate)                                                                         \
    static_cast<int>(cuda_emulator::barrier_count(__LINE__, (predicate)) == cuda_emulator::threads)
#define __syncwarp(...) cuda_emulator::SyncWarp{__LINE__}(__VA_ARGS__)
#define __ballot_sync(mask, predicate) cuda_emulator::ballot(__LINE__, (mask), (predicate) != 0)
#define __any_sync(mask, predicate) static_cast<int>(__ballot_sync(mask, predicate) != 0)
#define __all_sync(mask, predicate) static_cast<int>(__ballot_sync(mask, !(predicate)) == 0)
#define __shfl_sync(mask, ...) cuda_emulator::shuffle(__LINE__, (mask), __VA_ARGS__)
#define __shfl_up_sync(mask, ...) cuda_emulator::shuffle_up(__LINE__, (mask), __VA_ARGS__)
#define __shfl_down_sync(mask, ...) cuda_emulator::shuffle_down(__LINE__, (mask), __VA_ARGS__)
#define __shfl_xor_sync(mask, ...) cuda_emulator::shuffle_xor(__LINE__, (mask), __VA_ARGS__)
#define __reduce_add_sync(mask, value) cuda_emulator::reduce(__LINE__, (mask), (value), [](auto a, auto b) { return a + b; })
#define __reduce_min_sync(mask, value) cuda_emulator::reduce(__LINE__, (mask), (value), [](auto a, auto b) { return a < b ? a : b; })
#define __reduce_max_sync(mask, value) cuda_emulator::reduce(__LINE__, (mask), (value), [](auto a, auto b) { return a > b ? a : b; })
#define __trap() cuda_emulator::fail("__trap at line %d", __LINE__)

namespace cuda_emulator {

struct SyncWarp {
    int line;
    void operator()(unsigned mask = 0xffffffffu) const { collective(line, SYNC, mask, 0, 0); }
};

inline unsigned ballot(int line, unsigned mask, bool predicate)
{
    return static_cast<unsigned>(collective(line, BALLOT, mask, predicate, 0)) & mask;
}

template <typename T> T exchange(int line, unsigned mask, T value, unsigned source)
{
    static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>, "a shuffle moves up to eight bytes");
    std::uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof value);
    bits = collective(line, SHUFFLE, mask, bits, source);
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline unsigned lane() { return current % LANES; }

template <typename T> T shuffle(int line, unsigned mask, T value, int source, int width = 32)
{
    return exchange(line, mask, value, (lane() & ~(width - 1u)) | (source & (width - 1u)));
}

template <typename T> T shuffle_up(int line, unsigned mask, T value, unsigned delta, int width = 32)
{
    const unsigned within = lane() & (width - 1u);
    return exchange(line, mask, value, within >= delta ? lane() - delta : lane());
}

template <typename T> T shuffle_down(int line, unsigned mask, T value, unsigned delta, int width = 32)
{
    const unsigned within = lane() & (width - 1u);
    return exchange(line, mask, value, within + delta < static_cast<unsigned>(width) ? lane() + delta : lane());
}

template <typename T> T shuffle_xor(int line, unsigned mask, T value, int flip, int width = 32)
{
    const unsigned other = lane() ^ static_cast<unsigned>(flip);
    const bool inside = other / width <= lane() / width;  // a lower group may be read, a higher one not
    return exchange(line, mask, value, inside ? other : lane());
}

template <typename T, typename F> T reduce(int line, unsigned mask, T value, F join)
{
    static_assert(std::is_integral_v<T> && sizeof(T) == 4, "reductions of a warp take 32-bit integers");
    T all{};
    bool any = false;
    for (unsigned from = 0; from < LANES && current / LANES * LANES + from < threads; ++from) {
        if (!(mask >> from & 1u))
            continue;
        const T other = exchange(line, mask, value, from);
        all = any ? join(all, other) : other;
        any = true;
    }
    return all;
}

template <typename T, typename... Allowed> constexpr bool one_of = (std::is_same_v<T, Allowed> || ...);
template <typename T> struct Same { using type = T; };
template <typename T> using Value = typename Same<T>::type;
using U = unsigned int;
using L = unsigned long long;

}  // namespace cuda_emulator

// A set of lanes that surely run together: the caller itself.
static inline unsigned __activemask() { return 1u << cuda_emulator::lane(); }

#define CUDA_ATOMIC(name, result, ...)                                                                       \
    template <typename T> UNWATCHED T name(T *address, cuda_emulator::Value<T> value)                        \
    {                                                                                                        \
        CUDA_TOUCH(address, sizeof(T), cuda_emulator::WRITE | cuda_emulator::STRONG);                        \
        static_assert(cuda_emulator::one_of<T, __VA_ARGS__>, #name " has no such type");                     \
        const T before = *address;                                                                           \
        *address = (result);                                                                                 \
        return before;                                                                                       \
    }
CUDA_ATOMIC(atomicAdd, before + value, int, cuda_emulator::U, cuda_emulator::L, float, double)
CUDA_ATOMIC(atomicSub, before - value, int, cuda_emulator::U)
CUDA_ATOMIC(atomicMax, before < value ? value : before, int, cuda_emulator::U, long long, cuda_emulator::L)
CUDA_ATOMIC(atomicMin, value < before ? value : before, int, cuda_emulator::U, long long, cuda_emulator::L)
CUDA_ATOMIC(atomicAnd, before & value, int, cuda_emulator::U, cuda_emulator::L)
CUDA_ATOMIC(atomicOr, before | value, int, cuda_emulator::U, cuda_emulator::L)
CUDA_ATOMIC(atomicXor, before ^ value, int, cuda_emulator::U, cuda_emulator::L)
CUDA_ATOMIC(atomicExch, value, int, cuda_emulator::U, cuda_emulator::L, float)
#undef CUDA_ATOMIC

template <typename T> UNWATCHED T atomicCAS(T *address, cuda_emulator::Value<T> compare, cuda_emulator::Value<T> value)
{
    CUDA_TOUCH(address, sizeof(T), cuda_emulator::WRITE | cuda_emulator::STRONG);
    static_assert(cuda_emulator::one_of<T, int, cuda_emulator::U, cuda_emulator::L, unsigned short>, "atomicCAS has no such type");
    const T before = *address;
    if (before == compare)
        *address = value;
    return before;
}

static inline void __threadfence()
{
    asm volatile("" ::: "memory");
    cuda_emulator::fence();
}
static inline void __threadfence_block() { asm volatile("" ::: "memory"); }
static inline void __threadfence_system() { __threadfence(); }
static inline void __nanosleep(unsigned) {}

template <typename T> T __ldg(const T *address) { return *address; }
template <typename T> T __ldcs(const T *address) { return *address; }
template <typename T> T __ldcg(const T *address) { return *address; }
template <typename T> T __ldca(const T *address) { return *address; }
template <typename T> T __ldcv(const T *address) { return *const_cast<const volatile T *>(address); }
template <typename T> void __stcs(T *address, T value) { *address = value; }
template <typename T> void __stcg(T *address, T value) { *address = value; }
template <typename T> void __stwt(T *address, T value) { *address = value; }

using std::abs;
using std::ceil;
using std::copysign;
using std::erf;
using std::exp;
using std::exp2;
using std::fabs;
using std::floor;
using std::fma;
using std::fmax;
using std::fmin;
using std::fmod;
using std::isfinite;
using std::isinf;
using std::isnan;
using std::log;
using std::log2;
using std::pow;
using std::rint;
using std::round;
using std::signbit;
using std::sqrt;
using std::tanh;
using std::trunc;

template <typename A, typename B> std::common_type_t<A, B> min(A a, B b)
{
    using C = std::common_type_t<A, B>;
    if constexpr (std::is_floating_point_v<C>)
        return std::fmin(static_cast<C>(a), static_cast<C>(b));
    else
        return static_cast<C>(a) < static_cast<C>(b) ? static_cast<C>(a) : static_cast<C>(b);
}

template <typename A, typename B> std::common_type_t<A, B> max(A a, B b)
{
    using C = std::common_type_t<A, B>;
    if constexpr (std::is_floating_point_v<C>)
        return std::fmax(static_cast<C>(a), static_cast<C>(b));
    else
        return static_cast<C>(a) > static_cast<C>(b) ? static_cast<C>(a) : static_cast<C>(b);
}

static inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
static inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
#define __expf(x) std::exp(static_cast<float>(x))  // macros: the C library has functions of these names
#define __logf(x) std::log(static_cast<float>(x))
#define __log2f(x) std::log2(static_cast<float>(x))
#define __powf(x, y) std::pow(static_cast<float>(x), static_cast<float>(y))
static inline float __fdividef(float x, float y) { return x / y; }
static inline float __frcp_rn(float x) { return 1.0f / x; }
static inline float __fsqrt_rn(float x) { return std::sqrt(x); }
static inline float __frsqrt_rn(float x) { return 1.0f / std::sqrt(x); }
static inline float __fadd_rn(float x, float y) { return x + y; }
static inline float __fsub_rn(float x, float y) { return x - y; }
static inline float __fmul_rn(float x, float y) { return x * y; }
static inline float __fdiv_rn(float x, float y) { return x / y; }
static inline float __fmaf_rn(float x, float y, float z) { return std::fma(x, y, z); }
static inline double __dadd_rn(double x, double y) { return x + y; }
static inline double __dsub_rn(double x, double y) { return x - y; }
static inline double __dmul_rn(double x, double y) { return x * y; }
static inline double __ddiv_rn(double x, double y) { return x / y; }
static inline double __fma_rn(double x, double y, double z) { return std::fma(x, y, z); }
static inline float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }
static inline int __float2int_rn(float x) { return static_cast<int>(std::nearbyint(x)); }
static inline int __float2int_rz(float x) { return static_cast<int>(x); }
static inline int __float2int_rd(float x) { return static_cast<int>(std::floor(x)); }
static inline int __double2int_rn(double x) { return static_cast<int>(std::nearbyint(x)); }
static inline float __int2float_rn(int x) { return static_cast<float>(x); }
static inline int __float_as_int(float x) { return cuda_emulator::bits_as<int>(x); }
static inline unsigned __float_as_uint(float x) { return cuda_emulator::bits_as<unsigned>(x); }
static inline float __int_as_float(int x) { return cuda_emulator::bits_as<float>(x); }
static inline float __uint_as_float(unsigned x) { return cuda_emulator::bits_as<float>(x); }
static inline long long __double_as_longlong(double x) { return cuda_emulator::bits_as<long long>(x); }
static inline double __longlong_as_double(long long x) { return cuda_emulator::bits_as<double>(x); }

static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __clz(int x) { return x ? __builtin_clz(static_cast<unsigned>(x)) : 32; }
static inline int __clzll(long long x) { return x ? __builtin_clzll(static_cast<unsigned long long>(x)) : 64; }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __ffsll(long long x) { return __builtin_ffsll(x); }
static inline unsigned __brev(unsigned x)
{
    unsigned reversed = 0;
    for (int i = 0; i < 32; ++i)
        reversed |= (x >> i & 1u) << (31 - i);
    return reversed;
}
static inline unsigned __umulhi(unsigned x, unsigned y)
{
    return static_cast<unsigned>(static_cast<unsigned long long>(x) * y >> 32);
}
static inline int __dp4a(int a, int b, int c)
{
    for (int i = 0; i < 4; ++i)
        c += static_cast<signed char>(a >> 8 * i) * static_cast<signed char>(b >> 8 * i);
    return c;
}
