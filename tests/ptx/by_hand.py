"""Kernels written by hand, with arrays for them: what the interpreter is tested with."""

import numpy as np

from ptx.device import Device

FRAME = """
.version 9.0
.target sm_90
.address_size 64
{variables}
.visible .entry kernel(
	.param .u64 kernel_param_0,
	.param .u64 kernel_param_1
)
.maxntid 256, 1, 1
.minnctapersm 1
{{
	.reg .pred %p<9>;
	.reg .b16 %rs<9>;
	.reg .b32 %r<19>;
	.reg .f32 %f<19>;
	.reg .b64 %rd<19>;
	ld.param.u64 %rd1, [kernel_param_0];
	ld.param.u64 %rd2, [kernel_param_1];
	mov.u32 %r1, %tid.x;
	mov.u32 %r2, %ctaid.x;
	cvt.u64.u32 %rd3, %r1;
	shl.b64 %rd4, %rd3, 2; // 4 bytes on for each thread: %rd5 in the first array, %rd6 in the second
	add.s64 %rd5, %rd1, %rd4;
	add.s64 %rd6, %rd2, %rd4;
	mov.f32 %f1, 0f3F800000;
{body}
	ret;
}}
"""
SHARED = ".visible .shared .align 4 .b8 numbers[256];"


def ptx(body, variables=""):
    return FRAME.format(body=body, variables=variables)


class Numbers:
    """An array on the machine: of so many float32, or of those given; alive for as long as this is."""

    def __init__(self, device, values):
        self.device, self.size = device, values if isinstance(values, int) else len(values)
        self.owner = device.allocate(4 * self.size)
        if not isinstance(values, int):
            device.upload(self.owner.address, np.array(values, np.float32), 1)

    def get(self):
        values = np.empty(self.size, np.float32)
        self.device.download(values, self.owner.address, 1)
        return values


class Compiled:
    """In the place of a launcher."""

    def __init__(self, text):
        self.text = text

    def scalars(self, arguments):
        return arguments

    def ptx(self, capability):
        return self.text


def launch(device, text, source, target, threads=64, blocks=1):
    device.launch(Compiled(text), blocks, threads, 1, (source.owner.address, target.owner.address))


def run(body, variables="", threads=64, blocks=1):
    """0, 1, 2, ... through a kernel: what it writes into as many numbers."""
    device = Device()
    source, target = Numbers(device, range(threads * blocks)), Numbers(device, threads * blocks)
    launch(device, ptx(body, variables), source, target, threads, blocks)
    return target.get(), device.counts


COPY = """
    ld.global.f32 %f2, [%rd5];
    add.f32 %f3, %f2, %f1;
    st.global.f32 [%rd6], %f3;
"""
OWN_PLACE = """
    mov.u64 %rd7, numbers;
    add.s64 %rd8, %rd7, %rd4; // of this thread
    xor.b64 %rd9, %rd4, 4;
    add.s64 %rd10, %rd7, %rd9; // of its neighbour
    ld.global.f32 %f2, [%rd5];
"""
