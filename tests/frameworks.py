"""The frameworks, their adapters and the examples in them, as tests use them."""

from __future__ import annotations

import functools
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from npselect import gumbel_softmax, straight_through
from npselect.testing import adapters, tolerance

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
DTYPES = ["float16", "bfloat16", "float32", "float64"]
FRAMEWORKS = ["torch", "jax", "tensorflow"]
FROM = {"torch": adapters.from_torch, "jax": adapters.from_jax, "tensorflow": adapters.from_tensorflow}
SUBJECTS = {
    "torch": ("detach", "function"),
    "jax": ("stop_gradient", "custom_vjp"),
    "tensorflow": ("stop_gradient", "custom_gradient"),
}
REFERENCE = [functools.partial(fn, backend="reference") for fn in (straight_through.forward, straight_through.backward)]
EVERY_SUBJECT = [(framework, name) for framework, names in SUBJECTS.items() for name in names]
of_every_framework = pytest.mark.parametrize("framework", FRAMEWORKS)
of_every_subject = pytest.mark.parametrize(("framework", "name"), EVERY_SUBJECT)


def needs(framework):
    """The framework's module; without it the test is skipped, and says why."""
    return pytest.importorskip(framework, reason=f"{framework} is not installed")


@functools.cache
def module(file):
    spec = importlib.util.spec_from_file_location(f"examples_{file}", EXAMPLES / f"{file}.py")
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded  # where dataclasses and pickles look
    spec.loader.exec_module(loaded)
    return loaded


def example(framework):
    needs(framework)
    return module(f"{framework}_select")


def inputs(dtype, shape=(16, 10)):
    rng = np.random.default_rng(1)
    logits, grad_mask, noise = (scale * rng.standard_normal(shape) for scale in (3.0, 1.0, 2.0))
    return logits.astype(dtype), grad_mask.astype(dtype), noise.astype(dtype), rng.random(shape) < 0.7


def agree(implementation, dtype, temp=0.5, *, axis=-1, where=None, noise=None, shape=(16, 10)):
    """`implementation` and npselect answer alike: the mask exactly, the gradient within the bound of textbooks."""
    logits, grad_mask, *_ = inputs(dtype, shape)
    options = {"axis": axis, "where": where} | ({} if noise is None else {"noise": noise})
    operator = straight_through if noise is None else gumbel_softmax
    given = {key: value for key, value in options.items() if value is not None and (key, value) != ("axis", -1)}
    arguments = [array.copy() for array in (logits, grad_mask)]

    mask = implementation.forward(arguments[0], temp, **given)
    exact = operator.forward(logits, temp, backend="reference", **options)
    assert (type(mask), mask.shape, mask.dtype) == (np.ndarray, logits.shape, logits.dtype)
    np.testing.assert_array_equal(mask, exact)

    grad_logits = implementation.backward(arguments[1], arguments[0], temp, **given)
    exact = operator.backward(grad_mask, logits, temp, backend="reference", **options)
    assert (type(grad_logits), grad_logits.shape, grad_logits.dtype) == (np.ndarray, logits.shape, logits.dtype)
    added = logits.astype(np.float64) + (0.0 if noise is None else noise.astype(np.float64))
    rows = np.moveaxis(np.where(True if where is None else where, added, -np.inf), axis, -1)
    bound = tolerance.backward(np.moveaxis(grad_mask, axis, -1), rows, temp, dtype)
    bound = np.moveaxis(bound, -1, axis) + tolerance.ulp(exact, dtype) / 2
    assert tolerance.isclose(grad_logits, exact, bound).all()
    assert np.any(grad_logits != 0)
    for argument, array in zip(arguments, (logits, grad_mask), strict=True):
        np.testing.assert_array_equal(argument, array)


def everything(logits, temp, *, axis=-1, where=None, noise=None):
    return logits * 1


def some(logits, temp, axis=-1, other=None):
    return logits * 1
