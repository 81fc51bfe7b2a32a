"""Differentiable selection by hand: the hard choice forward, the softmax's gradient backward, with no framework.

See `npselect.straight_through` and `npselect.gumbel_softmax` for the operators, `npselect.selection` for choosing from
an array, `npselect.noise` for the noise, `npselect.reference` for the formulas, `npselect.testing` for checking
somebody else's implementation.
"""

from npselect import gumbel_softmax, noise, selection, straight_through
from npselect._operators import OPERATORS
from npselect._warm_up import warm_up
from npselect.straight_through import forward as differentiable_select
from npselect.tiers import backends

__all__ = [
    "OPERATORS",
    "__version__",
    "backends",
    "differentiable_select",
    "gumbel_softmax",
    "noise",
    "selection",
    "straight_through",
    "warm_up",
]

__version__ = "0.1.0"
