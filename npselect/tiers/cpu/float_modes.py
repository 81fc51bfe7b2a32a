"""Kernels run in the default floating-point modes, whatever the calling thread has set.

A thread that flushes subnormal numbers to zero, or rounds in another direction, has that in a register:
MXCSR on x86-64, FPCR on AArch64. LLVM does not know of it, and might move arithmetic across the instruction that sets
it. So a function of its own sets it, calls the kernel, which is never inlined there, and restores what it found.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir
from numba.core import cgutils
from numba.core.callwrapper import PyCallWrapper
from numba.core.compiler import Compiler

from npselect._arithmetic.aliases import Builder, CompileResult, Context, Description, Library, LlvmType, Module, Value
from npselect._modes import in_usual_modes

__all__ = ["FloatModesCompiler"]

_INT32, _INT64, _VOID = ir.IntType(32), ir.IntType(64), ir.VoidType()
_DEFAULT_MXCSR = 0x1F80  # to nearest, subnormals kept, no exception trapped


class FloatModesCompiler(Compiler):  # type: ignore[misc]
    """For numba's option `pipeline_class`: Python enters such functions in the default modes."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)
        context = self.state.targetctx

        def create(library: Library, description: Description, *rest: Value, **options: bool) -> None:
            _create_wrapper(context, library, description, *rest, **options)

        self.state.targetctx = context.subtarget(create_cpython_wrapper=create)

    @in_usual_modes
    def compile_extra(self, function: Callable[..., object]) -> CompileResult:
        """Compile in the default modes: constants are folded meanwhile."""
        return super().compile_extra(function)


def _create_wrapper(
    context: Context,
    library: Library,
    description: Description,
    environment: Value,
    call_helper: Value,
    release_gil: bool = False,
) -> None:
    """`CPUContext.create_cpython_wrapper` with one more function between Python and the compiled one."""
    module = context.create_module("wrapper")
    kind = context.call_conv.get_function_type(description.restype, description.argtypes)
    compiled = ir.Function(module, kind, description.llvm_func_name)
    entry = _entry(context, module, compiled)
    PyCallWrapper(context, module, entry, description, environment, call_helper, release_gil).build()
    library.add_ir_module(module)


def _entry(context: Context, module: Module, compiled: Value) -> Value:
    """A function that calls the compiled one in the default modes."""
    entry = ir.Function(module, compiled.ftype, f"{compiled.name}.entry")
    entry.linkage = "internal"
    builder = ir.IRBuilder(entry.append_basic_block())
    modes = _MODES.get(context.codegen().magic_tuple()[0].split("-")[0], _Modes)(builder)
    modes.set()
    status = builder.call(compiled, entry.args, attrs=("noinline",))
    modes.restore()
    builder.ret(status)
    return entry


class _Modes:
    """Of an unknown processor: nothing is set."""

    def __init__(self, builder: Builder) -> None:
        self.builder = builder

    def call(self, name: str, result: LlvmType, *arguments: Value) -> Value:
        kind = ir.FunctionType(result, [each.type for each in arguments])
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, kind, name), arguments)

    def set(self) -> None:
        """Set the default modes."""

    def restore(self) -> None:
        """Restore what `set` found."""


class _X86(_Modes):
    def set(self) -> None:
        self.before, default = (self.builder.alloca(_INT32) for _ in range(2))
        self.builder.store(_INT32(_DEFAULT_MXCSR), default)
        self.call("llvm.x86.sse.stmxcsr", _VOID, self._address(self.before))
        self.call("llvm.x86.sse.ldmxcsr", _VOID, self._address(default))

    def restore(self) -> None:
        self.call("llvm.x86.sse.ldmxcsr", _VOID, self._address(self.before))

    def _address(self, pointer: Value) -> Value:
        return self.builder.bitcast(pointer, ir.IntType(8).as_pointer())


class _AArch64(_Modes):
    def set(self) -> None:
        self.before = self.call("llvm.aarch64.get.fpcr", _INT64)
        self.call("llvm.aarch64.set.fpcr", _VOID, _INT64(0))

    def restore(self) -> None:
        self.call("llvm.aarch64.set.fpcr", _VOID, self.before)


_MODES = {"x86_64": _X86, "aarch64": _AArch64, "arm64": _AArch64}
