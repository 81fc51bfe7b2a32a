"""What the processor has that the kernels' shapes depend on: decided here, and never a bit of a result.

Kernels are written once, over packs of sixteen numbers. Where those fit one register, sixteen columns are turned at a
time; elsewhere as many as a pair of registers hold.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import llvmlite.binding as llvm

__all__ = ["has_wide_registers"]

_ADD = """
define <16 x float> @add(<16 x float> %a, <16 x float> %b) {
  %sum = fadd <16 x float> %a, %b
  ret <16 x float> %sum
}
"""


def has_wide_registers(context: Any) -> bool:
    """Whether code that this target context compiles holds sixteen float32 in one register."""
    return _adds_at_once(*context.codegen().magic_tuple())


@cache
def _adds_at_once(triple: str, cpu: str, features: str) -> bool:
    """Read off what LLVM makes of one sum: names and features of processors are too many to list."""
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, features=features)
    module = llvm.parse_assembly(_ADD)
    module.triple = triple
    return "%zmm" in machine.emit_assembly(module)
