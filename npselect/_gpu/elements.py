"""Elements in memory, by address: int64, or an array in shared memory; a position counts elements.

`kind` is the NumPy type of what lies there (see `npselect._arithmetic.half`), a constant of the kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import setitem

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from npselect._arithmetic.aliases import Builder, Chosen, Code, Context, NumbaType, Signature, Typing, Value
from npselect._arithmetic.primitives import compiles
from npselect._gpu.aliases import Address, Kind, Position, Stored
from npselect._gpu.intrinsics import in_python

__all__ = ["load", "load4", "store", "store4"]


def load(address: Address, position: Position, kind: Kind) -> Stored:
    """The element at a position; of an array in shared memory, if that is given for the address."""
    return in_python().load(address, position, kind)


def load4(address: Address, position: Position, kind: Kind) -> tuple[Stored, Stored, Stored, Stored]:
    """Four elements from a position on, whose address is a multiple of 16 bytes, or of 8 for 16-bit numbers."""
    a, b, c, d = in_python().load4(address, position, kind)
    return a, b, c, d


def store(address: Address, position: Position, kind: Kind, value: Stored) -> None:
    """Put an element at a position, as `load` takes it."""
    in_python().store(address, position, kind, value)


def store4(address: Address, position: Position, kind: Kind, values: tuple[Stored, ...]) -> None:
    """Put four elements from a position on, whose address is as `load4` wants it."""
    in_python().store4(address, position, kind, values)


def _at(context: Context, builder: Builder, address: Value, position: Value, kind: NumbaType) -> tuple[Value, int]:
    """The pointer to a position in global memory, and the bytes of an element."""
    data = context.get_data_type(kind)
    size = context.get_abi_sizeof(data)
    offset = builder.mul(position, ir.Constant(position.type, size), flags=("nsw",))
    pointer = ir.PointerType(data, addrspace=1)
    return builder.inttoptr(builder.add(address, offset, flags=("nsw",)), pointer), size


def _quad(builder: Builder, pointer: Value, size: int) -> list[tuple[Value, int, int]]:
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
def _load(typing: Typing, address: NumbaType, position: NumbaType, kind: NumbaType) -> Code:
    element = kind.instance_type

    def generate(context: Context, builder: Builder, signature: Signature, args: Sequence[Value]) -> Value:
        pointer, size = _at(context, builder, args[0], args[1], element)
        return builder.load(pointer, align=size)

    return element(types.int64, types.int64, kind), generate


@intrinsic
def _load4(typing: Typing, address: NumbaType, position: NumbaType, kind: NumbaType) -> Code:
    element = kind.instance_type

    def generate(context: Context, builder: Builder, signature: Signature, args: Sequence[Value]) -> Value:
        pointer, size = _at(context, builder, args[0], args[1], element)
        values = []
        for quad, count, align in _quad(builder, pointer, size):
            loaded = builder.load(quad, align=align)
            values += [builder.extract_element(loaded, ir.Constant(ir.IntType(32), i)) for i in range(count)]
        return context.make_tuple(builder, signature.return_type, values)

    return types.UniTuple(element, 4)(types.int64, types.int64, kind), generate


@intrinsic
def _store(typing: Typing, address: NumbaType, position: NumbaType, kind: NumbaType, value: NumbaType) -> Code:
    element = kind.instance_type

    def generate(context: Context, builder: Builder, signature: Signature, args: Sequence[Value]) -> Value:
        pointer, size = _at(context, builder, args[0], args[1], element)
        builder.store(args[3], pointer, align=size)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, kind, element), generate


@intrinsic
def _store4(typing: Typing, address: NumbaType, position: NumbaType, kind: NumbaType, values: NumbaType) -> Code:
    element = kind.instance_type

    def generate(context: Context, builder: Builder, signature: Signature, args: Sequence[Value]) -> Value:
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
def _load_(address: NumbaType, position: NumbaType, kind: NumbaType) -> Chosen:
    if isinstance(address, types.Array):
        return lambda address, position, kind: address[np.uint64(position)]
    return lambda address, position, kind: _load(address, position, kind)


@compiles(load4)
def _load4_(address: NumbaType, position: NumbaType, kind: NumbaType) -> Chosen:
    return lambda address, position, kind: _load4(address, position, kind)


@compiles(store)
def _store_(address: NumbaType, position: NumbaType, kind: NumbaType, value: NumbaType) -> Chosen:
    if isinstance(address, types.Array):
        return lambda address, position, kind, value: setitem(address, np.uint64(position), value)
    return lambda address, position, kind, value: _store(address, position, kind, value)


@compiles(store4)
def _store4_(address: NumbaType, position: NumbaType, kind: NumbaType, values: NumbaType) -> Chosen:
    return lambda address, position, kind, values: _store4(address, position, kind, values)
