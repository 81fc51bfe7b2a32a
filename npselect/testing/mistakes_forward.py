"""Mistakes of the forward pass, by their causes: what comes out in the place of the one-hot of the first largest."""

from __future__ import annotations

from functools import partial

import numpy as np

from npselect.testing.aliases import Array, DtypeLike
from npselect.testing.mistakes import (
    SHARES,
    Mistake,
    Mistakes,
    Rows,
    along_the_last_axis,
    hard,
    log_probs,
    mask_of,
    mixed,
    one_hot,
    probs,
    read_in_c_order,
    uniform,
    where_inverted,
    without_where,
)

__all__ = ["FORWARD", "OF_INDEX", "WRONG_SUMS", "carried", "mixed_before_noise", "with_noise"]


def carried(choice: Mistake) -> Mistakes:
    """The mask of an index, (rows,), that is carried in a narrow dtype."""
    return (
        *(
            (f"the index is carried as {np.dtype(form).name}", partial(_index_in, choice=choice, dtype=form))
            for form in (np.int8, np.uint8, np.int16, np.uint16)
        ),
        *(
            (f"the index is carried as {np.dtype(form).name}", partial(_from_the_end, choice=choice, dtype=form))
            for form in (np.int8, np.int16)
        ),
        *(
            (
                f"the index is carried as {np.dtype(form).name}",
                partial(_index_in, choice=choice, dtype=form, choices_too=True),
            )
            for form in (np.int8, np.int16, np.float16)
        ),
    )


def _index_in(q: Rows, choice: Mistake, dtype: DtypeLike, choices_too: bool = False) -> Array:
    """``choices_too``: so are the choices it is compared with."""
    index, choices = choice(q).astype(dtype), np.arange(q.w.shape[-1])
    return np.asarray(index[:, None] == (choices.astype(dtype) if choices_too else choices), np.float64)


def _from_the_end(q: Rows, choice: Mistake, dtype: DtypeLike) -> Array:
    """As Python takes an index that has become negative."""
    index = choice(q).astype(dtype).astype(np.int64)
    return one_hot(np.where(index < 0, index + q.w.shape[-1], index), q.w.shape[-1])


def mixed_before_noise(q: Rows, share: float) -> Array:
    """What is chosen from then."""
    return np.asarray(np.log(mixed(probs(q.logits), uniform(q), share)) + q.added)


FORWARD: Mistakes = (
    ("logits are taken for contiguous in memory", lambda q: mask_of(read_in_c_order(q)[1])),
    (
        "the last of equals is selected",
        lambda q: one_hot(q.w.shape[-1] - 1 - np.argmax(q.w[:, ::-1], axis=-1), q.w.shape[-1]),
    ),
    ("all of equals are selected", lambda q: (q.w == np.max(q.w, axis=-1, keepdims=True)).astype(np.float64)),
    ("+0 is taken for larger than -0", lambda q: mask_of(np.where(q.w == 0, np.copysign(1e-300, q.w), q.w))),
    ("the smallest is selected", lambda q: mask_of(-q.w)),
    ("wrong axis", lambda q: mask_of(q.w.T).T),
    ("axis= is ignored", lambda q: along_the_last_axis(q, hard)),
    ("where= is ignored", lambda q: mask_of(without_where(q))),
    ("where= is taken for what is excluded", lambda q: mask_of(where_inverted(q))),
    ("the choice runs over the whole batch", lambda q: mask_of(q.w.reshape(1, -1)).reshape(q.w.shape)),
    ("probs instead of the mask", lambda q: probs(q.w, q.temp)),
    ("log-probabilities instead of the mask", lambda q: log_probs(q.w, q.temp)),
    *carried(lambda q: np.argmax(q.w, axis=-1)),
    ("always the first", lambda q: one_hot(np.zeros(len(q.w)), q.w.shape[-1])),
)
"""Mistakes of the forward pass."""

OF_INDEX: Mistakes = (
    ("index= is ignored: the largest is selected", lambda q: mask_of(q.w)),
    ("the index is counted from 1", lambda q: one_hot(q.question.choice - 1, q.w.shape[-1])),
    (
        "the first row's index is used in all rows",
        lambda q: one_hot(0 * q.question.choice + q.question.choice[:1], q.w.shape[-1]),
    ),
    ("always the first", lambda q: one_hot(0 * q.question.choice, q.w.shape[-1])),
    ("probs instead of the mask", lambda q: probs(q.w)),
    ("probs instead of the mask", lambda q: probs(q.w, q.temp)),
    *carried(lambda q: q.question.choice),
)
"""Mistakes where an index is given."""

WRONG_SUMS: Mistakes = (
    ("noise is missing", lambda q: q.logits),
    ("the first row's noise is used in all rows", lambda q: q.logits + q.added[:1]),
    ("noise is subtracted", lambda q: q.logits - q.added),
    ("noise is added after the division by temp", lambda q: q.logits + q.temp * q.added),
    ("noise is divided by temp twice", lambda q: q.logits + q.added / q.temp),
    *((f"probs are mixed with the uniform distribution, to {share:g}, before noise is added",
       lambda q, share=share: mixed_before_noise(q, share)) for share in SHARES),
)  # fmt: skip
"""Mistakes with noise: what is chosen from in the place of logits + noise."""


def with_noise(wrong_sums: Mistakes) -> Mistakes:
    """Those of an operator with noise: of all others, and of wrong sums with the noise."""
    return FORWARD + tuple((f"{name} in the forward pass", _chosen_from(w)) for name, w in wrong_sums)


def _chosen_from(w: Mistake) -> Mistake:
    return lambda q: mask_of(w(q))
