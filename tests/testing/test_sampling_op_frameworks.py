"""Ops of frameworks: honest ones accepted, the formulas of shipped ones judged, generators left as they were."""

from __future__ import annotations

import time

import numpy as np
import pytest

from npselect import testing

pytestmark = pytest.mark.frameworks


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="PyTorch is not installed")


def test_gumbel_softmax_of_pytorch(small, torch):
    report = testing.check_sampling_op(testing.sampling_from_torch(torch.nn.functional.gumbel_softmax))
    assert report.ok, str(report)


@pytest.mark.slow
def test_the_whole_check_of_gumbel_softmax_of_pytorch(torch, record):
    start = time.process_time()
    report = testing.check_sampling_op(testing.sampling_from_torch(torch.nn.functional.gumbel_softmax))
    record("processor seconds, check_sampling_op of F.gumbel_softmax", time.process_time() - start)
    assert report.ok, str(report)
    record("error/bound, F.gumbel_softmax", max(test.fraction for test in report.tests if test.fraction is not None))


def test_one_of_jax(small):
    jax = pytest.importorskip("jax", reason="JAX is not installed")

    def fn(logits, temp, hard, key):
        y = jax.nn.softmax((logits + jax.random.gumbel(key, logits.shape, logits.dtype)) / temp)
        if not hard:
            return y
        mask = jax.nn.one_hot(y.argmax(-1), y.shape[-1], dtype=y.dtype)
        return y + jax.lax.stop_gradient(mask - y)

    report = testing.check_sampling_op(testing.sampling_from_jax(fn), choices=(2, 10), temps=(0.6,))
    assert report.ok, str(report)


def test_the_idiom_of_tensorflow(small):
    tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

    def fn(logits, temp, hard):
        u = tf.random.uniform(tf.shape(logits), minval=1e-20, dtype=logits.dtype)
        y = tf.nn.softmax((logits - tf.math.log(-tf.math.log(u))) / temp)
        if not hard:
            return y
        mask = tf.one_hot(tf.argmax(y, -1), tf.shape(y)[-1], dtype=y.dtype)
        return y + tf.stop_gradient(mask - y)

    report = testing.check_sampling_op(testing.sampling_from_tensorflow(fn), choices=(2, 10), temps=(0.6,))
    assert report.ok, str(report)


def test_generators_of_frameworks_are_left_as_they_were(torch):
    logits = np.zeros((3, 4), np.float32)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    op = testing.sampling_from_torch(torch.nn.functional.gumbel_softmax)
    first, again, other = (op.sample(logits, 1.0, False, seed) for seed in (1, 1, 2))
    op.backward(logits, logits, 1.0, True, 3)
    assert torch.equal(before, torch.get_rng_state())
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_generators_of_tensorflow_are_left_as_they_were():
    tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

    def draws(between):
        tf.random.set_seed(5)
        first = tf.random.uniform([2])
        between()
        return np.concatenate([first, tf.random.uniform([2]), tf.random.get_global_generator().uniform([2])])

    def fn(logits, temp, hard):
        noise = tf.random.uniform(tf.shape(logits)) + tf.random.get_global_generator().uniform(tf.shape(logits))
        return tf.nn.softmax(logits + noise)

    op = testing.sampling_from_tensorflow(fn)
    logits = np.zeros((3, 4), np.float32)
    generator = tf.random.get_global_generator()
    state = tf.identity(generator.state)
    undisturbed = draws(lambda: None)
    generator.reset(state)
    np.testing.assert_array_equal(draws(lambda: op.sample(logits, 1.0, False, 1)), undisturbed)
    first, again, other = (op.sample(logits, 1.0, False, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_functions_that_cannot_be_called_so(torch):
    with pytest.raises(TypeError, match=r"cannot be called as .*\(logits, temp, hard\)"):
        testing.sampling_from_torch(lambda logits, temp: logits)


# ------------------------------------------------------------------------------------------------ shipped ones


def _gumbel(torch, like):
    return -torch.empty_like(like).exponential_().log()


def _one_hot(torch, y):
    return torch.zeros_like(y).scatter_(-1, y.argmax(-1, keepdim=True), 1.0)


def paddle_331(torch):
    """paddle.nn.functional.gumbel_softmax 3.3.1: the hard form has no gradient, the soft one lacks 1/temp."""

    class Soft(torch.autograd.Function):
        @staticmethod
        def forward(context, logits, noise, temp):
            y = ((logits + noise) / temp).softmax(-1)
            context.save_for_backward(y)
            return y

        @staticmethod
        def backward(context, g):
            (y,) = context.saved_tensors
            return y * (g - (y * g).sum(-1, keepdim=True)), None, None

    def fn(logits, temp, hard):
        y = Soft.apply(logits, _gumbel(torch, logits), temp)
        return _one_hot(torch, y.detach()) if hard else y

    return fn, {}, "hard form: gradient of the hard softmax (zero); soft form: 1/temp is missing"


def pyro_192(torch):
    """pyro 1.9.2's RelaxedOneHotCategoricalStraightThrough: clamp_probs between the relaxed sample and the hard one."""

    def fn(logits, temp, hard):
        logits = logits.log_softmax(-1)
        scores = (logits + _gumbel(torch, logits)) / temp
        y = (scores - scores.logsumexp(-1, keepdim=True)).exp()
        if not hard:
            return y
        eps = torch.finfo(y.dtype).eps
        clamped = y.clamp(min=eps, max=1 - eps)
        return _one_hot(torch, y) - clamped.detach() + clamped

    return fn, {"normalises_logits": True}, "probabilities clamped"


def vector_quantize_132(torch):
    """vector-quantize-pytorch 1.32's gumbel_sample(straight_through=True): of the softmax without noise, rounded."""

    def fn(logits, temp, hard):
        u = torch.zeros_like(logits).uniform_(0, 1)
        noise = -(-u.clamp(min=1e-20).log()).clamp(min=1e-20).log()
        mask = torch.nn.functional.one_hot((logits / temp + noise).argmax(-1), logits.shape[-1]).to(logits.dtype)
        y = (logits / temp).softmax(-1)
        return mask + y - y.detach()

    return fn, {"hard_and_soft": False}, "mask is off by rounding; gradient without the noise"


@pytest.mark.parametrize("shipped", [paddle_331, pyro_192, vector_quantize_132])
def test_formulas_of_shipped_ops(small, torch, shipped):
    fn, declared, cause = shipped(torch)
    op = testing.sampling_from_torch(fn, **declared)
    report = testing.check_sampling_op(op, choices=(2, 10), temps=(0.1, 1.0, 5.0))
    assert not report.ok
    assert report.likely_cause is not None
    assert report.likely_cause.startswith(cause), str(report)
    if shipped is pyro_192:  # its soft form is honest
        assert all(test.verdict == "passed" for test in report.tests if test.name == "gradient of the soft form")
