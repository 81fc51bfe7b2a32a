"""The vectors: what is in the files, that they are the same everywhere, and that they read back.

``vectors.sha256`` holds the digest of each file; to renew it::

    d=$(mktemp -d); .venv/bin/python -m npselect vectors --out $d && (cd $d && sha256sum *.json) >tests/vectors.sha256
"""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import children
import jsonschema
import mpmath
import numpy as np
import pytest
from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

from npselect import gumbel_softmax, reinmax, straight_through, testing
from npselect.cli import main
from npselect.testing import tolerance, tolerance_reinmax
from npselect.testing.cases import all_cases
from npselect.testing.dtypes import floating_dtype
from npselect.testing.patterns import patterns, values
from npselect.testing.profile import Profile
from npselect.testing.vectors import LARGEST

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
OPERATORS = {"straight_through": straight_through, "gumbel_softmax": gumbel_softmax, "reinmax": reinmax}
PREFIXES = {"straight_through": "", "gumbel_softmax": "gumbel/", "reinmax": "reinmax/"}
FILES = [(operator, dtype) for operator in OPERATORS for dtype in testing.DTYPES]
SMALL = ("straight_through", "float32")


remembered = functools.cache(all_cases)  # with their answers, which take most of the time


@pytest.fixture(autouse=True, scope="module")
def _remembered():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["npselect.testing.vectors"], "all_cases", remembered)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory, _remembered):
    """All of them; not to be written to."""
    folder = tmp_path_factory.mktemp("vectors")
    testing.write_vectors(folder)
    return folder


@pytest.fixture
def copy(folder, tmp_path):
    """A file of its own."""
    return Path(shutil.copy(folder / "straight_through-float32.json", tmp_path))


def read(folder, operator, dtype):
    return json.loads((folder / f"{operator}-{dtype}.json").read_text(encoding="ascii"))


def load(folder, operator, dtype):
    return testing.load_vectors(folder / f"{operator}-{dtype}.json")


def bits(array):
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}").reshape(array.shape)


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.json"))}


def originals(operator, dtype):
    return {
        case.id: case
        for case in remembered(floating_dtype(dtype), 1.0 if operator == "reinmax" else 0.6, OPERATORS[operator])
    }


# ------------------------------------------------------------------------------------------------ the files


def test_digest(folder):
    lines = (ROOT / "tests" / "vectors.sha256").read_text().splitlines()
    committed = {name: digest for digest, name in (line.split() for line in lines)}
    assert digests(folder) == committed, "if the cases were meant to change, renew the digest: see the top of this file"


@pytest.mark.parametrize(
    "dtypes",
    [("float32",), pytest.param(("float16", "bfloat16", "float64"), marks=pytest.mark.slow)],
    ids=["one", "all"],
)
def test_the_same_bytes_with_plain_instructions(dtypes, folder, tmp_path):
    fast = " ".join(name for name in __cpu_dispatch__ if __cpu_features__[name])
    environment = {**ENVIRONMENT, "NPY_DISABLE_CPU_FEATURES": fast, "PYTHONHASHSEED": "1", "PYTHONUTF8": "0"}
    command = [*children.python(), "-m", "npselect", "vectors", "--out", str(tmp_path)]
    command += [f"--dtype={dtype}" for dtype in dtypes]
    subprocess.run(command, check=True, capture_output=True, env=environment)
    written = digests(tmp_path)
    assert len(written) == len(OPERATORS) * len(dtypes) + 1
    assert written.items() <= digests(folder).items()


def test_sizes(folder):
    paths = list(folder.glob("*.json"))
    assert len(paths) == len(FILES) + 1
    assert sum(path.stat().st_size for path in paths) < 28e6  # else lower LARGEST
    for path in paths:
        whole = path.read_bytes()
        assert whole.isascii()
        assert whole.endswith(b"}\n")
        assert b"\r" not in whole


@pytest.mark.parametrize(("operator", "dtype"), FILES)
def test_what_is_in_a_file(folder, operator, dtype):
    cases = read(folder, operator, dtype)["cases"]
    names = {case["id"].removeprefix(f"{PREFIXES[operator]}{dtype}/").partition("[:")[0] for case in cases}
    every = {case.name for case in originals(operator, dtype).values()}
    small = {case.name for case in originals(operator, dtype).values() if case.logits.size <= LARGEST}
    assert names <= every
    assert small <= names
    assert {"digits/1797x10", "random/K=1000", "random/K=1024", "edge/NaN", "edge/temp=nan", "axis/0 of 2"} <= names
    assert {"where/random", "where/axis=1", "edge/-inf", "edge/ties", "edge/K=0", "edge/no rows"} <= names
    flags = [set(case["flags"]) for case in cases]
    assert {"error", "strict"} in flags
    assert {"strict"} in flags
    assert {"f16": 4096, "bf16": 4096}.get(cases[0]["temp"].partition(":")[0], 1025) in {
        case["shape"][-1] for case in cases
    }
    for case in cases:
        assert case["note"]
        assert ("strict" in case["flags"]) == (
            case["judged"] is None or case["judged"] != [] == [*filter(None, case["judged"])]
        )
        assert (case["error"] is None) == ("error" not in case["flags"])
        if case["near_ties"] is not None:
            assert all(judged or not near for judged, near in zip(case["judged"], case["near_ties"], strict=True))


