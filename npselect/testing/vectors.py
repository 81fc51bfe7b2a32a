"""Cases with their answers as files of JSON, for those who cannot import Python.

One file for each operator and dtype, as `vectors.schema.json` beside them describes. A float is its bit pattern with
its dtype, ``"f32:3f800000"``; arrays are flat, in C order. The same bytes are written on every processor, as long as
NumPy's random streams stay what they are: the answers are the reference tier's, which calls no library function, and
the bounds, which do call exp, are rounded up to 16 significant bits.

A case of more than `LARGEST` elements is cut to its first rows, one at least, and has ``[:rows]`` at the end of its id;
one whose rows are longer than `LONGEST` is left out. (16 bits have longer rows, in which their sums stagnate.)
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from npselect import gumbel_softmax, straight_through
from npselect.testing import tolerance
from npselect.testing.case import Case
from npselect.testing.cases import all_cases
from npselect.testing.compare import Allowed
from npselect.testing.dtypes import DTYPES, floating_dtype

__all__ = ["LARGEST", "LONGEST", "SCHEMA", "load_vectors", "patterns", "values", "write_vectors"]

Array = npt.NDArray[Any]

SCHEMA = "npselect-vectors/1"
LARGEST = 256  # elements in a case
LONGEST = {2: 4096, 4: 2048, 8: 2048}  # choices in a row, by the size of a number

_SCHEMA_FILE = "vectors.schema.json"
_OPERATORS = {"straight_through": straight_through, "gumbel_softmax": gumbel_softmax}
_STANDARD = Allowed("standard")


# ------------------------------------------------------------------------------------------------ bit patterns


class _Pattern(NamedTuple):
    """How the floats of a dtype are written: a prefix and hexadecimal digits; infinity, and the NaN of results."""

    prefix: str
    digits: int
    infinity: int
    nan: int

    @property
    def unsigned(self) -> np.dtype[Any]:
        return np.dtype(f"u{self.digits // 2}")


_PATTERNS = {
    "float16": _Pattern("f16:", 4, 0x7C00, 0x7E00),
    "bfloat16": _Pattern("bf16:", 4, 0x7F80, 0x7FC0),
    "float32": _Pattern("f32:", 8, 0x7F800000, 0x7FC00000),
    "float64": _Pattern("f64:", 16, 0x7FF0000000000000, 0x7FF8000000000000),
}


def patterns(array: Array, *, canonical: bool = False) -> list[str]:
    """The bit patterns of an array, flat, in C order.

    Parameters
    ----------
    array : ndarray
        Of one of the four dtypes.
    canonical : bool
        Whether every NaN is written as the positive quiet one without a payload.

    Returns
    -------
    list of str

    Examples
    --------
    >>> import numpy as np
    >>> from npselect.testing.vectors import patterns
    >>> patterns(np.array([1.0, -0.0], np.float32))
    ['f32:3f800000', 'f32:80000000']
    """
    form = _PATTERNS[array.dtype.name]
    bits = np.ascontiguousarray(array).reshape(-1).view(form.unsigned)
    if canonical:
        without_sign = bits & (~bits.dtype.type(0) >> 1)
        bits = np.where(without_sign > form.infinity, bits.dtype.type(form.nan), bits)
    return [f"{form.prefix}{number:0{form.digits}x}" for number in bits.tolist()]


def values(written: list[Any], dtype: np.dtype[Any]) -> Array:
    """The array, of one dimension, whose bit patterns these are.

    Parameters
    ----------
    written : list of str
        As `patterns` returns it.
    dtype : dtype
        That they must have.

    Returns
    -------
    ndarray

    Raises
    ------
    ValueError
        One of them is no pattern of that dtype.

    Examples
    --------
    >>> import numpy as np
    >>> from npselect.testing.vectors import values
    >>> values(["f16:3c00", "f16:fc00"], np.dtype(np.float16))
    array([  1., -inf], dtype=float16)
    """
    form = _PATTERNS[dtype.name]
    fits = re.compile(f"{form.prefix}[0-9a-f]{{{form.digits}}}").fullmatch
    for place, item in enumerate(written):
        if not isinstance(item, str) or fits(item) is None:
            raise ValueError(f"[{place}] is {item!r}; expected '{form.prefix}' and {form.digits} digits of 0-9a-f")
    digits = "".join(item[len(form.prefix) :] for item in written)
    return np.frombuffer(bytes.fromhex(digits), form.unsigned.newbyteorder(">")).astype(form.unsigned).view(dtype)


# ------------------------------------------------------------------------------------------------ writing


def write_vectors(
    folder: str | os.PathLike[str],
    *,
    dtypes: npt.DTypeLike | Iterable[npt.DTypeLike] = DTYPES,
    operators: ModuleType | Iterable[ModuleType] = (straight_through, gumbel_softmax),
    progress: Callable[[int, int, str], object] | None = None,
) -> list[Path]:
    """Write the cases and the oracle's answers as JSON, a file for each operator and dtype, and the JSON Schema.

    Parameters
    ----------
    folder : path
        Where to; it is made if it is missing. Files that are there already are replaced as a whole or not at all.
    dtypes : dtype or iterable of dtypes, optional
        Some of float16, bfloat16, float32 and float64.
    operators : module or iterable of modules, optional
        `npselect.straight_through`, `npselect.gumbel_softmax` or both.
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
    forms = _listed("dtypes", dtypes, [*DTYPES], lambda dtype: floating_dtype(dtype).name)
    names = _listed("operators", operators, [*_OPERATORS], _name)
    asked = {
        f"{operator}-{form}.json": (operator, form, all_cases(floating_dtype(form), 0.6, _OPERATORS[operator]))
        for operator in names
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


def _listed(argument: str, given: Any, known: list[str], name_of: Callable[[Any], str]) -> list[str]:
    """The names of what was asked for, each once, in the order in which they are known."""
    one = isinstance(given, (str, ModuleType, np.dtype, type)) or not isinstance(given, Iterable)
    named = {name_of(item) for item in ([given] if one else given)}
    if not named:
        raise ValueError(f"{argument} is empty; it takes some of {', '.join(known)}")
    return [name for name in known if name in named]


def _name(operator: Any) -> str:
    for name, module in _OPERATORS.items():
        if operator is module:
            return name
    raise ValueError(f"operator is {operator!r}; it takes npselect.straight_through or npselect.gumbel_softmax")


def _shortened(case: Case) -> Iterator[Case]:
    """The case, if it is small enough; else its first rows, which are a case as well; or nothing."""
    choices = case.logits.shape[-1]
    if case.logits.size <= LARGEST:
        yield case
    elif case.logits.ndim == 2 and case.axis == -1 and choices <= LONGEST[case.logits.itemsize]:
        rows = max(1, LARGEST // choices)
        where = None if case.where is None else np.broadcast_to(case.where, case.logits.shape)[:rows]
        noise = None if case.noise is None else np.broadcast_to(case.noise, case.logits.shape)[:rows]
        logits, grad_mask = case.logits[:rows], case.grad_mask[:rows]
        name = f"{case.name}[:{rows}]"
        yield replace(case, name=name, logits=logits, grad_mask=grad_mask, where=where, noise=noise)


def _entry(case: Case) -> dict[str, Any]:
    """The case as JSON has it, in the order of the schema."""
    shape, dtype, error = case.logits.shape, case.logits.dtype, "error" in case.flags
    judged = None if error else case.judged(_STANDARD)
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
        "where": None if where is None else where.tolist(),
        "grad_mask": patterns(case.grad_mask),
    }
    if judged is None:
        return entry | dict.fromkeys(_ANSWERS)
    return entry | {
        "mask": patterns(case.mask, canonical=True),
        "grad_logits": patterns(case.grad_logits, canonical=True),
        "bound": patterns(_rounded_up(case.bound), canonical=True),
        "judged": judged.tolist(),
        "near_ties": _near_ties(case, judged).tolist(),
    }


def _near_ties(case: Case, judged: Array) -> Array:
    """Judged rows in which the rounding of the probabilities may bring another candidate up to the selected one."""
    if case.w.size == 0:
        return np.zeros_like(judged)
    with np.errstate(all="ignore"):
        top = np.max(case.w, axis=-1, keepdims=True)
        within = (top - case.w) / case.temp <= tolerance.near_tie(case.w, case.temp, case.logits.dtype)
    return np.asarray(judged & np.any(within & (case.w < top), axis=-1))


def _rounded_up(bound: Array) -> Array:
    """To 16 significant bits: the last bits of float64 are the C library's."""
    with np.errstate(all="ignore"):
        fraction, exponent = np.frexp(bound)
        return np.asarray(np.ldexp(np.ceil(np.ldexp(fraction, 16)), exponent - 16))


def _text(head: dict[str, str], entries: list[dict[str, Any]]) -> str:
    """A line for each entry of a case."""

    def lines(entry: dict[str, Any], indent: str) -> str:
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


# ------------------------------------------------------------------------------------------------ reading

_HEAD = {"schema": str, "operator": str, "dtype": str, "cases": list}
_QUESTION = {
    "id": str,
    "group": str,
    "note": str,
    "flags": list,
    "error": (str, type(None)),
    "shape": list,
    "axis": int,
    "temp": str,
    "logits": list,
    "noise": (list, type(None)),
    "where": (list, type(None)),
    "grad_mask": list,
}
_ANSWERS = ("mask", "grad_logits", "bound", "judged", "near_ties")
_ENTRY = _QUESTION | dict.fromkeys(_ANSWERS, (list, type(None)))


class _Stored(Case):
    """A case whose answers were read: what `Case` computes stands in its place, in the instance."""

    stored_judged: Array | None = None

    @property
    def _stored(self) -> bool:
        return self.stored_judged is not None

    def answer(self, direction: str, backend: str = "reference") -> Array:
        if self._stored and backend == "reference":
            return self.mask if direction == "forward" else self.grad_logits
        return super().answer(direction, backend)

    def allowed(self, how: Allowed) -> Array:
        return self.rows(self.bound) if self._stored and how == _STANDARD else super().allowed(how)

    def judged(self, how: Allowed) -> Array:
        if self.stored_judged is not None and how == _STANDARD:
            return self.stored_judged
        return super().judged(how)


def load_vectors(path: str | os.PathLike[str]) -> list[Case]:
    """Read the cases back that `write_vectors` has written.

    Parameters
    ----------
    path : path
        A file; or a folder, of which all files are read that have the names that `write_vectors` gives.

    Returns
    -------
    list of Case
        Their `mask`, `grad_logits` and `bound` are the stored ones, bit for bit, and so are the rows that count in the
        profile "standard". The flag ``"strict"`` marks a case of which no row does.

    Raises
    ------
    ValueError
        A file is not what its schema says, or the folder holds none: which file, which case, and what is wrong.
    ModuleNotFoundError
        A file is in bfloat16 and the package ml_dtypes is missing.
    OSError
        A file cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> from npselect import gumbel_softmax, testing
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     (path,) = testing.write_vectors(folder, dtypes="float16", operators=gumbel_softmax)
    ...     cases = {case.id: case for case in testing.load_vectors(path)}
    >>> case = cases["gumbel/float16/edge/-inf"]
    >>> case.note
    'never selected; the gradient there is exactly 0'
    >>> case.grad_logits[0, 1]
    np.float16(0.0)
    """
    path = Path(path)
    paths = [path]
    if path.is_dir():
        names = (f"{operator}-{form}.json" for operator in _OPERATORS for form in DTYPES)
        paths = [path / name for name in names if (path / name).exists()]
        if not paths:
            raise ValueError(f"{path}: holds no vectors, such as straight_through-float32.json")
    cases: list[Case] = []
    seen: dict[str, Path] = {}
    for file in paths:
        for case in _read(file):
            if case.id in seen:
                beside = "twice" if seen[case.id] == file else f"here and in {seen[case.id]}"
                raise ValueError(f"{file}: case {case.id!r}: stands {beside}")
            seen[case.id] = file
            cases.append(case)
    return cases


def _read(path: Path) -> Iterator[Case]:
    where = str(path)
    try:
        try:
            whole = json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise ValueError(f"is not JSON: {error}") from None
        if isinstance(whole, dict) and whole.get("schema", SCHEMA) != SCHEMA:
            raise ValueError(f"schema is {whole['schema']!r}; this npselect reads {SCHEMA!r}")
        _keys(whole, _HEAD)
        for key, known in (("operator", [*_OPERATORS]), ("dtype", [*DTYPES])):
            if whole[key] not in known:
                raise ValueError(f"{key} is {whole[key]!r}; expected one of {', '.join(known)}")
        dtype = floating_dtype(whole["dtype"])
        for place, entry in enumerate(whole["cases"]):
            where = f"{path}: case {_called(entry, place)}"
            yield _case(entry, whole["operator"], dtype)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _called(entry: Any, place: int) -> str:
    """The id of a case or, if it has none, its place."""
    name = entry.get("id") if isinstance(entry, dict) else None
    return repr(name) if isinstance(name, str) else f"number {place}"


def _keys(entry: Any, kinds: dict[str, Any]) -> None:
    """Raise ValueError unless it is an object with these entries, of these kinds."""
    if not isinstance(entry, dict):
        raise ValueError(f"is {_json(entry)}; expected an object")
    for key, kind in kinds.items():
        if key not in entry:
            raise ValueError(f"has no {key!r}")
        if not isinstance(entry[key], kind) or isinstance(entry[key], bool):
            raise ValueError(f"{key} is {_json(entry[key])}; expected {_KINDS[kind]}")
    if unknown := sorted(set(entry) - set(kinds)):
        raise ValueError(f"has {unknown[0]!r}, which {SCHEMA} does not know")


_KINDS = {
    str: "a string",
    int: "an integer",
    list: "an array",
    (str, type(None)): "a string or null",
    (list, type(None)): "an array or null",
}


def _json(item: Any) -> str:
    """An item in some characters of JSON."""
    text = json.dumps(item)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _case(entry: Any, operator: str, dtype: np.dtype[Any]) -> Case:
    """The case that an entry is."""
    _keys(entry, _ENTRY)
    prefix = f"{'gumbel/' if operator == 'gumbel_softmax' else ''}{dtype.name}/"
    name, error = entry["id"].removeprefix(prefix), entry["error"]
    if not entry["id"].startswith(prefix) or name.partition("/")[0] != entry["group"]:
        raise ValueError(f"id is {_json(entry['id'])}; expected it to begin with '{prefix}{entry['group']}/'")
    if not all(isinstance(flag, str) for flag in entry["flags"]):
        raise ValueError(f"flags is {_json(entry['flags'])}; expected an array of strings")
    if error not in (None, "ValueError") or (error is not None) != ("error" in entry["flags"]):
        raise ValueError(f"error is {_json(error)} and flags is {_json(entry['flags'])}; expected both or neither")
    if (entry["noise"] is None) != (operator == "straight_through"):
        raise ValueError(f"noise is {_json(entry['noise'])}, which does not fit operator {operator}")
    for key in _ANSWERS:
        if (entry[key] is None) != (error is not None):
            raise ValueError(f"{key} is {_json(entry[key])} and error is {_json(error)}; expected one of them")

    shape, axis = entry["shape"], entry["axis"]
    if not shape or not all(type(length) is int and length >= 0 for length in shape):
        raise ValueError(f"shape is {_json(shape)}; expected at least one length")
    if not -len(shape) <= axis < len(shape):
        raise ValueError(f"axis is {axis}; expected one of the {len(shape)} of shape {shape}")
    rows = math.prod(length for place, length in enumerate(shape) if place != axis % len(shape))

    def floats(key: str, form: np.dtype[Any] = dtype) -> Array:
        _count(entry, key, math.prod(shape))
        try:
            return values(entry[key], form).reshape(shape)
        except ValueError as wrong:
            raise ValueError(f"{key}{wrong}") from None

    def bools(key: str, count: int) -> Array:
        _count(entry, key, count)
        for place, item in enumerate(entry[key]):
            if not isinstance(item, bool):
                raise ValueError(f"{key}[{place}] is {_json(item)}; expected true or false")
        return np.array(entry[key], np.bool_)

    try:
        (temp,) = values([entry["temp"]], dtype)
    except ValueError as wrong:
        raise ValueError(f"temp{str(wrong).removeprefix('[0]')}") from None
    case = _Stored(
        name,
        entry["note"],
        floats("logits"),
        floats("grad_mask"),
        float(temp),
        axis,
        None if entry["where"] is None else bools("where", math.prod(shape)).reshape(shape),
        None if entry["noise"] is None else floats("noise"),
        tuple(entry["flags"]),
    )
    if error is None:
        bound = floats("bound", np.dtype(np.float64))
        if np.any(bound < 0):
            raise ValueError("bound has a negative number")
        bools("near_ties", rows)
        vars(case).update(
            mask=floats("mask"), grad_logits=floats("grad_logits"), bound=bound, stored_judged=bools("judged", rows)
        )
    return case


def _count(entry: dict[str, Any], key: str, count: int) -> None:
    """Raise ValueError unless an array has so many items."""
    if len(entry[key]) != count:
        raise ValueError(f"{key} has {len(entry[key])} items; shape {entry['shape']} expects {count}")
