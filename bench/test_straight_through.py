"""Forward and backward of batches, npselect's CPU tier beside the textbook in NumPy and in SciPy.

Run ``python -m pytest bench``. Peers of one group are to be compared by their medians within one run; `gb_per_s` counts
the five arrays that forward and backward must move at the least (logits in and mask out; logits and cotangent in,
gradient out).
"""

import numpy as np
import pytest
import scipy.special

from npselect import straight_through
from npselect.testing import tolerance

TEMP = np.float32(0.6)


def npselect_cpu(grad_mask, logits, mask, grad_logits):
    straight_through.forward(logits, TEMP, out=mask)
    straight_through.backward(grad_mask, logits, TEMP, out=grad_logits)


def one_hot(logits, mask):
    mask[...] = 0
    np.put_along_axis(mask, logits.argmax(-1, keepdims=True), 1, axis=-1)


def textbook(grad_mask, logits, mask, grad_logits):
    one_hot(logits, mask)
    e = np.exp((logits - logits.max(-1, keepdims=True)) / TEMP)
    p = e / e.sum(-1, keepdims=True)
    grad_logits[...] = p * (grad_mask - (p * grad_mask).sum(-1, keepdims=True)) / TEMP


def scipy_softmax(grad_mask, logits, mask, grad_logits):
    one_hot(logits, mask)
    p = scipy.special.softmax(logits / TEMP, axis=-1)
    grad_logits[...] = p * (grad_mask - (p * grad_mask).sum(-1, keepdims=True)) / TEMP


@pytest.mark.parametrize("peer", [npselect_cpu, textbook, scipy_softmax], ids=lambda peer: peer.__name__)
@pytest.mark.parametrize("shape", [(32, 10), (131072, 8), (16384, 64), (1024, 1024), (32, 32768)], ids=str)
def test_forward_and_backward(benchmark, shape, peer):
    rng = np.random.default_rng(1)
    logits, grad_mask = (rng.standard_normal(shape, dtype=np.float32) for _ in range(2))
    mask, grad_logits = np.empty_like(logits), np.empty_like(logits)
    peer(grad_mask, logits, mask, grad_logits)
    exact = straight_through.backward(grad_mask, logits, TEMP, backend="reference")
    assert np.all(np.abs(grad_logits - exact) <= tolerance.backward(grad_mask, logits, TEMP, np.float32))
    assert np.array_equal(mask.argmax(-1), logits.argmax(-1))

    benchmark.group = f"forward and backward, float32, {shape[0]} x {shape[1]}"
    benchmark(peer, grad_mask, logits, mask, grad_logits)
    if benchmark.stats is not None:
        benchmark.extra_info["gb_per_s"] = 5 * logits.nbytes / benchmark.stats.stats.median / 1e9