def test_near_ties_are_where_rounded_probabilities_err(folder):
    found = 0
    for case in read(folder, "straight_through", "bfloat16")["cases"]:
        if "strict" in case["flags"] or case["where"] is not None or case["axis"] != -1:
            continue
        logits = values(case["logits"], floating_dtype("bfloat16")).reshape(case["shape"])
        with np.errstate(invalid="ignore"):
            e = np.exp((logits - logits.max(axis=-1, keepdims=True, initial=-np.inf)) / number(case["temp"]))
            p = (e / e.sum(axis=-1, keepdims=True)).astype(logits.dtype)
        right = np.argmax(values(case["mask"], logits.dtype).reshape(case["shape"]) == 1, axis=-1)
        errs = (np.argmax(p, axis=-1) != right) & np.array(case["judged"], np.bool_)
        assert not np.any(errs & ~np.array(case["near_ties"], np.bool_)), case["id"]
        found += np.sum(errs)
    assert found > 0


# ------------------------------------------------------------------------------------------------ the schema


@pytest.fixture(scope="module")
def validator(folder):
    schema = json.loads((folder / "vectors.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("operator", "dtype"), FILES)
def test_schema_accepts(folder, validator, operator, dtype, every):
    """Every so many cases: of numbers, a validator takes seconds."""
    whole = read(folder, operator, dtype)
    validator.validate({**whole, "cases": whole["cases"][::every]})


def tampered(change):
    """Of three cases, ``edge/ties``, ``edge/temp=nan`` and ``where/shared``, something is changed."""
    return pytest.param(change, id=change.__name__)


def wrong_width(whole, ties, error, where):
    ties["logits"][3] = "f32:3f8000000"
    return "case 'float32/edge/ties': logits[3] is 'f32:3f8000000'; expected 'f32:' and 8 digits"


def wrong_prefix(whole, ties, error, where):
    ties["grad_logits"][0] = "f16:3c00"
    return "case 'float32/edge/ties': grad_logits[0] is 'f16:3c00'; expected 'f32:'"


def upper_case(whole, ties, error, where):
    ties["mask"][0] = "f32:3F800000"
    return "case 'float32/edge/ties': mask[0] is 'f32:3F800000'"


def a_number(whole, ties, error, where):
    where["grad_mask"][1] = 1.0
    return "case 'float32/where/shared': grad_mask[1] is 1.0"


def bound_in_float32(whole, ties, error, where):
    ties["bound"][0] = "f32:3f800000"
    return "case 'float32/edge/ties': bound[0] is 'f32:3f800000'; expected 'f64:' and 16 digits"


def temp_is_a_number(whole, ties, error, where):
    ties["temp"] = 0.6
    return "case 'float32/edge/ties': temp is 0.6; expected a string"


def temp_in_float64(whole, ties, error, where):
    ties["temp"] = "f64:3fe3333333333333"
    return "case 'float32/edge/ties': temp is 'f64:3fe3333333333333'; expected 'f32:'"


def no_grad_mask(whole, ties, error, where):
    del where["grad_mask"]
    return "case 'float32/where/shared': has no 'grad_mask'"


def no_id(whole, ties, error, where):
    del ties["id"]
    return "case number 0: has no 'id'"


def no_cases(whole, ties, error, where):
    del whole["cases"]
    return "json: has no 'cases'"


def no_object(whole, ties, error, where):
    whole["cases"][1] = None
    return "case number 1: is null; expected an object"


def unknown_key(whole, ties, error, where):
    ties["comment"] = "mine"
    return "case 'float32/edge/ties': has 'comment', which npselect-vectors/1 does not know"


def another_version(whole, ties, error, where):
    whole["schema"] = "npselect-vectors/2"
    return "json: schema is 'npselect-vectors/2'; this npselect reads 'npselect-vectors/1'"


def no_version(whole, ties, error, where):
    del whole["schema"]
    return "json: has no 'schema'"


def another_operator(whole, ties, error, where):
    whole["operator"] = "sparsemax"
    return "json: operator is 'sparsemax'; expected one of straight_through, gumbel_softmax"


def another_dtype(whole, ties, error, where):
    whole["dtype"] = "float64"
    return "case 'float32/edge/ties': id is \"float32/edge/ties\"; expected it to begin with 'float64/edge/'"


def no_such_dtype(whole, ties, error, where):
    whole["dtype"] = "float8"
    return "json: dtype is 'float8'"


def id_of_an_unknown_group(whole, ties, error, where):
    ties["id"] = ties["id"].replace("edge", "ridge")
    ties["group"] = "edge"
    return "id is \"float32/ridge/ties\"; expected it to begin with 'float32/edge/'"


def noise_without_an_operator(whole, ties, error, where):
    ties["noise"] = ties["logits"]
    return "which does not fit operator straight_through"


def answer_to_an_error(whole, ties, error, where):
    error["mask"] = error["logits"]
    return "case 'float32/edge/temp=nan': mask is"


def no_answer(whole, ties, error, where):
    ties["judged"] = None
    return "case 'float32/edge/ties': judged is null and error is null"


def another_error(whole, ties, error, where):
    error["error"] = "KeyError"
    return "case 'float32/edge/temp=nan': error is \"KeyError\""


def error_without_a_flag(whole, ties, error, where):
    error["flags"] = []
    return "case 'float32/edge/temp=nan': error is \"ValueError\" and flags is []"


def flag_is_a_number(whole, ties, error, where):
    ties["flags"] = [3]
    return "case 'float32/edge/ties': flags is [3]"


def axis_is_true(whole, ties, error, where):
    ties["axis"] = True
    return "case 'float32/edge/ties': axis is true; expected an integer"


def scalar(whole, ties, error, where):
    ties["shape"] = []
    return "case 'float32/edge/ties': shape is []; expected at least one length"


def negative_length(whole, ties, error, where):
    ties["shape"] = [-6, -4]
    return "case 'float32/edge/ties': shape is [-6, -4]"


def where_is_a_number(whole, ties, error, where):
    where["where"][2] = 1
    return "case 'float32/where/shared': where[2] is 1; expected true or false"


def judged_is_null(whole, ties, error, where):
    ties["judged"][2] = None
    return "case 'float32/edge/ties': judged[2] is null; expected true or false"


# what no schema can say


def same_id_twice(whole, ties, error, where):
    whole["cases"].append(ties)
    return "case 'float32/edge/ties': stands twice"


def one_too_few(whole, ties, error, where):
    del ties["mask"][5]
    return "case 'float32/edge/ties': mask has 23 items; shape [6, 4] expects 24"


def other_shape(whole, ties, error, where):
    ties["shape"] = [10**30, 4]
    return "case 'float32/edge/ties': logits has 24 items; shape"


def row_too_many(whole, ties, error, where):
    ties["judged"].append(True)
    return "case 'float32/edge/ties': judged has 7 items"


def where_too_short(whole, ties, error, where):
    where["where"] = where["where"][:12]
    return "case 'float32/where/shared': where has 12 items"


def no_such_axis(whole, ties, error, where):
    ties["axis"] = 2
    return "case 'float32/edge/ties': axis is 2; expected one of the 2 of shape [6, 4]"


def negative_bound(whole, ties, error, where):
    ties["bound"][0] = "f64:bff0000000000000"
    return "case 'float32/edge/ties': bound has a negative number"


BY_SCHEMA = [
    wrong_width, wrong_prefix, upper_case, a_number, bound_in_float32, temp_is_a_number, temp_in_float64, no_grad_mask,
    no_id, no_cases, no_object, unknown_key, another_version, no_version, another_operator, another_dtype,
    no_such_dtype, id_of_an_unknown_group, noise_without_an_operator, answer_to_an_error, no_answer, another_error,
    error_without_a_flag, flag_is_a_number, axis_is_true, scalar, negative_length, where_is_a_number, judged_is_null,
]  # fmt: skip
BEYOND_SCHEMA = [same_id_twice, one_too_few, other_shape, row_too_many, where_too_short, no_such_axis, negative_bound]


def index_is_missing(entry):
    del entry["index"]
    return "has no 'index'"


def index_is_a_float(entry):
    entry["index"][1] = 1.0
    return "index[1] is 1.0; expected a candidate of its row, or -1"


def index_is_true(entry):
    entry["index"][1] = True
    return "index[1] is true"


def index_is_minus_two(entry):
    entry["index"][1] = -2
    return "index[1] is -2"


def index_is_too_large(entry):
    entry["index"][1] = 4
    return "index[1] is 4"


def index_too_short(entry):
    del entry["index"][0]
    return "index has 5 items"


@pytest.mark.parametrize(
    "change",
    [
        tampered(change)
        for change in (
            index_is_missing,
            index_is_a_float,
            index_is_true,
            index_is_minus_two,
            index_is_too_large,
            index_too_short,
        )
    ],
)
def test_tampered_index(folder, tmp_path, validator, change):
    whole = read(folder, "reinmax", "float32")
    whole["cases"] = [entry] = [case for case in whole["cases"] if case["id"] == "reinmax/float32/edge/ties"]
    validator.validate(whole)
    message = change(entry)
    path = tmp_path / "tampered.json"
    path.write_text(json.dumps(whole))
    with pytest.raises(ValueError, match=r"case 'reinmax/float32/edge/ties': ") as raised:
        testing.load_vectors(path)
    assert message in str(raised.value)
    if change in (index_is_missing, index_is_true, index_is_minus_two):
        assert not validator.is_valid(whole)


def test_an_index_belongs_to_reinmax(folder, tmp_path, validator):
    whole = read(folder, *SMALL)
    whole["cases"] = whole["cases"][:1]
    whole["cases"][0]["index"] = [0] * whole["cases"][0]["shape"][0]
    (tmp_path / "tampered.json").write_text(json.dumps(whole))
    assert not validator.is_valid(whole)
    with pytest.raises(ValueError, match="has 'index', which npselect-vectors/1 does not know"):
        testing.load_vectors(tmp_path / "tampered.json")


@pytest.mark.parametrize("change", [tampered(change) for change in BY_SCHEMA + BEYOND_SCHEMA])
def test_tampered(folder, tmp_path, validator, change):
    whole = read(folder, *SMALL)
    named = {case["id"]: case for case in whole["cases"]}
    cases = [named[f"float32/{name}"] for name in ("edge/ties", "edge/temp=nan", "where/shared")]
    whole["cases"] = cases[:]
    validator.validate(whole)
    message = change(whole, *cases)
    path = tmp_path / "tampered.json"
    path.write_text(json.dumps(whole))
    with pytest.raises(ValueError, match=r"tampered\.json: ") as raised:
        testing.load_vectors(path)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    if change in BY_SCHEMA:
        assert not validator.is_valid(whole)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "is not JSON: "),
        (b"", "is not JSON: "),
        (b"\xff\xfe\xfd", "is not JSON: "),
        (b"[" * 10**5, "is not JSON: "),
        (b"[1]", "is [1]; expected an object"),
        (b"NaN", "is NaN; expected an object"),
        (b'{"schema": 1}', "schema is 1; this npselect reads"),
    ],
)
def test_not_vectors_at_all(copy, text, message):
    copy.write_bytes(copy.read_bytes()[:100_000] if text is None else text)  # truncated
    with pytest.raises(ValueError, match=r"straight_through-float32\.json: ") as raised:
        testing.load_vectors(copy)
    assert message in str(raised.value)


