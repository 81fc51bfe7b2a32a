"""The weights of a row's candidates, and cotangents measured from the selected one.

The weight of an excluded entry is -0, which no candidate's is: so excluded entries are found without their logits.
"""

from __future__ import annotations

import numpy as np

from npselect._arithmetic.aliases import Index, Number
from npselect._arithmetic.exponential import Temperature, prepared
from npselect._arithmetic.primitives import inlined, select
from npselect._arithmetic.steps import from_selected, weight, weight_and_exponent
from npselect._gpu.aliases import Address, Count, Function, Quads
from npselect._gpu.elements import load
from npselect.tiers.cuda.arguments import Operands, Source
from npselect.tiers.cuda.loads import widening
from npselect.tiers.cuda.teams import Place, start_of_row
from npselect.tiers.cuda.variant import Variant

__all__ = ["at_selected", "centring", "temperature_of", "weighing", "weighing_with_exponents"]


def temperature_of(variant: Variant) -> Function:
    """``temperature(operands, place, n)``: the row's, ready to divide by."""
    compute = variant.compute

    @inlined
    def temperature(operands: Operands, place: Place, n: Count) -> Temperature:
        one = operands.temps == 0 or n == 0
        return prepared(compute(operands.temp) if one else load(operands.temps, place.row, compute))

    return temperature


def weighing(variant: Variant) -> Function:
    """``to_weights(w, top, temp)``: ``w <- e = exp((w - top) / temp)``, -0 at excluded entries."""
    slots, infinity, excluded = variant.slots, variant.compute(np.inf), variant.compute(-0.0)

    @inlined
    def to_weights(w: Quads, top: Number, temp: Temperature) -> None:
        for k in range(slots):
            w[k] = select(w[k] == -infinity, excluded, weight(w[k], top, temp))

    return to_weights


def weighing_with_exponents(variant: Variant) -> Function:
    """``to_weights(w, top, temp, t)``: the same, and ``t <- (w - top) / temp``."""
    slots, infinity, excluded = variant.slots, variant.compute(np.inf), variant.compute(-0.0)

    @inlined
    def to_weights(w: Quads, top: Number, temp: Temperature, t: Quads) -> None:
        for k in range(slots):
            e, t[k] = weight_and_exponent(w[k], top, temp)
            w[k] = select(w[k] == -infinity, excluded, e)

    return to_weights


def centring(variant: Variant) -> Function:
    """``measure_from_selected(g, selected, w)``: ``g <- h = g - g_m``, 0 at excluded entries."""
    slots, infinity, zero = variant.slots, variant.compute(np.inf), variant.compute(0.0)

    @inlined
    def measure_from_selected(g: Quads, selected: Number, w: Quads) -> None:
        for k in range(slots):
            g[k] = zero if w[k] == -infinity else from_selected(g[k], selected)

    return measure_from_selected


def at_selected(variant: Variant) -> Function:
    """``selected_of(cotangent, source, place, n, m)``: g_m; 0 where nothing is selected."""
    kind, zero = variant.kind, variant.compute(0.0)
    start, widen = start_of_row(variant.team), widening(variant.kind)

    @inlined
    def selected_of(cotangent: Address, source: Source, place: Place, n: Count, m: Index) -> Number:
        return widen(load(cotangent, start(source, place) + m, kind)) if n > 0 and m >= 0 else zero

    return selected_of
