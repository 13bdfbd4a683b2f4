// GeLU (Hendrycks & Gimpel, "Gaussian error linear units", 2016): x times the normal distribution's share below x.

#pragma once

// exact: x / 2 * (1 + erf(x / sqrt(2))), through erfc where 1 + erf would cancel
__device__ __forceinline__ float gelu_exact(float x)
{
    return 0.5f * x * erfcf(-0.70710678118654752f * x);
}

// tanh: x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))
__device__ __forceinline__ float gelu_tanh(float x)
{
    return 0.5f * x * (1.0f + tanhf(0.79788456080286536f * (x + 0.044715f * x * x * x)));
}

#ifdef TANH
#define GELU gelu_tanh
#else
#define GELU gelu_exact
#endif
