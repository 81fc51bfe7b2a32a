"""Questions with the options that are numbers: `forward_temp`, `unimix`, `gap`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from npselect.testing.aliases import Dtype, Settings
from npselect.testing.case import Case
from npselect.testing.dtypes import times

__all__ = ["plain_cases", "setting_cases"]

_NOTES = {
    "forward_temp": "logits are divided by forward_temp before they are perturbed, and by temp after that",
    "unimix": "the sample is that of a mixture, of which the probabilities have a share of 1 - unimix",
    "gap": "the selected candidate leads by the gap, whatever kind of number that is",
}


def setting_cases(dtype: Dtype, temp: float, settings: Settings, operator: str) -> Iterator[Case]:
    """With these settings: likely candidates and unlikely ones, at a temperature of its own."""
    rng = np.random.default_rng(20241017)
    label = ", ".join(f"{name}={value}" for name, value in settings.items())
    note = _NOTES[next(iter(settings))]
    temp = times(0.75, temp, dtype)

    def case(name: str, rows: int, choices: int, spread: float, excluding: bool = False) -> Case:
        logits, grad_mask = (scale * rng.standard_normal((rows, choices)) for scale in (spread, 1.0))
        where = rng.random((rows, choices)) < 0.7 if excluding else None
        if where is not None:
            where[:, choices // 2] = True
        return Case(
            f"setting/{label}{name}",
            note,
            logits.astype(dtype),
            grad_mask.astype(dtype),
            temp,
            where=where,
            operator=operator,
            settings=settings,
        )

    yield case("", 96, 7, 2.0)
    yield case(", saturated", 48, 5, 8.0)
    yield case(", where", 24, 6, 2.0, excluding=True)


def plain_cases(dtype: Dtype, temp: float, operator: str) -> Iterator[Case]:
    """For another option that fixes the choice."""
    logits, grad_mask = 2 * np.random.default_rng(20251030).standard_normal((2, 96, 7))
    for name, other in (("", temp), (", temp halved", times(0.5, temp, dtype))):
        note = "the candidate that is the largest with its noise"
        yield Case(
            f"setting/noise{name}", note, logits.astype(dtype), grad_mask.astype(dtype), other, operator=operator
        )
