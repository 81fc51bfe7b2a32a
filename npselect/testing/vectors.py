"""Cases with their answers as files of JSON, for those who cannot import Python.

One file for each operator and dtype, as `vectors.schema.json` beside them describes. A float is its bit pattern with
its dtype, ``"f32:3f800000"``; arrays are flat, in C order. The same bytes are written on every processor, as long as
NumPy's random streams stay what they are: the answers are the reference tier's, which calls no library function, and
the bounds, which do call exp, are rounded up to 16 significant bits.

A case of more than `LARGEST` elements is cut to its first rows, one at least, and has ``[:rows]`` at the end of its id;
one whose rows are longer than `LONGEST` is left out. (Of 16 bits, longer ones are in, in which their sums stagnate.)
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt

from npselect.testing.aliases import Array, Json, Progress, Tensor
from npselect.testing.case import Case
from npselect.testing.cases import all_cases
from npselect.testing.compare import within_rounding
from npselect.testing.dtypes import DTYPES, floating_dtype
from npselect.testing.families import FAMILIES, Family, family_of
from npselect.testing.patterns import patterns
from npselect.testing.profile import STANDARD

__all__ = ["ANSWERS", "LARGEST", "LONGEST", "SCHEMA", "WRITTEN", "write_vectors"]


SCHEMA = "npselect-vectors/1"
ANSWERS = ("mask", "grad_logits", "bound", "judged", "near_ties")
LARGEST = 256  # elements in a case
LONGEST = {2: 4096, 4: 2049, 8: 2049}  # choices in a row, by the size of a number

_SCHEMA_FILE = "vectors.schema.json"
WRITTEN = {name: family for name, family in FAMILIES.items() if family.has_vectors}


@np.errstate(all="ignore")
def write_vectors(
    folder: str | os.PathLike[str],
    *,
    dtypes: npt.DTypeLike | Iterable[npt.DTypeLike] = DTYPES,
    operators: ModuleType | Iterable[ModuleType] | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Write the cases and the oracle's answers as JSON, a file for each operator and dtype, and the JSON Schema.

    Parameters
    ----------
    folder : path
        Where to; it is made if it is missing. Files that are there already are replaced as a whole or not at all.
    dtypes : dtype or iterable of dtypes, optional
        Some of float16, bfloat16, float32 and float64.
    operators : module or iterable of modules, optional
        Some of `npselect.straight_through`, `npselect.gumbel_softmax` and so on; by default all.
    progress : callable, optional
        Called as ``progress(done, total, id)`` before each case and once after the last one.

    Returns
    -------
    list of Path
        The files of cases. Beside them lies ``vectors.schema.json``, which says what they hold.

    Raises
    ------
    ValueError
        An argument has a value that is not listed.
    ModuleNotFoundError
        bfloat16 was asked for and the package ml_dtypes is missing. Then nothing is written.
    OSError
        The folder or a file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from npselect import straight_through, testing
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     written = testing.write_vectors(folder, dtypes="float32", operators=straight_through)
    ...     case = testing.load_vectors(folder)[-1]
    >>> [path.name for path in written]
    ['straight_through-float32.json']
    >>> case.check_forward(straight_through.forward(case.logits, case.temp, **case.options))
    """
    forms = _listed("dtypes", dtypes, [*DTYPES], _dtype_name)
    names = [*WRITTEN] if operators is None else _listed("operators", operators, [*WRITTEN], _name)
    asked = {
        f"{family.name}-{form}.json": (family.name, form, _cases(family, form))
        for family in map(WRITTEN.__getitem__, names)
        for form in forms
    }
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / _SCHEMA_FILE, (files("npselect.testing") / "data" / _SCHEMA_FILE).read_text(encoding="utf-8"))
    done, total = 0, sum(len(cases) for _, _, cases in asked.values())
    for name, (operator, form, cases) in asked.items():
        entries = []
        for case in cases:
            if progress is not None:
                progress(done, total, case.id)
            done += 1
            entries += [_entry(short) for short in _shortened(case)]
        _write(folder / name, _text({"schema": SCHEMA, "operator": operator, "dtype": form}, entries))
    if progress is not None:
        progress(total, total, "")
    return [folder / name for name in asked]


