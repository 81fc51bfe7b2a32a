"""The selection in two other ways, by finite differences and by mask and einsum, and how far is too far."""

import math
from typing import Any, NamedTuple

import mpmath
import numpy as np
from inputs import DTYPES, compute_type
from mpmath import mpf
from numpy import inf

from npselect import gumbel_softmax, noise, selection, straight_through
from npselect.testing import tolerance

BACKENDS = ["reference", "cpu"]
OPERATORS = ["straight_through", "gumbel_softmax, seed", "gumbel_softmax, noise"]
K, D = 4, 3
SHAPES = [
    ((K, D), (K,)),
    ((K, D), (5, K)),  # a codebook
    ((5, K, D), (K,)),
    ((3, K, D), (3, K)),
    ((1, K, D), (2, 1, K)),
    ((5, 1, K, D), (3, K)),
    ((2, 3, 1, K, D), (1, 3, 2, K)),
    ((3, 1, 1, K, D), (1, 1, 3, K)),
    ((2, K, 1), (3, 1, K)),
    ((3, 1, D), (2, 1, 1)),
]


class Case(NamedTuple):
    """Arguments of both passes."""

    grad: Any
    x: Any
    logits: Any
    temp: Any
    where: Any
    reduce: bool
    operator_options: Any

    @property
    def batch(self):
        return np.broadcast_shapes(self.x.shape[:-2], self.logits.shape[:-1])

    @property
    def dtype(self):
        return np.result_type(self.x, self.logits, self.grad)

    @property
    def compute(self):
        return np.dtype(compute_type(self.dtype.name))

    @property
    def w(self):
        """The logits that the operator chooses by, noise included, in the type that it is added in."""
        own = np.dtype(compute_type(self.logits.dtype.name))
        options = self.operator_options
        added = (
            noise.gumbel(self.logits.shape, options["seed"], dtype=own) if "seed" in options else options.get("noise")
        )
        return self.logits.astype(own) + (0 if added is None else added.astype(own))

    @property
    def candidates(self):
        offered = True if self.where is None else self.where
        return np.broadcast_to(offered, self.logits.shape) & (self.logits > -inf)

    @property
    def temps(self):
        """As used, with the logits' number of axes."""
        return np.asarray(self.temp).astype(self.compute).astype(np.float64)

    @property
    def options(self):
        return {"where": self.where, "reduce": self.reduce, **self.operator_options}

    def forward(self, **options):
        return selection.forward(self.x, self.logits, self.temp, **self.options, **options)

    def backward(self, **options):
        return selection.backward(self.grad, self.x, self.logits, self.temp, **self.options, **options)


def case(x_shape, logits_shape, reduce=True, dtypes=("float64",) * 3, seed=0, operator="straight_through"):
    """A random one; every other seed excludes some candidates and gives every row of the logits its temperature."""
    rng = np.random.default_rng(seed)
    x_dtype, logits_dtype, grad_dtype = (np.dtype(DTYPES.get(name, name)) for name in dtypes)
    batch = np.broadcast_shapes(x_shape[:-2], logits_shape[:-1])
    x = rng.normal(scale=2, size=x_shape).astype(x_dtype)
    logits = rng.normal(scale=2, size=logits_shape).astype(logits_dtype)
    grad = rng.normal(scale=3, size=(*batch, *x_shape[-1 if reduce else -2 :])).astype(grad_dtype)
    temp, where = 0.6, None
    if seed % 2:
        temp = rng.uniform(0.3, 2, (*logits_shape[:-1], 1))
        where = rng.random(logits_shape) < 0.8
        if logits.dtype.kind not in "biu" and logits_shape[-1] > 1:
            logits[..., 1] = -inf
    options = {}
    if operator != "straight_through":
        options["operator"] = gumbel_softmax
        if operator.endswith("seed"):
            options["seed"] = 7
        else:
            options["noise"] = rng.gumbel(size=logits_shape[-1:] if seed % 2 else logits_shape)
    return Case(grad, x, logits, temp, where, reduce, options)


# ------------------------------------------------------------------------------------------------ two other ways


