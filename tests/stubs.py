"""The operators' type stubs, made of their signatures: ``python tests/stubs.py --write`` renews them.

A checker learns from them what comes back: the dtype of the logits, a `DeviceArray` for one, or `out`. The signatures
are those of the modules, and a test compares; nobody writes the stubs by hand.
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from types import FunctionType
from typing import NamedTuple

import npselect
from npselect._operators import Operator, Result, RowFunction

PACKAGE = Path(npselect.__file__).parent
HEAD = """\
# Made of {name}.py by `python tests/stubs.py --write`.

from typing import Any, SupportsIndex, TypeAlias, TypeVar, overload

import numpy as np
import numpy.typing as npt

from npselect._dtypes import Array
from npselect._gpu.array import DeviceArray

__all__ = [{names}]

Float = TypeVar("Float", bound=np.floating[Any])
Out = TypeVar("Out", bound=npt.NDArray[Any] | DeviceArray)
Integers: TypeAlias = npt.NDArray[np.integer[Any]] | npt.NDArray[np.bool_]
AnyLike: TypeAlias = npt.ArrayLike | DeviceArray
"""


class Types(NamedTuple):
    """One overload: what the arrays, `temp` and `out` are, and what comes back for each result. None: as it is."""

    arrays: str
    result: str
    temp: str | None = None
    out: str | None = "None = None"


def overloads(function: RowFunction) -> list[Types]:
    """From the most to the least that can be said."""
    if function.results == (Result.INDEX,):
        kinds = [Types("npt.ArrayLike", "npt.NDArray[np.int64]")]
    elif Result.PER_TEMP in function.results:
        kinds = [
            Types("npt.NDArray[Float]", "Float", temp="float = {default}"),
            Types("npt.NDArray[Float]", "npt.NDArray[Float]", temp="npt.NDArray[Any]"),
            Types("npt.ArrayLike", "Any"),
        ]
    else:
        kinds = [
            Types("npt.NDArray[Float]", "npt.NDArray[Float]"),
            Types("Integers", "npt.NDArray[np.float64]"),
            Types("npt.ArrayLike", "Array"),
        ]
    kinds.insert(0, Types("DeviceArray", "DeviceArray"))  # first, as checkers take one for a sequence
    if len(function.results) > 1:
        return [*kinds, Types("AnyLike", "Array | DeviceArray", out=None)]
    return [*kinds, Types("AnyLike", "Out", out="Out")]


def written(name: str, function: FunctionType, record: RowFunction) -> str:
    """The overloads of one function, a line each."""
    arrays = {*record.cotangents, "logits"}
    lines = []
    for types in overloads(record):
        parts, keywords = [], False
        for one in inspect.signature(function).parameters.values():
            if one.kind is one.KEYWORD_ONLY and not keywords:
                parts.append("*")
                keywords = True
            default = "" if one.default is one.empty else f" = {one.default!r}".replace("'", '"')
            kind = f"{one.annotation}{default}"
            if one.name in arrays:
                kind = types.arrays
            elif one.name == "temp" and types.temp is not None:
                kind = types.temp.format(default=one.default)
            elif one.name == "out" and types.out is not None:
                kind = types.out
            elif one.name == "out":
                kind = f"{one.annotation.replace('Array', 'Array | DeviceArray')}{default}"
            elif one.annotation.startswith("npt.ArrayLike"):
                kind = f"{one.annotation.replace('npt.ArrayLike', 'AnyLike')}{default}"
            parts.append(f"{one.name}: {kind}")
        result = (
            types.result if len(record.results) == 1 else f"tuple[{', '.join([types.result] * len(record.results))}]"
        )
        lines.append(f"@overload\ndef {name}({', '.join(parts)}) -> {result}: ...")
    return "\n".join(lines) + "\n"


def stub(operator: Operator) -> str:
    """The text of an operator's stub."""
    module = getattr(npselect, operator.name)
    names = [*module.__all__]
    head = HEAD.format(name=operator.name, names=", ".join(f'"{name}"' for name in names))
    return "\n".join([head, *(written(name, getattr(module, name), operator.functions[name]) for name in names)])


def main() -> None:
    """Write them."""
    if sys.argv[1:] != ["--write"]:
        raise SystemExit(__doc__)
    for operator in npselect.OPERATORS.values():
        (PACKAGE / f"{operator.name}.pyi").write_text(stub(operator), encoding="utf-8")


if __name__ == "__main__":
    main()
