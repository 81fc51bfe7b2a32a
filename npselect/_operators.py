"""The family, declared once: what a tier computes of rows, and which of that each operator offers.

Plain data. The way in (`npselect._call`), the tiers' wrappers, the vectors, the benchmarks and the tests follow from
it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property
from types import MappingProxyType

__all__ = [
    "BACKWARD",
    "BACKWARD_TEMP",
    "CHOICE",
    "DOUBLE_BACKWARD",
    "GAPPED",
    "GAPPED_JVP",
    "GAPPED_SOFT",
    "GUMBEL_RAO",
    "GUMBEL_RAO_JVP",
    "INDEX",
    "JVP",
    "LOG",
    "MASK",
    "MASK_AT",
    "MIXTURE",
    "OPERATORS",
    "REINMAX",
    "REINMAX_JVP",
    "ROW_FUNCTIONS",
    "SOFT",
    "Operator",
    "Result",
    "RowFunction",
]


class Result(Enum):
    """What a result is like: its shape and dtype follow."""

    LIKE_LOGITS = "the shape of the logits, the dtype that logits and cotangents have in common"
    INDEX = "int64, the shape of the logits without the axis of the candidates"
    PER_TEMP = "the shape of the temperature, the dtype of a result like the logits"


_NEUTRAL = {"scale": 1.0}


@dataclass(frozen=True)
class RowFunction:
    """What a tier computes of rows x choices: every tier has a function of this name.

    Its parameters are `cotangents`, then `reads`, then an array for each of `results`.

    Attributes
    ----------
    name : str
        Of the tiers' function.
    cotangents : tuple of str
        Arrays like the logits, in the tiers' order, by the names that callers know.
    results : tuple of Result
        What is filled, in order.
    reads : tuple of str
        The other operands, in order.
    softmaxes : int
        How many of them weigh the cotangents, at temperatures of their own.
    formula : str
        One line, which the docstrings and the reference quote.
    on_gpu : bool
        Whether the tier "cuda" has it.
    """

    name: str
    cotangents: tuple[str, ...] = ()
    results: tuple[Result, ...] = (Result.LIKE_LOGITS,)
    reads: tuple[str, ...] = ("logits", "noise", "temp", "where")
    softmaxes: int = 1
    formula: str = ""
    on_gpu: bool = True

    @cached_property
    def takes_temp(self) -> bool:
        """Whether the result depends on the temperature."""
        return "temp" in self.reads

    @cached_property
    def takes_choice(self) -> bool:
        """Whether the candidates are selected first, by the row function `CHOICE`."""
        return "choice" in self.reads

    @cached_property
    def neutral(self) -> tuple[float, ...]:
        """What the numbers among its operands are for an operator without such an option."""
        return tuple(_NEUTRAL[name] for name in self.reads if name in _NEUTRAL)

    @cached_property
    def per_temp(self) -> bool:
        """Whether the result is a sum over the rows that share a temperature."""
        return Result.PER_TEMP in self.results


@dataclass(frozen=True)
class Operator:
    """One member of the family.

    Attributes
    ----------
    name : str
        Of the public module.
    options : tuple of str
        What its functions take beyond what all take: axis, where, nan_policy, out, backend.
    temp : float
        The default temperature.
    functions : mapping of str to RowFunction
        Its public functions, and what each computes.
    others : mapping of str to tuple of str
        What some of the functions take in place of `options`.
    """

    name: str
    options: tuple[str, ...]
    temp: float
    functions: Mapping[str, RowFunction]
    others: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @cached_property
    def on_gpu(self) -> bool:
        """Whether the tier "cuda" has all that it needs."""
        return all(function.on_gpu for function in self.functions.values())

    def options_of(self, function: str) -> tuple[str, ...]:
        """The options that one of the functions takes."""
        return self.others.get(function, self.options)


_OF_THE_SAMPLE = ("seed", "noise", "index", "offset")
_MIXTURE_OPTIONS = ("forward_temp", "unimix")
_WITHOUT_TEMP = ("logits", "noise", "where")
_SCALED = ("logits", "noise", "temp", "where", "scale")

MASK = RowFunction("mask", reads=_WITHOUT_TEMP, formula="mask = one_hot(argmax(w))")
INDEX = RowFunction("index", results=(Result.INDEX,), reads=_WITHOUT_TEMP, formula="index = argmax(w)")
SOFT = RowFunction("soft", formula="p_i = e_i / s")
BACKWARD = RowFunction("backward", ("grad_mask",), reads=_SCALED, formula="grad_logits_i = p_i (h_i - d) / temp")
JVP = replace(BACKWARD, cotangents=("tangent",))  # the Jacobian is symmetric
BACKWARD_TEMP = RowFunction(
    "backward_temp", ("grad_mask",), (Result.PER_TEMP,), _SCALED, formula="grad_temp = -sum_i grad_logits_i t_i"
)
DOUBLE_BACKWARD = RowFunction(
    "double_backward",
    ("grad_grad_logits", "grad_mask"),
    (Result.LIKE_LOGITS, Result.LIKE_LOGITS),
    _SCALED,
    formula="grad_grad_mask_i = p_i b_i / temp, grad_logits_i = p_i (a_i b_i - sum_j p_j a_j b_j) / temp**2",
)

CHOICE = RowFunction(
    "choice", results=(Result.INDEX,), reads=("logits", "noise", "index", "where"), formula="choice = argmax(w)"
)
MASK_AT = RowFunction("mask_at", reads=("choice",), formula="mask = one_hot(choice)")
REINMAX = RowFunction(
    "reinmax",
    ("grad_mask",),
    reads=("logits", "choice", "temp", "where"),
    softmaxes=2,
    formula="grad_logits_i = ((2 q_i - p_i) h_i - (q_i a - p_i b) - D_i a) / 2",
)
REINMAX_JVP = replace(REINMAX, cotangents=("tangent",))  # it is a symmetric map

GAPPED = RowFunction(
    "gapped",
    ("grad_mask",),
    reads=("logits", "choice", "temp", "where", "gap"),
    formula="grad_logits_i = p_i (h_i - d) / temp",
)
GAPPED_JVP = replace(GAPPED, cotangents=("tangent",))  # it is a symmetric map
GAPPED_SOFT = RowFunction("gapped_soft", reads=("logits", "choice", "temp", "where", "gap"), formula="p_i = e_i / s")

GUMBEL_RAO = RowFunction(
    "gumbel_rao",
    ("grad_mask",),
    reads=("logits", "choice", "draws", "temp", "where"),
    formula="grad_logits_i = mean_s p_i (h_i - d) / temp",
    on_gpu=False,
)
GUMBEL_RAO_JVP = replace(GUMBEL_RAO, cotangents=("tangent",))  # it is a symmetric map

MIXTURE = RowFunction(
    "mixture", reads=("logits", "temp", "where", "unimix"), formula="probs_i = (1 - unimix) p_i + unimix / n"
)
LOG = RowFunction("log", reads=("x",), formula="out = log(x)")

_SURROGATE = MappingProxyType(
    {
        "forward": MASK,
        "backward": BACKWARD,
        "soft": SOFT,
        "index": INDEX,
        "jvp": JVP,
        "backward_temp": BACKWARD_TEMP,
        "double_backward": DOUBLE_BACKWARD,
    }
)

_CATEGORICAL = MappingProxyType({**_SURROGATE, "forward": MASK_AT, "soft": MIXTURE})
_REINMAX = MappingProxyType({"forward": MASK_AT, "backward": REINMAX, "jvp": REINMAX_JVP, "index": INDEX, "soft": SOFT})
_GAPPED = MappingProxyType(
    {"forward": MASK_AT, "backward": GAPPED, "jvp": GAPPED_JVP, "index": INDEX, "soft": GAPPED_SOFT}
)
_GUMBEL_RAO = MappingProxyType(
    {"forward": MASK_AT, "backward": GUMBEL_RAO, "jvp": GUMBEL_RAO_JVP, "index": INDEX, "soft": SOFT}
)
_SAMPLES = ("samples", "seed", "sample_noise", "index", "offset")

OPERATORS: Mapping[str, Operator] = MappingProxyType(
    {
        operator.name: operator
        for operator in (
            Operator("straight_through", (), 0.6, _SURROGATE),
            Operator("gumbel_softmax", ("forward_temp", "seed", "noise", "offset"), 0.6, _SURROGATE),
            Operator(
                "categorical",
                (*_MIXTURE_OPTIONS, *_OF_THE_SAMPLE),
                1.0,
                _CATEGORICAL,
                others={"soft": _MIXTURE_OPTIONS},
            ),
            Operator("reinmax", _OF_THE_SAMPLE, 1.0, _REINMAX, others={"soft": ()}),
            Operator("gapped", ("gap", *_OF_THE_SAMPLE), 1.0, _GAPPED),
            Operator(
                "gumbel_rao",
                _OF_THE_SAMPLE,
                1.0,
                _GUMBEL_RAO,
                others={"backward": _SAMPLES, "jvp": _SAMPLES, "soft": ()},
            ),
        )
    }
)
"""The family, by name."""

ROW_FUNCTIONS: Mapping[str, RowFunction] = MappingProxyType(
    {
        function.name: function
        for function in (
            *reversed([one for operator in OPERATORS.values() for one in operator.functions.values()]),
            CHOICE,
            LOG,
        )
    }
)
"""All that a tier has, by name: with those that no public function is of its own."""
