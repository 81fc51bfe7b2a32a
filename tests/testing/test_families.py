"""The records of the operators: each operator has one, and what follows from it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import npselect
from npselect import bench, gumbel_softmax, straight_through, testing
from npselect.bench.first_call import FIRST_CALLS
from npselect.bench.peers import PEERS
from npselect.testing.families import FAMILIES, GIVEN, by_default, family_of, family_of_id
from npselect.testing.implementation import OPTIONS, SETTINGS
from npselect.testing.selection_cases import LAYERS
from npselect.testing.textbook import TEXTBOOKS, wide
from npselect.testing.vectors import WRITTEN

ROOT = Path(__file__).parents[2]
EITHER = r"it takes npselect\.straight_through(, npselect\.gumbel_softmax, .* or npselect\.gumbel_rao| or .*softmax)$"


def small(family, dtype="float32"):
    return [case for case in testing.cases(dtype, operator=family.module) if case.logits.size < 300]


def test_every_operator_has_a_record():
    assert {*FAMILIES} == {*npselect.OPERATORS}  # in the order in which they came: see `by_default`
    for name, family in FAMILIES.items():
        assert family.name == name
        assert family.module is getattr(npselect, name)
        options = {*npselect.OPERATORS[name].options_of("backward")}
        assert {*family.given, *family.may_give} <= options & {*GIVEN, "sample_noise"}
        assert not family.given or family.given[0] in GIVEN
        assert {*family.takes} == options & ({*family.takes} | {*SETTINGS})
        assert family.takes <= {*OPTIONS}
        assert family.textbook is TEXTBOOKS[name]
        assert bool(family.given) == bool(npselect.OPERATORS[name].options)
        assert family.temp == npselect.OPERATORS[name].temp
        assert {"forward", "backward"} <= npselect.OPERATORS[name].functions.keys()
    named = [family.backward_mistakes for family in FAMILIES.values()]
    assert len(set(named)) == len(named)  # every operator has mistakes of its own
    assert len({family.prefix for family in FAMILIES.values()}) == len(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_cases_know_their_operator(family):
    for case in small(family):
        assert case.family is family
        assert case.id.startswith(f"{family.prefix}float32/")
        assert family_of_id(case.id) is family
        assert len({*GIVEN} & case.options.keys()) == bool(family.given)
    case = small(family)[-1]
    np.testing.assert_array_equal(testing.find_case(case.id).logits, case.logits)
    assert case.part(slice(1)).family is family


def test_an_operator_that_is_not_named_is_the_first_that_takes_what_is_given():
    w = np.ones((1, 2))
    assert testing.Case("a/case", "", w, w, 1.0).family is by_default([]) is FAMILIES["straight_through"]
    assert testing.Case("a/case", "", w, w, 1.0, noise=w).family is by_default(["noise"]) is FAMILIES["gumbel_softmax"]
    assert testing.Case("a/case", "", w, w, 1.0, noise=w, operator="gumbel_softmax").id == "gumbel/float64/a/case"
    given = testing.Case("a/case", "", w, w, 1.0, index=np.array([0]))
    assert given.family is by_default(["index"]) is FAMILIES["reinmax"]
    assert given.id == "reinmax/float64/a/case"


def test_what_is_no_operator_is_refused_by_name():
    assert family_of(gumbel_softmax).name == "gumbel_softmax"
    for ask in (
        lambda: testing.check(straight_through, operator=npselect.selection),
        lambda: testing.cases(operator="straight_through"),
        lambda: testing.check_selection(npselect.selection, operator=None),
        lambda: testing.selection_cases(operator=np),
        lambda: testing.write_vectors("never", operators=npselect.noise),
    ):
        with pytest.raises(ValueError, match=EITHER):
            ask()


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_the_textbook_is_honest(family, dtype):
    subject = SimpleNamespace(forward=wide(family.textbook.forward), backward=wide(family.textbook.backward))
    report = testing.check(subject, operator=family.module, dtypes=dtype, cases=small(family, dtype))
    assert report.ok, str(report)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_a_wrong_textbook_is_refused_with_its_cause(family):
    def backward(grad_mask, logits, temp, **given):
        return temp * family.textbook.backward(grad_mask, logits, temp, **given)

    options = {*family.given, *family.takes} - {*family.may_give}
    subject = SimpleNamespace(forward=wide(family.textbook.forward), backward=wide(backward), options=options)
    report = testing.check(subject, operator=family.module, cases=small(family))
    cause = "multiplied by temp" if family.name == "reinmax" else "1/temp is missing"
    assert report.likely_cause == f"backward: {cause}"


def test_the_example_is_the_textbook():
    spec = importlib.util.spec_from_file_location("numpy_example", ROOT / "examples" / "numpy_select.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    rng = np.random.default_rng(20261129)
    g, w = rng.standard_normal((2, 9, 5))
    forward, backward = FAMILIES["straight_through"].textbook
    np.testing.assert_array_equal(example.forward(w, 0.6), forward(w, 0.6))
    np.testing.assert_allclose(example.backward(g, w, 0.6), backward(g, w, 0.6), rtol=1e-12)


def test_vectors_layers_and_the_benchmark_follow():
    assert [*WRITTEN] == [name for name, family in FAMILIES.items() if family.has_vectors]
    assert [*LAYERS] == [family for family in FAMILIES.values() if family.has_layers]
    assert (*FAMILIES, "selection", "noise") == bench.OPERATORS
    for name, family in FAMILIES.items():
        problem = bench.Problem(name, 8, 3)
        assert problem.draws == bool(family.given)
        assert problem.bytes("backward") > problem.bytes("forward") > 0
        assert name in FIRST_CALLS
        for peer in PEERS:
            if peer.name in ("npselect", "numpy"):
                assert name in peer.operators
                assert bench.prepared(problem, peer, peer.calls(problem), "forward+backward")[1] is None


def test_reports_lead_with_their_verdict_and_the_likely_cause():
    def backward(grad_mask, logits, temp):
        return temp * straight_through.backward(grad_mask, logits, temp)

    subject = SimpleNamespace(forward=straight_through.forward, backward=backward)
    report = testing.check(subject, cases=small(FAMILIES["straight_through"]))
    first, second, third, *rest = str(report).splitlines()
    assert first == report.summary[-1]
    assert first.startswith("FAILED: ")
    assert second == "likely cause: backward: 1/temp is missing"
    assert third == report.heading[0]
    assert rest[-1].startswith("worst error of the gradient")
    sampled = testing.check_sampler(lambda logits, seed: 0 * logits, choices=[2], rows=20)
    assert str(sampled).splitlines()[0] == sampled.summary[-1] == "FAILED: 1 of 1 tests"
