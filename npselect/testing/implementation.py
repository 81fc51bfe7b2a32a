"""What the checker takes: two functions over NumPy arrays, and which options they take."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any

from npselect.testing.aliases import Function, Options

__all__ = [
    "BACKWARD_ALONE",
    "DECLARED",
    "OPTIONS",
    "SETTINGS",
    "Implementation",
    "for_forward",
    "function_name",
    "guarded_implementation",
    "options_of",
]

SETTINGS = ("forward_temp", "unimix", "gap")
"""The keywords that are numbers, each with a default: 1, 0 and 1. (A gap may be "adaptive".)"""
OPTIONS = ("axis", "where", "noise", "index", "sample_noise", *SETTINGS)
"""The keywords that an implementation may take."""
BACKWARD_ALONE = ("sample_noise",)
"""Those that `forward` need not take."""
DECLARED = ("flushes_subnormals", "normalises_logits")
"""The attributes by which an implementation declares what its arithmetic is."""


@dataclass(frozen=True)
class Implementation:
    """What the checker takes.

    Attributes
    ----------
    name : str
        For the report; also `__name__`.
    forward : callable
        ``forward(logits, temp, **options) -> mask``, over NumPy arrays.
    backward : callable
        ``backward(grad_mask, logits, temp, **options) -> grad_logits``, likewise.
    options : frozenset of str
        Those of `OPTIONS` that both take, or `backward` alone if they are of `BACKWARD_ALONE`. Any other is a
        `TypeError`; one that is None counts as not given.
    flushes_subnormals : bool
        Whether it may take a number below the smallest normal one for 0. This is declared, not tested.
    normalises_logits : bool
        Whether the logits' logsumexp is subtracted from them before all else, as in a categorical distribution of
        PyTorch or Pyro, and the gradient is that of both steps. Small gradients then have few digits or none, and no
        more is expected (`npselect.testing.tolerance`). This is declared, not tested.
    row_temp : bool
        Whether `temp` may also be an array with length 1 along the axis of the candidates.
    backward_temp : callable or None
        ``backward_temp(grad_mask, logits, temp, **options) -> grad_temp``, in the shape of `temp`; None if the
        temperature has no gradient.
    """

    name: str
    forward: Function
    backward: Function
    options: frozenset[str] = frozenset()
    flushes_subnormals: bool = False
    normalises_logits: bool = False
    row_temp: bool = False
    backward_temp: Function | None = None

    @property
    def __name__(self) -> str:
        return self.name


def guarded_implementation(
    name: str,
    forward: Function,
    backward: Function,
    options: frozenset[str],
    backward_temp: Function | None = None,
    **declared: bool,
) -> Implementation:
    """The functions behind a look at the keywords."""

    def guarded(function: Function) -> Function:
        @wraps(function)
        def call(*arguments: Any, **given: Any) -> Any:
            given = {option: value for option, value in given.items() if value is not None}
            unknown = ", ".join(sorted(given.keys() - options))
            if unknown:
                raise TypeError(f"{name} was given {unknown}; it takes {', '.join(sorted(options)) or 'no options'}")
            return function(*arguments, **given)

        return call

    by_temp = None if backward_temp is None else guarded(backward_temp)
    return Implementation(name, guarded(forward), guarded(backward), options, backward_temp=by_temp, **declared)


def options_of(fn: Function, arguments: tuple[str, ...]) -> frozenset[str]:
    """Those of `OPTIONS` in the signature of `fn`; a `TypeError` if it cannot be called with the arguments and them."""
    try:
        signature = inspect.signature(_innermost(fn))
    except ValueError:  # builtins may have none
        return frozenset()
    if _takes_anything(signature) and inspect.isclass(getattr(fn, "__self__", None)):
        return frozenset()  # apply of a torch.autograd.Function, which refuses keywords
    parameters = signature.parameters.values()
    by_keyword = {one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}
    takes_all = any(one.kind == one.VAR_KEYWORD for one in parameters)
    options = frozenset(option for option in OPTIONS if takes_all or option in by_keyword)
    signature.bind(*arguments, **dict.fromkeys(options))
    return options


def for_forward(forward: Function, options: Options) -> Options:
    """The options that it is given: all, if it takes them all; else without those that it need not take."""
    least = {name: value for name, value in options.items() if name not in BACKWARD_ALONE}
    if len(least) == len(options) or options.keys() <= options_of(forward, ("logits", "temp")):
        return options
    return least


def _innermost(fn: Function) -> Function:
    """What has the signature: a module of PyTorch, or a layer of Keras, takes anything and hands it on."""
    if isinstance(fn, partial):
        return partial(_innermost(fn.func), *fn.args, **fn.keywords)
    if _takes_anything(inspect.signature(fn)):
        for name in ("_orig_mod", "forward", "call"):  # of a compiled module; of a module; of a layer of Keras
            if callable(getattr(fn, name, None)):
                return _innermost(getattr(fn, name))
    return fn


def function_name(fn: Function) -> str:
    """What a function calls itself, or what it is."""
    while isinstance(fn, partial):
        fn = fn.func
    owner = getattr(fn, "__self__", None)
    prefix = f"{owner.__name__}." if inspect.isclass(owner) else ""
    return prefix + str(getattr(fn, "__name__", type(fn).__name__))


def _takes_anything(signature: inspect.Signature) -> bool:
    kinds = [parameter.kind for parameter in signature.parameters.values()]
    return kinds == [inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD]
