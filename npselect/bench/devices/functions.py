"""The operators' functions as the records declare them: what each takes, what it fills, what it must move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple

from npselect import OPERATORS
from npselect._operators import Result, RowFunction
from npselect.bench.devices.arrays import DeviceArray, Shape
from npselect.bench.problem import least_bytes

__all__ = ["FUNCTIONS", "SEED", "Function", "Operators", "function", "results"]

SEED = 0x0123456789ABCDEF
Operators = Mapping[str, Any]  # modules, or what tests put in their place, by name


class Function(NamedTuple):
    """A function of an operator; with `noise` "seed" or "noise", of one that samples."""

    operator: str
    name: str
    noise: str = ""

    def __str__(self) -> str:
        return f"{self.operator}.{self.name}{' ' if self.noise else ''}{self.noise}"

    @property
    def record(self) -> RowFunction:
        """As it is declared."""
        return OPERATORS[self.operator].functions[self.name]

    @property
    def cotangents(self) -> int:
        """How many arrays come before the logits."""
        return len(self.record.cotangents)

    def __call__(
        self,
        cotangents: Sequence[DeviceArray],
        logits: DeviceArray,
        temp: DeviceArray,
        *,
        noise: DeviceArray = None,
        operators: Operators | None = None,
        **options: object,
    ) -> Any:
        """Call it, by default that of npselect, with as many of `cotangents` as it takes."""
        operator = (operators or {}).get(self.operator) or import_module(f"npselect.{self.operator}")
        arguments = [*cotangents[: self.cotangents], logits]
        if Result.INDEX not in self.record.results:
            arguments.append(temp)
        if self.noise:
            options[self.noise] = SEED if self.noise == "seed" else noise
        return getattr(operator, self.name)(*arguments, **options)

    def outs(self, shape: Shape, axis: int, temp: Shape, dtype: str) -> list[tuple[Shape, str]]:
        """Shape and dtype of each result."""
        axis %= len(shape)
        made = {
            Result.LIKE_LOGITS: (shape, dtype),
            Result.INDEX: (shape[:axis] + shape[axis + 1 :], "int64"),
            Result.PER_TEMP: (temp, dtype),
        }
        return [made[result] for result in self.record.results]

    def least_bytes(self, rows: int, choices: int, itemsize: int) -> int:
        """As of the row function, and of the noise that is given."""
        noise = rows * choices * max(4, itemsize) if self.noise == "noise" else 0
        return least_bytes(self.record, rows, choices, itemsize) + noise


FUNCTIONS = tuple(
    Function(operator.name, name, noise)
    for operator in OPERATORS.values()
    if operator.on_gpu
    for noise in ("", "seed", "noise")
    for name in operator.functions
    if (noise in operator.options_of(name) if noise else "seed" not in operator.options_of(name))
)


def function(text: str) -> Function:
    """The function that is written so."""
    return next(each for each in FUNCTIONS if str(each) == text)


def results(returned: Any) -> tuple[Any, ...]:
    """What a function returned, as a tuple."""
    return returned if isinstance(returned, tuple) else (returned,)
