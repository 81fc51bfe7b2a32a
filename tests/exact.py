"""The exact results by mpmath, to judge the package by: the textbook's formulas, and as many bits as they need.

Nothing of the package is imported, and nothing of its ways of saving digits is used: cotangents are not measured from
the selected entry, means are subtracted as they stand, the precision pays for what cancels. Two things end the search
for a precision (it doubles each time): the rounding errors, bounded by the precision and by the sizes of the terms
before they cancel, are small beside the unit in the last place of the result; and twice as many bits give the same. The
first alone would trust one formula's error analysis, the second alone is fooled by saturated rows, where a share of
``exp(-100000)`` is lost at 200 bits just as it is at 400.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import mpmath
import numpy as np
from mpmath import mp, mpf

DTYPES = ("float16", "bfloat16", "float32", "float64")
NAMES = ("soft", "backward", "backward_temp", "double_mask", "double_logits")


class Format(NamedTuple):
    """`precision` bits; normal numbers from ``2**lowest`` to below ``2**(highest + 1)``."""

    precision: int
    lowest: int
    highest: int

    def place(self, value: mpf) -> int:
        """The exponent of the last place of `value`; that of subnormals, at least."""
        _, mantissa, exponent, bits = value._mpf_
        leading = exponent + bits if mantissa else self.lowest + 1
        return max(leading, self.lowest + 1) - self.precision


FORMATS = {
    "float16": Format(11, -14, 15),
    "bfloat16": Format(8, -126, 127),
    "float32": Format(24, -126, 127),
    "float64": Format(53, -1022, 1023),
}


class Row(NamedTuple):
    """One selection problem, in Python floats; `temp` as rounded to the type it is used in."""

    w: list[float]
    temp: float
    offered: list[bool]
    g: list[float]
    v: list[float]

    @property
    def candidates(self) -> list[int]:
        return [i for i, (w, offered) in enumerate(zip(self.w, self.offered, strict=True)) if offered and w > -math.inf]


def rows(logits: Any, temp: Any, where: Any, grad_mask: Any, grad_grad_logits: Any) -> list[Row]:
    """Arrays of shape (rows, K), and temp of shape (rows, 1), as a list of rows."""
    offered = np.ones(logits.shape, bool) if where is None else np.broadcast_to(where, logits.shape)
    temp = np.broadcast_to(temp, (len(logits), 1))[:, 0]
    parts = logits, temp, offered, grad_mask, grad_grad_logits
    lists = [part.astype(part.dtype if part.dtype == bool else np.float64).tolist() for part in parts]
    return [Row(*row) for row in zip(*lists, strict=True)]


# ------------------------------------------------------------------------------------------------ the formulas

Values = dict[str, list[mpf]]


def formulas(
    w: Sequence[mpf], temp: mpf, g: Sequence[mpf], v: Sequence[mpf], names: Sequence[str] = NAMES
) -> tuple[Values, Values]:
    """The textbook, at mpmath's present precision, over candidates only; and the sums of the sizes of all terms."""
    top = max(w)
    z = [w_i - top for w_i in w]
    t = [z_i / temp for z_i in z]
    e = [mpmath.exp(t_i) if t_i > -(10**6) else mpf(0) for t_i in t]  # what is left out is below 2**-1400000
    s = mpmath.fsum(e)
    p = [e_i / s for e_i in e]
    values, sizes = {"soft": p}, {"soft": p}

    def jacobian(x: Sequence[mpf], size_x: Sequence[mpf], scale: mpf) -> tuple[list[mpf], list[mpf]]:
        mean, size = _dot(p, x), _dot(p, size_x)
        return (
            [p_i * (x_i - mean) / scale for p_i, x_i in zip(p, x, strict=True)],
            [p_i * (x_i + size) / scale for p_i, x_i in zip(p, size_x, strict=True)],
        )

    size_g, size_v = [abs(x) for x in g], [abs(x) for x in v]
    if "backward" in names or "backward_temp" in names:
        values["backward"], sizes["backward"] = jacobian(g, size_g, temp)
    if "backward_temp" in names:
        values["backward_temp"] = [-_dot(values["backward"], z) / temp]
        sizes["backward_temp"] = [-_dot(sizes["backward"], z) / temp]
    if "double_mask" in names:
        values["double_mask"], sizes["double_mask"] = jacobian(v, size_v, temp)
    if "double_logits" in names:
        mean_g, mean_v, mean_size_g, mean_size_v = _dot(p, g), _dot(p, v), _dot(p, size_g), _dot(p, size_v)
        inner = [v_i * g_i - v_i * mean_g - g_i * mean_v for g_i, v_i in zip(g, v, strict=True)]
        size = [v_i * g_i + v_i * mean_size_g + g_i * mean_size_v for g_i, v_i in zip(size_g, size_v, strict=True)]
        values["double_logits"], sizes["double_logits"] = jacobian(inner, size, temp**2)
    return {name: values[name] for name in names}, {name: sizes[name] for name in names}