# ------------------------------------------------------------------------------------------------ bit patterns

SPECIAL = {  # -0, infinities, the least and the largest subnormal, the least normal; NaN quiet, signalling, with a load
    "float32": [0x80000000, 0x7F800000, 0xFF800000, 1, 0x807FFFFF, 0x00800000, 0x7FC00000, 0xFF800001, 0x7FC0BEEF],
    "float64": [1 << 63, 0x7FF << 52, 0xFFF << 52, 1, (1 << 52) - 1, 1 << 52, 0x7FF8 << 48, (0xFFF << 52) + 1],
}
NANS = {
    "float16": (0x7C00, 0x7E00),
    "bfloat16": (0x7F80, 0x7FC0),
    "float32": (0x7F800000, 0x7FC00000),
    "float64": (0x7FF << 52, 0x7FF8 << 48),
}


@pytest.mark.parametrize("dtype", testing.DTYPES)
def test_every_pattern_comes_back(dtype):
    form = floating_dtype(dtype)
    numbers = SPECIAL.get(dtype, range(2**16))
    array = np.array([*numbers], f"u{form.itemsize}").view(form)
    written = patterns(array)
    assert [int(item.partition(":")[2], 16) for item in written] == [*numbers]
    back = values(written, form)
    assert back.dtype == form
    assert bits(back).tolist() == [*numbers]
    infinity, nan = NANS[dtype]
    results = [int(item.partition(":")[2], 16) for item in patterns(array, canonical=True)]
    assert results == [nan if n % (1 << (8 * form.itemsize - 1)) > infinity else n for n in numbers]


