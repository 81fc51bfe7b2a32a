"""Cases with a given index, made of cases without: half of the rows draw as their logits say, the others anything.

And with noise given that index, made of those.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from npselect.testing.case import Case

__all__ = ["with_index", "with_sample_noise"]

_FEW = 1 << 13  # entries


def with_index(case: Case, seed: int, operator: str) -> Case:
    """The case with an index: a likely candidate in every other row, and any, even a most unlikely one, in others.

    Where nothing is offered it is -1; in a row that is NaN, where any index will do, 0.
    """
    rng = np.random.default_rng([20230417, seed])
    w = case.w
    likely = np.where(np.isfinite(w), w, -np.inf) + rng.gumbel(size=w.shape)
    anything = np.where(np.isfinite(w), 0.0, -np.inf) + rng.gumbel(size=w.shape)
    drawn = np.where(np.arange(len(w))[:, None] % 2 == 0, likely, anything)
    index = np.argmax(drawn, axis=-1) if w.size else np.zeros(len(w), np.intp)
    if case.where is not None:
        offered = case.rows(np.broadcast_to(case.where, case.logits.shape))
        index = np.where(np.any(offered, axis=-1), index, -1)
    shape = list(case.logits.shape)
    del shape[case.axis]
    return replace(case, index=index.astype(np.int64).reshape(shape), operator=operator)


def with_sample_noise(case: Case, seed: int) -> Case:
    """The case with Gumbel noise of one sample, two or three; of one, where there are many entries."""
    samples = 1 + seed % 3 if case.logits.size <= _FEW else 1
    noise = np.random.default_rng([20201010, seed]).gumbel(size=(samples, *case.logits.shape))
    return replace(case, sample_noise=noise.astype(case.logits.dtype))
