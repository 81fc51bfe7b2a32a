"""The whole check of an op that draws its own noise: prepare, ask, judge, report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from npselect.testing.aliases import Array, SamplingFunctions
from npselect.testing.check import name_of, versions
from npselect.testing.dtypes import floating_dtype
from npselect.testing.sampler import check_sampler
from npselect.testing.sampling.report import SamplingReport, SamplingTest

__all__ = ["check_sampling_op"]


@np.errstate(all="ignore")
def check_sampling_op(
    op: SamplingFunctions,
    *,
    dtypes: npt.DTypeLike | Sequence[npt.DTypeLike] = "float32",
    temps: Sequence[float] = (0.1, 0.6, 1.0, 5.0),
    choices: Sequence[int] = (2, 10, 1000),
    seed: int = 0,
    false_alarm: float = 1e-6,
    known: Mapping[str, str] | None = None,
) -> SamplingReport:
    """Judge an op that draws its own noise: its samples, their distribution, and the gradient of either form."""
    several = isinstance(dtypes, (list, tuple, set, frozenset))
    forms = [floating_dtype(dtype) for dtype in (dtypes if several else [dtypes])]

    def hard(logits: Array, seed: int) -> Array:
        return np.asarray(op.sample(logits, float(temps[-1]), True, seed))

    tests = []
    for form in forms:
        found = check_sampler(hard, choices=choices, rows=1000, seed=seed, false_alarm=false_alarm, dtype=form,
                              max_seed=getattr(op, "max_seed", None))  # fmt: skip
        tests += [
            SamplingTest(f"distribution, {test.name}", form.name, float(temps[-1]), test.choices, test.verdict,
                         test.comparisons, test.p_value, None, test.finding)
            for test in found.tests
        ]  # fmt: skip
    return SamplingReport(
        name_of(op), tuple(form.name for form in forms), tuple(temps), tuple(choices), seed, false_alarm,
        bool(getattr(op, "hard_and_soft", True)), bool(getattr(op, "flushes_subnormals", False)),
        bool(getattr(op, "normalises_logits", False)), tuple(tests), None, versions(),
    )  # fmt: skip