def at(shape, position):
    """Which item of an array with batch `shape` belongs to a position in the batch."""
    return tuple(i if n > 1 else 0 for i, n in zip(position[len(position) - len(shape) :], shape, strict=True))


def exactly(array):
    return np.vectorize(mpf, otypes=[object])(array.astype(np.float64))


def by_finite_differences(case):
    """The gradient of ``sum_b grad_chosen . sum_j p_j x_j`` in the logits; that of the hard choice, linear, in x."""
    x, w, grad = exactly(case.x), exactly(case.w), exactly(case.grad)
    candidates, temps = case.candidates, np.broadcast_to(case.temps, (*case.logits.shape[:-1], 1))
    batch = list(np.ndindex(case.batch))

    def worth(position):
        """What each candidate would bring: <grad_chosen, x_j>."""
        vectors, cotangent = x[at(x.shape[:-2], position)], grad[position]
        cotangents = [cotangent] * len(vectors) if case.reduce else cotangent
        return [mpmath.fsum(a * b for a, b in zip(v, c, strict=True)) for v, c in zip(vectors, cotangents, strict=True)]

    worths = {position: worth(position) for position in batch}

    def loss(row, logits):
        here = [j for j in range(len(logits)) if candidates[row][j]]
        e = [mpmath.exp(logits[j] / mpf(temps[row][0])) for j in here]
        total = mpmath.fsum(e)
        users = [position for position in batch if at(w.shape[:-1], position) == row]
        return mpmath.fsum(e_j / total * worths[p][j] for p in users for e_j, j in zip(e, here, strict=True))

    grad_logits, grad_x = (np.full(shape, mpf(0), dtype=object) for shape in (w.shape, x.shape))
    step = mpf(2) ** -100
    for row in np.ndindex(w.shape[:-1]):
        for i in np.flatnonzero(candidates[row]):
            up, down = w[row].copy(), w[row].copy()
            up[i], down[i] = up[i] + step, down[i] - step
            grad_logits[(*row, i)] = (loss(row, up) - loss(row, down)) / (2 * step)
    for position in batch:
        row = at(w.shape[:-1], position)
        if any(candidates[row]):
            m = max(np.flatnonzero(candidates[row]), key=lambda j: w[(*row, j)])  # max() takes the first of equals
            grad_x[(*at(x.shape[:-2], position), m)] += grad[position] if case.reduce else grad[(*position, m)]
    return grad_x, grad_logits


def unbroadcast(array, shape):
    """Summed to a shape that broadcasts to that of the array."""
    padded = (1,) * (array.ndim - len(shape)) + shape
    axes = tuple(i for i, (n, full) in enumerate(zip(padded, array.shape, strict=True)) if n != full)
    return array.sum(axis=axes, keepdims=True).reshape(shape)


def dots(grad, x, case):
    return unbroadcast(
        np.einsum("...d,...kd->...k" if case.reduce else "...kd,...kd->...k", grad, x), case.logits.shape
    )


def by_einsum(case, fault=None):
    """Mask, then einsum, in float64: chosen, grad_x and grad_logits, right or with a fault."""
    grad, x, logits = (a.astype(np.float64) for a in (case.grad, case.x, case.w))
    options = {"where": case.where, "backend": "reference"}
    mask = straight_through.forward(logits, case.temps, **options)
    chosen = np.einsum("...k,...kd->...d" if case.reduce else "...k,...kd->...kd", mask, x)
    grad_x = np.einsum("...k,...d->...kd" if case.reduce else "...k,...kd->...kd", mask, grad)
    grad_x = unbroadcast(np.broadcast_to(grad_x, (*case.batch, *case.x.shape[-2:])), case.x.shape)
    g = dots(grad, x, case)
    rows, x_rows, logits_rows = (math.prod(s) for s in (case.batch, x.shape[:-2], logits.shape[:-1]))
    if fault == "the selected candidate alone":
        g = g * mask
    elif fault == "a mean over what shares x":
        grad_x = grad_x * x_rows / rows
    elif fault == "a mean over what shares logits":
        g = g * logits_rows / rows
    elif fault == "no sum over what shares logits":
        first = tuple(slice(0, 1 if n == 1 else None) for n in (1,) * len(case.batch) + logits.shape[:-1])
        g = dots(grad[first[-len(case.batch) :]], x[:1], case)
    elif fault == "the wrong index":
        grad_x = np.roll(grad_x, 1, axis=-2)
    elif fault == "the softmax's weights":
        probs = straight_through.soft(logits, case.temps, **options)
        grad_x = unbroadcast(np.einsum("...k,...d->...kd", probs, grad), x.shape)
    return chosen, grad_x, straight_through.backward(g, logits, case.temps, **options)


