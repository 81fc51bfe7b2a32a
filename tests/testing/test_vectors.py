"""The vectors: what is in the files, that they are the same everywhere, and that they read back.

``vectors.sha256`` holds the digest of each file; to renew it::

    d=$(mktemp -d); .venv/bin/python -m npselect vectors --out $d && (cd $d && sha256sum *.json) >tests/vectors.sha256
"""

from __future__ import annotations

import struct
import subprocess

import children
import mpmath
import numpy as np
import pytest
from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__
from written_vectors import ENVIRONMENT, FILES, OPERATORS, PREFIXES, ROOT, bits, digests, originals, read

from npselect import testing
from npselect.testing import tolerance
from npselect.testing.dtypes import floating_dtype
from npselect.testing.patterns import patterns, values
from npselect.testing.vectors import LARGEST

pytestmark = pytest.mark.usefixtures("remembered_vectors")

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
    assert sum(path.stat().st_size for path in paths) < 9e6 * len(OPERATORS)  # else lower LARGEST
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
        assert ("index" in entry) == (operator not in ("straight_through", "gumbel_softmax"))
        assert ("sample_noise" in entry) == (operator == "gumbel_rao")
        if case.index is not None:
            assert entry["index"] == case.index.ravel().tolist()[: len(entry["index"])]
        samples = [] if case.sample_noise is None else [*case.sample_noise]
        for found, one in zip(entry.get("sample_noise", []), samples, strict=True):
            assert_same(found, one[rows])
        for key in ("logits", "grad_mask", "noise", "mask", "grad_logits"):
            if entry[key] is None:
                assert key == "noise" or entry["error"]
            else:
                assert_same(entry[key], getattr(case, key)[rows])
        assert np.array_equal(number(entry["temp"]), case.temp, equal_nan=True)
        assert entry["axis"] == case.axis
        settings = entry.get("settings", {})
        numbers = {name: value if value == "adaptive" else number(value) for name, value in settings.items()}
        assert numbers == case.settings
        if entry["where"] is not None:
            assert entry["where"] == np.broadcast_to(case.where, case.logits.shape)[rows].ravel().tolist()


def assert_same(written, array):
    numbers, expected = np.array([number(item) for item in written], np.float64), array.astype(np.float64).ravel()
    assert np.array_equal(numbers, expected, equal_nan=True)
    assert np.array_equal(np.signbit(numbers)[~np.isnan(numbers)], np.signbit(expected)[~np.isnan(numbers)])


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


@pytest.mark.parametrize("dtype", testing.DTYPES)
def test_gradients_of_gumbel_rao_by_mpmath(folder, dtype):
    """The mean over samples of noisy logits given the index, by the exponential race."""
    cases = (case for case in read(folder, "gumbel_rao", dtype)["cases"] if case["group"] == "random")
    case = next(case for case in cases if len(case["sample_noise"]) > 1 and 5 < case["shape"][1] <= 64)
    arrays = {key: [number(x) for x in case[key]] for key in ("logits", "grad_mask", "grad_logits")}
    samples, temp = [[number(x) for x in one] for one in case["sample_noise"]], number(case["temp"])
    rows, choices = case["shape"]
    for row, index in zip(range(rows), case["index"], strict=True):
        at = slice(row * choices, (row + 1) * choices)
        w, g, stored = (arrays[key][at] for key in arrays)
        with mpmath.workdps(60):
            rates, terms = [mpmath.exp(x) for x in w], []
            for noise in samples:
                clocks = [mpmath.exp(-mpmath.mpf(x)) for x in noise[at]]
                first = clocks[index] / mpmath.fsum(rates)
                arrivals = [first + (k != index) * clocks[k] / rates[k] for k in range(choices)]
                terms.append(exact([-mpmath.log(x) for x in arrivals], g, temp))
            for right, x in zip(map(mpmath.fsum, zip(*terms, strict=True)), stored, strict=True):
                error = abs(right / len(samples) - x)
                assert error <= 0.501 * float(tolerance.ulp(np.asarray(x), floating_dtype(dtype)))


def softmax(w, temp):
    e = [mpmath.exp((mpmath.mpf(x) - max(w)) / temp) for x in w]
    return [x / mpmath.fsum(e) for x in e]


def product(x, g):
    mean = mpmath.fsum(a * b for a, b in zip(x, g, strict=True))
    return [a * (b - mean) for a, b in zip(x, g, strict=True)]