def reinmax_formula(w: Sequence[mpf], temp: mpf, g: Sequence[mpf], d: int) -> tuple[list[mpf], list[mpf]]:
    """``2 J((q + D) / 2) g - J(p) g / 2`` as published (arXiv:2304.08612), of the drawn candidate d; and the sizes."""

    def softmax(t: Sequence[mpf]) -> list[mpf]:
        top = max(t)
        e = [mpmath.exp(t_i - top) if t_i - top > -(10**6) else mpf(0) for t_i in t]
        s = mpmath.fsum(e)
        return [e_i / s for e_i in e]

    p, q = softmax(w), softmax([w_i / temp for w_i in w])
    middle = [(q_i + (i == d)) / 2 for i, q_i in enumerate(q)]
    size_g = [abs(x) for x in g]

    def published(g: Sequence[mpf], sign: int) -> list[mpf]:
        at_middle, at_p = sign * _dot(middle, g), sign * _dot(p, g)
        return [
            2 * m_i * (g_i + at_middle) + sign * p_i * (g_i + at_p) / 2
            for g_i, m_i, p_i in zip(g, middle, p, strict=True)
        ]

    return published(g, -1), published(size_g, 1)


def zgr_formula(w: Sequence[mpf], g: Sequence[mpf], d: int) -> tuple[list[mpf], list[mpf]]:
    """What that is at ``temp = 1``: ``p_j (g_j - g_d) / 2``, and at d minus the sum of the others; and the sizes."""
    e = [mpmath.exp(w_i - max(w)) if w_i - max(w) > -(10**6) else mpf(0) for w_i in w]
    s = mpmath.fsum(e)
    values = [e_i / s * (g_i - g[d]) / 2 for e_i, g_i in zip(e, g, strict=True)]
    sizes = [e_i / s * (abs(g_i) + abs(g[d])) / 2 for e_i, g_i in zip(e, g, strict=True)]
    others = [i for i in range(len(w)) if i != d]
    values[d], sizes[d] = (mpmath.fsum([sign * x[i] for i in others]) for sign, x in ((-1, values), (1, sizes)))
    return values, sizes


def gumbel_rao_formula(
    w: Sequence[mpf], temp: mpf, g: Sequence[mpf], d: int, noises: Sequence[Sequence[mpf]]
) -> tuple[list[mpf], list[mpf]]:
    """The mean of ``J(softmax(v / temp)) g / temp`` as published (arXiv:2010.04838), v the noisy logits given that v_d
    is the largest of them; and the sizes. Each sample has its own noise."""
    values, sizes = [[mpf(0)] * len(w)], [[mpf(0)] * len(w)]
    top = max(w)
    log_sum = top + mpmath.log(mpmath.fsum(mpmath.exp(w_i - top) for w_i in w))
    for noise in noises:
        largest = log_sum + noise[d]
        v = []
        for i, (w_i, noise_i) in enumerate(zip(w, noise, strict=True)):
            a, b = -largest, -w_i - noise_i  # -log(exp(a) + exp(b))
            v.append(largest if i == d else -(max(a, b) + mpmath.log1p(mpmath.exp(-abs(a - b)))))
        found, terms = formulas(v, temp, g, g, ["backward"])
        values.append(found["backward"])
        sizes.append(terms["backward"])
    count = mpf(len(noises))
    return [mpmath.fsum(x) / count for x in zip(*values, strict=True)], [
        mpmath.fsum(x) / count for x in zip(*sizes, strict=True)
    ]


