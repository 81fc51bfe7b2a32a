"""The exact results of `categorical` and `gapped` by mpmath: the published lines, as `exact` has them of the others.

Nothing of the package is imported. What the definitions round is rounded by whoever calls: the product of both
temperatures to the type it is used in, ``1 - unimix`` to float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import mpmath
from exact import NAMES, Row, Values, _dot, formulas, settle
from mpmath import mpf


class Mixture(NamedTuple):
    """The temperature of the sample, the share of the uniform distribution, and what is left: ``1 - unimix``."""

    forward_temp: float = 1.0
    unimix: float = 0.0
    share: float = 1.0


def categorical_formula(
    w: Sequence[mpf], temp: mpf, g: Sequence[mpf], v: Sequence[mpf], mixture: Mixture, names: Sequence[str] = NAMES
) -> tuple[Values, Values]:
    """``(1 - e) softmax(w / temp) + e / n`` and its derivatives; and the sizes. `temp` is the product of both.

    Those by the temperature of the gradient have one more factor, the other temperature.
    """
    share, unimix, forward_temp = (mpf(x) for x in (mixture.share, mixture.unimix, mixture.forward_temp))
    found = formulas(w, temp, g, v, names)
    for part in found:
        for name, values in part.items():
            factor = share * forward_temp if name == "backward_temp" else share
            more = unimix / len(w) if name == "soft" else 0
            part[name] = [factor * x + more for x in values]
    return found


def moved(w: Sequence[mpf], gap: mpf, d: int) -> list[mpf]:
    """The logits of which d is the largest by `gap`: the largest of all there, and no other nearer to it than that."""
    top = max(w)
    return [top if i == d else min(x, top - gap) for i, x in enumerate(w)]


def adaptive_gap(w: Sequence[mpf], d: int) -> mpf:
    """``-log(1 - p_d) / p_d``, where ``1 - p_d`` is the sum of the others; infinite if there are none.

    Where p_d is small, ``1 - p_d`` is 1 at every precision, and the logarithm is that of ``1 + x``.
    """
    e = [mpmath.exp(x - max(w)) for x in w]
    s, others = mpmath.fsum(e), mpmath.fsum(x for i, x in enumerate(e) if i != d)
    if not others:
        return mpf("inf")
    p = e[d] / s
    return -(mpmath.log1p(-p) if 2 * p < 1 else mpmath.log(others / s)) / p


def gapped_formula(
    w: Sequence[mpf], temp: mpf, gap: mpf | str, g: Sequence[mpf], d: int
) -> tuple[list[mpf], list[mpf], list[mpf]]:
    """``softmax(moved / temp)``, and ``J(softmax(moved / temp)) g / temp`` with its sizes (arXiv:2206.07235)."""
    gap = adaptive_gap(w, d) if gap == "adaptive" else gap
    t = [(x - max(w)) / temp for x in moved(w, gap, d)]
    e = [mpmath.exp(x) if x > -(10**6) else mpf(0) for x in t]
    s = mpmath.fsum(e)
    p = [x / s for x in e]
    mean, size = _dot(p, g), _dot(p, [abs(x) for x in g])
    values = [p_i * (g_i - mean) / temp for p_i, g_i in zip(p, g, strict=True)]
    return p, values, [p_i * (abs(g_i) + size) / temp for p_i, g_i in zip(p, g, strict=True)]


# ------------------------------------------------------------------------------------------------ of rows


def exact_categorical(row: Row, dtype: str, mixture: Mixture, names: Sequence[str] = NAMES) -> Values:
    """The results of one row whose `temp` is the product, 0 at excluded entries; `backward_temp` is a list of one."""
    here = row.candidates
    results = {name: [mpf(0)] * (1 if name == "backward_temp" else len(row.w)) for name in names}

    def compute() -> tuple[list[mpf], list[mpf]]:
        w, g, v = ([mpf(x[i]) for i in here] for x in (row.w, row.g, row.v))
        values, sizes = categorical_formula(w, mpf(row.temp), g, v, mixture, names)
        return [x for name in names for x in values[name]], [x for name in names for x in sizes[name]]

    if here:
        flat = iter(settle(dtype, compute))
        for name in names:
            for i in [0] if name == "backward_temp" else here:
                results[name][i] = next(flat)
    return results


def exact_gapped(row: Row, d: int, gap: float | str, dtype: str, name: str = "backward") -> list[mpf]:
    """`backward`, or `soft`, of one row of which column d was drawn, 0 at excluded entries."""
    here = row.candidates
    result = [mpf(0)] * len(row.w)

    def compute() -> tuple[list[mpf], list[mpf]]:
        w, g = ([mpf(x[i]) for i in here] for x in (row.w, row.g))
        given = gap if isinstance(gap, str) else mpf(gap)
        soft, values, sizes = gapped_formula(w, mpf(row.temp), given, g, here.index(d))
        return (values, sizes) if name == "backward" else (soft, soft)

    if here:
        for i, value in zip(here, settle(dtype, compute), strict=True):
            result[i] = value
    return result