def _listed(argument: str, given: Tensor, known: list[str], name_of: Callable[[object], str]) -> list[str]:
    """The names of what was asked for, each once, in the order in which they are known."""
    one = isinstance(given, (str, ModuleType, np.dtype, type)) or not isinstance(given, Iterable)
    named = {name_of(item) for item in ([given] if one else given)}
    if not named:
        raise ValueError(f"{argument} is empty; it takes some of {', '.join(known)}")
    return [name for name in known if name in named]


def _dtype_name(dtype: Tensor) -> str:
    return floating_dtype(dtype).name


def _name(operator: object) -> str:
    return family_of(operator, WRITTEN.values()).name


def _cases(family: Family, form: str) -> list[Case]:
    """All but those that give another option than the operator's cases do."""
    cases = all_cases(floating_dtype(form), family.temp, family.module)
    return [case for case in cases if not case.options.keys() & {*family.may_give}]


def _shortened(case: Case) -> Iterator[Case]:
    """The case, if it is small enough; else its first rows, which are a case as well; or nothing."""
    choices = case.logits.shape[-1]
    longest = LONGEST[8 if case.origin else case.logits.itemsize]
    if case.logits.size <= LARGEST:
        yield case
    elif case.logits.ndim == 2 and case.axis == -1 and choices <= longest:
        rows = max(1, LARGEST // choices)
        yield replace(case.part(slice(rows)), name=f"{case.name}[:{rows}]")


def _entry(case: Case) -> Json:
    """The case as JSON has it, in the order of the schema."""
    shape, dtype, error = case.logits.shape, case.logits.dtype, "error" in case.flags
    judged = None if error else case.judged(STANDARD)
    counts = judged is not None and (bool(np.any(judged)) or len(judged) == 0)

    def full(option: Array | None) -> Array | None:
        return None if option is None else np.broadcast_to(option, shape).reshape(-1)

    where, noise = full(case.where), full(case.noise)
    entry = {
        "id": case.id,
        "group": case.group,
        "note": case.note,
        "flags": [*case.flags, *([] if counts else ["strict"])],
        "error": "ValueError" if error else None,
        "shape": [*shape],
        "axis": case.axis,
        "temp": patterns(np.asarray(case.temp, np.float64).astype(dtype), canonical=True)[0],
        "logits": patterns(case.logits),
        "noise": None if noise is None else patterns(noise),
        **({} if case.index is None else {"index": case.index.reshape(-1).tolist()}),
        **({} if case.sample_noise is None else {"sample_noise": [patterns(one) for one in case.sample_noise]}),
        **({} if not case.settings else {"settings": {name: _setting(one) for name, one in case.settings.items()}}),
        "where": None if where is None else where.tolist(),
        "grad_mask": patterns(case.grad_mask),
    }
    if judged is None:
        return entry | dict.fromkeys(ANSWERS)
    return entry | {
        "mask": patterns(case.mask, canonical=True),
        "grad_logits": patterns(case.grad_logits, canonical=True),
        "bound": patterns(_rounded_up(case.bound), canonical=True),
        "judged": judged.tolist(),
        "near_ties": _near_ties(case, judged).tolist(),
    }


def _setting(value: float | str) -> str:
    """A word, or the bits of a number in float64."""
    return value if isinstance(value, str) else patterns(np.array([value], np.float64))[0]


def _near_ties(case: Case, judged: Array) -> Array:
    """Judged rows in which the rounding of the probabilities may bring another candidate up to the selected one."""
    w = case.chosen_from
    if w.size == 0:
        return np.zeros_like(judged)
    smaller = w < np.max(w, axis=-1, keepdims=True)
    return np.asarray(judged & np.any(within_rounding(case, STANDARD) & smaller, axis=-1))


def _rounded_up(bound: Array) -> Array:
    """To 16 significant bits: the last bits of float64 are the C library's."""
    with np.errstate(all="ignore"):
        fraction, exponent = np.frexp(bound)
        return np.asarray(np.ldexp(np.ceil(np.ldexp(fraction, 16)), exponent - 16))


def _text(head: dict[str, str], entries: list[Json]) -> str:
    """A line for each entry of a case."""

    def lines(entry: Json, indent: str) -> str:
        return f",\n{indent}".join(f'"{key}": {json.dumps(item, separators=(",", ":"))}' for key, item in entry.items())

    cases = ",\n".join(f"  {{{lines(entry, '   ')}}}" for entry in entries)
    return f'{{{lines(head, " ")},\n "cases": [\n{cases}\n ]}}\n'


def _write(path: Path, text: str) -> None:
    """The whole file or, if anything is in the way, what was there before."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        unfinished.write_bytes(text.encode())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
