"""Mistakes of `categorical`, by their causes; among them the other things that are called straight-through.

With a sample d, and ``J(p) g = p (g - <p, g>)``, three are in use, which agree at a temperature of 1:

- d of ``softmax(logits)``, gradient ``J(softmax(logits)) g``, whatever the temperature is: torch's, distrax' and
  tfp's distributions, and Dreamer's;
- d of ``softmax(logits)``, gradient ``J(softmax(logits / temp)) g / temp``: the `st` of ReinMax's and GST's code, and
  what `categorical` does where no other temperature is given;
- d of ``softmax(logits / temp)``, the same gradient: vector-quantize-pytorch's. This is ``forward_temp=temp, temp=1``.

So the first is seen in the gradient, and the third in the mask, where noise is given.
"""

from __future__ import annotations

import numpy as np

from npselect.testing import mistakes_backward, mistakes_forward
from npselect.testing.aliases import Array
from npselect.testing.mistakes import Mistakes, Rows, gradient, mask_of

__all__ = ["BACKWARD", "FORWARD"]


def _summed(q: Rows, factor: float) -> Array:
    """The mask of logits with the noise times a factor; the right one where an index is given."""
    if q.question.drawn_with is None:
        return q.selected
    return mask_of(q.w + factor * q.question.drawn_with.astype(np.float64))


def _of_the_sample(q: Rows) -> Array:
    """The gradient at logits + noise; the right one where an index is given."""
    added = q.question.drawn_with
    return gradient(q.g, q.w if added is None else q.w + added.astype(np.float64), q.temp)


FORWARD: Mistakes = (
    *mistakes_forward.OF_INDEX,
    (
        "the sample is that of softmax(logits / temp), as vector-quantize-pytorch draws it: that is "
        "npselect.categorical with forward_temp=temp, temp=1",
        lambda q: _summed(q, q.temp),
    ),
    ("the sample is that of softmax(logits * temp)", lambda q: _summed(q, 1 / q.temp)),
    ("noise is missing", lambda q: _summed(q, 0.0)),
    ("noise is subtracted", lambda q: _summed(q, -1.0)),
)
"""Mistakes of the forward pass."""

_IGNORED = "temp is ignored, as though it were 1"

BACKWARD: Mistakes = (
    (
        "the gradient is J(softmax(logits)) g whatever temp is, as distributions of torch and distrax and Dreamer have "
        "it: that is npselect.categorical at temp=1",
        lambda q: gradient(q.g, q.w, 1.0),
    ),
    *((name, mistake) for name, mistake in mistakes_backward.BACKWARD if name != _IGNORED),
    ("the gradient of npselect.gumbel_softmax: at logits + noise, not at logits", _of_the_sample),
)
"""Mistakes of the backward pass."""
