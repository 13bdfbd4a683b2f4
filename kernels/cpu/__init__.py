"""The kernels on this processor: compiled loops, or NumPy and BLAS where these are the fast way."""
