"""The benchmarks that pytest runs; the command for a GPU is none of them."""

collect_ignore = ["gpu.py", "gpu_sections"]
