"""Gumbel-Rao's kernels: a row's bits depend on that row and on its noise, and on nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from npselect import _threads, gumbel_rao, noise
from npselect._tuning import SAMPLES_AT_ONCE
from npselect.tiers.cpu import rows as kernels

CHOICES = (3, 33, 128, 129, 150)


def question(rows, choices, samples=2, seed=1):
    rng = np.random.default_rng(seed)
    logits, grad = (rng.normal(size=(rows, choices)).astype(np.float32) * 3 for _ in range(2))
    where = rng.random((rows, choices)) < 0.8
    where[:, 0] = True
    temps = rng.choice(np.float32([0.05, 0.6, 1.0, 7.0, 1e25, 1e-30]), (rows, 1))
    index = np.zeros(rows, np.int64)
    return grad, logits, where, temps, index, rng.gumbel(size=(samples, rows, choices)).astype(np.float32)


def bits(x):
    return np.ascontiguousarray(x).view(np.int32)


@pytest.mark.parametrize("choices", CHOICES)
def test_rows_alone_and_together(choices):
    """Of the tile, of the range, of the block; alone in its call; with its own temperature, or one for all."""
    grad, logits, where, temps, index, draws = question(37, choices)
    for offers in (None, where):
        whole = gumbel_rao.backward(grad, logits, temps, index=index, sample_noise=draws, where=offers)
        for r in (0, 15, 16, 36):
            there = None if offers is None else offers[r]
            one = gumbel_rao.backward(grad[r], logits[r], temps[r], index=0, sample_noise=draws[:, r], where=there)
            assert np.array_equal(bits(one), bits(whole[r]))
        some = slice(5, 30)
        part = gumbel_rao.backward(
            grad[some], logits[some], temps[some], index=index[some], sample_noise=draws[:, some],
            where=None if offers is None else offers[some],
        )  # fmt: skip
        assert np.array_equal(bits(part), bits(whole[some]))


@pytest.mark.parametrize("choices", CHOICES)
def test_layouts(choices):
    grad, logits, where, temps, index, draws = question(18, choices)
    expected = gumbel_rao.backward(grad, logits, temps, index=index, sample_noise=draws, where=where)
    turned = gumbel_rao.backward(
        grad.T, logits.T, temps.T, index=index, sample_noise=draws.transpose(0, 2, 1), where=where.T, axis=0
    )
    assert np.array_equal(bits(turned.T), bits(expected))
    strided = [np.repeat(x, 2, axis=-1)[..., ::2] for x in (grad, logits, draws, where)]
    found = gumbel_rao.backward(*strided[:2], temps, index=index, sample_noise=strided[2], where=strided[3])
    assert np.array_equal(bits(found), bits(expected))


@pytest.mark.parametrize("choices", [3, 150])
def test_samples_drawn_some_at_a_time(choices):
    """More than a kernel takes at once, in several blocks of rows: as if all were given."""
    samples, rows = 2 * SAMPLES_AT_ONCE + 3, 700 if choices == 3 else 30
    grad, logits, where, temps, index, _ = question(rows, choices)
    drawn = noise.gumbel((samples, rows, choices), 3, offset=5 + logits.size)
    for offers in (None, where):
        options = {"index": index, "where": offers}
        by_seed = gumbel_rao.backward(grad, logits, temps, seed=3, offset=5, samples=samples, **options)
        given = gumbel_rao.backward(grad, logits, temps, sample_noise=drawn, **options)
        assert np.array_equal(bits(by_seed), bits(given))
    grad[0, 1] = np.nan  # which no block may forget
    logits[1, 0], where[1] = -1.0, False
    found = gumbel_rao.backward(grad, logits, temps, seed=3, samples=samples, index=index)
    assert np.isnan(found[0]).all()
    assert np.isfinite(found[1:]).all()


def test_noise_is_never_drawn_for_all_samples(monkeypatch):
    """However many there are, as much memory is asked for as for some."""
    grad, logits, _, temps, index, _ = question(64, 150)
    sizes = []
    draw = kernels.draw
    monkeypatch.setattr(kernels, "draw", lambda seed, first, out: (sizes.append(out.base.size), draw(seed, first, out)))
    gumbel_rao.backward(grad, logits, temps, seed=1, samples=1000, index=index)
    assert len(sizes) >= 1000
    assert max(sizes) <= SAMPLES_AT_ONCE * logits.size


@pytest.mark.parametrize("choices", [3, 150])
def test_threads(choices, monkeypatch):
    rows = 2**18 // choices // 3 + 1  # with five samples, a batch that is split
    grad, logits, _, temps, index, draws = question(rows, choices, samples=5)
    monkeypatch.setattr(_threads, "thread_count", lambda: 1)
    expected = gumbel_rao.backward(grad, logits, temps, index=index, sample_noise=draws)
    by_seed = gumbel_rao.backward(grad, logits, temps, seed=1, samples=5)
    monkeypatch.setattr(_threads, "thread_count", lambda: 3)
    found = gumbel_rao.backward(grad, logits, temps, index=index, sample_noise=draws)
    assert np.array_equal(bits(found), bits(expected))
    assert np.array_equal(bits(gumbel_rao.backward(grad, logits, temps, seed=1, samples=5)), bits(by_seed))
