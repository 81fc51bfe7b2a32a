"""The same text for Python, LLVM and PTX: what the kernels compute is written here once."""