def _dot(x: Sequence[mpf], y: Sequence[mpf]) -> mpf:
    return mpmath.fsum(x_i * y_i for x_i, y_i in zip(x, y, strict=True))


# ------------------------------------------------------------------------------------------------ the precision

_LOST = 48  # bits: an exponent of 2**20 costs 20, a sum of 2**16 terms costs 16, the rest is for a dozen roundings
_MARGIN = 12  # what is uncertain of a result is less than 2**-12 of its last place


def settle(dtype: str, compute: Callable[[], tuple[list[mpf], list[mpf]]], start: int = 0) -> list[mpf]:
    """`compute` yields values and sizes; its values at a precision that is certain, twice over."""
    form = FORMATS[dtype]
    precision = start or (192 if form.precision == 53 else 128)
    before: list[mpf] | None = None
    while precision < 2**16:
        with mp.workprec(precision):
            values, sizes = compute()
            certain = all(
                size._mpf_[2] + size._mpf_[3] + _LOST - precision <= form.place(value) - _MARGIN
                for value, size in zip(values, sizes, strict=True)
                if size
            )
            if certain and before is not None:
                differences = [value - other for value, other in zip(values, before, strict=True)]
                if all(
                    not d or d._mpf_[2] + d._mpf_[3] <= form.place(value) - _MARGIN
                    for d, value in zip(differences, values, strict=True)
                ):
                    return values
        before = values if certain else None
        precision *= 2
    raise ArithmeticError("no two precisions agree")


def exact(row: Row, dtype: str, names: Sequence[str] = NAMES) -> Values:
    """The results of one row, 0 at excluded entries; `backward_temp` is a list of one."""
    here = row.candidates
    if not here:
        return {name: [mpf(0)] * (1 if name == "backward_temp" else len(row.w)) for name in names}

    def compute() -> tuple[list[mpf], list[mpf]]:
        w, g, v = ([mpf(x[i]) for i in here] for x in (row.w, row.g, row.v))
        values, sizes = formulas(w, mpf(row.temp), g, v, names)
        return [x for name in names for x in values[name]], [x for name in names for x in sizes[name]]

    flat = iter(settle(dtype, compute))
    results = {}
    for name in names:
        if name == "backward_temp":
            results[name] = [next(flat)]
        else:
            results[name] = [mpf(0)] * len(row.w)
            for i in here:
                results[name][i] = next(flat)
    return results


def exact_backward_temp(group: Sequence[Row], dtype: str) -> mpf:
    """The gradient of a temperature that several rows share."""

    def compute() -> tuple[list[mpf], list[mpf]]:
        value, size = mpf(0), mpf(0)
        for row in (row for row in group if row.candidates):
            w, g, v = ([mpf(x[i]) for i in row.candidates] for x in (row.w, row.g, row.v))
            values, sizes = formulas(w, mpf(row.temp), g, v, ["backward_temp"])
            value += values["backward_temp"][0]
            size += sizes["backward_temp"][0]
        return [value], [size]

    return settle(dtype, compute)[0]


def exact_reinmax(row: Row, d: int, dtype: str, formula: Callable[..., Any] = reinmax_formula) -> list[mpf]:
    """The result of one row of which column d was drawn, 0 at excluded entries; `zgr_formula` takes no temperature."""
    here = row.candidates
    result = [mpf(0)] * len(row.w)

    def compute() -> tuple[list[mpf], list[mpf]]:
        w, g = ([mpf(x[i]) for i in here] for x in (row.w, row.g))
        temp = () if formula is zgr_formula else (mpf(row.temp),)
        values, sizes = formula(w, *temp, g, here.index(d))
        return values, sizes

    if here:
        for i, value in zip(here, settle(dtype, compute), strict=True):
            result[i] = value
    return result


