"""The adapters of PaddlePaddle, MLX and tinygrad; a package that is not here is skipped, and why is said."""

from __future__ import annotations

import importlib
import os
import shutil

import numpy as np
import pytest

from npselect import straight_through, testing
from npselect.testing import tolerance

pytestmark = pytest.mark.frameworks
ADAPTERS = {
    "paddle": (testing.from_paddle, testing.sampling_from_paddle),
    "mlx": (testing.from_mlx, testing.sampling_from_mlx),
    "tinygrad": (testing.from_tinygrad, testing.sampling_from_tinygrad),
}
of_each = pytest.mark.parametrize("package", ADAPTERS)


def needs(package):
    pytest.importorskip(package, reason=f"{package} is not installed")
    if package == "tinygrad" and shutil.which(os.environ.get("CC", "clang")) is None and "DEV" not in os.environ:
        pytest.skip("tinygrad compiles with clang, which is not installed")
    return importlib.import_module("mlx.core" if package == "mlx" else package)


def parts(package):
    """Of the library: softmax, one-hot of the largest, stop_gradient, standard Gumbel noise in the shape of logits."""
    library = needs(package)
    if package == "paddle":
        functional = library.nn.functional
        return (
            lambda w: functional.softmax(w, axis=-1),
            lambda w: functional.one_hot(library.argmax(w, axis=-1), w.shape[-1]).astype(w.dtype),
            lambda w: w.detach(),
            lambda w, key: -library.log(-library.log(library.uniform(w.shape, w.dtype, 1e-6, 1 - 1e-6))),
        )
    if package == "mlx":
        return (
            lambda w: library.softmax(w, axis=-1),
            lambda w: (library.arange(w.shape[-1]) == library.argmax(w, axis=-1, keepdims=True)).astype(w.dtype),
            library.stop_gradient,
            lambda w, key: library.random.gumbel(w.shape, key=key),
        )
    tensor = library.Tensor
    return (
        lambda w: w.softmax(-1),
        lambda w: (tensor.arange(w.shape[-1]) == w.argmax(-1, keepdim=True)).cast(w.dtype),
        lambda w: w.detach(),
        lambda w, key: -(-tensor.rand_like(w).maximum(1e-12).log()).log(),
    )


def select_of(package):
    softmax, one_hot, stopped, _ = parts(package)

    def select(logits, temp, *, noise=None):
        probs = softmax((logits if noise is None else logits + noise) / temp)
        return probs + stopped(one_hot(probs) - probs)

    return select


def inputs(dtype="float32"):
    rng = np.random.default_rng(1)
    return [(scale * rng.standard_normal((8, 5))).astype(dtype) for scale in (2.0, 1.0, 1.0)]


@of_each
def test_the_idiom_agrees(package):
    subject = ADAPTERS[package][0](select_of(package), name="idiom", learned_temp=True)
    logits, grad_mask, noise = inputs()
    assert (subject.name, subject.options) == ("idiom", {"noise"})
    np.testing.assert_array_equal(subject.forward(logits, 0.5), straight_through.forward(logits, 0.5))
    got = subject.backward(grad_mask, logits, 0.5)
    assert (got.dtype, got.shape) == (logits.dtype, logits.shape)
    exact = straight_through.backward(grad_mask, logits, 0.5, backend="reference")
    bound = tolerance.backward(grad_mask, logits.astype(np.float64), 0.5, logits.dtype) + tolerance.ulp(
        exact, "float32"
    )
    assert tolerance.isclose(got, exact, bound).all()
    np.testing.assert_allclose(
        subject.backward_temp(grad_mask, logits, 0.5), straight_through.backward_temp(grad_mask, logits, 0.5), rtol=1e-4
    )
    with_noise = straight_through.forward(logits + noise, 0.5)
    np.testing.assert_array_equal(subject.forward(logits, 0.5, noise=noise), with_noise)
    with pytest.raises(TypeError, match="idiom was given axis; it takes noise"):
        subject.forward(logits, 0.5, axis=0)


