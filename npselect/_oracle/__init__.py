"""The reference's numbers, roundings and random words: nothing of them is shared with the kernels."""