def test_patterns_are_in_c_order():
    array = np.asfortranarray(np.array([[1, 2], [3, 4]], np.float16))
    assert (
        patterns(array)
        == patterns(np.array([1, 2, 3, 4], np.float16))
        == ["f16:3c00", "f16:4000", "f16:4200", "f16:4400"]
    )
    assert patterns(array[:, ::-1].T) == ["f16:4000", "f16:4400", "f16:3c00", "f16:4200"]
    assert patterns(np.zeros((2, 0), np.float16)) == []


@pytest.mark.parametrize(
    "wrong", [" f16:3c00", "f16:3c00 ", "f16:3c00\n", "f16:3c0", "f16:3c0g", "f16: 3c0", "f16:3c\u0660\u0660", None, 3]
)
def test_no_pattern(wrong):
    with pytest.raises(ValueError, match=r"\[1\] is "):
        values(["f16:3c00", wrong], np.dtype(np.float16))


# ------------------------------------------------------------------------------------------------ another reader


def number(pattern):
    """A float of Python, without NumPy or npselect."""
    prefix, _, digits = pattern.partition(":")
    if prefix == "bf16":
        prefix, digits = "f32", f"{digits}0000"
    return struct.unpack({"f16": ">e", "f32": ">f", "f64": ">d"}[prefix], bytes.fromhex(digits))[0]


