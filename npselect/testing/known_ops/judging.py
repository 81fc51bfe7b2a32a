"""How known ops are judged: by the checks of `npselect.testing`, small enough for many ops in a minute."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from npselect.testing.aliases import Array, SamplingFunctions, SelectionFunctions, Tensor
from npselect.testing.case import Case
from npselect.testing.check import check
from npselect.testing.known_ops.record import Finding
from npselect.testing.sampler import check_sampler
from npselect.testing.sampling.check import check_sampling_op

__all__ = ["Judge", "noise", "one_hot", "sampler", "sampling", "selection", "sparse"]

Judge = Callable[[Tensor], Finding]
_ROWS = 2000
_DRAWS = 1 << 23
_TOP = 50
_CHANCE = 1e-9  # that honest noise fails one of the tests of noise


def sampling(*, temps: Sequence[float] = (0.1, 1.0), choices: Sequence[int] = (10,), dtypes: str = "float32") -> Judge:
    """By `check_sampling_op`: the samples, their distribution and the gradient of an op that draws its own noise."""

    def judge(op: SamplingFunctions) -> Finding:
        report = check_sampling_op(op, temps=temps, choices=choices, dtypes=dtypes)
        failed = [test for test in report.tests if test.verdict in ("failed", "not run")]
        names = ", ".join(dict.fromkeys(test.name for test in failed))
        temperatures = " ".join(f"{temp:g}" for temp in temps)
        forms = "hard and soft" if report.hard_and_soft else "hard"
        return Finding(
            report.ok,
            f"samples and gradients, {forms}; temp {temperatures}",
            None if report.ok else report.likely_cause or f"failed: {names}",
            next((f"{test.id}: {test.finding}" for test in failed if test.finding), None),
        )

    return judge


def sampler(*, choices: Sequence[int] = (10,), rows: int = _ROWS, seeds: int = 8, max_seed: int | None = None) -> Judge:
    """By `check_sampler`: the distribution of ``sample(logits, seed) -> mask``, and whether samples are independent."""

    def judge(sample: Callable[[Array, int], Tensor]) -> Finding:
        report = check_sampler(sample, choices=choices, rows=rows, seeds=seeds, max_seed=max_seed)
        failed = [test for test in report.tests if test.verdict == "failed"]
        names = ", ".join(dict.fromkeys(test.name for test in failed))
        detail = next((f"K={test.choices}, {test.name}: {test.finding}" for test in failed if test.finding), None)
        return Finding(report.ok, "samples", f"failed: {names}" if failed else None, detail)

    return judge


def selection(*, dtype: str = "float32", what: str = "mask and gradient") -> Judge:
    """By `check` in a few cases: ``forward`` and ``backward`` of a straight-through selection without noise."""

    def judge(implementation: SelectionFunctions) -> Finding:
        report = check(implementation, cases=_few(dtype))
        failed = [case for case in report.cases if case.verdict == "failed"]
        names = ", ".join(case.name for case in failed)
        detail = next((f"{case.id}: {case.difference}" for case in failed), None)
        return Finding(report.ok, what, None if report.ok else report.likely_cause or f"failed: {names}", detail)

    return judge


def _few(dtype: str) -> list[Case]:
    """Of few shapes, as some frameworks compile for each: spread, saturated, with candidates of -inf, with ties."""
    rng = np.random.default_rng(13)

    def case(name: str, logits: Array, temp: float) -> Case:
        grad_mask = rng.standard_normal(logits.shape)
        return Case(name, "", logits.astype(dtype), grad_mask.astype(dtype), float(np.asarray(temp, dtype)))

    ordinary = [(rows, k, temp) for rows, k in ((64, 2), (64, 10), (16, 100)) for temp in (0.6, 1.0)]
    found = [case(f"K={k}, temp {temp:g}", 3 * rng.standard_normal((rows, k)), temp) for rows, k, temp in ordinary]
    logits = 3 * rng.standard_normal((64, 10))
    found.append(case("saturated", 8 * logits, 0.6))
    excluded = (rng.random(logits.shape) < 0.3) & (np.arange(10) > 0)
    found.append(case("-inf", np.where(excluded, -np.inf, logits), 0.6))
    found.append(case("ties", np.round(logits), 1.0))
    return found


# ------------------------------------------------------------------------------------------------ noise alone


def noise() -> Judge:
    """``draw(n, seed) -> array``: standard Gumbel noise by itself.

    The largest distance of the draws' distribution function from ``exp(-exp(-G))`` is held to the bound of Dvoretzky,
    Kiefer, Wolfowitz and Massart, ``P(distance > e) <= 2 exp(-2 n e**2)``, at 1e-9. That no draw lies beyond x, where
    each does with probability q, has the probability ``(1 - q)**n < exp(-n q)``, held to the same. Among the largest of
    2**23 draws numbers that are equal tell of uniforms on a grid: independent draws with a density have hardly a pair.
    A grid of ``2**-b`` ends at ``G = b ln 2``. That is what many generators document, so it is a remark.
    """

    def judge(draw: Callable[[int, int], Array]) -> Finding:
        drawn = np.sort(np.asarray(draw(_DRAWS, 0), np.float64))
        remarks = []
        if not np.all(np.isfinite(drawn)):
            return Finding(False, "noise", "draws that are not finite", f"{np.sum(~np.isfinite(drawn))} of {_DRAWS}")
        exact = np.exp(-np.exp(-drawn))
        steps = np.arange(_DRAWS + 1) / _DRAWS
        distance = float(np.max(np.maximum(np.abs(exact - steps[1:]), np.abs(exact - steps[:-1]))))
        allowed = float(np.sqrt(np.log(2 / _CHANCE) / (2 * _DRAWS)))
        top = drawn[-_TOP:]
        equal = int(np.sum(np.diff(top) == 0))
        if equal >= 4:
            spacing = np.exp(-top)[np.append(np.diff(top) != 0, True)]
            bits = round(-np.log2(np.min(np.abs(np.diff(spacing)))))
            end = bits * np.log(2)
            remarks.append(f"uniforms of {bits} bits: no draw beyond {end:.1f}, nothing rarer than 2**-{bits}")
        most, least = (np.exp(-_DRAWS * tail) < _CHANCE for tail in (1 - exact[-1], exact[0]))
        if most or least:
            end = f"beyond G = {drawn[-1]:.1f}" if most else f"below G = {drawn[0]:.1f}"
            span = f"{_DRAWS} draws lie in [{drawn[0]:.3g}, {drawn[-1]:.3g}]"
            return Finding(False, "noise", f"uniforms cut off: no draw {end}", span, tuple(remarks))
        ok = distance <= allowed
        detail = None if ok else f"distribution function {distance:.3g} off; expected {allowed:.3g} at most"
        return Finding(ok, "noise", None if ok else "not of the Gumbel distribution", detail, tuple(remarks))

    return judge


# ------------------------------------------------------------------------------------------------ sparse relaxations


def sparse(alpha: float) -> Judge:
    """``soft(logits, temp)`` and its gradient against the entmax of `alpha`, 1.5 or 2 (Peters, Niculae, Martins 2019).

    With ``z = logits / temp``, ``p_i = [(alpha - 1) z_i - tau]_+ ** (1 / (alpha - 1))``, and tau such that they sum to
    1: it is found by bisection in float64. The gradient is that of Proposition 2 there,
    ``s (g - <s, g> / <s, 1>) / temp`` with ``s = p ** (2 - alpha)`` where p is positive, and 0 elsewhere.
    """

    def judge(implementation: SelectionFunctions) -> Finding:
        rng = np.random.default_rng(15)
        worst, detail = 0.0, None
        for k in (2, 10, 100):
            logits, g = (spread * rng.standard_normal((64, k)) for spread in (2.0, 1.0))
            logits, g = logits.astype(np.float32), g.astype(np.float32)
            for temp in (0.5, 1.0):
                soft, grad = (x.astype(np.float64) for x in _entmax(logits, g, temp, alpha))
                pairs = (
                    ("soft", implementation.forward(logits, temp), soft),
                    ("gradient", implementation.backward(g, logits, temp), grad),
                )
                for name, got, expected in pairs:
                    off = float(np.max(np.abs(got - expected)))
                    if off > worst:
                        worst, detail = off, f"{name} is {off:.3g} off at K={k}, temp {temp:g}"
        ok = worst <= _SPARSE
        return Finding(
            ok, "soft form and gradient", None if ok else "not the entmax of its formula", None if ok else detail
        )

    return judge


_SPARSE = 1e-3
"""A hundredth of a typical entry: what this is to find is another formula. Next to the support's edge, where ``s`` of
alpha = 1.5 is the root of a rounded number, float32 loses half of its digits, so there is no tight bound to derive."""


def _entmax(logits: Array, g: Array, temp: float, alpha: float) -> tuple[Array, Array]:
    z = (alpha - 1) * logits.astype(np.float64) / temp
    low = np.max(z, axis=-1, keepdims=True) - 1.0
    high = low + 1.0
    for _ in range(60):
        tau = (low + high) / 2
        large = np.sum(np.maximum(z - tau, 0.0) ** (1 / (alpha - 1)), axis=-1, keepdims=True) > 1.0
        low, high = np.where(large, tau, low), np.where(large, high, tau)
    p = np.maximum(z - low, 0.0) ** (1 / (alpha - 1))
    s = np.where(p > 0, p ** (2 - alpha), 0.0)
    return p, s * (g - np.sum(s * g, -1, keepdims=True) / np.sum(s, -1, keepdims=True)) / temp


def one_hot(index: Tensor, logits: Array) -> Array:
    """The mask of selected indices, of any integer dtype."""
    places = np.asarray(index).reshape(len(logits), 1)
    return np.asarray(np.arange(logits.shape[-1]) == places)
