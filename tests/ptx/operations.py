"""What the instructions that only compute do, for arrays: an entry for each that the kernels use, and none else.

Results are new arrays. A float32 result that is NaN is the one NaN that devices make.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import vectorize
from numba.extending import intrinsic

__all__ = ["OPERATIONS", "TYPES", "Operation", "fma"]

TYPES = {
    "pred": np.dtype(bool),
    **{f"{kind}{8 * size}": np.dtype(f"u{size}") for kind in "bu" for size in (1, 2, 4, 8)},
    **{f"s{8 * size}": np.dtype(f"i{size}") for size in (1, 2, 4, 8)},
    **{f"f{8 * size}": np.dtype(f"f{size}") for size in (2, 4, 8)},
}


@dataclass(frozen=True)
class Operation:
    compute: Callable[..., Any]
    result: str  # type
    operands: tuple[str, ...]  # types


OPERATIONS: dict[str, Operation] = {}


def _define(opcode: str, compute: Callable[..., Any], result: str, *operands: str) -> None:
    OPERATIONS[opcode] = Operation(compute, result, operands)


# ------------------------------------------------------------------------------------------------ floating point


@intrinsic
def _fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    return a(a, b, c), lambda context, builder, signature, args: builder.fma(*args)


@vectorize(["float32(float32, float32, float32)", "float64(float64, float64, float64)"])
def fma(a: Any, b: Any, c: Any) -> Any:
    return _fma(a, b, c)


_NAN = {"f32": np.uint32(0x7FFFFFFF).view(np.float32), "f16": np.uint16(0x7FFF).view(np.float16)}


def _with_one_nan(compute: Callable[..., Any], kind: str) -> Callable[..., Any]:
    if kind not in _NAN:
        return compute

    def computed(*operands: Any) -> Any:
        result = compute(*operands)
        np.copyto(result, _NAN[kind], where=np.isnan(result))
        return result

    return computed


def _larger(a: Any, b: Any) -> Any:
    """A number rather than NaN, +0 rather than -0."""
    return np.where((a == 0) & (b == 0), a + b, np.fmax(a, b))


def _smaller(a: Any, b: Any) -> Any:
    return -_larger(-a, -b)


for _t in ("f32", "f64"):
    for _name, _function in {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div.rn": np.divide}.items():
        _define(f"{_name}.{_t}", _with_one_nan(_function, _t), _t, _t, _t)
    _define(f"fma.rn.{_t}", _with_one_nan(fma, _t), _t, _t, _t, _t)
    _define(f"rcp.rn.{_t}", _with_one_nan(lambda x: x.dtype.type(1) / x, _t), _t, _t)
    _define(f"max.{_t}", _with_one_nan(_larger, _t), _t, _t, _t)
    _define(f"min.{_t}", _with_one_nan(_smaller, _t), _t, _t, _t)
    _define(f"neg.{_t}", np.negative, _t, _t)
    _define(f"abs.{_t}", np.abs, _t, _t)


# ------------------------------------------------------------------------------------------------ integers


def _quotient(a: Any, b: Any) -> Any:
    if not b.all():
        raise ZeroDivisionError("an integer is divided by 0")
    size = np.abs(a).view(f"u{a.itemsize}") // np.abs(b).view(f"u{a.itemsize}")  # |-2**63| is 2**63 when unsigned
    return np.where((a < 0) != (b < 0), np.negative(size), size).view(a.dtype)


def _shifted(shift: Callable[..., Any]) -> Callable[..., Any]:
    """By the width or more, which NumPy leaves open, as often as not."""

    def shifted(x: Any, by: Any) -> Any:
        most = 8 * x.itemsize - 1
        once = shift(x, np.minimum(by, most).astype(x.dtype))
        return np.where(by > most, shift(once, x.dtype.type(1)), once)

    return shifted


def _field_inserted(field: Any, into: Any, start: Any, length: Any) -> Any:
    if (start >= 64).any() or (length >= 64).any():
        raise NotImplementedError("a bit field as long as the register")
    ones = ((np.uint64(1) << length.astype(np.uint64)) - np.uint64(1)) << start.astype(np.uint64)
    return (into & ~ones) | ((field << start.astype(np.uint64)) & ones)


for _t in ("s32", "s64"):
    for _name, _function in {"add": np.add, "sub": np.subtract, "mul.lo": np.multiply}.items():
        _define(f"{_name}.{_t}", _function, _t, _t, _t)
    _define(f"mad.lo.{_t}", lambda a, b, c: a * b + c, _t, _t, _t, _t)
    _define(f"neg.{_t}", np.negative, _t, _t)
_define("add.u64", np.add, "u64", "u64", "u64")
for _t in ("s32", "u32", "s64", "u64"):
    _define(f"div.{_t}", _quotient, _t, _t, _t)
    _define(f"shr.{_t}", _shifted(np.right_shift), _t, _t, "u32")
    _define(f"min.{_t}", np.minimum, _t, _t, _t)
    _define(f"max.{_t}", np.maximum, _t, _t, _t)
for _t in ("b16", "b32", "b64", "pred"):
    for _name, _function in {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}.items():
        _define(f"{_name}.{_t}", _function, _t, _t, _t)
    _define(f"not.{_t}", np.invert, _t, _t)
for _t in ("b32", "b64"):
    _define(f"shl.{_t}", _shifted(np.left_shift), _t, _t, "u32")
_define("bfi.b64", _field_inserted, "b64", "b64", "b64", "u32", "u32")
for _t, _wide in (("s32", "s64"), ("u32", "u64")):
    _define(f"mul.wide.{_t}", lambda a, b: a.astype(f"{a.dtype.kind}8") * b, _wide, _t, _t)
for _t in ("s64", "u64"):
    _define(f"mul.hi.{_t}", lambda a, b: (a.astype(object) * b.astype(object) >> 64).astype(a.dtype), _t, _t, _t)


# ------------------------------------------------------------------------------------------------ comparisons, moves


def _ordered(compare: Callable[..., Any]) -> Callable[..., Any]:
    return lambda a, b: compare(a, b) & ~np.isnan(a) & ~np.isnan(b)


def _unordered(compare: Callable[..., Any]) -> Callable[..., Any]:
    return lambda a, b: compare(a, b) | np.isnan(a) | np.isnan(b)


_COMPARISONS = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}

for _name, _function in _COMPARISONS.items():
    for _t in ("s16", "u16", "s32", "u32", "s64", "u64"):
        _define(f"setp.{_name}.{_t}", _function, "pred", _t, _t)
    for _t in ("f32", "f64"):
        _define(f"setp.{_name}.{_t}", _ordered(_function), "pred", _t, _t)
        _define(f"setp.{_name}u.{_t}", _unordered(_function), "pred", _t, _t)
for _t in ("b32", "b64"):
    for _name in ("eq", "ne"):
        _define(f"setp.{_name}.{_t}", _COMPARISONS[_name], "pred", _t, _t)
for _t in ("f32", "f64"):
    _define(f"setp.nan.{_t}", lambda a, b: np.isnan(a) | np.isnan(b), "pred", _t, _t)
    _define(f"setp.num.{_t}", lambda a, b: ~np.isnan(a) & ~np.isnan(b), "pred", _t, _t)

for _t in ("b16", "b32", "b64", "u16", "u32", "u64", "s16", "s32", "s64", "f32", "f64", "pred"):
    _define(f"mov.{_t}", np.copy, _t, _t)
    if _t != "pred":
        _define(f"selp.{_t}", lambda a, b, p: np.where(p, a, b), _t, _t, _t, "pred")


def _rough_log2(x: Any) -> Any:
    """A base-2 logarithm, as wrong as the PTX ISA allows: by 2**-22.6 within (0.5, 2), else by 2**-22 of itself."""
    x = np.where(np.abs(x) < np.finfo(np.float32).tiny, np.copysign(np.float32(0), x), x)
    exact = np.log2(x.astype(np.float64))
    error = np.where((x > 0.5) & (x < 2), 2.0**-22.6, 2.0**-22 * np.abs(exact))
    return (exact + np.where(x.view(np.uint32) & 1, error, -error)).astype(np.float32)


_define("lg2.approx.ftz.f32", _with_one_nan(_rough_log2, "f32"), "f32", "f32")


# ------------------------------------------------------------------------------------------------ conversions


def _convert(target: str, source: str, rounded: bool) -> None:
    opcode = f"cvt.{'rn.' if rounded else ''}{target}.{source}"
    _define(opcode, _with_one_nan(lambda x: x.astype(TYPES[target]), target), target, source)


_INTEGERS = [f"{sign}{bits}" for sign in "us" for bits in (16, 32, 64)]
for _target in _INTEGERS:
    for _source in _INTEGERS:
        _convert(_target, _source, rounded=False)
for _target, _source in (("f32", "f16"), ("f64", "f32")):
    _convert(_target, _source, rounded=False)
for _target, _source in (("f16", "f32"), ("f32", "f64")):
    _convert(_target, _source, rounded=True)
for _target in ("f32", "f64"):
    for _source in _INTEGERS:
        _convert(_target, _source, rounded=True)
