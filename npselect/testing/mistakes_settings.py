"""Mistakes with settings, by their causes: of ``forward_temp``, ``unimix`` and ``gap``, where a case sets them.

In `Rows`, noise is already times forward_temp, and temp too; so is what these undo.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from npselect.testing.aliases import Array
from npselect.testing.mistakes import Mistakes, Rows, gradient, mask_of, mixed, probs, uniform, weighted
from npselect.testing.mistakes_gapped import adaptive
from npselect.testing.mistakes_gapped import right as with_gap

__all__ = ["CATEGORICAL", "GAPPED", "GUMBEL", "NONE", "SettingMistakes"]


class SettingMistakes(NamedTuple):
    """Of either pass."""

    forward: Mistakes
    backward: Mistakes


NONE = SettingMistakes((), ())


def _temp(q: Rows) -> float:
    """That of the gradient alone."""
    return q.temp / q.question.forward_temp


def _noise(q: Rows) -> Array:
    """As it is given; zeros if an index is."""
    added = q.question.drawn_with
    return np.zeros_like(q.w) if added is None else np.asarray(added / q.question.forward_temp)


def _drawn(q: Rows, w: Array) -> Array:
    """The mask, with noise; the right one where an index is given."""
    return q.selected if q.question.index is not None else mask_of(w)


_DRAWN: Mistakes = (
    ("forward_temp is ignored, or the noise is divided by it too", lambda q: _drawn(q, q.logits + _noise(q))),
    (
        "logits are multiplied by forward_temp, not divided",
        lambda q: _drawn(q, q.question.forward_temp * q.logits + _noise(q)),
    ),
    ("noise is missing", lambda q: _drawn(q, q.logits)),
)

GUMBEL = SettingMistakes(
    _DRAWN,
    (
        ("forward_temp is ignored", lambda q: gradient(q.g, q.logits + _noise(q), _temp(q))),
        ("1/forward_temp is missing", lambda q: gradient(q.g, q.w, q.temp) * q.question.forward_temp),
        ("divided by forward_temp twice", lambda q: gradient(q.g, q.w, q.temp) / q.question.forward_temp),
        ("forward_temp multiplies the noise alone", lambda q: gradient(q.g, q.w, _temp(q))),
        ("temp is ignored, as though it were 1", lambda q: gradient(q.g, q.w, q.question.forward_temp)),
        ("noise is divided by forward_temp too", lambda q: gradient(q.g, q.logits + _noise(q), q.temp)),
    ),
)
"""Of `gumbel_softmax`."""


def _categorical(q: Rows, temp: float, share: float | None = None) -> Array:
    return (1 - q.question.unimix if share is None else share) * gradient(q.g, q.w, temp)


def _of_the_mixture(q: Rows) -> Array:
    """J of the mixture."""
    return weighted(mixed(probs(q.w, q.temp), uniform(q), q.question.unimix), np.where(q.w > -np.inf, q.g, 0.0), q.temp)


CATEGORICAL = SettingMistakes(
    _DRAWN,
    (
        (
            "forward_temp is ignored in the gradient: J(softmax(logits / temp)) g / temp",
            lambda q: _categorical(q, _temp(q)),
        ),
        ("temp is ignored, as though it were 1", lambda q: _categorical(q, q.question.forward_temp)),
        ("1/forward_temp is missing", lambda q: _categorical(q, q.temp) * q.question.forward_temp),
        ("divided by forward_temp twice", lambda q: _categorical(q, q.temp) / q.question.forward_temp),
        ("unimix is ignored: the factor 1 - unimix is missing", lambda q: _categorical(q, q.temp, 1.0)),
        ("unimix is ignored, and forward_temp in the gradient", lambda q: _categorical(q, _temp(q), 1.0)),
        ("the factor is unimix, not 1 - unimix", lambda q: _categorical(q, q.temp, q.question.unimix)),
        ("the factor 1 - unimix is there twice", lambda q: _categorical(q, q.temp, (1 - q.question.unimix) ** 2)),
        ("J(m) g of the mixture m, not (1 - unimix) J(p) g of the probabilities p", _of_the_mixture),
    ),
)
"""Of `categorical`."""


def _an_int_is_adaptive(q: Rows) -> Array:
    return with_gap(q, adaptive(q)) if isinstance(q.question.gap, int) else with_gap(q)


def _clipped(q: Rows, most: float) -> Array:
    return with_gap(q, adaptive(q, most)) if isinstance(q.question.gap, str) else with_gap(q)


GAPPED = SettingMistakes(
    (),
    (
        ("gap is ignored, as though it were 1", lambda q: with_gap(q, 1.0)),
        ("every gap is taken for 'adaptive'", lambda q: with_gap(q, adaptive(q))),
        ("a gap that is an int is taken for 'adaptive', as the published code takes it", _an_int_is_adaptive),
        (
            "p_d is multiplied by 1 - 1e-5 in the adaptive gap, as in the published code: it is at most 11.5",
            lambda q: _clipped(q, 1 - 1e-5),
        ),
        (
            "a gap that is an int is taken for 'adaptive', and p_d is multiplied by 1 - 1e-5 there: so does the "
            "published code",
            lambda q: with_gap(q) if isinstance(q.question.gap, float) else with_gap(q, adaptive(q, 1 - 1e-5)),
        ),
        ("'adaptive' is taken for a gap of 1", lambda q: with_gap(q, 1.0 if q.question.gap == "adaptive" else None)),
        ("the adaptive gap is taken at temp, not at 1", lambda q: _at_temp(q)),
    ),
)
"""Of `gapped`."""


def _at_temp(q: Rows) -> Array:
    if not isinstance(q.question.gap, str):
        return with_gap(q)
    return with_gap(q, adaptive(q._replace(w=q.w / q.temp)))
