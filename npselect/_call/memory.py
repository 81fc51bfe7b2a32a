"""What the way in asks of the memory that a call's arrays are in.

`npselect._call.on_host` answers for the host, `npselect._call.on_gpu` and `npselect._call.fast_on_gpu` for a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

from npselect._dtypes import Array, DType, Shape
from npselect.tiers.cpu.gather import Selected

__all__ = ["AnyArray", "AnyFastMemory", "AnyMemory", "FastMemory", "Fill", "Memory", "Vectors"]

AnyArray: TypeAlias = Any  # numpy.ndarray on the host, DeviceArray on a GPU; what follows takes either
Fill: TypeAlias = Callable[..., None]  # takes what it fills last
A = TypeVar("A")  # the arrays of one memory


class Vectors(Protocol[A]):
    """What `npselect.selection` computes of vectors."""

    def gather(self, x: A, selected: Selected, shape: Shape) -> A:
        """What is chosen of `x`; 0 elsewhere, NaN in spoilt rows."""

    def scatter_add(self, grad: A, x: A, selected: Selected, dtype: DType) -> A:
        """``grad_chosen`` at ``m``, summed over the rows that share an item of `x`."""

    def batched_dot(self, left: A, right: A, compute: DType) -> A:
        """Of items (R, L) and (K, L), the dot products: (R, K)."""

    def rounded(self, values: A, dtype: DType) -> A:
        """In the dtype, rounded once."""


class Memory(Protocol[A]):
    """Where all arrays of one call are: how they are read, laid out as rows, and written."""

    @property
    def vectors(self) -> Vectors[A]:
        """What computes with vectors there."""

    def floating(self, values: object, name: str) -> A:
        """An array of one of the four floating dtypes."""

    def bools(self, values: object, name: str) -> A:
        """An array of plain bools."""

    def integers(self, values: object, name: str) -> A:
        """An array of int64."""

    def to_host(self, values: AnyArray) -> AnyArray:
        """The numbers where NumPy can look at them."""

    def writable(self, out: object) -> A:
        """`out`, as an array that may be written to."""

    def empty(self, shape: Shape, dtype: DType) -> A:
        """A new array."""

    def full(self, shape: Shape, one: A) -> A:
        """An array all of whose elements are the one that was given."""

    def broadcast_to(self, array: A, shape: Shape) -> A:
        """A larger shape, in which elements are repeated."""

    def as_rows(self, moved: A, dtype: DType) -> A:
        """Shape (rows, K), C-contiguous, in a dtype; a view wherever that can be had."""

    def is_contiguous(self, array: A) -> bool:
        """Whether elements lie as the tiers take them."""

    def may_share(self, one: A, other: A) -> bool:
        """Whether the memory between the first and the last elements of two arrays overlaps."""

    def shares(self, one: A, other: A) -> bool:
        """Whether two arrays have an element in common."""

    def run(self, fill: Fill, arguments: Sequence[AnyArray]) -> None:
        """Let a tier fill the last of the arrays."""

    def fill_with(self, value: int | Array, *arrays: A) -> None:
        """Write a number, or the host's numbers, everywhere."""

    def copy_into(self, moved: A, rows: A) -> None:
        """Write rows into an array whose axes are those of the rows, then that of the choices."""

    def result(self, array: A) -> A:
        """A new array as callers get it."""

    def finish(self) -> None:
        """Let those who come after see what was done, as soon as it is."""


class FastMemory(Protocol[A]):
    """What the fast path asks: of arrays, not of a call, as there is no time for more."""

    def usable(self, values: object) -> A | None:
        """An array that a tier can take, read and write, but for the number of its axes; None if it cannot."""

    def fits(self, array: A, shape: Shape, dtype: DType, beside: A) -> bool:
        """Whether an array has a shape and a dtype, and is where another is."""

    def new(self, shape: Shape, dtype: DType, beside: A) -> A:
        """A new array where another is."""

    def are_apart(self, array: A, others: Sequence[A]) -> bool:
        """Whether an array surely shares no memory with others."""

    def run(self, fill: Fill, arguments: Sequence[AnyArray]) -> None:
        """Let a tier fill the last of the arrays, and those who come after see it, as soon as it is done."""


AnyMemory: TypeAlias = Memory[Any]
AnyFastMemory: TypeAlias = FastMemory[Any]
