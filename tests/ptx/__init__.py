"""An interpreter of the PTX that numba-cuda makes of the kernels: no device, no driver, and nothing guessed.

`program` reads a kernel, `operations` says what its instructions compute, `memory` what its addresses hold, and
`machine` runs it, all threads of a launch at a time. `device` puts that in the place of a GPU.

It knows the instructions that the kernels use and refuses all others. It raises `Fault` at what a device would punish,
or let pass: an access that is not aligned, or beyond what was allotted, or of what was never written; a register that
was never written; two threads that use the same bytes, one of them writing, with no barrier between; a shuffle that
not all lanes of a warp come to; a barrier that not all threads of a block come to.
"""