def exact_gumbel_rao(row: Row, d: int, noises: Sequence[Sequence[float]], dtype: str) -> list[mpf]:
    """The result of one row of which column d was drawn, each sample with its own noise; 0 at excluded entries."""
    here = row.candidates
    result = [mpf(0)] * len(row.w)
    if not here:
        return result

    def compute() -> tuple[list[mpf], list[mpf]]:
        w, g, *some = ([mpf(x[i]) for i in here] for x in (row.w, row.g, *noises))
        return gumbel_rao_formula(w, mpf(row.temp), g, here.index(d), some)

    largest = max(abs(x[i]) for i in here for x in (row.w, *noises))
    _, bits = math.frexp(1 + largest / row.temp if largest / row.temp < math.inf else 2.0**1023)
    for i, value in zip(here, settle(dtype, compute, 512 + 4 * max(0, bits)), strict=True):
        result[i] = value
    return result


# ------------------------------------------------------------------------------------------------ the verdict


def error(actual: float, value: mpf, dtype: str) -> float:
    """How far `actual` is from `value`, in units in the last place of `value`; NaN is infinitely far.

    An infinity stands for ``2**(highest + 1)``, from half a place below which upward IEEE 754 rounds to it; it is right
    for everything beyond.
    """
    form = FORMATS[dtype]
    if math.isnan(actual):
        return math.inf
    sign, mantissa, exponent, _ = value._mpf_
    if math.isfinite(actual) and -20000 < exponent < 2000:
        m, e = math.frexp(actual)
        units, e = int(m * 2.0**53), e - 53
        least = min(e, exponent)
        difference = abs((units << (e - least)) - ((-mantissa if sign else mantissa) << (exponent - least)))
        beyond = max(0, difference.bit_length() - 80)  # 80 bits tell as much as a float does
        return _ldexp(float(difference >> beyond), beyond + least - form.place(value))
    with mp.workprec(20000 if abs(value) < mpf(2) ** -5000 else 3000):
        place = form.place(value)
        if math.isinf(actual):
            limit = mpmath.ldexp(mpf(1), form.highest + 1)
            excess = value * (1 if actual > 0 else -1) - limit
            if excess >= 0:
                return 0.0
            place = min(place, form.highest + 1 - form.precision)
            return float(abs(mpmath.ldexp(excess, -place)))
        return float(abs(mpmath.ldexp(mpf(actual) - value, -place)))


def _ldexp(number: float, exponent: int) -> float:
    try:
        return math.ldexp(number, exponent)
    except OverflowError:
        return math.inf


def worst(actual: Any, values: Sequence[Sequence[mpf]], dtype: str) -> tuple[float, tuple[int, int]]:
    """The largest `error` over an array of shape (rows, n), and where it is."""
    found, position = -1.0, (-1, -1)
    actual = np.asarray(actual).astype(np.float64)
    assert actual.shape == (len(values), len(values[0]))
    for i, row in enumerate(actual.tolist()):
        for j, value in enumerate(row):
            if (this := error(value, values[i][j], dtype)) > found:
                found, position = this, (i, j)
    return found, position


def rounded(value: mpf, dtype: str) -> float:
    """The nearest number of `dtype`, ties to even."""
    form = FORMATS[dtype]
    sign, mantissa, exponent, _ = value._mpf_
    place = form.place(value)
    nearest = round(Fraction(mantissa) * Fraction(2) ** (exponent - place)) if mantissa else 0  # round(): half to even
    if nearest * Fraction(2) ** place >= Fraction(2) ** (form.highest + 1):
        return -math.inf if sign else math.inf
    return math.ldexp(-nearest if sign else nearest, place)
