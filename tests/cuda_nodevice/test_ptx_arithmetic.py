"""The arithmetic of the interpreter of PTX (`tests/ptx`) beside exact fractions, and wrong roundings noticed."""

import itertools
import math
from fractions import Fraction
from types import SimpleNamespace

import mpmath
import numpy as np
import pytest
from ptx.operations import OPERATIONS, TYPES
from ptx.rounding import is_nearest


def hard(kind):
    """Numbers of every size: the ends of the format, subnormals, neighbours of one, random bits."""
    dtype = TYPES[kind]
    info = np.finfo(dtype)
    bits = np.random.default_rng(1).integers(0, 2 ** (8 * dtype.itemsize), 40, dtype=f"u{dtype.itemsize}")
    few = [0, info.smallest_subnormal, info.tiny - info.smallest_subnormal, info.tiny, 1, 1 + info.eps, 3, 1 / 3]
    few += [1 - info.epsneg, info.max, np.inf, np.nan, 5 * info.smallest_subnormal, 2 / 3, 1e-20, 3e19]
    numbers = np.concatenate([np.array(few, dtype), bits.view(dtype)])
    return np.concatenate([numbers, -numbers])


def applied(opcode, *columns):
    operation = OPERATIONS[opcode]
    columns = [np.asarray(column, TYPES[kind]) for column, kind in zip(columns, operation.operands, strict=True)]
    with np.errstate(all="ignore"):
        result = operation.compute(*columns)
    assert result.dtype == TYPES[operation.result]
    return result


def check_rounding(opcode, exactly, *columns):
    """Every finite result of finite operands beside the exact one."""
    seen = 0
    for result, *operands in zip(applied(opcode, *columns), *columns, strict=True):
        if all(map(math.isfinite, map(float, operands))):
            try:
                exact = exactly(*(Fraction(float(x)) for x in operands))
            except ZeroDivisionError:
                continue
            if exact:
                assert is_nearest(result, exact), f"{opcode} {operands}: {result}"
                seen += 1
    assert seen > len(columns[0]) // 3


def pairs(kind):
    numbers = hard(kind)
    return tuple(column.reshape(-1) for column in np.meshgrid(numbers, numbers))


