"""Which instructions the processor has: they change the kernels' code, but no bit of a result.

Kernels are written once, over SIMD vectors of sixteen numbers. Where one register holds a vector, sixteen columns are
transposed at a time; elsewhere as many as two registers hold. Where float16 has instructions, they replace formulas.
Where `fma` has no instruction, float32's is made of others.
"""

from __future__ import annotations

from functools import cache

import llvmlite.binding as llvm
from numba.core.cpu import CPUContext

from npselect._arithmetic.aliases import Context

__all__ = ["has_fma", "has_half_floats", "has_wide_registers"]

_ADD = """
define <16 x float> @add(<16 x float> %a, <16 x float> %b) {
  %sum = fadd <16 x float> %a, %b
  ret <16 x float> %sum
}
"""
_WIDEN = """
define <8 x float> @widen(<8 x half> %a) {
  %wide = fpext <8 x half> %a to <8 x float>
  ret <8 x float> %wide
}
"""
_MULTIPLY_ADD = """
declare float @llvm.fma.f32(float, float, float)
define float @multiply_add(float %a, float %b, float %c) {
  %sum = call float @llvm.fma.f32(float %a, float %b, float %c)
  ret float %sum
}
"""


def has_wide_registers(context: Context) -> bool:
    """Whether code that this target context compiles holds sixteen float32 in one register."""
    return "%zmm" in _assembly(_ADD, *context.codegen().magic_tuple())


def has_half_floats(context: Context) -> bool:
    """Whether it has instructions between float16 and float32."""
    assembly = _assembly(_WIDEN, *context.codegen().magic_tuple())
    return "vcvtph2ps" in assembly or "fcvtl" in assembly


def has_fma(context: Context) -> bool:
    """Whether code that this target context compiles has an instruction for a float32 `fma`; a GPU's has."""
    if not isinstance(context, CPUContext):
        return True
    return "fmaf" not in _assembly(_MULTIPLY_ADD, *context.codegen().magic_tuple())  # C's name of it, in any call


@cache
def _assembly(function: str, triple: str, cpu: str, features: str) -> str:
    """What LLVM makes of a function: names and features of processors are too many to list."""
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, features=features)
    module = llvm.parse_assembly(function)
    module.triple = triple
    return str(machine.emit_assembly(module))