@pytest.mark.parametrize(("operator", "dtype"), FILES)
def test_an_independent_reader_sees_the_same_numbers(folder, operator, dtype):
    cases = originals(operator, dtype)
    for entry in read(folder, operator, dtype)["cases"]:
        case = cases[entry["id"].partition("[:")[0]]
        rows = slice(entry["shape"][0])  # of a case that was cut
        assert ("index" in entry) == (operator == "reinmax")
        if case.index is not None:
            assert entry["index"] == case.index.ravel().tolist()[: len(entry["index"])]
        for key in ("logits", "grad_mask", "noise", "mask", "grad_logits"):
            if entry[key] is None:
                assert key == "noise" or entry["error"]
                continue
            expected = getattr(case, key)[rows].astype(np.float64).ravel()
            numbers = np.array([number(item) for item in entry[key]], np.float64)
            assert np.array_equal(numbers, expected, equal_nan=True)
            assert np.array_equal(np.signbit(numbers)[~np.isnan(numbers)], np.signbit(expected)[~np.isnan(numbers)])
        assert np.array_equal(number(entry["temp"]), case.temp, equal_nan=True)
        assert entry["axis"] == case.axis
        if entry["where"] is not None:
            assert entry["where"] == np.broadcast_to(case.where, case.logits.shape)[rows].ravel().tolist()


def exact(logits, grad_mask, temp):
    """The gradient of one row by mpmath."""
    with mpmath.workdps(60):
        e = [mpmath.exp((mpmath.mpf(x) - max(logits)) / temp) for x in logits]
        p = [x / mpmath.fsum(e) for x in e]
        mean = mpmath.fsum(x * g for x, g in zip(p, grad_mask, strict=True))
        return [x * (g - mean) / temp for x, g in zip(p, grad_mask, strict=True)]


@pytest.mark.parametrize("dtype", testing.DTYPES)
@pytest.mark.parametrize("operator", ["straight_through", "gumbel_softmax"])
def test_gradients_by_mpmath(folder, operator, dtype):
    case = next(case for case in read(folder, operator, dtype)["cases"] if "/random/K=10[:" in case["id"])
    arrays = {key: [number(x) for x in case[key]] for key in ("logits", "grad_mask", "mask", "grad_logits", "bound")}
    noise = [0.0] * len(arrays["logits"]) if case["noise"] is None else [number(x) for x in case["noise"]]
    w = [a + b for a, b in zip(arrays["logits"], noise, strict=True)]
    rows, choices = case["shape"]
    for row in range(rows):
        at = slice(row * choices, (row + 1) * choices)
        gradient = exact(w[at], arrays["grad_mask"][at], number(case["temp"]))
        for right, stored, bound in zip(gradient, arrays["grad_logits"][at], arrays["bound"][at], strict=True):
            error, unit = (
                abs(right - mpmath.mpf(stored)),
                float(tolerance.ulp(np.asarray(stored), floating_dtype(dtype))),
            )
            assert error <= 0.501 * unit
            assert unit / 2 <= bound
        assert arrays["mask"][at] == [float(choice == w[at].index(max(w[at]))) for choice in range(choices)]


@pytest.mark.parametrize("dtype", testing.DTYPES)
def test_gradients_of_reinmax_by_mpmath(folder, dtype):
    """As it is published, at temperatures of 1 and of 2."""
    for name in ("K=10", "temp doubled"):
        case = next(case for case in read(folder, "reinmax", dtype)["cases"] if f"/random/{name}[:" in case["id"])
        arrays = {key: [number(x) for x in case[key]] for key in ("logits", "grad_mask", "mask", "grad_logits")}
        rows, choices = case["shape"]
        for row, index in zip(range(rows), case["index"], strict=True):
            w, g, mask, stored = (arrays[key][row * choices : (row + 1) * choices] for key in arrays)
            assert mask == [float(choice == index) for choice in range(choices)]
            with mpmath.workdps(60):
                p, q = (softmax(w, temp) for temp in (1, number(case["temp"])))
                middle = [(x + hot) / 2 for x, hot in zip(q, mask, strict=True)]
                terms = zip(product(middle, g), product(p, g), strict=True)
                for right, x in zip((2 * a - b / 2 for a, b in terms), stored, strict=True):
                    assert abs(right - x) <= 0.501 * float(tolerance.ulp(np.asarray(x), floating_dtype(dtype)))


def softmax(w, temp):
    e = [mpmath.exp((mpmath.mpf(x) - max(w)) / temp) for x in w]
    return [x / mpmath.fsum(e) for x in e]


def product(x, g):
    mean = mpmath.fsum(a * b for a, b in zip(x, g, strict=True))
    return [a * (b - mean) for a, b in zip(x, g, strict=True)]


# ------------------------------------------------------------------------------------------------ reading back


