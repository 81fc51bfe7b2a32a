"""Failures that are known: which cases a list covers, and what is said of an entry that nothing fails for."""

from __future__ import annotations

import json
import re
import sys

import numpy as np
import pytest
from honest import hard, implementation, small_cases, soft_gradient

from npselect import selection, testing
from npselect.testing.known import known_failures, reason_for, stale, told_of_stale

IDS = ("float32/edge/-inf", "float32/edge/ties", "float32/random/K=10", "float16/edge/ties", "float16/a[:3]")


def test_the_first_pattern_that_matches_gives_the_reason():
    known = known_failures({"float32/edge/-inf": "issue 7", "*/edge/*": "issue 8", "float16/a[:3]": "cut"}, IDS)
    assert [reason_for(name, known) for name in IDS] == ["issue 7", "issue 8", None, "issue 8", "cut"]
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


# ------------------------------------------------------------------------------------------------ in reports


@pytest.fixture
def _remembered(monkeypatch):
    monkeypatch.setattr(sys.modules["npselect.testing.check"], "all_cases", small_cases)


def nan_at_minus_inf(g, w, temp):
    return soft_gradient(g, w, temp) + 0 * w


def verdicts(report):
    return {case.id: case.verdict for case in report.cases if case.verdict not in ("passed", "agrees", "differs")}


@pytest.mark.usefixtures("_remembered")
class TestCheck:
    def test_what_is_listed_may_fail(self):
        subject = implementation(hard, nan_at_minus_inf)
        found = verdicts(testing.check(subject))
        assert len([verdict for verdict in found.values() if verdict == "failed"]) >= 1
        failed = [name for name, verdict in found.items() if verdict == "failed"]
        report = testing.check(subject, known=dict.fromkeys(failed, "issue 12"))
        assert report.ok
        assert {name for name, verdict in verdicts(report).items() if verdict == "known"} == set(failed)
        judged = sum(case.verdict in ("passed", "known") for case in report.cases)
        first = f"PASSED: {judged - len(failed)} of {judged} cases, and {len(failed)} known to fail"
        assert str(report).startswith(f"{first}\n")
        assert report.summary[-1] == first
        assert report.likely_cause is None
        assert re.search(rf"^known +{re.escape(failed[0])} +issue 12: backward\[", str(report), re.MULTILINE)
        assert "first failure" not in str(report)
        assert sum(group.known for group in report.groups) == len(failed)
        whole = json.loads(report.to_json())
        assert whole["ok"]
        assert whole["known"] == dict.fromkeys(failed, "issue 12")
        assert [case["known"] for case in whole["cases"] if case["verdict"] == "known"] == ["issue 12"] * len(failed)

    def test_a_pattern_covers_cases_that_pass_but_not_those_alone(self):
        subject = implementation(hard, nan_at_minus_inf)
        assert testing.check(subject, known={"float32/edge/*": "issue 12"}).ok
        report = testing.check(subject, known={"float32/edge/*": "issue 12", "float32/random/*": "long gone"})
        assert not report.ok
        assert report.stale == ["float32/random/*"]
        first, second, *_ = str(report).splitlines()
        assert re.fullmatch(r"FAILED: 0 of \d+ cases, and \d+ known to fail", first)
        assert re.fullmatch(
            r"known, but does not fail: float32/random/\* \(long gone\): its \d+ cases pass; take .*", second
        )
        assert report.summary[-1] == first

    def test_what_is_only_shown_cannot_be_known(self):
        report = testing.check(implementation(hard, soft_gradient), known={"float32/edge/NaN": "textbooks differ"})
        assert not report.ok
        assert "float32/edge/NaN (textbooks differ): no case is judged that it matches" in str(report)

    def test_the_cause_is_that_of_the_other_failures(self):
        """What is known would hide it: 7 is returned for the gradient of long rows."""

        def backward(g, w, temp):
            return np.full_like(w, 7) if w.shape[-1] > 100 else soft_gradient(g, w, temp) * w.dtype.type(temp)

        subject = implementation(hard, backward)
        report = testing.check(subject)
        assert not report.ok
        assert report.likely_cause is None
        long = {case.id: "long rows" for case in report.cases if "7.0" in str(case.difference)}
        report = testing.check(subject, known=long)
        assert not report.ok
        assert report.likely_cause == "backward: 1/temp is missing"
        assert "long rows" in str(report)
        assert "known" in report.group_table[0].split()

    def test_all_cases_may_be_known(self):
        subject = implementation(hard, lambda g, w, temp: np.full_like(w, 7))
        report = testing.check(subject, known={"*": "not written yet"})
        assert report.ok
        assert re.match(r"PASSED: \d+ of (\d+) cases, and \d+ known to fail$", report.summary[-1])

    def test_assert_conforms(self):
        subject = implementation(hard, nan_at_minus_inf)
        testing.assert_conforms(subject, known={"*/edge/-inf*": "issue 12"})
        with pytest.raises(AssertionError, match="known, but does not fail: float32/edge/ties"):
            testing.assert_conforms(subject, known={"*/edge/-inf*": "issue 12", "float32/edge/ties": "none"})

    def test_nothing_is_asked_if_a_pattern_matches_no_case(self):
        def never(*_):
            raise AssertionError

        with pytest.raises(
            ValueError, match="'float32/egde/ties', which matches no case; near it are 'float32/edge/ti"
        ):
            testing.check(implementation(never, never), known={"float32/egde/ties": "misspelt"})

    def test_reports_without_a_list_are_as_they_were(self):
        report = testing.check(implementation(hard, soft_gradient))
        assert report.known == {}
        assert "known" not in str(report)


@pytest.mark.usefixtures("remembered_selections")
def test_check_selection_takes_a_list_too():
    def backward(grad_chosen, x, logits, temp):
        grad_x, grad_logits = selection.backward(grad_chosen, x, logits, temp)
        return grad_x, grad_logits * logits.dtype.type(2 if len(logits) == 1 else 1)

    subject = implementation(selection.forward, backward)
    report = testing.check_selection(subject)
    failed = [case.id for case in report.cases if case.verdict == "failed"]
    assert failed
    known = testing.check_selection(subject, known=dict.fromkeys(failed, "one row"))
    assert known.ok
    assert [case.known for case in known.cases if case.id in failed] == ["one row"] * len(failed)
    assert not testing.check_selection(selection, known=dict.fromkeys(failed, "one row")).ok
    with pytest.raises(ValueError, match="matches no case"):
        testing.check_selection(selection, known={"float16/*": "x"})
