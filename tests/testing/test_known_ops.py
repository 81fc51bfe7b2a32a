"""Known ops: records that hold together, and judges that accept what is honest and reject planted faults."""

from __future__ import annotations

import numpy as np
import pytest

from npselect import gumbel_softmax, noise, straight_through, testing
from npselect.testing.known_ops import PACKAGES, judging
from npselect.testing.known_ops.record import KnownOp
from npselect.testing.sampling.op import SamplingOp

OPS = [(package, op) for package in PACKAGES.values() for op in package.ops]


def test_the_packages_that_are_asked_for():
    assert set(PACKAGES) == {
        "torch", "jax", "tensorflow", "tensorflow-probability", "paddle", "pyro", "numpyro", "torchrl", "distrax",
        "vector-quantize-pytorch", "entmax", "tinygrad", "mlx", "softjax", "softtorch",
    }  # fmt: skip
    for name, package in PACKAGES.items():
        assert name == package.name
        assert package.modules
        assert package.distributions
        assert len({op.name for op in package.ops}) == len(package.ops) > 0


@pytest.mark.parametrize(("package", "op"), OPS, ids=[op.name for _, op in OPS])
def test_records(package, op):
    assert isinstance(op, KnownOp)
    assert op.documented.endswith((".", ")"))
    assert op.links
    assert all(link.startswith("https://") for link in op.links)
    assert len(op.reproduce.splitlines()) in (0, 3)
    if op.reproduce:
        compile(op.reproduce, op.name, "exec")


# ------------------------------------------------------------------------------------------------ judges


def sample(logits, seed, scale=1.0):
    noise = np.random.default_rng(seed).gumbel(size=logits.shape)
    return judging.one_hot(np.argmax(logits / scale + noise, axis=-1), logits)


def test_the_judge_of_samplers():
    judge = judging.sampler(rows=1000, seeds=4)
    assert judge(sample).ok
    found = judge(lambda logits, seed: sample(logits, seed, 0.7))
    assert not found.ok
    assert "mean logit" in found.cause
    assert found.detail.startswith("K=10, ")


def test_the_judge_of_selections():
    judge = judging.selection()
    assert judge(straight_through).ok

    def backward(grad_mask, logits, temp):
        return temp * straight_through.backward(grad_mask, logits, temp)

    found = judge(testing.from_array_functions(straight_through.forward, backward))
    assert not found.ok
    assert "temp" in found.cause


@pytest.mark.slow  # tests of check_sampling_op stand beside it
def test_the_judge_of_ops_that_draw_noise():
    judge = judging.sampling()

    def drawn(logits, temp, hard, seed):
        return (gumbel_softmax.forward if hard else gumbel_softmax.soft)(logits, temp, seed=seed)

    def backward(grad_sample, logits, temp, hard, seed):
        return gumbel_softmax.backward(grad_sample, logits, temp, seed=seed)

    found = judge(SamplingOp("npselect", drawn, backward))
    assert found.ok, found
    found = judge(
        SamplingOp(
            "zero", drawn, lambda g, logits, temp, hard, seed: backward(g, logits, temp, hard, seed) * (not hard)
        )
    )
    assert not found.ok
    assert "zero" in found.cause
    assert found.detail


def gumbel(uniform):
    return (-np.log(-np.log(uniform))).astype(np.float32)


def test_the_judge_of_noise():
    judge = judging.noise()
    honest = judge(lambda count, seed: noise.gumbel((count,), seed))
    assert (honest.ok, honest.remarks) == (True, ())
    rng = np.random.default_rng(5)
    for bits, end in ((23, "15.9"), (24, "16.6")):

        def draw(count, seed, bits=bits):
            return gumbel((rng.integers(1 << bits, size=count) + 0.5) / (1 << bits) - 0.5 / (1 << bits) + 1e-12)

        found = judge(draw)
        assert found.ok
        assert found.remarks == (f"uniforms of {bits} bits: no draw beyond {end}, nothing rarer than 2**-{bits}",)
    cut = judge(lambda count, seed: gumbel(rng.uniform(1e-12, 0.999, count)))
    assert (cut.ok, cut.cause) == (False, "uniforms cut off: no draw beyond G = 6.9")
    low = judge(lambda count, seed: gumbel(rng.uniform(1e-5, 1 - 1e-12, count)))
    assert (low.ok, low.cause) == (False, "uniforms cut off: no draw below G = -2.4")
    wide = judge(lambda count, seed: 1.01 * gumbel(rng.uniform(1e-12, 1 - 1e-12, count)))
    assert (wide.ok, wide.cause) == (False, "not of the Gumbel distribution")
    infinite = judge(lambda count, seed: np.full(count, np.inf))
    assert infinite.cause == "draws that are not finite"


def sparsemax(logits, temp):
    """By sorting, as Martins and Astudillo (2016) have it."""
    z = logits.astype(np.float64) / temp
    ordered = -np.sort(-z, axis=-1)
    sums = np.cumsum(ordered, axis=-1) - 1
    places = np.arange(1, z.shape[-1] + 1)
    size = np.sum(ordered - sums / places > 0, axis=-1, keepdims=True)
    return np.maximum(z - np.take_along_axis(sums, size - 1, -1) / size, 0)


def sparsemax_backward(grad, logits, temp):
    support = sparsemax(logits, temp) > 0
    mean = np.sum(grad * support, -1, keepdims=True) / np.sum(support, -1, keepdims=True)
    return support * (grad - mean) / temp


def test_the_judge_of_sparse_relaxations():
    assert judging.sparse(2.0)(testing.from_array_functions(sparsemax, sparsemax_backward)).ok
    for subject, alpha in (
        (testing.from_array_functions(straight_through.soft, straight_through.backward), 2.0),
        (testing.from_array_functions(sparsemax, lambda g, w, temp: temp * sparsemax_backward(g, w, temp)), 2.0),
        (testing.from_array_functions(sparsemax, sparsemax_backward), 1.5),
    ):
        found = judging.sparse(alpha)(subject)
        assert not found.ok
        assert found.cause == "not the entmax of its formula"


def test_one_hots_of_any_index():
    logits = np.zeros((2, 3))
    for index in ([2, 0], [[2], [0]], np.uint32([2, 0])):
        assert judging.one_hot(index, logits).tolist() == [[False, False, True], [True, False, False]]


def test_at_temp_1_a_missing_power_of_it_is_no_cause():
    """Where only a hard form exists, any gradient would be explained by that."""

    def drawn(logits, temp, hard, seed):
        return sample(logits, seed).astype(logits.dtype)

    def backward(grad_sample, logits, temp, hard, seed):
        return straight_through.backward(grad_sample, logits, temp, backend="reference")

    op = SamplingOp("without noise", drawn, backward, hard_and_soft=False)
    found = judging.sampling(temps=(1.0,), choices=(2, 10))(op)
    assert (found.ok, found.cause) == (False, "gradient without the noise")
