"""The CPU tier: numba kernels over rows, in as many threads as pay for a batch."""
