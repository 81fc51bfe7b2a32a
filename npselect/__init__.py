"""Differentiable selection by hand: the hard choice forward, the softmax's gradient backward, with no framework.

See `npselect.straight_through`, `npselect.gumbel_softmax`, `npselect.categorical`, `npselect.reinmax`,
`npselect.gapped` and `npselect.gumbel_rao` for the operators, `npselect.selection` for choosing from an array,
`npselect.sharded` for rows that are split, `npselect.noise` for the noise, `npselect.reference` for the formulas,
`npselect.testing` for checking somebody else's implementation.
"""

from typing import TYPE_CHECKING

from npselect import (
    categorical,
    gapped,
    gumbel_rao,
    gumbel_softmax,
    noise,
    reinmax,
    selection,
    sharded,
    straight_through,
)
from npselect._operators import OPERATORS
from npselect._warm_up import warm_up
from npselect.straight_through import forward as differentiable_select
from npselect.tiers import backends

if TYPE_CHECKING:
    from npselect._gpu.array import DeviceArray

__all__ = [
    "DeviceArray",
    "OPERATORS",
    "__version__",
    "backends",
    "categorical",
    "differentiable_select",
    "gapped",
    "gumbel_rao",
    "gumbel_softmax",
    "noise",
    "reinmax",
    "selection",
    "sharded",
    "straight_through",
    "warm_up",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """`DeviceArray`, when it is first asked for: it loads numba, which importing npselect does not."""
    if name != "DeviceArray":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from npselect._gpu.array import DeviceArray
    except ImportError as error:
        raise AttributeError(f"npselect.DeviceArray needs numba.cuda, which cannot be loaded: {error}") from error
    globals()[name] = DeviceArray
    return DeviceArray


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
