"""Loads and stores of SIMD vectors: sixteen entries of one row, or an entry of each of sixteen rows.

No load is masked: the last vector of a row that is no multiple of sixteen overlaps the one before. In a vector, 16-bit
numbers and bools are the low bits of lanes as wide as the compute type.
"""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from npselect._arithmetic.aliases import (
    Builder,
    Code,
    Context,
    LlvmType,
    NumbaType,
    Signature,
    Typing,
    Value,
)
from npselect._arithmetic.simd import WIDTH, SimdVector

__all__ = [
    "Matrix",
    "clear_rows",
    "gather_lanes",
    "load_clamped",
    "load_vector",
    "prefetch",
    "scatter",
    "store_vector",
]

_INT8 = ir.IntType(8)
_INT32 = ir.IntType(32)
_INT64 = ir.IntType(64)
_AHEAD = 8192  # bytes: the widest tile, in float32
_LINE = 64  # bytes of a cache line


class Matrix:
    """A C-contiguous array of two axes, in generated code."""

    def __init__(self, context: Context, builder: Builder, kind: NumbaType, array: Value) -> None:
        self.builder = builder
        self.array = context.make_array(kind)(context, builder, array)
        self.choices = cgutils.unpack_tuple(builder, self.array.shape)[1]
        self.element = context.get_data_type(kind.dtype)
        self.size = context.get_abi_sizeof(self.element)

    def pointer(self, row: Value, column: Value) -> Value:
        """To an entry."""
        offset = self.builder.add(self.builder.mul(row, self.choices), column)
        return self.builder.gep(self.array.data, [offset])

    def load(self, at: Value, count: int, lane: NumbaType) -> Value:
        """`count` entries in lanes as wide as the type `lane`."""
        vector = ir.VectorType(self.element, count)
        pointer = self.builder.bitcast(at, vector.as_pointer())
        entries = self.builder.load(pointer, align=self.size)
        if isinstance(self.element, ir.IntType):
            number = ir.FloatType() if lane.bitwidth == 32 else ir.DoubleType()
            entries = self.builder.zext(entries, ir.VectorType(ir.IntType(lane.bitwidth), count))
            entries = self.builder.bitcast(entries, ir.VectorType(number, count))
        return entries

    def _entries(self, lanes: Value) -> Value:
        """Lanes as entries: their low bits, if those are integers."""
        if not isinstance(self.element, ir.IntType):
            return lanes
        count = lanes.type.count
        bits = self.builder.bitcast(lanes, ir.VectorType(_INT32, count))
        return self.builder.trunc(bits, ir.VectorType(self.element, count))

    def store(self, lanes: Value, at: Value) -> None:
        """Write all lanes."""
        entries = self._entries(lanes)
        pointer = self.builder.bitcast(at, entries.type.as_pointer())
        self.builder.store(entries, pointer, align=self.size)

    def store_first(self, lanes: Value, at: Value, count: Value) -> None:
        """Write the first `count` lanes."""
        entries = self._entries(lanes)
        copy = cgutils.alloca_once(self.builder, entries.type)
        self.builder.store(entries, copy)
        cgutils.raw_memcpy(self.builder, at, copy, count, self.size)

    def prefetch(self, at: Value, count: int, write: int) -> None:
        """Prefetch 8 KB ahead of `count` entries: hardware prefetchers do not follow sixteen rows at once."""
        start = self.builder.bitcast(at, _INT8.as_pointer())
        kinds = [_INT8.as_pointer(), _INT32, _INT32, _INT32]
        function = cgutils.get_or_insert_function(
            self.builder.module, ir.FunctionType(ir.VoidType(), kinds), "llvm.prefetch.p0"
        )
        for offset in range(0, count * self.size, _LINE):
            ahead = self.builder.gep(start, [_INT64(_AHEAD + offset)])
            self.builder.call(function, [ahead, _INT32(write), _INT32(3), _INT32(1)])


# ------------------------------------------------------------------------------------------------ along a row


@intrinsic
def load_vector(typing: Typing, array: NumbaType, row: NumbaType, column: NumbaType, like: NumbaType) -> Code:
    """Sixteen entries of a row from `column` on, in lanes as wide as the numbers of the array `like`."""

    def generate(context: Context, builder: Builder, sig: Signature, args: Sequence[Value]) -> Value:
        matrix = Matrix(context, builder, array, args[0])
        return matrix.load(matrix.pointer(args[1], args[2]), WIDTH, like.dtype)

    return SimdVector(like.dtype)(array, types.int64, types.int64, like), generate