@pytest.mark.parametrize(("operator", "dtype"), FILES)
def test_round_trip(folder, operator, dtype):
    cases = originals(operator, dtype)
    loaded = load(folder, operator, dtype)
    for case in loaded:
        original = cases[case.id.partition("[:")[0]]
        assert case.note == original.note
        assert set(case.flags) - {"strict"} == set(original.flags)
        assert case.axis == original.axis
        assert np.array_equal(case.temp, original.temp, equal_nan=True)
        assert case.group == original.group
        rows = slice(len(case.logits))
        for key in ("logits", "grad_mask", "noise", "mask", "grad_logits"):
            if "error" in case.flags and key in ("mask", "grad_logits"):
                with pytest.raises(ValueError, match=r"."):
                    getattr(case, key)
                continue
            read, expected = getattr(case, key), getattr(original, key)
            if expected is None:
                assert read is None
                continue
            assert read.dtype == expected.dtype == floating_dtype(dtype)
            assert read.shape == expected[rows].shape
            same = bits(read) == bits(expected[rows])
            assert np.all(same | np.isnan(read) & np.isnan(expected[rows]))
            if key in ("logits", "grad_mask", "noise"):
                assert np.all(same)
        if original.index is None:
            assert case.index is None
        else:
            assert case.index.dtype == np.int64
            cut = case.index.shape != original.index.shape
            assert np.array_equal(case.index, original.index[rows] if cut else original.index)
        if original.where is None:
            assert case.where is None
        else:
            assert np.array_equal(case.where, np.broadcast_to(original.where, original.logits.shape)[rows])
        if "error" not in case.flags:
            bound = original.bound[rows]
            assert np.array_equal(np.isnan(case.bound), np.isnan(bound))
            assert not np.any(case.bound < bound)
            assert not np.any(case.bound > bound * (1 + 2.0**-15))
            judged = original.judged(Profile("standard"))
            assert np.array_equal(
                case.judged(Profile("standard")), judged if len(case.w) == len(judged) else judged[rows]
            )


def test_answers_are_read_not_computed(folder, monkeypatch):
    def never(*arguments, **options):
        raise AssertionError("called")

    for name in ("forward", "backward"):
        monkeypatch.setattr(straight_through, name, never)
        monkeypatch.setattr(gumbel_softmax, name, never)
        monkeypatch.setattr(reinmax, name, never)
    monkeypatch.setattr(tolerance, "backward", never)
    monkeypatch.setattr(tolerance_reinmax, "reinmax", never)
    for case in testing.load_vectors(folder):
        if "error" not in case.flags:
            case.check_forward(case.mask)
            case.check_backward(case.grad_logits)
            assert case.answer("forward") is case.mask
            assert case.answer("backward") is case.grad_logits


@pytest.mark.parametrize("profile", ["standard", "strict"])
@pytest.mark.parametrize(("operator", "dtype"), FILES)
def test_npselect_passes(folder, operator, dtype, profile):
    module = OPERATORS[operator]
    for case in load(folder, operator, dtype):
        if "error" in case.flags:
            with pytest.raises(ValueError, match=r"."):
                module.forward(case.logits, case.temp, **case.options)
            continue
        case.check_forward(module.forward(case.logits, case.temp, **case.options), profile)
        case.check_backward(module.backward(case.grad_mask, case.logits, case.temp, **case.options), profile)


@pytest.mark.parametrize(("operator", "dtype"), FILES)
def test_what_is_beyond_the_bound_is_refused(folder, operator, dtype):
    refused = 0
    for case in load(folder, operator, dtype):
        if "error" in case.flags or not np.any(case.judged(Profile("standard"))):
            continue
        row = int(np.argmax(case.judged(Profile("standard"))))
        at = case.position(row, case.logits.shape[case.axis] - 1)
        mask, grad_logits = case.mask.copy(), case.grad_logits.copy()
        mask[at] = np.nan
        with pytest.raises(AssertionError, match=r"forward\["):
            case.check_forward(mask)
        expected = float(grad_logits[at])
        with np.errstate(over="ignore"):
            for sign in (-1.0, 1.0):
                grad_logits[at] = expected + sign * (0.4 * case.bound[at])
                if abs(float(grad_logits[at]) - expected) <= case.bound[at]:
                    case.check_backward(grad_logits)
                grad_logits[at] = expected + sign * 3.0 * max(
                    case.bound[at], tolerance.ulp(np.asarray(expected), case.logits.dtype)
                )
                with pytest.raises(AssertionError, match=r"backward\["):
                    case.check_backward(grad_logits)
                refused += 1
    assert refused > 60


