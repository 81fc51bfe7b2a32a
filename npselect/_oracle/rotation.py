"""The rotation trick's gradient in numbers of 106 bits, rounded once: a function of `npselect.reference`."""

from __future__ import annotations

from typing import TypeVar

import numpy as np

from npselect._oracle.numbers import Digits, Wide
from npselect._oracle.rounding import evaluate
from npselect._oracle.rows import Array

__all__ = ["rotation"]

Number = TypeVar("Number", Wide, Digits)


def rotation(grad: Array, e: Array, q: Array, out: Array) -> None:
    """``grad_e = (|q| / |e|) (g - 2 r <r, g> + 2 e^ <q^, g>)`` of each row, of shape (rows, D), into `out`.

    ``e^ = e / |e|``, ``q^ = q / |q|`` and ``r = (e^ + q^) / |e^ + q^|`` (Fifty, Junkins, Duan, Iyengar, Liu, Amid,
    Thrun and Ré 2024, arXiv:2410.06424). Multiplied out, with ``N = |e| |q|`` and ``s = |q| e + |e| q``, so that
    ``|s|**2 = 2 N (N + <e, q>)``::

        grad_e = (|q| / |e|) (g - s <s, g> / (N (N + <e, q>))) + 2 e <q, g> / |e|**2

    If e and q have one direction, the last two terms cancel. If they are opposite, s is 0, and its term is left out:
    ``(|q| / |e|) (g - 2 e^ <e^, g>)``. If q is 0, so is the gradient; if e alone is 0, it is g.
    """

    def formula(number: type[Number], g: Array, e: Array, q: Array, parallel: Array, one_way: Array) -> list[Number]:
        h, x, y = number.of(g), number.of(e), number.of(q)
        size_x, size_y = (x * x).sum().sqrt(), (y * y).sum().sqrt()
        n = size_x * size_y
        s, left = size_y * x + size_x * y, n + (x * y).sum()
        left = left.replace(left.is_doubtful(n), np.nan).replace(parallel, 1.0)
        reflected = (s * (s * h).sum() / (n * left)).replace(parallel, 0.0)
        turned = ((x + x) * (y * h).sum() / n - reflected).replace(one_way, 0.0)
        return [size_y / size_x * (h + turned)]

    g, x, y = (array.astype(np.float64) for array in (grad, e, q))
    finite = np.all(np.isfinite(g) & np.isfinite(x) & np.isfinite(y), axis=-1, keepdims=True)
    from_zero, to_zero = (~np.any(array, axis=-1, keepdims=True) for array in (x, y))
    usual = finite & ~from_zero & ~to_zero
    g = np.where(finite, g, 0.0)
    x, y = (np.where(usual, array, 1.0) for array in (x, y))
    parallel, same_sign = _parallel(x, y)
    arrays = [g, x, y, parallel, parallel & same_sign]
    (grad_e,) = evaluate(formula, arrays, out.dtype, np.broadcast_to(usual, g.shape))
    out[...] = np.where(usual, grad_e, np.where(finite, np.where(to_zero, 0.0, g), np.nan))


def _parallel(x: Array, y: Array) -> tuple[Array, Array]:
    """Whether the vectors of a row are exactly parallel, and whether they then have one direction: (rows, 1) each.

    They are if ``x_p y_j = x_j y_p`` for all j, with p the place of the largest x. Products of two float64 are exact.
    """
    p = np.argmax(np.abs(x), axis=-1, keepdims=True)
    x_p, y_p = np.take_along_axis(x, p, axis=-1), np.take_along_axis(y, p, axis=-1)
    cross = Wide.of(x_p) * Wide.of(y) - Wide.of(x) * Wide.of(y_p)
    return np.all((cross.hi == 0.0) & (cross.error == 0.0), axis=-1, keepdims=True), (x_p > 0) == (y_p > 0)