@of_each
def test_what_does_not_depend_on_the_logits_has_the_gradient_0(package):
    _, one_hot, stopped, _ = parts(package)
    logits, grad_mask, _ = inputs()
    for fn in (lambda logits, temp: one_hot(logits), lambda logits, temp: stopped(logits * 2)):
        got = ADAPTERS[package][0](fn).backward(grad_mask, logits, 0.5)
        np.testing.assert_array_equal(got, 0 * logits)
        assert got.dtype == logits.dtype


@of_each
def test_other_dtypes(package):
    needs(package)
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    numbers = np.array([[1.5, -2.0, 0.25]])
    for dtype in (np.float16, np.float32, ml_dtypes.bfloat16):
        if package == "tinygrad" and dtype is ml_dtypes.bfloat16:
            continue  # a clang that is too old for it compiles nothing of bfloat16
        got = ADAPTERS[package][0](lambda logits, temp: logits).forward(numbers.astype(dtype), 1.0)
        assert got.dtype == dtype
        np.testing.assert_array_equal(got.astype(float), numbers)


@of_each
def test_a_wrong_type_and_a_wrong_shape(package):
    adapter, _ = ADAPTERS[package]
    needs(package)
    logits, grad_mask, _ = inputs()
    with pytest.raises(TypeError, match="returned a int; expected a tensor of its framework"):
        adapter(lambda logits, temp: 3).forward(logits, 0.5)
    with pytest.raises(ValueError, match="without the same shape there is no gradient"):
        adapter(lambda logits, temp: logits[:, :2]).backward(grad_mask, logits, 0.5)
    with pytest.raises(TypeError, match="cannot be called as"):
        adapter(lambda logits: logits)


def sampling_of(package, fault=None):
    softmax, one_hot, stopped, noise = parts(package)

    def fn(logits, temp, hard, key=None):
        soft = softmax((logits + noise(logits, key)) / temp)
        mask = one_hot(soft)
        return stopped(mask) if hard and fault == "zero" else soft + stopped(mask - soft) if hard else soft

    adapter = ADAPTERS[package][1]
    if package == "mlx":
        return adapter(fn)
    return adapter(lambda logits, temp, hard: fn(logits, temp, hard))


@of_each
def test_ops_that_draw_their_own_noise(package):
    """The soft sample y of a seed tells the gradient, ``y (g - <y, g>) / temp``, of both forms."""
    logits, grad_sample, _ = inputs()
    op, zero = sampling_of(package), sampling_of(package, "zero")
    soft = op.sample(logits, 0.5, False, 3)
    np.testing.assert_array_equal(soft, op.sample(logits, 0.5, False, 3))
    assert np.any(soft != op.sample(logits, 0.5, False, 4))
    hard = op.sample(logits, 0.5, True, 3)
    np.testing.assert_array_equal(hard, np.eye(5)[np.argmax(soft, axis=-1)])
    expected = soft * (grad_sample - np.sum(soft * grad_sample, -1, keepdims=True)) / 0.5
    for form in (True, False):
        np.testing.assert_allclose(op.backward(grad_sample, logits, 0.5, form, 3), expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(zero.backward(grad_sample, logits, 0.5, True, 3), 0 * logits)


def test_the_generator_of_paddle_is_as_it_was():
    paddle = needs("paddle")
    op = sampling_of("paddle")
    logits, *_ = inputs()
    paddle.seed(7)
    paddle.rand([3])
    expected = paddle.rand([3]).numpy()
    paddle.seed(7)
    paddle.rand([3])
    op.sample(logits, 0.5, True, 1)
    np.testing.assert_array_equal(paddle.rand([3]).numpy(), expected)


@of_each
def test_a_missing_package_is_named(package, monkeypatch):
    monkeypatch.setitem(importlib.sys.modules, package, None)
    for adapter in ADAPTERS[package]:
        with pytest.raises(ModuleNotFoundError, match=rf"{adapter.__name__} needs the package {package}, which is not"):
            adapter(lambda logits, temp, hard=True, key=None: logits)
