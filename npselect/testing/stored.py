"""Vectors read back: cases whose answers are the stored ones."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from npselect.testing.aliases import Array, Dtype, Json
from npselect.testing.case import Case
from npselect.testing.dtypes import DTYPES, floating_dtype
from npselect.testing.families import Family
from npselect.testing.patterns import values
from npselect.testing.profile import STANDARD, Profile
from npselect.testing.vectors import ANSWERS, SCHEMA, WRITTEN

__all__ = ["load_vectors"]


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
_ENTRY = _QUESTION | dict.fromkeys(ANSWERS, (list, type(None)))


class _Stored(Case):
    """A case whose answers were read: what `Case` computes stands in its place, in the instance."""

    stored_judged: Array | None = None

    @property
    def _stored(self) -> bool:
        return self.stored_judged is not None

    def answer(self, direction: str, backend: str = "reference") -> Array:
        read = {"forward": "mask", "backward": "grad_logits"}
        if self._stored and backend == "reference" and direction in read:
            return np.asarray(getattr(self, read[direction]))
        return super().answer(direction, backend)

    def allowed(self, profile: Profile) -> Array:
        return self.rows(self.bound) if self._stored and profile == STANDARD else super().allowed(profile)

    def judged(self, profile: Profile) -> Array:
        if self.stored_judged is not None and profile == STANDARD:
            return self.stored_judged
        return super().judged(profile)


@np.errstate(all="ignore")
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
        names = (f"{operator}-{form}.json" for operator in WRITTEN for form in DTYPES)
        paths = [path / name for name in names if (path / name).exists()]
        if not paths:
            raise ValueError(f"{path}: holds no vectors, such as {next(iter(WRITTEN))}-float32.json")
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
        for key, known in (("operator", [*WRITTEN]), ("dtype", [*DTYPES])):
            if whole[key] not in known:
                raise ValueError(f"{key} is {whole[key]!r}; expected one of {', '.join(known)}")
        dtype = floating_dtype(whole["dtype"])
        for place, entry in enumerate(whole["cases"]):
            where = f"{path}: case {_called(entry, place)}"
            yield _case(entry, whole["operator"], dtype)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _called(entry: Json, place: int) -> str:
    """The id of a case or, if it has none, its place."""
    name = entry.get("id") if isinstance(entry, dict) else None
    return repr(name) if isinstance(name, str) else f"number {place}"


def _keys(entry: Json, kinds: Json) -> None:
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
    dict: "an object",
    (str, type(None)): "a string or null",
    (list, type(None)): "an array or null",
}


def _json(item: Json) -> str:
    """An item in some characters of JSON."""
    text = json.dumps(item)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _case(entry: Json, operator: str, dtype: Dtype) -> Case:
    """The case that an entry is."""
    family = WRITTEN[operator]
    indexed = "index" in family.given
    further: dict[str, type] = {name: list for name in ("index", "sample_noise") if name in family.given}
    if isinstance(entry, dict) and "settings" in entry:
        further |= {"settings": dict}
    _keys(entry, _ENTRY | further)
    prefix = f"{family.prefix}{dtype.name}/"
    name, error = entry["id"].removeprefix(prefix), entry["error"]
    if not entry["id"].startswith(prefix) or name.partition("/")[0] != entry["group"]:
        raise ValueError(f"id is {_json(entry['id'])}; expected it to begin with '{prefix}{entry['group']}/'")
    if not all(isinstance(flag, str) for flag in entry["flags"]):
        raise ValueError(f"flags is {_json(entry['flags'])}; expected an array of strings")
    if error not in (None, "ValueError") or (error is not None) != ("error" in entry["flags"]):
        raise ValueError(f"error is {_json(error)} and flags is {_json(entry['flags'])}; expected both or neither")
    if (entry["noise"] is not None) != ("noise" in family.given):
        raise ValueError(f"noise is {_json(entry['noise'])}, which does not fit operator {operator}")
    for key in ANSWERS:
        if (entry[key] is None) != (error is not None):
            raise ValueError(f"{key} is {_json(entry[key])} and error is {_json(error)}; expected one of them")

    shape, axis = entry["shape"], entry["axis"]
    if not shape or not all(type(length) is int and length >= 0 for length in shape):
        raise ValueError(f"shape is {_json(shape)}; expected at least one length")
    if not -len(shape) <= axis < len(shape):
        raise ValueError(f"axis is {axis}; expected one of the {len(shape)} of shape {shape}")
    rows = math.prod(_without(shape, axis))

    def floats(key: str, form: Dtype = dtype) -> Array:
        return numbers(key, entry[key], form)

    def numbers(key: str, items: Json, form: Dtype) -> Array:
        _count(key, items, shape, math.prod(shape))
        try:
            return values(items, form).reshape(shape)
        except ValueError as wrong:
            raise ValueError(f"{key}{wrong}") from None

    def samples(key: str) -> Array:
        if not entry[key]:
            raise ValueError(f"{key} is []; expected at least one array")
        return np.stack([numbers(f"{key}[{place}]", one, dtype) for place, one in enumerate(entry[key])])

    def bools(key: str, count: int) -> Array:
        _count(key, entry[key], shape, count)
        for place, item in enumerate(entry[key]):
            if not isinstance(item, bool):
                raise ValueError(f"{key}[{place}] is {_json(item)}; expected true or false")
        return np.array(entry[key], np.bool_)

    def integers(key: str, count: int) -> Array:
        _count(key, entry[key], shape, count)
        for place, item in enumerate(entry[key]):
            if type(item) is not int or not -1 <= item < max(1, shape[axis]):
                raise ValueError(f"{key}[{place}] is {_json(item)}; expected a candidate of its row, or -1")
        return np.array(entry[key], np.int64)

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
        operator=operator,
        index=integers("index", rows).reshape(_without(shape, axis)) if indexed else None,
        settings=_settings(entry.get("settings", {}), family),
        sample_noise=samples("sample_noise") if "sample_noise" in family.given else None,
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


def _settings(given: Json, family: Family) -> dict[str, float | str]:
    """What an entry sets, by name: words as they are, numbers from their bits."""
    known = {name for one in family.settings for name in one}
    found: dict[str, float | str] = {}
    for name, value in given.items():
        if name not in known:
            raise ValueError(f"settings has {name!r}, which operator {family.name} does not take")
        if value == "adaptive" and name == "gap":
            found[name] = value
            continue
        try:
            (number,) = values([value], np.dtype(np.float64))
        except ValueError as wrong:
            raise ValueError(f"settings[{name!r}]{str(wrong).removeprefix('[0]')}") from None
        found[name] = float(number)
    return found


def _without(shape: list[int], axis: int) -> list[int]:
    """The shape of what each row has one of."""
    return [length for place, length in enumerate(shape) if place != axis % len(shape)]


def _count(key: str, items: Json, shape: Json, count: int) -> None:
    """Raise ValueError unless it is an array of so many items."""
    if not isinstance(items, list):
        raise ValueError(f"{key} is {_json(items)}; expected an array")
    if len(items) != count:
        raise ValueError(f"{key} has {len(items)} items; shape {shape} expects {count}")
