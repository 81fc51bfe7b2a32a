"""Differentiable selection by hand: the hard choice forward, the softmax's gradient backward, with no framework.

See `npselect.straight_through` for the operator, `npselect.reference` for the formulas, `npselect.testing` for checking
somebody else's implementation.
"""

from npselect import straight_through
from npselect.backends import backends
from npselect.straight_through import forward as differentiable_select

__all__ = ["__version__", "backends", "differentiable_select", "straight_through"]

__version__ = "0.1.0"
