"""The CUDA tier: numba-cuda kernels over rows, with the bits of the CPU tier."""
