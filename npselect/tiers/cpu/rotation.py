"""The rotation trick's gradient on the CPU, in a form that keeps its digits where vectors are nearly opposite.

The formula of `npselect._oracle.rotation` divides by ``|e^ + q^|``, which has no digits where e and q are nearly
opposite. So the rotation is taken in the plane of e and q. With the unit vectors ``e^ = e / |e|`` and n, of the plane
and orthogonal to e, ``q^ = c e^ + s n``, and for ``a = <e^, g>`` and ``b = <n, g>``::

    R e^ = c e^ + s n        R n = -s e^ + c n        R = 1 on all that is orthogonal to both
    R^T g = g + (s b - (1 - c) a) e^ - (s a + (1 - c) b) n          1 - c = s**2 / (1 + c), if c > 0

n is the direction of ``v = w - e <e, w> / |e|**2``, with ``w = e_p q - q_p e`` and p the place of the largest
``|e_p|``. Each entry of w is a difference of two products, which two fmas give to two units of roundoff (W. Kahan's;
C.-P. Jeannerod, N. Louvet and J.-M. Muller, "Further analysis of Kahan's algorithm for the accurate computation of 2 x
2 determinants", Mathematics of Computation 82, 2013). So w is exactly 0 where e and q are parallel. As ``w_p = 0``, the
projection leaves at least ``|e_p| / |e|`` of w, which is ``D**-0.5`` or more; it is done twice, for the part that
rounding leaves along e. ``s = |v| / (|e_p| |q|)``.

Vectors are scaled by powers of two; w is so once more. Everything is computed in float64, whatever the dtype, and
rounded once. With u = 2**-53 and m the depth of a sum (`npselect._arithmetic.order`), the errors of a row are, to first
order and as a vector, of length at most::

    (24 |e| / |e_p| + 34 m + 124) u |q| / |e| |g|

by adding up: a sum of products is off by m u of its terms' sizes; sizes by ``(m / 2 + 1) u``; n by ``h = (2 |e| / |e_p|
+ m + 5) u``; c by ``(2 m + 2) u``; s by ``h + (m + 3) u``; ``1 - c`` by ``2 h + (4 m + 11) u``; a and b by
``(1.5 m + 1) u |g|``, b by h |g| more. What is multiplied by them is at most |g|, or 2 |g|.
"""

from __future__ import annotations

import math

import numpy as np

from npselect._arithmetic.aliases import Array, Flag, Number, Row, Scratch, Values
from npselect._arithmetic.half import stored
from npselect._arithmetic.order import LANES
from npselect._arithmetic.primitives import bits_of, float64_of, fma, formula
from npselect._arithmetic.simd import WIDTH
from npselect._modes import in_usual_modes
from npselect._threads import over_rows
from npselect.tiers.cpu.compile import kernel
from npselect.tiers.cpu.gather import rounded
from npselect.tiers.cpu.sums import padded_dot

__all__ = ["rotation"]

_LIFTED = 1000  # w is taken 2**1000 too large, lest its products underflow
_FAR = 500  # g is scaled if its exponent is beyond
_MOST = 2150  # an exponent that lifts the least subnormal beyond the largest number
_BUFFERS = 4


