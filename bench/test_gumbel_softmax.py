"""Noise, and Gumbel-softmax with the noise drawn inside, npselect's CPU tier beside NumPy's generator and the textbook.

Run ``python -m pytest bench``. Peers of one group are to be compared by their medians within one run. NumPy's Philox is
another generator than ours (4x64 words), and its samples are other ones; its float32 exponentials may be 0, whose
logarithm is kept from being infinite.
"""

import numpy as np
import pytest

from npselect import gumbel_softmax, noise

TEMP = np.float32(0.6)


def npselect_noise(rng, seed, out):
    noise.gumbel(out.shape, seed, dtype=out.dtype, out=out)


def numpy_gumbel(rng, seed, out):
    out[...] = rng.gumbel(size=out.shape)


def minus_log_of_exponential(rng, shape, dtype):
    exponential = rng.standard_exponential(shape, dtype)
    return -np.log(np.maximum(exponential, np.finfo(dtype).tiny))


def numpy_exponential(rng, seed, out):
    out[...] = minus_log_of_exponential(rng, out.shape, out.dtype)


@pytest.mark.parametrize("peer", [npselect_noise, numpy_gumbel, numpy_exponential], ids=lambda peer: peer.__name__)
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda dtype: dtype.__name__)
def test_noise(benchmark, dtype, peer):
    rng, out = np.random.Generator(np.random.Philox(1)), np.empty(1 << 22, dtype)
    peer(rng, 1, out)
    assert abs(out.mean() - np.euler_gamma) < 6 * np.pi / (6 * out.size) ** 0.5  # six standard deviations

    benchmark.group = f"noise, {dtype.__name__}, {out.size}"
    benchmark(peer, rng, 1, out)
    if benchmark.stats is not None:
        benchmark.extra_info["ns_per_number"] = 1e9 * benchmark.stats.stats.median / out.size


def npselect_cpu(rng, grad_mask, logits, mask, grad_logits):
    gumbel_softmax.forward(logits, TEMP, seed=1, out=mask)
    gumbel_softmax.backward(grad_mask, logits, TEMP, seed=1, out=grad_logits)


def textbook(rng, grad_mask, logits, mask, grad_logits):
    w = logits + minus_log_of_exponential(rng, logits.shape, np.float32)
    mask[...] = 0
    np.put_along_axis(mask, w.argmax(-1, keepdims=True), 1, axis=-1)
    e = np.exp((w - w.max(-1, keepdims=True)) / TEMP)
    p = e / e.sum(-1, keepdims=True)
    grad_logits[...] = p * (grad_mask - (p * grad_mask).sum(-1, keepdims=True)) / TEMP


@pytest.mark.parametrize("peer", [npselect_cpu, textbook], ids=lambda peer: peer.__name__)
@pytest.mark.parametrize("shape", [(32, 10), (131072, 8), (16384, 64), (1024, 1024), (32, 32768)], ids=str)
def test_forward_and_backward(benchmark, shape, peer):
    rng = np.random.default_rng(1)
    logits, grad_mask = (rng.standard_normal(shape, dtype=np.float32) for _ in range(2))
    mask, grad_logits = np.empty_like(logits), np.empty_like(logits)
    peer(rng, grad_mask, logits, mask, grad_logits)
    assert np.all(mask.sum(-1) == 1)
    assert np.all(np.isfinite(grad_logits))

    benchmark.group = f"Gumbel-softmax, forward and backward, float32, {shape[0]} x {shape[1]}"
    benchmark(peer, rng, grad_mask, logits, mask, grad_logits)