@intrinsic
def store_vector(typing: Typing, vector: NumbaType, array: NumbaType, row: NumbaType, column: NumbaType) -> Code:
    """Write sixteen entries of a row from `column` on, and prefetch what lies ahead."""

    def generate(context: Context, builder: Builder, sig: Signature, args: Sequence[Value]) -> Value:
        matrix = Matrix(context, builder, array, args[1])
        at = matrix.pointer(args[2], args[3])
        matrix.prefetch(at, WIDTH, 1)
        matrix.store(args[0], at)
        return context.get_dummy_value()

    return types.none(vector, array, types.int64, types.int64), generate


@intrinsic
def prefetch(typing: Typing, array: NumbaType, row: NumbaType, column: NumbaType) -> Code:
    """Prefetch, for reading, what lies ahead of sixteen entries."""

    def generate(context: Context, builder: Builder, sig: Signature, args: Sequence[Value]) -> Value:
        matrix = Matrix(context, builder, array, args[0])
        matrix.prefetch(matrix.pointer(args[1], args[2]), WIDTH, 0)
        return context.get_dummy_value()

    return types.none(array, types.int64, types.int64), generate


@intrinsic
def clear_rows(typing: Typing, array: NumbaType, first: NumbaType, last: NumbaType) -> Code:
    """Zeros in the rows from `first` to `last`, both included."""

    def generate(context: Context, builder: Builder, sig: Signature, args: Sequence[Value]) -> Value:
        rows = context.make_array(array)(context, builder, args[0])
        choices = cgutils.unpack_tuple(builder, rows.shape)[1]
        count = builder.mul(builder.add(builder.sub(args[2], args[1]), _INT64(1)), choices)
        pointer = builder.gep(rows.data, [builder.mul(args[1], choices)])
        cgutils.memset(builder, pointer, builder.mul(count, _INT64(array.dtype.bitwidth // 8)), 0)
        return context.get_dummy_value()

    return types.none(array, types.int64, types.int64), generate


# ------------------------------------------------------------------------------------------------ an entry of each row


@intrinsic
def load_clamped(typing: Typing, array: NumbaType, first: NumbaType, last: NumbaType) -> Code:
    """Entries `first`, ``first + 1``, ... of an array of one axis; the one at `last` again for those beyond it."""

    def generate(context: Context, builder: Builder, sig: Signature, args: Sequence[Value]) -> Value:
        data = context.make_array(array)(context, builder, args[0]).data
        vector = _undefined(context.get_value_type(array.dtype))
        for i in range(WIDTH):
            place = builder.add(args[1], _INT64(i))
            place = builder.select(builder.icmp_signed("<", place, args[2]), place, args[2])
            vector = builder.insert_element(vector, builder.load(builder.gep(data, [place])), _INT32(i))
        return vector

    return SimdVector(array.dtype)(array, types.int64, types.int64), generate


def _undefined(element: LlvmType) -> Value:
    return ir.Constant(ir.VectorType(element, WIDTH), ir.Undefined)


def _columns(builder: Builder, columns: Value) -> list[Value]:
    """The lanes of a vector of integers, each in 64 bits."""
    return [builder.sext(builder.extract_element(columns, _INT32(i)), _INT64) for i in range(WIDTH)]


@intrinsic
def gather_lanes(typing: Typing, tile: NumbaType, columns: NumbaType) -> Code:
    """Of each of a tile's rows, the entry in the column that its lane of `columns` says."""

    def generate(context: Context, builder: Builder, sig: Signature, args: Sequence[Value]) -> Value:
        data = context.make_array(tile)(context, builder, args[0]).data
        vector = _undefined(context.get_value_type(tile.dtype))
        for i, column in enumerate(_columns(builder, args[1])):
            at = builder.add(builder.mul(column, _INT64(WIDTH)), _INT64(i))
            vector = builder.insert_element(vector, builder.load(builder.gep(data, [at])), _INT32(i))
        return vector

    return SimdVector(tile.dtype)(tile, columns), generate


@intrinsic
def scatter(typing: Typing, array: NumbaType, first: NumbaType, columns: NumbaType, value: NumbaType) -> Code:
    """Write one value into each of the sixteen rows from `first` on, in the column that its lane of `columns` says."""

    def generate(context: Context, builder: Builder, sig: Signature, args: Sequence[Value]) -> Value:
        matrix = Matrix(context, builder, array, args[0])
        base = matrix.pointer(args[1], _INT64(0))
        for i, column in enumerate(_columns(builder, args[2])):
            start = builder.gep(base, [builder.mul(matrix.choices, _INT64(i))])
            builder.store(args[3], builder.gep(start, [column]))
        return context.get_dummy_value()

    return types.none(array, types.int64, columns, array.dtype), generate
