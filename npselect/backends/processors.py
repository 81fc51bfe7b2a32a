"""What the processor has that the kernels' shapes depend on: decided here, and never a bit of a result.

Kernels are written once, over packs of sixteen numbers. Where those fit one register, sixteen columns are turned at a
time; elsewhere as many as a pair of registers hold. Where float16 has instructions, they take the place of formulas.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import llvmlite.binding as llvm

__all__ = ["has_half_floats", "has_wide_registers"]

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


def has_wide_registers(context: Any) -> bool:
    """Whether code that this target context compiles holds sixteen float32 in one register."""
    return "%zmm" in _assembly(_ADD, *context.codegen().magic_tuple())


def has_half_floats(context: Any) -> bool:
    """Whether it has instructions between float16 and float32."""
    assembly = _assembly(_WIDEN, *context.codegen().magic_tuple())
    return "vcvtph2ps" in assembly or "fcvtl" in assembly


@cache
def _assembly(code: str, triple: str, cpu: str, features: str) -> str:
    """What LLVM makes of a small function: names and features of processors are too many to list."""
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, features=features)
    module = llvm.parse_assembly(code)
    module.triple = triple
    return str(machine.emit_assembly(module))
