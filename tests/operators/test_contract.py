"""Every operator keeps what its record says: signatures, docstrings, formulas, and what the tiers have.

The signatures are written by hand, fourteen and more of them. Here they are held together, and each check is shown to
notice a fault of its kind.
"""

import functools
import importlib
import inspect
import re
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import pytest

import npselect
from npselect import reference
from npselect._operators import OPERATORS, ROW_FUNCTIONS, Result

DEFAULTS = {  # of options that operators share
    "forward_temp": 1.0,
    "unimix": 0.0,
    "gap": 1.0,
    "seed": None,
    "noise": None,
    "index": None,
    "offset": 0,
    "samples": None,
    "sample_noise": None,
}
COMMON = {"axis": -1, "where": None, "nan_policy": "propagate", "out": None, "backend": None}
TIERS = {"reference": "npselect.reference", "cpu": "npselect.tiers.cpu.rows", "cuda": "npselect.tiers.cuda.rows"}

FUNCTIONS = [(operator, name) for operator in OPERATORS.values() for name in operator.functions]
functions = pytest.mark.parametrize(
    ("operator", "name"), FUNCTIONS, ids=[f"{operator.name}.{name}" for operator, name in FUNCTIONS]
)
operators = pytest.mark.parametrize("operator", OPERATORS.values(), ids=list(OPERATORS))


def module_of(operator):
    return importlib.import_module(f"npselect.{operator.name}")


# ------------------------------------------------------------------------------------------------ what is checked


def check_signature(operator, name, function):
    """Names, kinds, order and defaults."""
    record = operator.functions[name]
    empty, positional, keyword = inspect.Parameter.empty, "POSITIONAL_OR_KEYWORD", "KEYWORD_ONLY"
    expected = [(array, positional, empty) for array in (*record.cotangents, "logits")]
    if record.results != (Result.INDEX,):
        expected.append(("temp", positional, operator.temp))
    expected += [(option, keyword, DEFAULTS[option]) for option in operator.options_of(name)]
    expected += [(option, keyword, default) for option, default in COMMON.items()]
    found = inspect.signature(function).parameters.values()
    assert [(one.name, one.kind.name, one.default) for one in found] == expected


def check_annotations(operator, name, function):
    """What comes back, and what `out` takes."""
    count = len(operator.functions[name].results)
    result, out = "Array", "Array | None"
    if count > 1:
        result = f"tuple[{', '.join([result] * count)}]"
        out = f"tuple[{', '.join([out] * count)}] | None"
    annotations = function.__annotations__
    assert annotations["return"] == result
    assert annotations["out"] == out


def documented(function, section="Parameters"):
    """The names of a section of a docstring in numpydoc's form."""
    lines = inspect.getdoc(function).splitlines()
    start = next(i for i, line in enumerate(lines) if line == section and lines[i + 1] == "-" * len(section)) + 2
    stop = next((i for i in range(start, len(lines) - 1) if re.fullmatch("-{3,}", lines[i + 1])), len(lines))
    entries = [line for line in lines[start:stop] if line and not line.startswith(" ")]
    return [name for entry in entries for name in entry.split(" : ")[0].split(", ")]


def check_docstring(operator, name, function):
    """Every parameter, in the signature's order; but `out` may stand last, where it has a description of its own."""
    expected, found = list(inspect.signature(function).parameters), documented(function)
    if len(operator.functions[name].results) > 1:
        expected.append(expected.pop(expected.index("out")))
    assert found == expected
    for section in ("Returns", "Raises", "Examples"):
        assert documented(function, section), section
    if len(operator.functions[name].results) > 1:
        assert len(documented(function, "Returns")) == len(operator.functions[name].results)


def check_formula(record, function):
    """Each formula of the record stands in the docstring."""
    text = " ".join(inspect.getdoc(function).split())
    assert record.formula
    for formula in record.formula.split(", "):
        assert formula in text, formula


