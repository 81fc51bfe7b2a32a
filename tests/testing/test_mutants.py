"""What `npselect.testing.check` asks, tried on mutants: all are refused, but those that compute the same."""

from __future__ import annotations

import functools
import re

import mutants
import numpy as np
import pytest
from honest import remembered_cases

from npselect import gumbel_softmax, straight_through
from npselect.testing.dtypes import floating_dtype

# What a mutant's id looks like, and why it computes the same wherever `check` judges.
SAME = {
    r"range\(0, rows \+ 1, ROWS\):$": "one more block of rows, that holds none, if any",
    r"range\(0, choices \+ 1, block\):$": "one more block, of padding alone, if any",
    r"-> for first in range\(0, (choices \+ block|2 \* choices), block\):$": "more blocks, behind the array",
    r"-> for row in range\(0, rows, (ROWS - 1|ROWS // 2)\):$": "some rows are computed twice",
    r"-> last = rows$": "some rows are computed twice",
    r"-> last = min\(row \+ (1 \+ ROWS|\(ROWS \+ 1\)|2 \* ROWS), rows\)$": "some rows are computed twice",
    r"-> end = (first \+ block|choices|max\(first \+ block, choices\))$":
        "a slice ends where the array does, and some entries are computed twice",
    r"-> end = min\(first \+ (1 \+ block|\(block \+ 1\)|2 \* block), choices\)$": "some entries are computed twice",
    r"-> end = min\(first \+ block, (choices \+ 1|2 \* choices)\)$": "a slice ends where the array does",
    r"-> for first in range\(0, choices, (block - 1|block // 2)\):$": "some entries are computed twice",
    r"forward_\w+, \d+: for start .*-> for start in range\(0, choices, (block - 1|block // 2)\):$": "read twice",
    r"forward_\w+, \d+: .*np\.int32": "rows and choices of less than 2**31",
    r"-> lanes = np.arange\(LANES, dtype=np\.\w+\)$": "a few lanes; a sum with an index has the index's type",
    r"-> best = np\.zeros\(.*np\.\w+\)( \+ lanes)?$": "0, of a type that gives way to the index's",
    r"forward_lanes, \d+: best = .* -> best = (lanes|np\.zeros\(.*\) - lanes|np\.zeros\(.*, np\.int64\))$":
        "a lane that has only -inf is never the largest",
    r"best\[:, 0\] -> index\[row:last\] = best\[:, -1\]$": "one lane is left",
    r"-> for half in .*(LANES \+ 1|LANES // 3|LANES // 7)": "the same for 8 lanes",
    r"-> turns = .*\(block \+ 1\) // LANES": "the same for 8 lanes",
    r"-> other = \(b > a\) \| \(b >= a\) & \(j < i\)$": "where b is larger it is taken anyway",
    r"-> other = \(b > a\) \| \(b == a\) & \(j <= i\)$": "no two lanes have the same index",
    r"-> level = np\.where\(larger > -np\.inf, larger, -?1\)$": "any number, where there is only -inf",
    r"-> (top|total|mean) = np\.\w+\(.*np\.float(16|32)\)$": "-inf or 0, of a type that gives way to w's",
    r"axis=-1.* -> .*axis=1": "the last of two axes",
    r"-> tile = np\.full\(\(last - row, (block \+ 1|2 \* block)\), -np\.inf, w\.dtype\)$": "more padding",
    r"forward_\w+, \d+: tile = .*np\.finfo\(w\.dtype\)\.min": "padding is behind the row's own lowest numbers",
    r"backward_\w+, \d+: tile = .*np\.finfo\(w\.dtype\)\.min": "padding weighs nothing but beside the lowest numbers",
    r"-> w = w if where is None else np\.where\(where, w, np\.finfo\(w\.dtype\)\.min\)$":
        "as good as none, but beside candidates that are as small",
    r"forward_\w+, \d+: top = .*np\.finfo\(w\.dtype\)\.min": "so begins TensorFlow's argmax",
    r"-> level = np\.where\(larger > np\.finfo\(w\.dtype\)\.min, larger, 0\)$": "the same, but for the lowest number",
    r"backward_\w+, \d+: top = .*np\.finfo\(w\.dtype\)\.min": "the largest is no less, unless it is -inf",
}  # fmt: skip
IN_FLOAT32 = r"w\.dtype.* -> .*np\.float32"  # which is the dtype itself, there


@functools.cache
def court(dtype):
    """All cases without noise, and small ones with it; the mutants take no settings."""
    form = floating_dtype(dtype)
    given = remembered_cases(form, 0.6, gumbel_softmax)
    noisy = [case for case in given if case.logits.size <= 2**9 and not case.settings]
    return mutants.Court(remembered_cases(form, 0.6, straight_through) + noisy)


def the_same(mutant, dtype):
    reasons = [reason for pattern, reason in SAME.items() if re.search(pattern, mutant.id)]
    return bool(reasons) or (dtype == "float32" and re.search(IN_FLOAT32, mutant.id) is not None)


def direction(name):
    return name.partition("_")[0]


def survivors(name, block, dtype, every=1):
    asked = [mutant for mutant in mutants.mutants(name, every) if not the_same(mutant, dtype)]
    assert asked
    with np.errstate(all="ignore"):
        return [m.id for m in asked if court(dtype).refusal(m.function(block), direction(name)) is None]


@pytest.mark.parametrize("name", mutants.ORIGINALS)
def test_originals_are_accepted(name):
    original = mutants.compiled(mutants.source(name), name, 1024)
    assert court("float32").refusal(original, direction(name)) is None


@pytest.mark.parametrize("name", mutants.ORIGINALS)
def test_some_mutants_are_refused(name):
    assert survivors(name, 1024, "float32", every=31) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", mutants.ORIGINALS)
def test_all_mutants_are_refused(name):
    assert survivors(name, 1024, "float32") == []
