"""The formulas of logarithms, noise and the generator have the same bits compiled and as Python runs them."""

from __future__ import annotations

import formulas
import numpy as np
from formulas import compiled, compiled_log, equal_bits, gumbels, plain
from hard_numbers import arguments, doubles, extreme_words, gumbel_arguments, triple_arguments, uniforms

from npselect._arithmetic import gumbel, logarithm


def test_plain_python_has_the_same_bits() -> None:
    rng = np.random.default_rng(16)
    x = rng.choice(arguments(-1022, 1023, 300), 400)
    assert np.all(equal_bits(plain(logarithm.quick_minus_log, x[None]), -compiled_log(x, formulas.quick_log)))
    assert np.all(equal_bits(plain(logarithm.rough_log, x[None]), compiled_log(x, formulas.rough_log)))
    x = np.concatenate([rng.choice(x, 100, axis=1) for x, _ in triple_arguments().values()], axis=1)
    assert np.all(equal_bits(plain(logarithm.log_triple_word, x), compiled(formulas.words, x, 3)))
    a, b, z = (doubles(rng.normal(size=300) * scale) for scale in (1.0, 0.1, 2.0**-11))
    four = np.concatenate([a, b])
    assert np.all(equal_bits(plain(logarithm._product, four), compiled(formulas.products, four, 2)))
    assert np.all(equal_bits(plain(logarithm._sum, four), compiled(formulas.sums, four, 2)))
    assert np.all(equal_bits(plain(logarithm._log_of_one_plus, z), compiled(formulas.logs_of_one_plus, z, 2)))
    u = np.concatenate([rng.choice(u, min(60, len(u)), replace=False) for u in gumbel_arguments().values()])
    assert np.all(equal_bits(plain(gumbel.gumbel, u[None]), gumbels(u)))
    words = np.concatenate([np.array(extreme_words(), np.uint64), rng.integers(0, 2**64, 300, np.uint64)])
    u = np.empty(len(words))
    formulas.uniforms(words, u)
    assert np.array_equal(u, uniforms(words))
    assert np.array_equal(u, [gumbel.uniform(word) for word in words])
    x = rng.integers(0, 2**32, (6, 300), np.uint64)
    assert np.array_equal(plain(gumbel.philox, x), compiled(formulas.philox, x, 4))
