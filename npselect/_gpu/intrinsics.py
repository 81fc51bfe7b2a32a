"""What the kernels of the CUDA tier ask of the device: memory by address, places, shuffles, barriers, and launches.

Everything else in them is arithmetic that they share with the CPU tier. Addresses are int64, places are counted in
elements, and `kind` is the NumPy type of what lies there (see `npselect._arithmetic.half`), a constant of the kernel.
"""

from __future__ import annotations

import os
from functools import cache
from importlib import import_module
from operator import setitem
from typing import Any

import numpy as np
from llvmlite import ir
from numba import cuda, types
from numba.core import cgutils
from numba.extending import intrinsic

from npselect._arithmetic.primitives import compiles

__all__ = [
    "barrier",
    "block",
    "cuda",
    "load",
    "load4",
    "narrow_bfloat16",
    "narrow_float16",
    "rough_log2",
    "shuffle_xor",
    "simulated",
    "store",
    "store4",
    "thread",
    "widen_bfloat16",
    "wide_product",
    "widen_float16",
]

_ALL_LANES = np.uint32(0xFFFFFFFF)
_SHORT, _WORD = ir.IntType(16), ir.IntType(32)


def _import_what_numpy_has_moved() -> None:
    """numba-cuda 0.30 asks for `np.row_stack`, which NumPy 2.5 has no more, when it first compiles."""
    name = "row_stack"  # by name, lest a linter that knows of the move put vstack in its place
    if not simulated() and not hasattr(np, name):
        setattr(np, name, np.vstack)
        try:
            import_module("numba.cuda.np.arrayobj")
        finally:
            delattr(np, name)


@cache
def simulated() -> bool:
    """Whether numba's simulator stands in for a device."""
    return os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0")


_import_what_numpy_has_moved()


def _only_compiled(name: str) -> NotImplementedError:
    return NotImplementedError(f"{name} is for kernels on a device")


# ------------------------------------------------------------------------------------------------ memory


def load(address: Any, place: Any, kind: Any) -> Any:
    """The element at a place; of an array in shared memory, if that is given for the address."""
    raise _only_compiled("load")


def load4(address: Any, place: Any, kind: Any) -> Any:
    """Four elements from a place on, whose address is a multiple of `ALIGNMENT` of the kind, as a tuple."""
    raise _only_compiled("load4")


def store(address: Any, place: Any, kind: Any, value: Any) -> None:
    """Put an element at a place, as `load` takes it."""
    raise _only_compiled("store")


def store4(address: Any, place: Any, kind: Any, values: Any) -> None:
    """Put four elements from a place on, whose address is as `load4` wants it."""
    raise _only_compiled("store4")


def _at(context: Any, builder: Any, address: Any, place: Any, kind: Any) -> tuple[Any, int]:
    """The pointer to a place in global memory, and the bytes of an element."""
    data = context.get_data_type(kind)
    size = context.get_abi_sizeof(data)
    offset = builder.mul(place, ir.Constant(place.type, size), flags=("nsw",))
    pointer = ir.PointerType(data, addrspace=1)
    return builder.inttoptr(builder.add(address, offset, flags=("nsw",)), pointer), size


def _quad(builder: Any, pointer: Any, size: int) -> list[tuple[Any, int, int]]:
    """Pointers to vectors of at most 16 bytes that cover four elements, the elements of each, its alignment."""
    count = min(4, 16 // size)
    vector = ir.VectorType(pointer.type.pointee, count)
    return [
        (
            builder.bitcast(
                builder.gep(pointer, [ir.Constant(ir.IntType(64), first)]), ir.PointerType(vector, addrspace=1)
            ),
            count,
            size * count,
        )
        for first in range(0, 4, count)
    ]


@intrinsic
def _load(typing: Any, address: Any, place: Any, kind: Any) -> Any:
    element = kind.instance_type

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer, size = _at(context, builder, args[0], args[1], element)
        return builder.load(pointer, align=size)

    return element(types.int64, types.int64, kind), generate


@intrinsic
def _load4(typing: Any, address: Any, place: Any, kind: Any) -> Any:
    element = kind.instance_type

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer, size = _at(context, builder, args[0], args[1], element)
        values = []
        for quad, count, align in _quad(builder, pointer, size):
            loaded = builder.load(quad, align=align)
            values += [builder.extract_element(loaded, ir.Constant(ir.IntType(32), i)) for i in range(count)]
        return context.make_tuple(builder, signature.return_type, values)

    return types.UniTuple(element, 4)(types.int64, types.int64, kind), generate


@intrinsic
def _store(typing: Any, address: Any, place: Any, kind: Any, value: Any) -> Any:
    element = kind.instance_type

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer, size = _at(context, builder, args[0], args[1], element)
        builder.store(args[3], pointer, align=size)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, kind, element), generate


@intrinsic
def _store4(typing: Any, address: Any, place: Any, kind: Any, values: Any) -> Any:
    element = kind.instance_type

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer, size = _at(context, builder, args[0], args[1], element)
        elements = cgutils.unpack_tuple(builder, args[3])
        for quad, count, align in _quad(builder, pointer, size):
            vector = ir.Constant(quad.type.pointee, ir.Undefined)
            for i in range(count):
                vector = builder.insert_element(vector, elements.pop(0), ir.Constant(ir.IntType(32), i))
            builder.store(vector, quad, align=align)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, kind, types.UniTuple(element, 4)), generate


@compiles(load)
def _load_(address: Any, place: Any, kind: Any) -> Any:
    if isinstance(address, types.Array):
        return lambda address, place, kind: address[np.uint64(place)]
    return lambda address, place, kind: _load(address, place, kind)


@compiles(load4)
def _load4_(address: Any, place: Any, kind: Any) -> Any:
    return lambda address, place, kind: _load4(address, place, kind)


