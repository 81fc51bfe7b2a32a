"""The schema of the vectors: it accepts them, and loading refuses what was tampered with."""

from __future__ import annotations

import json

import jsonschema
import pytest
from written_vectors import FILES, OPERATORS, SMALL, read

from npselect import testing

pytestmark = pytest.mark.usefixtures("remembered_vectors")


@pytest.fixture(scope="module")
def validator(folder):
    schema = json.loads((folder / "vectors.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize(
    ("operator", "dtype", "every"),
    [
        *((*file, 7) for file in FILES),
        *(pytest.param(name, "float32", 1, marks=pytest.mark.slow) for name in OPERATORS),
    ],
)
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


def test_an_index_belongs_to_who_takes_one(folder, tmp_path, validator):
    whole = read(folder, *SMALL)
    whole["cases"] = whole["cases"][:1]
    whole["cases"][0]["index"] = [0] * whole["cases"][0]["shape"][0]
    (tmp_path / "tampered.json").write_text(json.dumps(whole))
    assert not validator.is_valid(whole)
    with pytest.raises(ValueError, match="has 'index', which npselect-vectors/1 does not know"):
        testing.load_vectors(tmp_path / "tampered.json")


SETTINGS = {
    "is no number": ({"gap": "large"}, "settings['gap'] is 'large'; expected 'f64:' and 16 digits"),
    "of another": ({"unimix": "f64:3fe0000000000000"}, "settings has 'unimix', which operator gapped does not take"),
    "of nobody": ({"margin": "f64:3fe0000000000000"}, "settings has 'margin', which operator gapped does not take"),
    "is no object": ([], "settings is []; expected an object"),
    "is a number of JSON": ({"gap": 1.0}, "settings['gap'] is 1.0"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_tampered_settings(folder, tmp_path, validator, name):
    whole = read(folder, "gapped", "float32")
    named = {case["id"]: case for case in whole["cases"]}
    whole["cases"] = [named["gapped/float32/setting/gap=adaptive, where"]]
    assert whole["cases"][0]["settings"] == {"gap": "adaptive"}
    validator.validate(whole)
    whole["cases"][0]["settings"], message = SETTINGS[name]
    path = tmp_path / "tampered.json"
    path.write_text(json.dumps(whole))
    with pytest.raises(ValueError, match=r"case 'gapped/float32/setting/gap=adaptive, where': ") as raised:
        testing.load_vectors(path)
    assert message in str(raised.value)
    if name != "of another":
        assert not validator.is_valid(whole)


SAMPLES = {
    "is missing": (lambda entry: entry.pop("sample_noise"), "has no 'sample_noise'"),
    "is empty": (lambda entry: entry.update(sample_noise=[]), "sample_noise is []; expected at least one array"),
    "is flat": (lambda entry: entry.update(sample_noise=entry["sample_noise"][0]), "; expected an array"),
    "is too short": (
        lambda entry: entry["sample_noise"][0].pop(),
        "sample_noise[0] has 23 items; shape [6, 4]",
    ),
    "is of float64": (
        lambda entry: entry["sample_noise"][0].__setitem__(1, "f64:3fe0000000000000"),
        "sample_noise[0][1] is 'f64:3fe0000000000000'; expected 'f32:'",
    ),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_tampered_noise_of_samples(folder, tmp_path, validator, name):
    whole = read(folder, "gumbel_rao", "float32")
    (entry,) = whole["cases"] = [case for case in whole["cases"] if case["id"] == "gumbel_rao/float32/edge/ties"]
    validator.validate(whole)
    change, message = SAMPLES[name]
    change(entry)
    path = tmp_path / "tampered.json"
    path.write_text(json.dumps(whole))
    with pytest.raises(ValueError, match=r"case 'gumbel_rao/float32/edge/ties': ") as raised:
        testing.load_vectors(path)
    assert message in str(raised.value)
    if name != "is too short":
        assert not validator.is_valid(whole)


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
