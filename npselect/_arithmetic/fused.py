"""A float32 `fma` for processors without an instruction for it: vector code, where LLVM calls libm for every number.

The product of two float32 has 48 bits and an exponent from -298 to 255: in float64 it is exact. The sum of it and c is
not, but Knuth's two_sum gives its error, and so whether it is inexact, and on which side. An inexact sum is rounded to
odd: of the two float64 around the exact number, that with an odd last bit. Rounded to float32, this is a * b + c with
one rounding (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums: proved algorithms using rounding to
odd", IEEE Transactions on Computers 57, 2008): where float64 has two more bits at the least, a float32 and the midpoint
of two are float64 numbers with an even last bit, so what was rounded to odd is neither, and lies on the same side of
all of them as the exact number does.

- Two more bits there are at every size: 29 for normal results, more for subnormal ones. These are multiples of 2**-149,
  the midpoints of 2**-150, and below 2**-126 neighbours in float64 are at most 2**-179 apart.
- The exact number, where it is not 0, is a multiple of 2**-298, and smaller than 2**257: float64 neither underflows nor
  overflows, and two_sum needs no more. Overflow is float32's, whose threshold is a midpoint like any other.
- An exact sum is kept: zeros have the sign that IEEE 754 gives a sum, as a product is 0 only if a factor is.
- With infinities and NaN the error is NaN, which counts as exact: float64's sum is the result.
"""

from __future__ import annotations

from llvmlite import ir

from npselect._arithmetic.aliases import Builder, LlvmType, Value

__all__ = ["fma32"]


def fma32(builder: Builder, a: Value, b: Value, c: Value) -> Value:
    """LLVM's code for ``a * b + c``, float32 numbers or vectors of them."""
    float32 = a.type
    float64, int64 = _as_many(float32, ir.DoubleType()), _as_many(float32, ir.IntType(64))
    a, b, c = (builder.fpext(x, float64) for x in (a, b, c))
    product = builder.fmul(a, b)
    total = builder.fadd(product, c)
    c_part = builder.fsub(total, product)
    error = builder.fadd(builder.fsub(product, builder.fsub(total, c_part)), builder.fsub(c, c_part))
    bits = builder.bitcast(total, int64)
    signs = builder.xor(bits, builder.bitcast(error, int64))
    too_large = builder.icmp_signed("<", signs, ir.Constant(int64, None))  # in magnitude: one less is towards zero
    odd = builder.or_(builder.add(bits, builder.sext(too_large, int64)), _constant(int64, 1))
    inexact = builder.fcmp_ordered("!=", error, ir.Constant(float64, None))
    return builder.fptrunc(builder.bitcast(builder.select(inexact, odd, bits), float64), float32)


def _as_many(kind: LlvmType, element: LlvmType) -> LlvmType:
    """The type of as many numbers of another type."""
    return ir.VectorType(element, kind.count) if isinstance(kind, ir.VectorType) else element


def _constant(kind: LlvmType, value: int) -> Value:
    return ir.Constant(kind, [value] * kind.count if isinstance(kind, ir.VectorType) else value)
