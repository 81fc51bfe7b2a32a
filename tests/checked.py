"""What tests of `npselect.testing.check` share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from honest import one_hot, remembered_cases, soft_gradient

from npselect import gumbel_softmax, straight_through
from npselect.testing.dtypes import floating_dtype

FEW = (
    "K=2",
    "K=3",
    "K=7",
    "K=64",
    "K=100",
    "saturated",
    "temp doubled",
    "temp quartered",
    "-inf",
    "ties",
    "large temp",
)
ROOT = Path(__file__).parents[1]
OPERATORS = [straight_through, gumbel_softmax]


def last_of_equals(w, temp):
    return one_hot(w.shape[-1] - 1 - np.argmax(w[:, ::-1], axis=-1, keepdims=True), w)


def temp_forgotten(g, w, temp):
    return temp * soft_gradient(g, w, temp)


def few_cases(operator, temp=1.0, dtype="float32"):
    """A dozen that find and name most of what can be wrong, and those with settings; their answers are remembered."""
    cases = remembered_cases(floating_dtype(dtype), temp, operator)
    return [case for case in cases if case.name.partition("/")[2] in FEW or case.group == "setting"]


def failed(report):
    return {case.name for case in report.cases if case.verdict == "failed"}