@pytest.mark.parametrize("operator", OPERATORS)
def test_check_takes_them(folder, operator):
    cases = testing.load_vectors(folder)
    module = OPERATORS[operator]
    for profile in ("standard", "strict"):
        report = testing.check(module, operator=module, dtypes=testing.DTYPES, profile=profile, cases=cases)
        assert report.ok, str(report)

    def forgets_temp(grad_mask, logits, temp, **options):
        result = module.backward(grad_mask, logits, temp, **options)
        return (result * np.float32(temp)).astype(logits.dtype)

    wrong = SimpleNamespace(forward=module.forward, backward=forgets_temp)
    report = testing.check(wrong, operator=module, dtypes=testing.DTYPES, cases=cases)
    assert not report.ok


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_sum_that_stagnates_is_found(folder, dtype):
    def total(x):
        sums = np.zeros((*x.shape[:-1], 1), x.dtype)
        for i in range(x.shape[-1]):
            sums = sums + x[..., i : i + 1]
        return sums

    def backward(g, logits, temp):
        temp = logits.dtype.type(temp)
        e = np.exp((logits - logits.max(axis=-1, keepdims=True)) / temp)
        p = e / total(e)
        return p * (g - total(p * g)) / temp

    found = set()
    for case in load(folder, "straight_through", dtype):
        if not case.options and case.group == "random":
            try:
                case.check_backward(backward(case.grad_mask, case.logits, case.temp))
            except AssertionError:
                found.add(case.name)
    assert "random/K=4096, nearly equal[:1]" in found


def test_a_bound_of_ones_own(copy):
    """The stored bound is what counts, not the one that would be derived."""
    whole = json.loads(copy.read_text())
    entry = next(case for case in whole["cases"] if case["id"] == "float32/edge/large temp")
    entry["bound"] = ["f64:3ff0000000000000"] * 4
    copy.write_text(json.dumps(whole))
    case = next(case for case in testing.load_vectors(copy) if case.name == "edge/large temp")
    assert case.bound.tolist() == [[1.0] * 4]
    case.check_backward(case.grad_logits + np.float32(0.875))
    with pytest.raises(AssertionError):
        case.check_backward(case.grad_logits + np.float32(1.25))
    with pytest.raises(AssertionError):
        case.check_backward(case.grad_logits + np.float32(0.875), profile="strict")


def test_loading_a_folder(folder, tmp_path):
    assert len(testing.load_vectors(str(folder))) == sum(len(load(folder, *file)) for file in FILES)
    with pytest.raises(ValueError, match=r"holds no vectors, such as straight_through-float32\.json"):
        testing.load_vectors(tmp_path)
    with pytest.raises(FileNotFoundError):
        testing.load_vectors(tmp_path / "missing.json")
    for name in ("straight_through-float32.json", "straight_through-float64.json"):
        shutil.copy(folder / "straight_through-float32.json", tmp_path / name)
    (tmp_path / "package.json").write_text("{}")
    with pytest.raises(ValueError, match=r"float64\.json: case 'float32/.*': stands here and in .*float32\.json"):
        testing.load_vectors(tmp_path)


# ------------------------------------------------------------------------------------------------ writing


def write(folder, **options):
    return testing.write_vectors(folder, **{"dtypes": "float32", "operators": straight_through} | options)


def test_names_and_order(tmp_path):
    out = tmp_path / "new" / "folder"
    seen = []
    paths = write(out, dtypes=iter([np.float32, "float16", np.dtype("f4")]), progress=lambda *step: seen.append(step))
    assert paths == [out / "straight_through-float16.json", out / "straight_through-float32.json"]
    assert sorted(path.name for path in out.iterdir()) == [*(path.name for path in paths), "vectors.schema.json"]
    total = len(seen) - 1
    assert [step[:2] for step in seen] == [(done, total) for done in range(total + 1)]
    assert seen[0][2] == "float16/digits/1797x10"
    assert seen[-1][2] == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtypes": "float8"}, "dtype is 'float8'; it takes one of"),
        ({"dtypes": ["float32", np.int8]}, "it takes one of 'float16'"),
        ({"dtypes": []}, "dtypes is empty; it takes some of float16, bfloat16, float32, float64"),
        ({"operators": ()}, "operators is empty; it takes some of straight_through, gumbel_softmax"),
        ({"operators": [straight_through, np]}, "operator is <module 'numpy'"),
        ({"operators": "straight_through"}, "operator is 'straight_through'; it takes npselect.straight_through, "),
        ({"operators": [None]}, "operator is None; it takes"),
    ],
)
def test_bad_arguments(tmp_path, options, message):
    with pytest.raises(ValueError, match=r"it takes") as raised:
        write(tmp_path, **options)
    assert message in str(raised.value)
    assert not [*tmp_path.iterdir()]


