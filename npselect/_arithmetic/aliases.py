"""What a name in a kernel's signature stands for. numba infers the types; these aliases are for readers."""

from __future__ import annotations

from typing import Any, TypeAlias

__all__ = [
    "Array",
    "Bits",
    "Builder",
    "Choices",
    "Chosen",
    "Code",
    "Column",
    "Columns",
    "CompileResult",
    "Constants",
    "Context",
    "Description",
    "Flag",
    "GradMask",
    "Index",
    "Indices",
    "Lanes",
    "Library",
    "LlvmType",
    "Logits",
    "Manager",
    "Module",
    "NumbaType",
    "Number",
    "Operation",
    "Out",
    "Row",
    "Scratch",
    "Signature",
    "Table",
    "Tile",
    "Typing",
    "Value",
    "Values",
    "Vector",
    "Where",
    "Word",
]

# ------------------------------------------------------------------------------------------------ one number, or SIMD

Number: TypeAlias = Any
"""A float32 or float64, or a SIMD vector of them."""
Bits: TypeAlias = Any
"""An integer that holds the bits of a number, or a SIMD vector of them; also a 16-bit number as it is stored."""
Word: TypeAlias = Any
"""A uint64, or a SIMD vector of them."""
Flag: TypeAlias = Any
"""A bool, or a SIMD vector of them."""
Vector: TypeAlias = Any
"""A SIMD vector, and never a scalar."""
Constants: TypeAlias = tuple[Any, ...]
"""Numbers of one type, as `exp_constants` makes them."""

# ------------------------------------------------------------------------------------------------ arrays

Values: TypeAlias = Any
"""An array of one axis, in the compute type."""
Logits: TypeAlias = Any
"""(rows, K), as it is stored: 16-bit numbers are integers."""
GradMask: TypeAlias = Any
"""A cotangent: the shape and storage of the logits."""
Where: TypeAlias = Any
"""bool, (rows, K) or (1, K); (0, 0) if every entry is a candidate."""
Out: TypeAlias = Any
"""A result, as it is stored."""
Scratch: TypeAlias = Any
"""The calling thread's memory, of one axis, in the compute type."""
Lanes: TypeAlias = Any
"""Part of the scratch memory: the partial sums of `npselect._arithmetic.order`."""
Tile: TypeAlias = Any
"""Part of the scratch memory: the columns of sixteen rows, one after another."""
Table: TypeAlias = Any
"""A tuple or an array of constants."""
Array: TypeAlias = Any
"""Any array, of any storage."""

# ------------------------------------------------------------------------------------------------ rows and columns

Row: TypeAlias = Any
"""The number of a row."""
Column: TypeAlias = Any
"""The number of a column."""
Choices: TypeAlias = Any
"""A number of columns."""
Index: TypeAlias = Any
"""A selected candidate's column, or `EMPTY`, or `INVALID`; for sixteen rows, a SIMD vector of them."""
Indices: TypeAlias = Any
"""An int64 array: of each row the `Index`. Of length 0 if there is none."""
Columns: TypeAlias = Any
"""A SIMD vector of columns, one a row."""

# ------------------------------------------------------------------------------------------------ numba, llvmlite

NumbaType: TypeAlias = Any
"""numba's type of an argument."""
Typing: TypeAlias = Any
"""numba's typing context, which an intrinsic takes first."""
Context: TypeAlias = Any
"""numba's target context."""
Manager: TypeAlias = Any
"""numba's manager of data models."""
Builder: TypeAlias = Any
"""llvmlite's IRBuilder."""
Value: TypeAlias = Any
"""llvmlite's value or constant."""
LlvmType: TypeAlias = Any
"""llvmlite's type of a value."""
Operation: TypeAlias = Any
"""A function of the module `operator`."""
Signature: TypeAlias = Any
"""numba's signature of a call."""
Code: TypeAlias = Any
"""A signature and the function that generates code for it: what an intrinsic returns."""
Chosen: TypeAlias = Any
"""The function that an overload chooses for its arguments' types; None if it does not serve them."""
Library: TypeAlias = Any
"""numba's library of the code of a function."""
Module: TypeAlias = Any
"""llvmlite's module."""
Description: TypeAlias = Any
"""numba's descriptor of a function: its types and names."""
CompileResult: TypeAlias = Any
"""What numba makes of a function for types of arguments."""
