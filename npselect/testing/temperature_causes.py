"""Mistakes with temperatures, by their causes: of the gradient of one, and of rows that have their own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from npselect.testing.aliases import Array
from npselect.testing.case import Case
from npselect.testing.explain import Answer, explain
from npselect.testing.judge import Observation
from npselect.testing.temperature import summed

__all__ = ["MISTAKES", "ROW_MISTAKES", "likely_cause"]


def _shares(case: Case, grads: Array | None = None, w: Array | None = None) -> Array:
    """``-<grads, w> / temp`` for each row, in float64."""
    grads = case.rows(case.grad_logits.astype(np.float64)) if grads is None else grads
    w = np.where(case.w > -np.inf, case.w if w is None else w, 0.0)
    return np.asarray(-np.sum(grads * w, axis=-1) / np.broadcast_to(case.temps, (len(w), 1))[:, 0])


def _right(case: Case) -> Array:
    return np.asarray(case.grad_temp, np.float64).ravel()


def _temps(case: Case) -> Array:
    return np.asarray(case.given_temp, np.float64).ravel()


def _selected(case: Case) -> Array:
    mask = case.rows(case.mask.astype(np.float64))
    return summed(case, _shares(case, mask * case.rows(case.grad_logits.astype(np.float64))))


MISTAKES = (
    ("the sign is flipped", lambda case: -_right(case)),
    ("temp is detached: its gradient is 0", lambda case: 0 * _right(case)),
    ("1/temp is missing", lambda case: _right(case) * _temps(case)),
    ("divided by temp once more", lambda case: _right(case) / _temps(case)),
    ("the gradient of 1/temp, not of temp", lambda case: -_right(case) * _temps(case) ** 2),
    ("the mean over the rows, not the sum", lambda case: _right(case) / summed(case, np.ones(len(case.w)))),
    (
        "the mean over all entries, not the sum",
        lambda case: _right(case) / summed(case, np.full(len(case.w), case.w.shape[-1])),
    ),
    ("one sum over all rows, for every temperature", lambda case: np.sum(_right(case)) + 0 * _right(case)),
    ("of the selected entries alone", _selected),
    ("grad_mask in place of grad_logits", lambda case: summed(case, _shares(case, _cotangent(case)))),
    (
        "the noise is missing",
        lambda case: summed(case, _shares(case, w=case.rows(case.logits.astype(np.float64)))),
    ),
)
"""Mistakes of the gradient of temp: what it is then, flat, in float64."""


def _cotangent(case: Case) -> Array:
    return np.where(case.w > -np.inf, case.rows(case.grad_mask.astype(np.float64)), 0.0)


def _gradient(case: Case, temps: Array) -> Array:
    """grad_logits at other temperatures, (rows, 1) or less, flat."""
    g, t = _cotangent(case), case.w / temps
    e = np.exp(t - np.max(t, axis=-1, keepdims=True))
    p = e / np.sum(e, axis=-1, keepdims=True)
    return np.asarray(p * (g - np.sum(p * g, axis=-1, keepdims=True)) / temps).ravel()


def _along_the_choices(case: Case) -> Array:
    rows, choices = case.w.shape
    temps = np.asarray(case.temps)
    return _gradient(case, temps.T if rows == choices else temps)


ROW_MISTAKES = (
    ("the first row's temperature in all rows", lambda case: _gradient(case, np.asarray(case.temps)[:1])),
    ("the mean of the temperatures in all rows", lambda case: _gradient(case, np.mean(case.temps))),
    ("the temperatures run along the choices", _along_the_choices),
    ("the temperatures in another order", lambda case: _gradient(case, np.asarray(case.temps)[::-1])),
)
"""Mistakes of grad_logits where rows have temperatures of their own."""


def likely_cause(seen: Sequence[Observation], alone: bool = True) -> str | None:
    """The mistake that explains the gradients of temp, or those of rows with temperatures of their own, or None.

    Parameters
    ----------
    seen : sequence of Observation
        Of the cases that were judged.
    alone : bool
        Whether grad_logits is right, or wrong without a cause, where there is one temperature.
    """
    rows = [_of_rows(one) for one in seen if one.case.row_temp is not None] if alone else []
    causes = {
        "backward": explain(rows, ROW_MISTAKES),
        "backward_temp": explain([_of_temps(one) for one in seen if one.temps is not None], MISTAKES),
    }
    if causes["backward_temp"] is None and any(_unsummed(one) for one in seen):
        causes["backward_temp"] = "not summed to the shape of temp"
    return "; ".join(f"{direction}: {cause}" for direction, cause in causes.items() if cause) or None


def _of_rows(seen: Observation) -> Answer[Case]:
    rows = np.broadcast_to(seen.rows[:, None], seen.tolerance.shape).ravel()
    actual = None if seen.grad_logits is None else seen.grad_logits.ravel()
    return Answer(seen.case, rows, actual, seen.expected_grad_logits.ravel(), seen.tolerance.ravel()).as_one_group()


def _of_temps(seen: Observation) -> Answer[Case]:
    assert seen.temps is not None
    assert seen.temps_tolerance is not None
    actual = seen.grad_temp
    if actual is not None:
        actual = actual.ravel() if actual.shape == seen.temps.shape else None
    return Answer(seen.case, seen.temps.ravel(), actual, _right(seen.case), seen.temps_tolerance.ravel()).as_one_group()


def _unsummed(seen: Observation) -> bool:
    """Whether the gradient of temp has an entry for each row, or for each logit, of several that share one."""
    if seen.temps is None or seen.grad_temp is None:
        return False
    rows = seen.case.logits.shape
    shapes = {rows, (*rows[:-1], 1), rows[:-1]} - {seen.temps.shape}
    return seen.grad_temp.shape in shapes
