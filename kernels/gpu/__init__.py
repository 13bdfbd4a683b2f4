"""The kernels on a GPU: what a runtime is, the two that there are, a launcher for each family of kernels."""