def rotation(grad: Array, e: Array, q: Array, out: Array) -> None:
    """``grad_e = (|q| / |e|) R^T g`` of each row, of shape (rows, D), all in one dtype, into `out`."""
    rows, features = out.shape
    wide = out
    if out.dtype.itemsize == 2:
        grad, e, q = (_widened(array) for array in (grad, e, q))
        wide = np.empty(out.shape)
    grad, e, q = (stored(array) for array in (grad, e, q))
    padded = -(-features // WIDTH) * WIDTH

    def run_range(start: int, stop: int) -> None:
        _rotate_rows(grad, e, q, wide, start, stop, np.empty(2 * LANES + _BUFFERS * padded))

    over_rows(run_range, rows, features)
    if wide is not out:
        _narrowed(wide, out)


@in_usual_modes
def _widened(array: Array) -> Array:
    return array.astype(np.float64)


@in_usual_modes
def _narrowed(wide: Array, out: Array) -> None:
    out[...] = rounded(wide, out.dtype)


@kernel
def _rotate_rows(grad: Array, e: Array, q: Array, out: Array, start: Row, stop: Row, scratch: Scratch) -> None:
    features = e.shape[1]
    lanes, buffers = scratch[: 2 * LANES], scratch[2 * LANES :]
    size = len(buffers) // _BUFFERS
    x, y, h, w = buffers[:size], buffers[size : 2 * size], buffers[2 * size : 3 * size], buffers[3 * size :]
    buffers[:] = 0.0
    for r in range(start, stop):
        g_r, e_r, q_r, out_r = grad[r], e[r], q[r], out[r]
        top_g, finite_g = _largest(g_r)
        top_e, finite_e = _largest(e_r)
        top_q, finite_q = _largest(q_r)
        if not (finite_g and finite_e and finite_q):
            out_r[:] = np.nan
        elif top_q == 0.0:
            out_r[:] = 0.0
        elif top_e == 0.0:
            _copy(g_r, out_r)
        else:
            exponent_g = _exponent(top_g) if top_g > 0.0 else 0
            if abs(exponent_g) < _FAR:
                exponent_g = 0
            exponents = _exponent(top_e), _exponent(top_q), exponent_g
            _fill(e_r, -exponents[0], x)
            _fill(q_r, -exponents[1], y)
            _fill(g_r, -exponents[2], h)
            along, across, ratio = _rotate(e_r, q_r, exponents[0], exponents[1], x, y, h, w, lanes)
            a, b, c = _powers(exponents[1] - exponents[0] + exponents[2])
            if along == 0.0 and across == 0.0 and ratio == 1.0 and exponents[0] == exponents[1]:
                _copy(g_r, out_r)
            else:
                for j in range(features):
                    turned = ratio * (h[j] + fma(across, w[j], along * x[j]))
                    out_r[j] = turned * a * b * c


@formula
def _rotate(
    e: Values, q: Values, exponent_e: Row, exponent_q: Row, x: Values, y: Values, h: Values, w: Values, lanes: Scratch
) -> tuple[Number, Number, Number]:
    """Multiples of x and of v, which `w` holds afterwards, that are added to h; and ``|y| / |x|``."""
    zero, features = np.float64(0.0), len(e)
    p = 0
    for j in range(1, features):
        if abs(x[j]) > abs(x[p]):
            p = j
    x_p, y_p = x[p], y[p]
    xx, yy = padded_dot(x, x, zero, lanes), padded_dot(y, y, zero, lanes)
    xh = padded_dot(x, h, zero, lanes)
    size_x, size_y, ratio = math.sqrt(xx), math.sqrt(yy), math.sqrt(yy / xx)
    a0, b0, c0 = _powers(_LIFTED - exponent_e)
    a1, b1, c1 = _powers(_LIFTED - exponent_q)
    top = zero
    for j in range(features):
        back = (np.float64(e[j]) * a0 * b0 * c0) * y_p
        lost = fma(np.float64(e[j]) * a0 * b0 * c0, y_p, -back)
        w[j] = fma(x_p, np.float64(q[j]) * a1 * b1 * c1, -back) - lost
        top = max(top, abs(w[j]))
    if top == 0.0:
        along = zero if (x_p > 0.0) == (y_p > 0.0) else -2.0 * (xh / xx)
        return along, zero, ratio
    exponent_w = _exponent(top)
    _fill(w, -exponent_w, w)
    for _ in range(2):
        part = -(padded_dot(x, w, zero, lanes) / xx)
        for j in range(features):
            w[j] = fma(part, x[j], w[j])
    vv = padded_dot(w, w, zero, lanes)
    size_v = math.sqrt(vv)
    a, b, c = _powers(exponent_w - _LIFTED)
    s = min(size_v / (abs(x_p) * size_y) * a * b * c, 1.0)
    cosine = max(padded_dot(x, y, zero, lanes) / (size_x * size_y), -1.0)
    versine = s * s / (1.0 + cosine) if cosine > 0.0 else 1.0 - cosine
    sign = 1.0 if x_p > 0.0 else -1.0
    g_e, g_n = xh / size_x, sign * (padded_dot(w, h, zero, lanes) / size_v)
    along = (s * g_n - versine * g_e) / size_x
    across = -sign * (s * g_e + versine * g_n) / size_v
    return along, across, ratio


@formula
def _largest(values: Values) -> tuple[Number, Flag]:
    """The largest size in a row, and whether all numbers are finite."""
    top, beyond = np.float64(0.0), 0
    for j in range(len(values)):
        size = abs(np.float64(values[j]))
        beyond += not size < np.inf
        top = max(top, size)
    return top, beyond == 0


@formula
def _exponent(size: Number) -> Row:
    """The integer k with ``2**(k - 1) <= size < 2**k``, of a positive number."""
    normal = size * 2.0**54 if size < 2.0**-1022 else size
    return (bits_of(normal) >> 52) - 1022 - (54 if size < 2.0**-1022 else 0)


@formula
def _powers(exponent: Row) -> tuple[Number, Number, Number]:
    """Three powers of two, whose product is 2**exponent: it may be beyond the range of one."""
    exponent = min(max(exponent, -_MOST), _MOST)
    third = exponent // 3
    half = (exponent - third) // 2
    rest = exponent - third - half
    return float64_of((third + 1023) << 52), float64_of((half + 1023) << 52), float64_of((rest + 1023) << 52)


@formula
def _copy(values: Values, out: Values) -> None:
    for j in range(len(values)):
        out[j] = values[j]


@formula
def _fill(values: Values, exponent: Row, out: Values) -> None:
    """``values 2**exponent``."""
    a, b, c = _powers(exponent)
    for j in range(len(values)):
        out[j] = np.float64(values[j]) * a * b * c
