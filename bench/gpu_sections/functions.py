"""The operators' functions as data: what each takes, what it fills, and the bytes that it cannot do without."""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple

__all__ = ["FUNCTIONS", "SEED", "Function", "function", "results"]

SEED = 0x0123456789ABCDEF
COTANGENTS = {"backward": 1, "jvp": 1, "backward_temp": 1, "double_backward": 2}
NAMES = ("forward", "backward", "index", "soft", "jvp", "backward_temp", "double_backward")


class Function(NamedTuple):
    """A function of an operator; with `noise` "seed" or "noise", of one that samples."""

    operator: str
    name: str
    noise: str = ""

    def __str__(self) -> str:
        return f"{self.operator}.{self.name}{' ' if self.noise else ''}{self.noise}"

    @property
    def cotangents(self) -> int:
        """How many arrays come before the logits."""
        return COTANGENTS.get(self.name, 0)

    def __call__(
        self, cotangents: Any, logits: Any, temp: Any, *, noise: Any = None, operators: Any = None, **options: Any
    ) -> Any:
        """Call it, by default that of npselect, with as many of `cotangents` as it takes."""
        operator = (operators or {}).get(self.operator) or import_module(f"npselect.{self.operator}")
        arguments = [*cotangents[: self.cotangents], logits]
        if self.name != "index":
            arguments.append(temp)
        if self.noise:
            options[self.noise] = SEED if self.noise == "seed" else noise
        return getattr(operator, self.name)(*arguments, **options)

    def outs(self, shape: tuple[int, ...], axis: int, temp: tuple[int, ...], dtype: str) -> list[Any]:
        """Shape and dtype of each result."""
        if self.name == "index":
            axis %= len(shape)
            return [(shape[:axis] + shape[axis + 1 :], "int64")]
        if self.name == "backward_temp":
            return [(temp, dtype)]
        return [(shape, dtype)] * (2 if self.name == "double_backward" else 1)

    def least_bytes(self, rows: int, choices: int, itemsize: int) -> int:
        """Every input read once, every output written once; one temperature."""
        arrays = 1 + self.cotangents + {"index": 0, "backward_temp": 0, "double_backward": 2}.get(self.name, 1)
        least = arrays * rows * choices * itemsize
        if self.noise == "noise":
            least += rows * choices * max(4, itemsize)
        return least + (8 * rows if self.name == "index" else 0)


FUNCTIONS = tuple(
    Function(operator, name, noise)
    for operator, noise in (("straight_through", ""), ("gumbel_softmax", "seed"), ("gumbel_softmax", "noise"))
    for name in NAMES
)


def function(text: str) -> Function:
    """The function that is written so."""
    return next(each for each in FUNCTIONS if str(each) == text)


def results(returned: Any) -> tuple[Any, ...]:
    """What a function returned, as a tuple."""
    return returned if isinstance(returned, tuple) else (returned,)
