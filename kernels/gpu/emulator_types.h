// CUDA's vector types and 16-bit floats, for the emulator.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#define __align__(n) __attribute__((aligned(n)))

#define CUDA_VECTORS(type, name, align2, align4)                                                             \
    struct name##1 { type x; };                                                                              \
    struct __align__(align2) name##2 { type x, y; };                                                         \
    struct name##3 { type x, y, z; };                                                                        \
    struct __align__(align4) name##4 { type x, y, z, w; };                                                   \
    static inline name##1 make_##name##1(type x) { return {x}; }                                             \
    static inline name##2 make_##name##2(type x, type y) { return {x, y}; }                                  \
    static inline name##3 make_##name##3(type x, type y, type z) { return {x, y, z}; }                       \
    static inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }

CUDA_VECTORS(signed char, char, 2, 4)
CUDA_VECTORS(unsigned char, uchar, 2, 4)
CUDA_VECTORS(short, short, 4, 8)
CUDA_VECTORS(unsigned short, ushort, 4, 8)
CUDA_VECTORS(int, int, 8, 16)
CUDA_VECTORS(unsigned int, uint, 8, 16)
CUDA_VECTORS(long long, longlong, 16, 16)
CUDA_VECTORS(unsigned long long, ulonglong, 16, 16)
CUDA_VECTORS(float, float, 8, 16)
CUDA_VECTORS(double, double, 16, 16)
#undef CUDA_VECTORS

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

namespace cuda_emulator {

template <typename To, typename From> To bits_as(From from)
{
    static_assert(sizeof(To) == sizeof(From), "a reinterpretation keeps the size");
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

// IEEE 754 binary32 to binary16 and back, to the nearest, ties to even.
inline std::uint16_t half_bits(float value)
{
    const std::uint32_t bits = bits_as<std::uint32_t>(value), sign = bits >> 16 & 0x8000u, rest = bits & 0x7fffffffu;
    if (rest > 0x7f800000u)
        return static_cast<std::uint16_t>(0x7fffu);  // CUDA's NaN
    if (rest >= 0x477ff000u)
        return static_cast<std::uint16_t>(sign | 0x7c00u);
    if (rest < 0x38800000u) {  // subnormal: let the processor round
        const float scaled = bits_as<float>(rest) + 0.5f;
        return static_cast<std::uint16_t>(sign | (bits_as<std::uint32_t>(scaled) - 0x3f000000u));
    }
    const std::uint32_t rounded = rest + 0xfffu + (rest >> 13 & 1u);
    return static_cast<std::uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}

inline float half_value(std::uint16_t half)
{
    const std::uint32_t sign = (half & 0x8000u) << 16, rest = half & 0x7fffu;
    if (rest >= 0x7c00u)
        return bits_as<float>(sign | 0x7f800000u | (rest & 0x3ffu) << 13);
    if (rest < 0x400u) {
        const float value = static_cast<float>(rest) * 5.9604644775390625e-8f;  // 2^-24
        return sign ? -value : value;
    }
    return bits_as<float>(sign | ((rest << 13) + 0x38000000u));
}

inline std::uint16_t bfloat16_bits(float value)
{
    const std::uint32_t bits = bits_as<std::uint32_t>(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return 0x7fffu;
    return static_cast<std::uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

inline float bfloat16_value(std::uint16_t bits) { return bits_as<float>(static_cast<std::uint32_t>(bits) << 16); }

}  // namespace cuda_emulator

// Storage: arithmetic goes through float, as the sources do.
struct __half {
    std::uint16_t bits;
    __half() = default;
    explicit __half(float value) : bits(cuda_emulator::half_bits(value)) {}
    explicit operator float() const { return cuda_emulator::half_value(bits); }
};
struct __align__(4) __half2 { __half x, y; };
struct __nv_bfloat16 {
    std::uint16_t bits;
    __nv_bfloat16() = default;
    explicit __nv_bfloat16(float value) : bits(cuda_emulator::bfloat16_bits(value)) {}
    explicit operator float() const { return cuda_emulator::bfloat16_value(bits); }
};
struct __align__(4) __nv_bfloat162 { __nv_bfloat16 x, y; };
using half = __half;
using half2 = __half2;
using nv_bfloat16 = __nv_bfloat16;
using nv_bfloat162 = __nv_bfloat162;

static inline float __half2float(__half value) { return static_cast<float>(value); }
static inline __half __float2half(float value) { return __half(value); }
static inline __half __float2half_rn(float value) { return __half(value); }
static inline float2 __half22float2(__half2 v) { return {static_cast<float>(v.x), static_cast<float>(v.y)}; }
static inline __half2 __floats2half2_rn(float x, float y) { return {__half(x), __half(y)}; }
static inline __half2 __float22half2_rn(float2 v) { return {__half(v.x), __half(v.y)}; }
static inline __half2 __halves2half2(__half x, __half y) { return {x, y}; }
static inline __half __low2half(__half2 v) { return v.x; }
static inline __half __high2half(__half2 v) { return v.y; }
static inline float __low2float(__half2 v) { return static_cast<float>(v.x); }
static inline float __high2float(__half2 v) { return static_cast<float>(v.y); }
static inline unsigned short __half_as_ushort(__half value) { return value.bits; }
static inline __half __ushort_as_half(unsigned short bits)
{
    __half value;
    value.bits = bits;
    return value;
}
static inline float __bfloat162float(__nv_bfloat16 value) { return static_cast<float>(value); }
static inline __nv_bfloat16 __float2bfloat16(float value) { return __nv_bfloat16(value); }
static inline __nv_bfloat16 __float2bfloat16_rn(float value) { return __nv_bfloat16(value); }
static inline float2 __bfloat1622float2(__nv_bfloat162 v)
{
    return {static_cast<float>(v.x), static_cast<float>(v.y)};
}
static inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) { return {__nv_bfloat16(x), __nv_bfloat16(y)}; }
static inline __nv_bfloat162 __float22bfloat162_rn(float2 v) { return {__nv_bfloat16(v.x), __nv_bfloat16(v.y)}; }
static inline float __low2float(__nv_bfloat162 v) { return static_cast<float>(v.x); }
static inline float __high2float(__nv_bfloat162 v) { return static_cast<float>(v.y); }
static inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 value) { return value.bits; }
static inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits)
{
    __nv_bfloat16 value;
    value.bits = bits;
    return value;
}
