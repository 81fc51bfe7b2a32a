"""The questions that a selection layer is asked."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from npselect import straight_through
from npselect.testing.aliases import Array, Dtype
from npselect.testing.cases import rounded
from npselect.testing.dtypes import floating_dtype
from npselect.testing.families import FAMILIES, family_of
from npselect.testing.selection_case import SelectionCase

__all__ = ["LAYERS", "selection_cases"]

LAYERS = tuple(family for family in FAMILIES.values() if family.has_layers)
"""Of the operators that layers select by."""


@np.errstate(all="ignore")
def selection_cases(
    dtype: npt.DTypeLike = "float32",
    temp: float = 0.6,
    *,
    operator: ModuleType = straight_through,
    options: Collection[str] = (),
    x_axes: Collection[int] = (2,),
) -> list[SelectionCase]:
    """The questions of `check_selection`, for a test suite: parametrise a test with them.

    Parameters
    ----------
    dtype : dtype
        float16, bfloat16, float32 or float64.
    temp : float
        Of the cases that do not ask for a temperature of their own. It is rounded to `dtype`.
    operator : module
        `npselect.straight_through`, or `npselect.gumbel_softmax`: then every case has noise.
    options : collection of str
        "where", to have the cases in which it is given too.
    x_axes : collection of int
        2 for vectors of shape (K, D) that all rows share, 3 for (rows, K, D).

    Returns
    -------
    list of SelectionCase
        The same at every call, bit for bit.

    Raises
    ------
    ValueError
        An argument has a value that is not listed.

    Examples
    --------
    >>> import numpy as np
    >>> from npselect import selection, testing
    >>> for case in testing.selection_cases("float64"):
    ...     case.check_forward(selection.forward(case.x, case.logits, case.temp))
    ...     case.check_backward(*selection.backward(case.grad_chosen, case.x, case.logits, case.temp))
    """
    options = {options} if isinstance(options, str) else set(options)
    if unknown := options - {"where", "noise"}:
        raise ValueError(f"options holds {', '.join(map(repr, sorted(unknown)))}; it takes 'where'")
    if not set(x_axes) or set(x_axes) - {2, 3}:
        raise ValueError(f"x_axes is {x_axes!r}; it takes 2, for x of shape (K, D), 3, for (rows, K, D), or both")
    family = family_of(operator, LAYERS)
    form = floating_dtype(dtype)
    temp = rounded(temp, form)
    if not 0 < temp < np.inf:
        raise ValueError(f"temp is {temp} in {form.name}; it must be positive and finite")
    return [
        _with_noise(case, seed, family.name) if family.given else replace(case, operator=family.name)
        for seed, case in enumerate(_cases(form, temp))
        if case.x.ndim in x_axes and set(case.options) <= options
    ]


def _cases(dtype: Dtype, temp: float) -> Iterator[SelectionCase]:
    rng = np.random.default_rng(20171102)

    def case(name: str, note: str, rows: int, shape: tuple[int, ...], **more: Any) -> SelectionCase:
        temp_here = rounded(more.pop("times", 1.0) * temp, dtype)
        where, spread = more.get("where"), more.pop("spread", 1.5)
        w = spread * rng.standard_normal((rows, shape[-2]))
        _lead(w if where is None else np.where(where, w, -np.inf), w, 1 + temp_here / 2)
        x, grad_chosen = rng.standard_normal(shape), rng.standard_normal((rows, shape[-1]))
        temp_here = temp_here if 0 < temp_here < np.inf else temp
        arrays = x.astype(dtype), w.astype(dtype), grad_chosen.astype(dtype)
        return SelectionCase(name, note, arrays[0], arrays[1], arrays[2], temp_here, **more)

    yield case("codebook/8x5", "what is chosen is exactly the selected vector", 32, (8, 5))
    yield case("codebook/K=1", "the only vector; the gradient of its logit is 0", 7, (1, 4))
    yield case("codebook/D=1", "vectors of one number", 16, (5, 1))
    yield case(
        "codebook/K=D=rows", "as many rows as vectors as features: any wrong axis has the right length", 6, (6, 6)
    )
    one = case("codebook/one is selected", "the gradient of a shared vector is summed over the rows", 12, (4, 3))
    yield replace(one, logits=np.repeat(one.logits[:1], 12, axis=0))
    yield case("codebook/many rows", "nothing is averaged over the rows", 300, (40, 2))
    yield case("codebook/one row", "vectors that are not selected receive exactly 0", 1, (6, 4))
    apart = case("codebook/orthogonal", "g_j = <grad_chosen, x_j> of the vectors not selected, too", 8, (5, 4))
    x, grad_chosen = apart.x.copy(), apart.grad_chosen.copy()
    x[:, 2:], grad_chosen[:, :2] = 0, 0
    x[0] = np.arange(4)
    away = np.array(apart.logits)
    away[:, 0] = np.min(away[:, 1:], axis=-1)
    yield replace(apart, x=x, grad_chosen=grad_chosen, logits=away)
    equal = case("codebook/ties", "the lowest index among equals; -0 equals +0", 4, (4, 3))
    ties = np.array([[1, 3, 3, 0], [2, 2, 2, 2], [-0.0, 0.0, -1, -1], [-5, -6, -5, -5]])
    yield replace(equal, logits=ties.astype(dtype))
    yield case(
        "codebook/saturated", "one probability is nearly 1; the vector is one of x all the same", 16, (6, 4), spread=8
    )
    yield case(
        "codebook/close", "all probabilities are alike, and no mixture is chosen", 16, (6, 4), spread=0.01, times=4.0
    )
    minus = case("codebook/-inf", "never selected; the gradient there is exactly 0", 8, (5, 3))
    excluded = np.where(np.arange(5) == np.arange(8)[:, None] % 5, -np.inf, np.array(minus.logits, np.float64))
    _lead(excluded, excluded, 1 + temp)
    yield replace(minus, logits=excluded.astype(dtype))
    yield case("codebook/wide", "dot products over many features", 8, (4, 200))
    yield case("codebook/long", "many vectors", 8, (500, 3))
    yield case("codebook/no rows", "an empty result, and a gradient of zeros", 0, (4, 3))
    sizes = case("codebook/all sizes", "nothing is absolute: vectors and cotangents of all sizes", 24, (6, 4))
    scale = np.ldexp(1.0, np.arange(6) - 3)[:, None]
    yield replace(sizes, x=(scale * sizes.x.astype(np.float64)).astype(dtype))
    for name, times in (("doubled", 2.0), ("quartered", 0.25)):
        yield case(f"codebook/temp {name}", "grad_logits is divided by temp, once", 16, (6, 4), times=times)
    columns = case("codebook/columns first", "arrays in Fortran order", 10, (6, 4))
    x, w, g = (np.asfortranarray(array) for array in (columns.x, columns.logits, columns.grad_chosen))
    yield replace(columns, x=x, logits=w, grad_chosen=g)
    alone = "results depend on the arguments alone, and no later call changes them"
    yield case("codebook/called again", alone, 9, (5, 3), flags=("again",))
    yield case("batch/8 of 5x3", "every row chooses among vectors of its own", 8, (8, 5, 3))
    yield case("batch/4 of 4x4", "as many rows as vectors as features", 4, (4, 4, 4))
    yield case("batch/1 of 6x2", "one row", 1, (1, 6, 2))
    yield case("batch/3 of 1x2", "nothing to choose from", 3, (3, 1, 2))
    offered = rng.random((16, 6)) < 0.6
    offered[:, 2] = True
    yield case("where/codebook", "what is no candidate is never selected; its gradients are exactly 0", 16, (6, 4),
               where=offered)  # fmt: skip
    yield case("where/shared", "where= broadcasts to the logits", 9, (6, 4), where=np.arange(6) % 2 == 0)
    yield case("where/batch", "what is no candidate is never selected", 16, (16, 6, 3), where=offered)


def _lead(w: Array, result: Array, lead: float) -> None:
    """Raise the largest of each row of `w`, in `result`: no rounding makes another as probable."""
    if w.size:
        top = np.argmax(w, axis=-1, keepdims=True)
        np.put_along_axis(result, top, np.take_along_axis(w, top, axis=-1) + lead, axis=-1)


def _with_noise(case: SelectionCase, seed: int, operator: str) -> SelectionCase:
    """Gumbel noise on a grid where the sum of a logit and it has no rounding error, which is what the logit was."""
    w, dtype = np.round(8 * case.logits.astype(np.float64)) / 8, case.logits.dtype
    noise = np.random.default_rng([20170417, seed]).gumbel(size=w.shape)
    noise = np.clip(np.round(8 * noise) / 8, -3.0, 7.0)
    exact = (np.abs(w) <= 7.5) & ((w - noise).astype(dtype).astype(np.float64) == w - noise)
    noise = np.where(exact, noise, 0.0)
    logits = np.where(exact, w - noise, case.logits.astype(np.float64))
    return replace(case, logits=logits.astype(dtype), noise=noise.astype(dtype), operator=operator)
