"""What a sampler is asked: logits, rows and seeds; and whether an answer is a sample of one-hots at all."""

from __future__ import annotations

import numpy as np

from npselect._places import as_numpy_sees
from npselect.testing.aliases import Array, Dtype, Sampler
from npselect.testing.families import exact_softmax
from npselect.testing.sampler_statistics import Question

__all__ = ["FormError", "draw", "equal_logits", "far_seeds", "question_of", "taken_seeds"]

_FAR_SEEDS = 512
_WIDTHS = (64, 63, 32, 31, 16, 15, 8)  # bits of the seeds that a sampler may take
_MODULI = (10**9, 2**31 - 1, 2**32 - 1, 2**61 - 1)  # large ones by which seeds are reduced; divisors of them show too


class FormError(Exception):
    """Why a result is no sample of one-hots."""


def question_of(vectors: int, rows: int, choices: int, dtype: Dtype, rng: np.random.Generator) -> Question:
    """Vectors of logits from nearly equal to saturated, shuffled among the rows."""
    spread = np.geomspace(0.1, 10.0, vectors)[:, None]
    w = rng.normal(0.0, 3.0, (vectors, 1)) + spread * rng.standard_normal((vectors, choices))
    w[0] = -100.0  # equal, and far from 0: if sums with noise are rounded to few bits, there are ties
    excluded = rng.random((vectors, choices)) < 0.25
    excluded[::2] = False
    excluded[np.arange(vectors), rng.integers(choices, size=vectors)] = False
    logits = np.where(excluded, -np.inf, w).astype(dtype)
    probs = exact_softmax(logits, 1.0)
    return Question(logits, probs, rng.permutation(np.arange(rows) % vectors))


def equal_logits(choices: int, rows: int, dtype: Dtype) -> Question:
    """Logits of 0: each choice is as probable as any other."""
    return Question(np.zeros((1, choices), dtype), np.full((1, choices), 1 / choices), np.zeros(rows, np.int64))


def taken_seeds(sample: Sampler, question: Question, last: int) -> tuple[int, tuple[int, ...]]:
    """The largest seed that the sampler takes, at least `last`, and the negative ones to ask."""

    def takes(seed: int) -> bool:
        try:
            sample(question.logits[question.vector], seed)
        except Exception:  # whatever a framework raises
            return False
        return True

    largest = next((most for w in _WIDTHS if (most := 2**w - 1) >= last and takes(most)), last)
    # -1 and -2 may be the largest ones by another name, in two's complement
    return largest, (-2, -1) if last < largest - 1 and takes(-2) and takes(-1) else ()


def far_seeds(largest: int, negative: tuple[int, ...], rng: np.random.Generator) -> list[int]:
    """Seeds two of which become one if a bit is lost, a large number rounded, or a remainder taken.

    - A random b of the full width, and b with each of its bits flipped.
    - ``0 ... r - 1`` and ``r, 2 r ... r r``: any m from 1 to ``r r`` is the difference of two, and so is with 0 each of
      `_MODULI`. Of two that differ by m, the remainders by m, or by what divides m, are equal.
    - Random ones, for maps that nobody has thought of.
    """

    def drawn() -> int:
        return int.from_bytes(rng.bytes(width // 8 + 1), "little") % (largest + 1)

    width = (largest + 1).bit_length() - 1
    b = drawn() % 2**width | 1 << width - 1
    r = _FAR_SEEDS // 4
    seeds = [b, *(b ^ (1 << j) for j in range(width)), *range(r), *range(r, r * r + 1, r), *_MODULI]
    seeds += [drawn() for _ in range(_FAR_SEEDS)]
    other_names = {s % (largest + 1) for s in negative}
    return [s for s in dict.fromkeys(seeds) if s <= largest and s not in other_names][: _FAR_SEEDS - len(negative)]


def draw(sample: Sampler, question: Question, seed: int) -> Array:
    """The selected index of each row of one sample."""
    logits = question.logits[question.vector]
    call = f"sample(logits, {seed}) with logits of shape {logits.shape} and dtype {logits.dtype}"
    shape = logits.shape
    try:
        answer = sample(logits, seed)
        mask = np.asarray(as_numpy_sees(answer))
    except Exception as error:
        error.add_note(f"raised by {call}")
        raise
    if mask.shape != shape:
        returned = f"a {type(answer).__name__} of shape {mask.shape}"
        raise FormError(f"{call} returns {returned}; expected an array of the shape of logits")
    if mask.dtype.kind not in "biuf" and mask.dtype.name != "bfloat16":
        raise FormError(f"{call} returns dtype {mask.dtype}; expected numbers or bools")
    selected = mask != 0
    number = np.count_nonzero(selected, axis=-1)
    if np.any(number != 1):
        row = int(np.argmax(number != 1))
        raise FormError(f"{call}: row {row} has {number[row]} entries that are not 0; expected one, and that a 1")
    index = np.argmax(selected, axis=-1)
    value = np.take_along_axis(mask, index[:, None], axis=-1)[:, 0]
    if np.any(value != 1):
        row = int(np.argmax(value != 1))
        raise FormError(f"{call}: row {row} holds {value[row]} at candidate {index[row]}; expected 1")
    excluded = question.logits[question.vector, index] == -np.inf
    if np.any(excluded):
        row = int(np.argmax(excluded))
        raise FormError(f"{call}: row {row} selects candidate {index[row]}, whose logit is -inf")
    return np.asarray(index)