def check_tier(record, tier):
    """The row function of that name takes what the record says, in its order, then an array for each result."""
    names = list(inspect.signature(getattr(tier, record.name)).parameters)
    given = [*cotangents_of(record), *record.reads]
    assert names[: len(given)] == given
    outs = names[len(given) :]
    assert len(outs) == len(record.results)
    assert all(name.startswith("out") for name in outs)


def cotangents_of(record):
    """By the names that tiers know: those of the first operator that has the row function."""
    every = [function for operator in OPERATORS.values() for function in operator.functions.values()]
    return next((function.cotangents for function in every if function.name == record.name), ())


def check_module(operator, module):
    """The module has the operator's functions, and no others."""
    assert module.__all__ == sorted(operator.functions)
    own = {name for name, value in vars(module).items() if inspect.isfunction(value)}
    assert set(operator.functions) == {name for name in own if vars(module)[name].__module__ == module.__name__}


# ------------------------------------------------------------------------------------------------ the operators


@functions
def test_signatures(operator, name):
    check_signature(operator, name, getattr(module_of(operator), name))
    check_annotations(operator, name, getattr(module_of(operator), name))


@functions
def test_docstrings(operator, name):
    check_docstring(operator, name, getattr(module_of(operator), name))
    check_formula(operator.functions[name], getattr(module_of(operator), name))


@operators
def test_modules(operator):
    module = module_of(operator)
    assert getattr(npselect, operator.name) is module
    assert operator.name in npselect.__all__
    check_module(operator, module)
    assert re.search(r"arXiv|ICLR|NeurIPS|ICML", module.__doc__), "the source of the technique"


@pytest.mark.parametrize("name", ROW_FUNCTIONS)
def test_reference_has_the_formula(name):
    check_formula(ROW_FUNCTIONS[name], getattr(reference, name))


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("name", ROW_FUNCTIONS)
def test_every_tier_has_every_row_function(name, tier):
    if tier == "cuda":
        pytest.importorskip("numba.cuda")
    module = importlib.import_module(TIERS[tier])
    if tier == "cuda" and not ROW_FUNCTIONS[name].on_gpu:
        assert not hasattr(module, name)
        return
    check_tier(ROW_FUNCTIONS[name], module)
    assert name in module.__all__


def test_records_are_public_and_cannot_be_changed():
    assert npselect.OPERATORS is OPERATORS
    with pytest.raises(TypeError):
        OPERATORS["another"] = OPERATORS["straight_through"]
    with pytest.raises(TypeError):
        OPERATORS["straight_through"].functions["forward"] = None
    with pytest.raises(AttributeError):
        OPERATORS["straight_through"].name = "another"


# ------------------------------------------------------------------------------------------------ planted faults

OPERATOR = OPERATORS["gumbel_softmax"]
BACKWARD = npselect.gumbel_softmax.backward


def changed(function=BACKWARD, signature=None, doc=None, annotations=None):
    """A function with another signature, docstring or annotation than its own."""

    @functools.wraps(function)
    def other(*_, **__):
        raise NotImplementedError

    other.__signature__ = inspect.signature(function).replace(parameters=signature) if signature else None
    if signature is None:
        del other.__signature__
    if doc is not None:
        other.__doc__ = doc
    other.__annotations__ = {**function.__annotations__, **(annotations or {})}
    return other


def parameters(**changes):
    """Those of `backward`, some of them changed."""
    every = inspect.signature(BACKWARD).parameters
    return [parameter.replace(**changes.get(name, {})) for name, parameter in every.items()]


def swapped(first, second):
    names = list(inspect.signature(BACKWARD).parameters)
    i, j = names.index(first), names.index(second)
    names[i], names[j] = names[j], names[i]
    return [inspect.signature(BACKWARD).parameters[name] for name in names]