def triples(kind):
    """Products and sums of every size, and ties of products that a tiny number decides."""
    numbers, rng = hard(kind), np.random.default_rng(2)
    a, b, c = (rng.choice(numbers, 20000) for _ in range(3))
    info = np.finfo(numbers.dtype)
    precision, lowest = info.nmant + 1, info.minexp
    x, y = 1 + 2.0 ** -(precision // 2), 1 + 2.0 ** -(precision - precision // 2)  # x * y is halfway
    tiny = [sign * 2.0**-k for k in range(precision + 2, 1 - lowest) for sign in (1, -1)]
    near = -(a[:4000] * b[:4000]) * (1 + rng.integers(-2, 3, 4000) * info.eps)
    return (
        np.concatenate([a, np.full(len(tiny), x, a.dtype), a[:4000]]),
        np.concatenate([b, np.full(len(tiny), y, a.dtype), b[:4000]]),
        np.concatenate([c, np.array(tiny, a.dtype), near.astype(a.dtype)]),
    )


@pytest.fixture(autouse=True)
def ignore_what_ieee_754_has_an_answer_to():
    with np.errstate(all="ignore"):
        yield


EXACT = {"add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b, "div.rn": lambda a, b: a / b}


@pytest.mark.parametrize("kind", ["f32", "f64"])
def test_sums_products_quotients(kind):
    for name, exactly in EXACT.items():
        check_rounding(f"{name}.{kind}", exactly, *pairs(kind))
    check_rounding(f"rcp.rn.{kind}", lambda a: 1 / a, hard(kind))


@pytest.mark.parametrize("kind", ["f32", "f64"])
def test_fma_is_rounded_once(kind):
    check_rounding(f"fma.rn.{kind}", lambda a, b, c: a * b + c, *triples(kind))


def test_conversions_of_floats():
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    wide = applied("cvt.f32.f16", halves)
    check_rounding("cvt.f32.f16", lambda a: a, halves)
    ties = wide[np.isfinite(wide)][:-1] / 2 + wide[np.isfinite(wide)][1:] / 2
    for numbers in (wide, ties, np.nextafter(ties, np.float32(np.inf)), np.nextafter(ties, np.float32(-np.inf))):
        check_rounding("cvt.rn.f16.f32", lambda a: a, numbers[::5])
    check_rounding("cvt.rn.f32.f64", lambda a: a, hard("f64"))
    singles = hard("f32").astype(np.float64)
    near_ties = singles * (1 + 2.0**-24), singles * (1 + 3 * 2.0**-25)
    for numbers in (singles, np.nextafter(singles, 2 * singles), *near_ties):
        check_rounding("cvt.rn.f32.f64", lambda a: a, numbers)
    check_rounding("cvt.f64.f32", lambda a: a, hard("f32"))


def test_conversions_of_integers():
    for source in ("s16", "u16", "s32", "u32", "s64", "u64"):
        info = np.iinfo(TYPES[source])
        numbers = [info.min, info.max, info.max - 1, *(2**k + j for k in range(2, 63) for j in (-1, 0, 1, 2**k // 3))]
        numbers = np.array([number for number in numbers if number <= info.max], TYPES[source])
        for target in ("f32", "f64"):
            for result, number in zip(applied(f"cvt.rn.{target}.{source}", numbers), numbers.tolist(), strict=True):
                assert number == result == 0 or is_nearest(result, Fraction(number))


@pytest.mark.parametrize("kind", ["f32", "f64"])
def test_larger_and_smaller(kind):
    """NaN gives way to numbers, and +0 is larger than -0."""
    for name, best in (("max", max), ("min", min)):
        for a, b, got in zip(*(pair := pairs(kind)), applied(f"{name}.{kind}", *pair), strict=True):
            numbers = [x for x in (a, b) if not math.isnan(x)]
            if not numbers:
                assert math.isnan(got)
            else:
                wanted = best(numbers, key=lambda x: (x, not np.signbit(x)))
                assert (got, np.signbit(got)) == (wanted, np.signbit(wanted))


def test_signs_and_nan():
    for kind, other in (("f32", "b32"), ("f64", "b64")):
        numbers = hard(kind)
        sign = 1 << (8 * TYPES[kind].itemsize - 1)
        bits = numbers.view(TYPES[other])
        assert (applied(f"neg.{kind}", numbers).view(TYPES[other]) == bits ^ TYPES[other].type(sign)).all()
        assert (applied(f"abs.{kind}", numbers).view(TYPES[other]) == bits & TYPES[other].type(sign - 1)).all()
        assert np.signbit(applied(f"mul.{kind}", [-0.0], [5])).all()
        assert not np.signbit(applied(f"add.{kind}", [-0.0], [0])).any()
        assert not np.signbit(applied(f"fma.rn.{kind}", [-1.0], [2], [2])).any()
    for result in (
        applied("add.f32", [np.inf], [-np.inf]),
        applied("mul.f32", [np.nan], [1]),
        applied("cvt.rn.f32.f64", [np.nan]),
    ):
        assert result.view(np.uint32) == 0x7FFFFFFF
    assert applied("div.rn.f32", [1], [-0.0]) == -np.inf


@pytest.mark.parametrize("kind", ["f32", "f64", "s16", "u16", "s32", "u32", "s64", "u64"])
def test_comparisons(kind):
    holds = {"eq": "__eq__", "ne": "__ne__", "lt": "__lt__", "le": "__le__", "gt": "__gt__", "ge": "__ge__"}
    few = np.array([0, 1, 5, 2**15 - 1, 2**15, 2**16 - 1], np.uint16).astype(TYPES[kind])
    numbers = hard(kind) if kind[0] == "f" else few
    left, right = (column.reshape(-1) for column in np.meshgrid(numbers, numbers))
    unordered = [a != a or b != b for a, b in zip(left.tolist(), right.tolist(), strict=True)]
    for name, method in holds.items():
        plain = [getattr(a, method)(b) for a, b in zip(left.tolist(), right.tolist(), strict=True)]
        got = applied(f"setp.{name}.{kind}", left, right).tolist()
        assert got == [x and not u for x, u in zip(plain, unordered, strict=True)]
        if kind[0] == "f":
            got = applied(f"setp.{name}u.{kind}", left, right).tolist()
            assert got == [x or u for x, u in zip(plain, unordered, strict=True)]
    if kind[0] == "f":
        assert applied(f"setp.nan.{kind}", left, right).tolist() == unordered
        assert applied(f"setp.num.{kind}", left, right).tolist() == [not u for u in unordered]


def wrapped(number, kind):
    """An integer as a type holds it."""
    bits = 8 * TYPES[kind].itemsize
    number %= 2**bits
    return number - 2**bits if kind[0] == "s" and number >= 2 ** (bits - 1) else number


def quotient(a, b):
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


KINDS = "u16", "u32", "u64", "s16", "s32", "s64"
INTEGERS = {
    **{f"add.{t}": lambda a, b: a + b for t in ("s32", "s64")},
    **{f"sub.{t}": lambda a, b: a - b for t in ("s32", "s64")},
    **{f"mul.lo.{t}": lambda a, b: a * b for t in ("s32", "s64")},
    **{f"mad.lo.{t}": lambda a, b, c: a * b + c for t in ("s32", "s64")},
    "add.u64": lambda a, b: a + b,
    **{f"mul.wide.{t}": lambda a, b: a * b for t in ("s32", "u32")},
    **{f"mul.hi.{t}": lambda a, b: a * b >> 64 for t in ("s64", "u64")},
    **{f"div.{t}": lambda a, b: quotient(a, b) if b else None for t in ("s32", "u32", "s64", "u64")},
    **{f"min.{t}": min for t in ("s32", "u32", "s64", "u64")},
    **{f"max.{t}": max for t in ("s32", "u32", "s64", "u64")},
    **{f"and.{t}": lambda a, b: a & b for t in ("b16", "b32", "b64")},
    **{f"or.{t}": lambda a, b: a | b for t in ("b16", "b32", "b64")},
    **{f"xor.{t}": lambda a, b: a ^ b for t in ("b16", "b32", "b64")},
    **{f"shl.{t}": lambda a, n: a << min(n, 99) for t in ("b32", "b64")},
    **{f"shr.{t}": lambda a, n: a >> min(n, 99) for t in ("s32", "u32", "s64", "u64")},
    **{f"not.{t}": lambda a: ~a for t in ("b16", "b32", "b64")},
    **{f"neg.{t}": lambda a: -a for t in ("s32", "s64")},
    **{f"cvt.{target}.{source}": lambda a: a for target in KINDS for source in KINDS},
}


@pytest.mark.parametrize("opcode", INTEGERS)
def test_integers(opcode):
    operation, rng = OPERATIONS[opcode], np.random.default_rng(3)
    columns = []
    for kind in operation.operands:
        bits = 8 * TYPES[kind].itemsize
        edges = [0, 1, 2, 31, 32, 33, 63, 64, 65, 2 ** (bits - 1) - 1, 2 ** (bits - 1), 2**bits - 1]
        numbers = [edge % 2**bits for edge in edges] + rng.integers(0, 2**bits, 20, np.uint64).tolist() * (bits < 64)
        numbers += rng.integers(0, 2**63, 20).tolist() * (bits == 64)
        columns.append(np.array([wrapped(number, kind) for number in numbers], TYPES[kind]))
    rows = list(itertools.product(*(column.tolist() for column in columns)))
    wanted = [INTEGERS[opcode](*row) for row in rows]
    possible = [i for i, value in enumerate(wanted) if value is not None]
    got = applied(opcode, *zip(*(rows[i] for i in possible), strict=True))
    assert got.tolist() == [wrapped(wanted[i], operation.result) for i in possible]


def test_the_rest():
    assert applied("bfi.b64", [0xABCD], [0x1111222233334444], [32], [32]).tolist() == [0x0000ABCD33334444]
    assert applied("bfi.b64", [0xFF], [0], [4], [4]).tolist() == [0xF0]
    assert applied("selp.s64", [1, 2], [3, 4], [True, False]).tolist() == [1, 4]
    assert applied("xor.pred", [True, True], [True, False]).tolist() == [False, True]
    assert applied("not.pred", [True, False]).tolist() == [False, True]
    source = np.array([1.5, 2])
    assert applied("mov.f64", source) is not source


def test_an_approximate_logarithm_is_as_wrong_as_it_may_be():
    x = np.exp2(np.random.default_rng(4).uniform(-126, 127, 10_000)).astype(np.float32)
    x = np.concatenate([x, np.linspace(0.4, 2.1, 10_000, dtype=np.float32), np.float32([1e-45, 0, 1, -1])])
    exact = [mpmath.log(mpmath.mpf(float(number)), 2) for number in x[:-4]]
    got = applied("lg2.approx.ftz.f32", x)
    absolute = np.array([float(abs(y - mpmath.mpf(float(z)))) for y, z in zip(exact, got[:-4], strict=True)])
    allowed = np.where((x[:-4] > 0.5) & (x[:-4] < 2), 2.0**-22.6, 2.0**-22 * np.abs(np.array(exact, float)))
    rounding = np.spacing(np.abs(got[:-4])) / 2
    assert (absolute <= allowed + rounding).all()
    assert (absolute >= allowed - rounding - 2.0**-50).all()
    assert got[-4:-2].tolist() == [-np.inf, -np.inf]
    assert np.isnan(got[-1])


WRONG = {
    "fma.rn.f32": lambda a, b, c: a * b + c,
    "fma.rn.f64": lambda a, b, c: a * b + c,
    "div.rn.f32": lambda a, b: a * (np.float32(1) / b),
    "add.f32": lambda a, b: np.where(abs(a + b) < np.finfo(np.float32).tiny, np.float32(0), a + b),  # .ftz
    "cvt.rn.f32.f64": lambda x: (x.view(np.int64) >> 29 << 29).view(np.float64).astype(np.float32),
}


@pytest.mark.parametrize("opcode", WRONG)
def test_wrong_roundings_are_noticed(opcode, monkeypatch):
    right = OPERATIONS[opcode]
    exactly = {"fma": lambda a, b, c: a * b + c, "div": EXACT["div.rn"], "add": EXACT["add"], "cvt": lambda a: a}
    columns = {1: lambda kind: (hard(kind),), 2: pairs, 3: triples}[len(right.operands)](right.operands[0])
    monkeypatch.setitem(OPERATIONS, opcode, SimpleNamespace(**{**vars(right), "compute": WRONG[opcode]}))
    with pytest.raises(AssertionError, match=opcode):
        check_rounding(opcode, exactly[opcode[:3]], *columns)


def test_float32_fma_rounded_by_way_of_float64_is_noticed(monkeypatch):
    right = OPERATIONS["fma.rn.f32"]
    twice = lambda a, b, c: (a.astype(np.float64) * b + c).astype(np.float32)  # noqa: E731
    monkeypatch.setitem(OPERATIONS, "fma.rn.f32", SimpleNamespace(**{**vars(right), "compute": twice}))
    with pytest.raises(AssertionError, match="fma"):
        check_rounding("fma.rn.f32", lambda a, b, c: a * b + c, *triples("f32"))
