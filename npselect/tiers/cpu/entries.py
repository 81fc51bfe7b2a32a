"""Where Python enters a kernel: what a thread's arithmetic is set to ends there, and is put back at the way out.

A thread that takes subnormal numbers for zeros, or rounds elsewhere than to the nearest number, has that in a register
of the processor's: MXCSR on x86-64, FPCR on AArch64. LLVM knows nothing of it, and might move arithmetic past what sets
it; so a function of its own sets it, which calls the kernel, and the kernel is never made a part of that.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils
from numba.core.callwrapper import PyCallWrapper
from numba.core.compiler import Compiler

from npselect._modes import in_usual_modes

__all__ = ["Entered"]

_INT32, _INT64, _VOID = ir.IntType(32), ir.IntType(64), ir.VoidType()
_USUAL_MXCSR = 0x1F80  # to nearest, subnormals kept, no exception trapped


class Entered(Compiler):  # type: ignore[misc]
    """For numba's option `pipeline_class`: functions that Python enters as this module has it."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        context = self.state.targetctx

        def create(library: Any, *description: Any, **options: Any) -> None:
            _create_wrapper(context, library, *description, **options)

        self.state.targetctx = context.subtarget(create_cpython_wrapper=create)

    @in_usual_modes
    def compile_extra(self, function: Any) -> Any:
        """What compiling computes, it computes in the usual modes."""
        return super().compile_extra(function)


def _create_wrapper(
    context: Any, library: Any, description: Any, environment: Any, call_helper: Any, release_gil: bool = False
) -> None:
    """What `CPUContext.create_cpython_wrapper` does, with one more function between Python and the compiled one."""
    module = context.create_module("wrapper")
    kind = context.call_conv.get_function_type(description.restype, description.argtypes)
    compiled = ir.Function(module, kind, description.llvm_func_name)
    entry = _entry(context, module, compiled)
    PyCallWrapper(context, module, entry, description, environment, call_helper, release_gil).build()
    library.add_ir_module(module)


def _entry(context: Any, module: Any, compiled: Any) -> Any:
    """A function that calls the compiled one in the usual modes."""
    entry = ir.Function(module, compiled.ftype, f"{compiled.name}.entry")
    entry.linkage = "internal"
    builder = ir.IRBuilder(entry.append_basic_block())
    modes = _MODES.get(context.codegen().magic_tuple()[0].split("-")[0], _Modes)(builder)
    modes.set()
    status = builder.call(compiled, entry.args, attrs=("noinline",))
    modes.put_back()
    builder.ret(status)
    return entry


class _Modes:
    """Of a processor that has none, or of which nothing is known."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder

    def call(self, name: str, result: Any, *arguments: Any) -> Any:
        kind = ir.FunctionType(result, [each.type for each in arguments])
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, kind, name), arguments)

    def set(self) -> None:
        """Have the usual ones."""

    def put_back(self) -> None:
        """Have those that were before."""


class _X86(_Modes):
    def set(self) -> None:
        self.before, usual = (self.builder.alloca(_INT32) for _ in range(2))
        self.builder.store(_INT32(_USUAL_MXCSR), usual)
        self.call("llvm.x86.sse.stmxcsr", _VOID, self._address(self.before))
        self.call("llvm.x86.sse.ldmxcsr", _VOID, self._address(usual))

    def put_back(self) -> None:
        self.call("llvm.x86.sse.ldmxcsr", _VOID, self._address(self.before))

    def _address(self, pointer: Any) -> Any:
        return self.builder.bitcast(pointer, ir.IntType(8).as_pointer())


class _AArch64(_Modes):
    def set(self) -> None:
        self.before = self.call("llvm.aarch64.get.fpcr", _INT64)
        self.call("llvm.aarch64.set.fpcr", _VOID, _INT64(0))

    def put_back(self) -> None:
        self.call("llvm.aarch64.set.fpcr", _VOID, self.before)


_MODES = {"x86_64": _X86, "aarch64": _AArch64, "arm64": _AArch64}
