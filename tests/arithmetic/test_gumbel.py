"""Gumbel noise is the nearest number, in float64 and in float32: by mpmath, by published answers, and with faults."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import formulas
import mpmath
import numpy as np
import pytest
from formulas import Record, compiled_log, equal_bits, gumbels, plain
from hard_numbers import extreme_words, gumbel_arguments, hard_uniforms, inverse, odd, triples, uniforms, zero_of_g
from inputs import Array
from mpmath import mp, mpf

from npselect._arithmetic import gumbel, logarithm
from npselect._oracle.noise import _gumbel

# ------------------------------------------------------------------------------------------------ noise in float64


class Verdict:
    """On float64 noise, by mpmath."""

    def __init__(self, u: Array, g: Array) -> None:
        self.wrong = 0  # numbers that are not the nearest ones
        self.off = 0.0  # the largest error in units of 2**-51 max(1, |G|)
        self.distance = 1.0  # from the middle of two float64, the smallest, in units in the last place
        self.doubt = 0.0  # the largest proven error in units of that distance
        with mp.workprec(200):
            for argument, result in zip(u.tolist(), g.tolist(), strict=True):
                value = -mpmath.log(-mpmath.log(mpf(argument)))
                sign, mantissa, exponent, bits = value._mpf_
                half = 1 << (bits - 54)
                middle = abs((mantissa & (2 * half - 1)) - half) / (2 * half)
                place = exponent + bits - 53
                nearest = math.ldexp((mantissa + half) >> (bits - 53), place)
                self.wrong += result != (-nearest if sign else nearest)
                self.off = max(self.off, float(abs(value - result) * 2**51 / max(1, abs(value))))
                self.distance = min(self.distance, middle)
                bound = 2.0**-110 if abs(value) < 1 else 2.0**-103
                self.doubt = max(self.doubt, bound / math.ldexp(middle, place))


@pytest.mark.parametrize("where", gumbel_arguments())
def test_gumbel_is_the_nearest_float64(where: str, record: Record) -> None:
    u = gumbel_arguments()[where]
    verdict = Verdict(u, gumbels(u))
    record(f"gumbel {where}, of 2**-51 max(1, |G|)", verdict.off)
    record(f"gumbel {where}, -log2 of the distance to a middle", -math.log2(verdict.distance))
    record(f"gumbel {where}, proven error by that distance", verdict.doubt)
    assert verdict.wrong == 0
    assert verdict.off < 1
    assert verdict.doubt < 1  # so nearest by proof, too
    if where == "about 0":
        assert np.abs(gumbels(u)).min() < 2.0**-51


def test_gumbel_known_answers() -> None:
    answers = {
        0xE169C58D6627E8D5: "0x1.07e484179cd9fp+1",
        0x9B00DBD8BC57AC4C: "0x1.611f4829410cbp-1",
        0x41C83B0E408F276D: "-0x1.39fb707d06cd6p-2",
        0x6D5451FDA20BC7C6: "0x1.4ae1ead21622bp-3",
        0x94FDCCEBD16CFE09: "0x1.3a444bd6bcd28p-1",
        0x24126EA15001E420: "-0x1.587578bcf95abp-1",
        0x0000000000000000: "-0x1.cd48a14a68f37p+1",
        0xFFFFFFFFFFFFFFFF: "0x1.25e4f7b2737fap+5",
        0x5E2D58D8B3BCDF1A: "-0x1.34fd2133ea7d4p-52",
    }
    expected = [float.fromhex(digits) for digits in answers.values()]
    words = np.array(list(answers), np.uint64)
    u = np.empty(len(words))
    formulas.uniforms(words, u)
    assert gumbels(u).tolist() == expected
    assert _gumbel(words).tolist() == expected


def test_gumbel_in_the_reference() -> None:
    k = np.concatenate([(hard_uniforms() * 2.0**52).astype(np.int64), zero_of_g() + np.arange(-20, 21)])
    words = np.concatenate([k.astype(np.uint64) << np.uint64(12), np.array(extreme_words(), np.uint64)])
    assert np.array_equal(_gumbel(words), gumbels(uniforms(words)))


def test_gumbel_faults_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """One place off; and, at hard uniforms, sums without the third words."""
    u = hard_uniforms()
    g = gumbels(u)
    g[3] = np.nextafter(g[3], 9)
    assert Verdict(u, g).wrong == 1
    monkeypatch.setattr(logarithm, "_TABLE3", np.zeros(182))
    monkeypatch.setattr(logarithm, "_LN2_3", np.float64(0.0))
    assert Verdict(u, plain(gumbel.gumbel, u[None])).wrong > 5
    v = odd(np.random.default_rng(1).integers(0, 2**52, 100))
    assert Verdict(v, plain(gumbel.gumbel, v[None])).wrong == 0  # what random uniforms do not find


def words_to_round() -> Array:
    """Three words whose sum is very near the middle of two float64, and others."""
    rng = np.random.default_rng(13)
    a = np.repeat(np.concatenate([rng.uniform(1, 2, 200), [1.0, np.nextafter(2.0, 0), 1.5]]), 15)
    b = np.resize([2.0**-53, -(2.0**-53), 2.0**-54, -(2.0**-54), 0.75 * 2.0**-53], len(a))
    c = np.resize(np.repeat([0.0, 1.0, -1.0], 5), len(a)) * np.exp2(rng.uniform(-140, -108.1, len(a)))
    return np.concatenate([np.array([a, b, c]), -np.array([a, b, c]), triples(rng.uniform(1, 4, 1000))], axis=1)


def test_rounded_once() -> None:
    x = words_to_round()
    out = np.empty(x.shape[1])
    formulas.rounded(x, out)
    exact = [float(sum(map(Fraction, column))) for column in x.T.tolist()]  # correctly rounded
    assert out.tolist() == exact
    assert np.count_nonzero(x[0] + (x[1] + x[2]) != exact) > 500
    assert np.array_equal(plain(gumbel._rounded, x), out)


# ------------------------------------------------------------------------------------------------ noise in float32


def near_middles(count: int) -> Array:
    """Uniforms whose G is as near the middle of two float32 as can be, and their neighbours."""
    rng = np.random.default_rng(14)
    g = np.concatenate([rng.gumbel(size=count), rng.uniform(-3.6, 15, count), np.ldexp(rng.uniform(-1, 1, count), -10)])
    g = g[(g > -3.6) & (g < 36)].astype(np.float32)
    middles = g + np.spacing(g).astype(np.float64) / 2
    return odd(inverse(middles)[:, None] + np.arange(-4, 5))


def quick(u: Array, log: Any = formulas.rough_log) -> Array:
    return -compiled_log(-compiled_log(u, log), log)


def doubtful(u: Array) -> Array:
    """Which numbers the quick way leaves open."""
    return np.isnan(plain(gumbel.quick_gumbel, u[None]))


@pytest.mark.parametrize(("log", "bound", "margin"), [
    (formulas.rough_log, 2.0**-43, gumbel.MARGIN),
    (formulas.quick_log, 2.0**-44, gumbel.MARGIN),
], ids=["rough_log", "quick_log"])  # fmt: skip
def test_quick_noise(log: Any, bound: float, margin: float, record: Record) -> None:
    rng = np.random.default_rng(15)
    u = np.concatenate([near_middles(25_000), uniforms(rng.integers(0, 2**64, 400_000, np.uint64))])
    assert len(u) > 900_000
    g = gumbels(u)
    found = np.max(np.abs(quick(u, log) - g) / (1.01 * bound * (1 + np.abs(g)) + 2.0**-53 * np.abs(g)))
    record(f"quick G by {log.__name__}, of its bound", found)
    assert found < 1
    assert margin >= 2 * bound


def test_float32_is_float64_rounded_once() -> None:
    rng = np.random.default_rng(15)
    hard = near_middles(25_000)
    easy = uniforms(rng.integers(0, 2**64, 400_000, np.uint64))
    for u in (hard, easy, hard_uniforms(), odd(zero_of_g() + np.arange(-3000, 3001)), uniforms(extreme_words())):
        assert np.all(equal_bits(gumbels(u, np.float32), gumbels(u).astype(np.float32)))
    assert np.count_nonzero(quick(hard).astype(np.float32) != gumbels(hard).astype(np.float32)) > 1000


def test_float32_doubts() -> None:
    """Doubt where the quick way goes wrong, and seldom elsewhere; what there is no doubt of is right."""
    rng = np.random.default_rng(19)
    hard = near_middles(400)
    some = np.concatenate([hard, uniforms(rng.integers(0, 2**64, 2000, np.uint64)), uniforms(extreme_words())])
    open_questions = doubtful(some)
    assert np.count_nonzero(open_questions) > len(hard) / 2
    assert np.mean(open_questions[len(hard) :]) < 0.02
    assert np.array_equal(
        plain(gumbel.quick_gumbel, some[None]).astype(np.float32)[~open_questions],
        gumbels(some, np.float32)[~open_questions],
    )


def test_float32_margin_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    u = near_middles(400)
    monkeypatch.setattr(gumbel, "MARGIN", np.float64(0.0))
    assert not np.any(doubtful(u))
    assert np.count_nonzero(plain(gumbel.quick_gumbel, u[None]).astype(np.float32) != gumbels(u, np.float32)) > 10
