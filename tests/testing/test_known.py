"""Failures that are known: which cases a list covers, and what is said of an entry that nothing fails for."""

from __future__ import annotations

import re

import pytest

from npselect.testing.known import known_failures, reason_for, stale, told_of_stale

IDS = ("float32/edge/-inf", "float32/edge/ties", "float32/random/K=10", "float16/edge/ties", "float16/a[:3]")


def test_the_first_pattern_that_matches_gives_the_reason():
    known = known_failures({"float32/edge/-inf": "issue 7", "*/edge/*": "issue 8", "float16/a[:3]": "cut"}, IDS)
    assert [reason_for(id, known) for id in IDS] == ["issue 7", "issue 8", None, "issue 8", "cut"]
    assert known_failures(None, IDS) == {}


def test_letters_are_told_apart():
    with pytest.raises(ValueError, match="'Float32/edge/ties', which matches no case; near it are 'float32/edge/ties'"):
        known_failures({"Float32/edge/ties": "issue"}, IDS)


@pytest.mark.parametrize(
    ("known", "error", "message"),
    [
        (["float32/edge/ties"], TypeError, "known is ['float32/edge/ties']; it takes a mapping"),
        ({"float32/edge/ties": None}, TypeError, "known holds 'float32/edge/ties': None"),
        ({1: "one"}, TypeError, "known holds 1: 'one'"),
        ({"float32/edge/ties": " "}, ValueError, "known['float32/edge/ties'] is empty"),
        (
            {"float32/edge/tie": "x"},
            ValueError,
            "'float32/edge/tie', which matches no case; near it are 'float32/edge/",
        ),
        ({"%": "x"}, ValueError, "'%', which matches no case; near it are 'float32/edge/-inf', 'float32/edge/ties'"),
    ],
)
def test_lists_that_are_refused(known, error, message):
    with pytest.raises(error, match=re.escape(message)):
        known_failures(known, IDS)


def test_a_pattern_is_stale_if_nothing_fails_that_it_matches():
    known = {"*/edge/*": "a", "float32/*": "b", "float16/edge/ties": "c", "float32/random/K=10": "d"}
    failed = ["float32/edge/-inf"]
    assert stale(known, failed) == ["float16/edge/ties", "float32/random/K=10"]
    assert stale(known, []) == list(known)
    assert told_of_stale(known, IDS, []) == [
        "known, but does not fail: */edge/* (a): its 3 cases pass; take it off the list",
        "known, but does not fail: float32/* (b): its 3 cases pass; take it off the list",
        "known, but does not fail: float16/edge/ties (c): its case passes; take it off the list",
        "known, but does not fail: float32/random/K=10 (d): its case passes; take it off the list",
    ]
    (line,) = told_of_stale({"float16/*": "e"}, IDS[:3], [])
    assert line.endswith("float16/* (e): no case is judged that it matches; take it off the list")