@pytest.mark.parametrize(
    "signature",
    [
        parameters(temp={"default": 1.0}),
        parameters(axis={"default": 0}),
        parameters(offset={"default": None}),
        parameters(grad_mask={"name": "grad"}),
        parameters(axis={"kind": inspect.Parameter.KEYWORD_ONLY, "name": "dim"}),
        swapped("grad_mask", "logits"),
        swapped("seed", "noise"),
        [parameter for parameter in parameters() if parameter.name != "offset"],
        [*parameters(), inspect.Parameter("keepdims", inspect.Parameter.KEYWORD_ONLY, default=False)],
    ],
)
def test_a_wrong_signature_is_noticed(signature):
    check_signature(OPERATOR, "backward", changed(signature=parameters()))
    with pytest.raises(AssertionError):
        check_signature(OPERATOR, "backward", changed(signature=signature))


@pytest.mark.parametrize("annotations", [{"return": "tuple[Array, Array]"}, {"out": "Array"}])
def test_a_wrong_annotation_is_noticed(annotations):
    check_annotations(OPERATOR, "backward", changed())
    with pytest.raises(AssertionError):
        check_annotations(OPERATOR, "backward", changed(annotations=annotations))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("logits, temp, forward_temp", "logits, forward_temp"),
        ("seed, noise, offset", "noise, seed, offset"),
        ("grad_mask : ", "grad : "),
        ("Raises\n    ------\n", ""),
    ],
)
def test_a_wrong_docstring_is_noticed(old, new):
    assert old in BACKWARD.__doc__
    check_docstring(OPERATOR, "backward", changed(doc=BACKWARD.__doc__))
    with pytest.raises((AssertionError, StopIteration)):
        check_docstring(OPERATOR, "backward", changed(doc=BACKWARD.__doc__.replace(old, new)))


def test_a_wrong_formula_is_noticed():
    record = OPERATOR.functions["double_backward"]
    for part in record.formula.split(", "):
        doc = " ".join(npselect.gumbel_softmax.double_backward.__doc__.split())
        check_formula(record, SimpleNamespace(__doc__=doc))
        with pytest.raises(AssertionError, match=re.escape(part)):
            check_formula(record, SimpleNamespace(__doc__=doc.replace(part, part.replace("temp", "tau"))))
    with pytest.raises(AssertionError):
        check_formula(replace(record, formula=""), npselect.gumbel_softmax.double_backward)


@pytest.mark.parametrize(
    "backward",
    [
        lambda logits, grad_mask, noise, temp, where, scale, out: None,
        lambda grad_mask, logits, temp, noise, where, scale, out: None,
        lambda grad_mask, logits, noise, temp, scale, out: None,
        lambda grad_mask, logits, noise, temp, where, scale: None,
        lambda grad_mask, logits, noise, temp, where, scale, out, out_temp: None,
        lambda grad_mask, logits, noise, temp, where, scale, result: None,
        None,
    ],
)
def test_a_wrong_tier_is_noticed(backward):
    record = OPERATOR.functions["backward"]
    check_tier(record, SimpleNamespace(backward=lambda grad_mask, logits, noise, temp, where, scale, out: None))
    with pytest.raises((AssertionError, AttributeError)):
        check_tier(record, SimpleNamespace(**{} if backward is None else {"backward": backward}))


def test_a_wrong_module_is_noticed():
    def module(**more):
        made = ModuleType("npselect.gumbel_softmax")
        made.__all__ = list(npselect.gumbel_softmax.__all__)
        vars(made).update({name: getattr(npselect.gumbel_softmax, name) for name in OPERATOR.functions}, **more)
        return made

    def sort(logits):
        raise NotImplementedError

    check_module(OPERATOR, module())
    sort.__module__ = "npselect.gumbel_softmax"
    for fault in ({"__all__": OPERATOR.name}, {"__all__": [*npselect.gumbel_softmax.__all__, "sort"]}, {"sort": sort}):
        with pytest.raises(AssertionError):
            check_module(OPERATOR, module(**fault))
