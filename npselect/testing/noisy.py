"""Cases with noise, made of cases without: the noise is taken from the logits, and the sum is what they were.

All three are on a grid, where that sum has no rounding error: the choice must not depend on whether 16-bit logits are
added to their noise in 16 bits or in 32.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from npselect.testing.case import Case, taken_from
from npselect.testing.layouts import like
from npselect.testing.tolerance import Format, ulp

__all__ = ["with_noise", "with_noise_in_proportion"]


_STEPS = {
    "float16": (2.0**-5, 50.0),
    "bfloat16": (2.0**-3, 20.0),
    "float32": (2.0**-12, 1000.0),
    "float64": (2.0**-12, 1000.0),
}


def with_noise(case: Case, seed: int, operator: str) -> Case | None:
    """The case with Gumbel noise on one grid for all, and so is what is added: the noise times its `forward_temp`.

    None if the grid is too coarse or too small for the case. (The logits of close pairs keep their last places, next to
    which there is room for a little noise.)
    """
    step, largest = _STEPS[case.logits.dtype.name]
    w = case.logits.astype(np.float64)
    finite = np.isfinite(w)
    beyond = np.abs(w[finite]) > largest
    repeated = w.size > 0 and any(n > 1 and not stride for n, stride in zip(w.shape, case.logits.strides, strict=True))
    if repeated or "ties" in case.flags or np.any(np.abs(w[finite]) > 10 * largest) or 2 * np.sum(beyond) > beyond.size:
        return None
    noise = np.random.default_rng([20170417, seed]).gumbel(size=w.shape)
    forward_temp = case.forward_temp  # a power of two
    grid = max(step, step / forward_temp)
    noise = np.clip(np.round(noise / grid) * grid, -3.0, 8.0)
    with np.errstate(invalid="ignore"):
        if "pairs" in case.flags:
            noise = np.clip(np.round(4 * noise) / 4, -0.25, 0.25)
        else:
            w = np.where(finite, np.clip(np.round(w / step) * step, -largest, largest), w)
        logits = np.where(finite, w - forward_temp * noise, w)
    dtype = case.logits.dtype
    return replace(case, logits=like(logits.astype(dtype), case.logits), noise=noise.astype(dtype), operator=operator)


def with_noise_in_proportion(case: Case, seed: int, operator: str) -> Case:
    """The case with Gumbel noise in proportion to each row: in units of 1/32 of its largest logit's power of two.

    For logits of any size, all of them finite, that are multiples of twice the unit in the last place of their row's
    largest. The noise is at most a quarter of that, so their difference is a number of the dtype; where it would leave
    the range, the noise changes its sign.
    """
    if case.small is not None:
        return taken_from(with_noise_in_proportion(case.small, seed, operator), case)
    dtype = case.logits.dtype
    w = case.logits.astype(np.float64)
    largest = np.max(np.abs(w), axis=-1, keepdims=True)
    _, exponent = np.frexp(largest)
    unit = np.maximum(np.ldexp(1.0, exponent - 6), 2 * ulp(largest, dtype))
    noise = unit * np.clip(np.round(4 * np.random.default_rng([20170418, seed]).gumbel(size=w.shape)), -3, 8)
    noise = np.where(np.abs(w - noise) > Format.of(dtype).largest, -noise, noise)
    return replace(case, logits=(w - noise).astype(dtype), noise=noise.astype(dtype), operator=operator)