# ------------------------------------------------------------------------------------------------ how far is too far


def bound_of_grad_x(case, grad_x):
    """One vector is copied; n are added in float64, and the sum is rounded: half a unit in its last place."""
    rows, x_rows = math.prod(case.batch), math.prod(case.x.shape[:-2])
    if rows == x_rows:
        return np.zeros(case.x.shape)
    sizes = by_einsum(case._replace(grad=np.abs(case.grad.astype(np.float64))))[1]
    dtype = np.result_type(case.x, case.grad)
    return np.nan_to_num((rows // x_rows) * 2.0**-53 * sizes + tolerance.ulp(grad_x, dtype) / 2)


def bound_of_grad_logits(case, grad_logits):
    """What the dot products add to the operator's own bound, and one rounding.

    With u the unit roundoff of the type of the computation, a sum of n products g_j is wrong by at most
    ``n u / (1 - n u)`` times the sum of their sizes, in whatever order (Higham 2002, section 3.1), and by the smallest
    subnormal for each product that underflows: delta_j. The operator's map is linear in g, so that grad_logits_i is
    wrong by ``p_i (delta_i + sum_j p_j delta_j) / temp``. To this comes the operator's bound for the g it was given; it
    is taken at the exact g, the difference being of second order, while the tiers use half of it. Last, the rounding to
    the dtype of the result: half a unit in the last place.
    """
    form = tolerance.Format.of(case.compute)
    grad, x, w = (a.astype(np.float64) for a in (case.grad, case.x, case.w))
    terms = case.x.shape[-1] * math.prod(case.batch) // max(1, math.prod(case.logits.shape[:-1]))
    delta = terms * form.unit / (1 - terms * form.unit) * dots(np.abs(grad), np.abs(x), case) + terms * form.least
    w = np.where(case.candidates, w, -inf)
    with np.errstate(invalid="ignore", divide="ignore"):
        e = np.exp((w - w.max(axis=-1, keepdims=True)) / case.temps)
        p = np.where(case.candidates, e / e.sum(axis=-1, keepdims=True), 0.0)
    dots_bound = p * (delta + (p * delta).sum(axis=-1, keepdims=True)) / case.temps
    bound = tolerance.backward(dots(grad, x, case), w, case.temps, case.compute, tolerance.KERNELS)
    bound = bound + dots_bound * (1 + 2.0**-20) + tolerance.ulp(grad_logits, case.dtype) / 2  # p is rounded here
    return np.where(case.candidates, np.nan_to_num(bound), 0.0)


def assert_within(actual, expected, bound, dtype):
    assert actual.shape == expected.shape
    assert actual.dtype == dtype
    if expected.dtype == object:
        error = np.abs(actual.astype(np.float64) - expected).astype(np.float64)
        assert np.all(error <= bound), (actual, expected, bound)
        return float(np.max(np.divide(error, bound, where=bound > 0, out=np.zeros(bound.shape)), initial=0))
    assert np.all(tolerance.isclose(actual, expected, bound)), (actual, expected, bound)
    return 0.0


def assert_gradients(results, case, expected, factor=1):
    """How much of their bound the gradients in the logits use. What float64 found is itself within it: `factor` 2."""
    (grad_x, grad_logits), (exact_x, exact_logits) = results, expected
    with np.errstate(invalid="ignore"):
        bound_x = factor * bound_of_grad_x(case, exact_x.astype(np.float64))
        bound_logits = factor * bound_of_grad_logits(case, exact_logits.astype(np.float64))
    assert_within(grad_x, exact_x, bound_x, np.result_type(case.x, case.grad))
    return assert_within(grad_logits, exact_logits, bound_logits, case.dtype)


# ------------------------------------------------------------------------------------------------ special inputs


X = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
