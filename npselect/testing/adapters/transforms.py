"""What users wrap around a function before they differentiate it: compilation, vmap, autocast, checkpoints.

Bugs live there: a `torch.autograd.Function` without a rule for vmap, a mask that autocast returns in 16 bits, a pass
that is run again for a checkpoint and comes out otherwise. An adapter that is given the names of transforms judges
what they make of the function.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module

from npselect.testing.aliases import Function, Option, Tensor

__all__ = ["jax_transforms", "torch_transforms", "transformed"]

Transform = Callable[[Function], Function]
_GRAPHS = 4096  # which torch.compile may make of one function before it runs it as it is; a check has some 100 shapes


def transformed(fn: Function, names: str | Sequence[str], transforms: Mapping[str, Transform]) -> Function:
    """The function within the transforms: the first is next to it, the last one is called.

    Parameters
    ----------
    fn : callable
        ``fn(logits, temp, **options)``.
    names : str or sequence of str
        Keys of `transforms`.
    transforms : mapping of str to callable
        Each makes a function of the same arguments.

    Raises
    ------
    ValueError
        A name is not listed.
    """
    names = [names] if isinstance(names, str) else list(names)
    for name in names:
        if name not in transforms:
            raise ValueError(f"transforms names {name!r}; it takes some of {', '.join(transforms)}")
        fn = transforms[name](fn)
    return fn


def torch_transforms(torch: Tensor) -> dict[str, Transform]:
    """Those of PyTorch: `torch.compile`, `torch.vmap` over rows, `torch.autocast`, `torch.utils.checkpoint`."""

    def compiled(fn: Function) -> Function:
        config = import_module("torch._dynamo.config")
        once = torch.compile(fn)

        def call(logits: Tensor, temp: Tensor, **options: Option) -> Tensor:
            with config.patch(recompile_limit=_GRAPHS, accumulated_recompile_limit=_GRAPHS):
                return once(logits, temp, **options)

        return call

    def autocast(fn: Function) -> Function:
        def call(logits: Tensor, temp: Tensor, **options: Option) -> Tensor:
            with torch.autocast(logits.device.type):
                return fn(logits, temp, **options)

        return call

    def checkpoint(fn: Function) -> Function:
        run = import_module("torch.utils.checkpoint").checkpoint
        return partial(run, fn, use_reentrant=False)

    return {
        "compile": compiled,
        "vmap": partial(_by_rows, torch, torch.vmap),
        "autocast": autocast,
        "checkpoint": checkpoint,
    }


def jax_transforms(jax: Tensor) -> dict[str, Transform]:
    """Those of JAX: `jax.jit` with a static axis, `jax.vmap` over rows, `jax.remat`."""

    def jit(fn: Function) -> Function:
        def call(logits: Tensor, temp: Tensor, **options: Option) -> Tensor:
            return fn(logits, temp, **options)

        compiled: Function = jax.jit(call, static_argnames="axis")
        return compiled

    def remat(fn: Function) -> Function:
        def call(logits: Tensor, temp: Tensor, **options: Option) -> Tensor:
            static = {"axis": options.pop("axis")} if "axis" in options else {}
            return jax.remat(partial(fn, **static))(logits, temp, **options)

        return call

    return {"jit": jit, "vmap": partial(_by_rows, import_module("jax.numpy"), jax.vmap), "remat": remat}


def _by_rows(library: Tensor, vmap: Function, fn: Function) -> Function:
    """The function of one row, mapped over all of them: it is given logits of one axis, and ``axis=-1`` if any.

    Where there are no rows there is nothing to map: the function is called as it is.
    """

    def call(logits: Tensor, temp: Tensor, **options: Tensor) -> Tensor:
        axis = options.get("axis", -1)
        moved = library.moveaxis(logits, axis, -1)
        *rest, choices = moved.shape
        if 0 in rest:
            return fn(logits, temp, **options)
        rows = math.prod(rest)
        mapped = {"logits": moved.reshape(rows, choices)}
        if getattr(temp, "ndim", 0):
            shape = [1 if i == axis % logits.ndim else n for i, n in enumerate(logits.shape)]
            mapped["temp"] = library.moveaxis(library.broadcast_to(temp, shape), axis, -1).reshape(rows, 1)
            shared = {}
        else:
            shared = {"temp": temp}
        for name, value in options.items():
            if name == "axis":
                shared[name] = -1
            elif name == "index":
                mapped[name] = value.reshape(rows)
            else:
                mapped[name] = library.moveaxis(value, axis, -1).reshape(rows, choices)

        def row(numbers: dict[str, Tensor]) -> Tensor:
            given = numbers | shared
            return fn(given.pop("logits"), given.pop("temp"), **given)

        return library.moveaxis(vmap(row)(mapped).reshape(*rest, choices), -1, axis)

    return call