def test_bfloat16_without_ml_dtypes(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install ml_dtypes"):
        testing.write_vectors(tmp_path)
    assert not [*tmp_path.iterdir()]
    assert write(tmp_path, dtypes="float16")
    with pytest.raises(ModuleNotFoundError, match=r"pip install ml_dtypes"):
        load(folder, "straight_through", "bfloat16")


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_what_was_there_stays_if_writing_fails(tmp_path, monkeypatch, error):
    (path,) = write(tmp_path)
    path.write_text("old")
    whole = Path.write_bytes

    def half(self, data):
        if "float32" not in self.name:
            return whole(self, data)
        whole(self, data[: len(data) // 2])
        raise error

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(type(error)):
        write(tmp_path)
    assert path.read_text() == "old"
    assert sorted(file.name for file in tmp_path.iterdir()) == [path.name, "vectors.schema.json"]


def test_files_are_as_others_are(tmp_path):
    (tmp_path / "touched").touch()
    (path,) = write(tmp_path)
    assert path.stat().st_mode == (tmp_path / "touched").stat().st_mode


# ------------------------------------------------------------------------------------------------ the command


def cannot_run(capsys, *arguments):
    """The one line on stderr."""
    assert main(["vectors", *map(str, arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("npselect: error: ")
    assert err.count("\n") == 1
    return err


def test_command(folder, tmp_path, capsys):
    out = tmp_path / "out"
    dtypes = ["--dtype", "float32", "--dtype", "float16"]
    assert main(["vectors", "--out", str(out), *dtypes, "--operator", "gumbel_softmax"]) == 0
    lines, err = capsys.readouterr()
    assert err == ""
    names = ["gumbel_softmax-float16.json", "gumbel_softmax-float32.json"]
    assert sorted(path.name for path in out.iterdir()) == [*names, "vectors.schema.json"]
    expected = []
    for name in names:
        whole = (out / name).read_bytes()
        assert whole == (folder / name).read_bytes()
        count = len(json.loads(whole)["cases"])
        expected.append(
            [name, str(count), "cases", str(len(whole)), "bytes", "sha256", hashlib.sha256(whole).hexdigest()]
        )
    assert [line.split() for line in lines.splitlines()[:-1]] == expected
    assert lines.splitlines()[-1].endswith(f"bytes, and vectors.schema.json in {out}")


def test_command_by_default(folder, tmp_path, capsys):
    assert main(["vectors", "--out", str(tmp_path)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(FILES) + 1
    assert digests(tmp_path) == digests(folder)


def test_command_help(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["vectors", "--help"])
    assert ended.value.code == 0
    words = capsys.readouterr().out
    for option in ("--out DIR", "--dtype", "--operator"):
        assert option in words


def test_command_cannot_run(tmp_path, capsys, monkeypatch):
    (tmp_path / "file").touch()
    assert "required: --out" in cannot_run(capsys)
    assert f"--out {tmp_path / 'file'}: Not a directory" in cannot_run(capsys, "--out", tmp_path / "file")
    assert "Not a directory" in cannot_run(capsys, "--out", tmp_path / "file" / "folder")
    assert "invalid choice: 'int8'" in cannot_run(capsys, "--out", tmp_path, "--dtype", "int8")
    assert "invalid choice: 'sparsemax'" in cannot_run(capsys, "--out", tmp_path, "--operator", "sparsemax")

    def full(self, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", full)
        assert f"--out {tmp_path}: No space left on device" in cannot_run(capsys, "--out", tmp_path)
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    assert "pip install ml_dtypes" in cannot_run(capsys, "--out", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


_NOT_THE_SUPERUSER = """
import os, sys
from pathlib import Path
from npselect.cli import main
outer = Path(sys.argv[1])
# loads all modules, which others may not read
main(["vectors", "--out", str(outer / "open"), "--dtype", "bfloat16", "--operator", "straight_through"])
if os.geteuid() == 0:
    os.setuid(65534)
codes = [main(["vectors", "--out", str(path)]) for path in (outer / "closed", outer / "closed" / "x")]
assert codes == [2, 2], codes
"""


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="this system has no such permissions")
def test_command_may_not_write():
    """In a child that is not the superuser, who may write everywhere."""
    with tempfile.TemporaryDirectory() as outer:
        closed = Path(outer) / "closed"
        Path(outer).chmod(0o755)
        closed.mkdir(mode=0o555)
        command = [sys.executable, "-c", _NOT_THE_SUPERUSER, outer]
        done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
        assert done.returncode == 0, done.stderr
        lines = [f"npselect: error: --out {path}: Permission denied" for path in (closed, closed / "x")]
        assert done.stderr.splitlines() == lines


@pytest.mark.skipif(not Path("/proc").exists(), reason="a folder in which nobody may write exists on Linux alone")
def test_command_in_a_folder_of_the_system(capsys):
    assert "--out /proc: " in cannot_run(capsys, "--out", "/proc")


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
def test_command_interrupted(folder, tmp_path):
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += "from npselect.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "vectors", "--out", str(tmp_path)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    until = time.monotonic() + 30
    while not (tmp_path / "vectors.schema.json").exists() and time.monotonic() < until:
        time.sleep(0.002)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=30)
    assert (child.returncode, out, err) == (130, "", "npselect: interrupted\n")
    assert {path.suffix for path in tmp_path.iterdir()} == {".json"}
    assert digests(tmp_path).items() < digests(folder).items()
