"""The CPU tier: numba kernels over rows, in as many threads as a batch is worth."""