@compiles(store)
def _store_(address: Any, place: Any, kind: Any, value: Any) -> Any:
    if isinstance(address, types.Array):
        return lambda address, place, kind, value: setitem(address, np.uint64(place), value)
    return lambda address, place, kind, value: _store(address, place, kind, value)


@compiles(store4)
def _store4_(address: Any, place: Any, kind: Any, values: Any) -> Any:
    return lambda address, place, kind, values: _store4(address, place, kind, values)


# ------------------------------------------------------------------------------------------------ places, shuffles


def thread() -> Any:
    """The number of this thread in its block."""
    raise _only_compiled("thread")


def block() -> Any:
    """The number of this thread's block."""
    raise _only_compiled("block")


def shuffle_xor(value: Any, distance: Any) -> Any:
    """What `value` is in the lane of this warp whose number differs in the bits of `distance`; all lanes call it."""
    raise _only_compiled("shuffle_xor")


def barrier() -> None:
    """Wait until every thread of the block has come here and sees what the others put into shared memory."""
    raise _only_compiled("barrier")


@compiles(barrier)
def _barrier() -> Any:
    return lambda: cuda.syncthreads()


@compiles(thread)
def _thread() -> Any:
    return lambda: np.int64(cuda.threadIdx.x)


@compiles(block)
def _block() -> Any:
    return lambda: np.int64(cuda.blockIdx.x)


@compiles(shuffle_xor)
def _shuffle_xor(value: Any, distance: Any) -> Any:
    return lambda value, distance: cuda.shfl_xor_sync(_ALL_LANES, value, distance)


# ------------------------------------------------------------------------------------------------ rough logarithms


def rough_log2(x: Any) -> Any:
    """``log2(x)`` of a normal float32, within 2**-22, or that much of itself outside (0.5, 2); the bits vary."""
    raise _only_compiled("rough_log2")


@intrinsic
def _rough_log2(typing: Any, x: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        real = ir.FloatType()
        return builder.call(ir.InlineAsm(ir.FunctionType(real, [real]), "lg2.approx.ftz.f32 $0, $1;", "=f,f"), args)

    return types.float32(types.float32), generate


@compiles(rough_log2)
def _rough_log2_(x: Any) -> Any:
    return lambda x: _rough_log2(x)


# ------------------------------------------------------------------------------------------------ words


def wide_product(a: Any, b: Any) -> Any:
    """The product of two uint32, a uint64, by one instruction."""
    raise _only_compiled("wide_product")


@intrinsic
def _wide_product(typing: Any, a: Any, b: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        # else LLVM makes of a chain of these products that of two uint64, which takes more
        multiply = ir.InlineAsm(ir.FunctionType(ir.IntType(64), [_WORD, _WORD]), "mul.wide.u32 $0, $1, $2;", "=l,r,r")
        return builder.call(multiply, args)

    return types.uint64(types.uint32, types.uint32), generate


@compiles(wide_product)
def _wide_product_(a: Any, b: Any) -> Any:
    return lambda a, b: _wide_product(a, b)


# ------------------------------------------------------------------------------------------------ 16 bits


def widen_float16(bits: Any) -> Any:
    """The float32 with the value of a float16, whose bits are given."""
    raise _only_compiled("widen_float16")


def narrow_float16(x: Any) -> Any:
    """The bits of the float16 nearest to a float32, ties to even."""
    raise _only_compiled("narrow_float16")


def widen_bfloat16(bits: Any) -> Any:
    """The float32 with the value of a bfloat16, whose bits are given."""
    raise _only_compiled("widen_bfloat16")


def narrow_bfloat16(x: Any) -> Any:
    """The bits of the bfloat16 nearest to a float32, ties to even."""
    raise _only_compiled("narrow_bfloat16")


def _word(value: int) -> Any:
    return ir.Constant(_WORD, value)


@intrinsic
def _widen_float16(typing: Any, bits: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        # the instruction itself, as LLVM would make two loads of a load of four halves
        convert = ir.InlineAsm(ir.FunctionType(ir.FloatType(), [_SHORT]), "cvt.f32.f16 $0, $1;", "=f,h")
        return builder.call(convert, args)

    return types.float32(types.uint16), generate


@intrinsic
def _narrow_float16(typing: Any, x: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(builder.fptrunc(args[0], ir.HalfType()), _SHORT)

    return types.uint16(types.float32), generate


@intrinsic
def _widen_bfloat16(typing: Any, bits: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(builder.shl(builder.zext(args[0], _WORD), _word(16)), ir.FloatType())

    return types.float32(types.int16), generate


@intrinsic
def _narrow_bfloat16(typing: Any, x: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits = builder.bitcast(args[0], _WORD)
        kept = builder.lshr(bits, _word(16))
        odd = builder.and_(kept, _word(1))
        rounded = builder.lshr(builder.add(bits, builder.add(odd, _word(0x7FFF))), _word(16))
        is_nan = builder.fcmp_unordered("uno", args[0], args[0])
        return builder.trunc(builder.select(is_nan, builder.or_(kept, _word(0x40)), rounded), _SHORT)

    return types.int16(types.float32), generate


@compiles(widen_float16)
def _widen_float16_(bits: Any) -> Any:
    return lambda bits: _widen_float16(bits)


@compiles(narrow_float16)
def _narrow_float16_(x: Any) -> Any:
    return lambda x: _narrow_float16(x)


@compiles(widen_bfloat16)
def _widen_bfloat16_(bits: Any) -> Any:
    return lambda bits: _widen_bfloat16(bits)


@compiles(narrow_bfloat16)
def _narrow_bfloat16_(x: Any) -> Any:
    return lambda x: _narrow_bfloat16(x)
