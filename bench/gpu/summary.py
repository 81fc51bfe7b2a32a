"""Conclusions: a section's digest, the targets with what was measured, and the tables."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from gpu import Record
from gpu.results import Results

__all__ = ["digest", "is_wrong", "line", "markdown", "targets"]

ALIGNED, SHORT, ODD, LONG = (256, 1000, 1024, 4096, 16384), (8, 10, 16, 32), (1025, 4097), (32768, 50257, 131072)
PASSES, GUMBEL = ("straight_through.forward", "straight_through.backward"), ("gumbel_softmax.forward seed",)


class Target(NamedTuple):
    """What is to be reached: a fraction or ratio of at least, or a time of at most, `wanted`."""

    what: str
    wanted: float
    measured: float | None
    where: str
    met: bool | None


def digest(records: Sequence[Record]) -> Record:
    """The numbers of a section in a few words."""
    found: Record = {}
    checks = [record for record in records if record["kind"] == "check"]
    if checks:
        found["calls"] = sum(record.get("calls", 1) for record in checks)
        found["elements"] = sum(record["elements"] for record in checks)
        found["differing"] = sum(record["differing"] for record in checks)
        wrong = [record for record in checks if record["differing"]]
        if wrong:
            found["first"] = {key: wrong[0].get(key) for key in ("what", "dtype", "choices", "case", "first")}
    timings = [record for record in records if record["kind"] == "timing" and record.get("of_copy") is not None]
    if timings:
        found["timings"] = len(timings)
        found["of_copy"] = [round(pick(record["of_copy"] for record in timings), 3) for pick in (min, max)]
    facts = {record["name"]: record["value"] for record in records if record["kind"] == "fact"}
    found.update({name: value for name, value in facts.items() if len(json.dumps(value)) < 300})
    notes = [record["text"] for record in records if record["kind"] == "note"]
    if notes:
        found["notes"] = notes[:5]
    errors = [record for record in records if record["kind"] == "error"]
    if errors:
        found["errors"] = len(errors)
        found["first_error"] = f"{errors[0]['where']}: {errors[0]['text'].splitlines()[-1]}"
    return found


def is_wrong(records: Iterable[Record]) -> bool:
    """Whether a comparison found a difference, or an output was outside its bound."""
    return any(record.get("differing") for record in records if record["kind"] == "check")


def line(name: str, entry: Record) -> str:
    """What is printed when a section has ended."""
    return f"{name}: {entry['status']}, {entry['seconds']:.1f} s, {json.dumps(entry['digest'])[:900]}"


# ---------------------------------------------------------------------------------------------------------- targets


def targets(results: Results) -> list[Record]:
    """Target, measured, met: None where it was not measured."""
    speed = [record for record in results.records("speed") if record["kind"] == "timing"]
    peers = [record for record in results.records("peers", "compiled") if record["kind"] == "timing"]
    host = [record for record in results.records("host") if record["kind"] == "host"]
    many = [record for record in results.records("many") if record["kind"] == "check"]
    found = [
        _target("backward, K 256..16384, aligned", 0.93, _of_copy(speed, PASSES[1:], ALIGNED)),
        _target("forward, K 256..16384, aligned", 0.92, _of_copy(speed, PASSES[:1], ALIGNED)),
        _target("forward and backward, K below 64", 0.80, _of_copy(speed, PASSES, SHORT)),
        _target("forward and backward, odd K", 0.85, _of_copy(speed, PASSES, ODD)),
        _target("forward and backward, K beyond one block", 0.55, _of_copy(speed, PASSES, LONG)),
        _target("Gumbel forward, K 256..16384, aligned", 0.60, _of_copy(speed, GUMBEL, ALIGNED)),
        _target("backward, torch eager's time over ours", 1.9, _to_ours(peers, "torch eager", PASSES[1:])),
        _target("forward and backward, torch.compile's time over ours", 1.0, _to_ours(peers, "torch.compile", PASSES)),
        _target("forward and backward, Triton's time over ours", 1.0, _to_ours(peers, "Triton", PASSES)),
        _target("host cost of a launch, preallocated arrays, us", 10.0, _public(host), at_most=True),
        _target("bits equal to the CPU tier's, of 10**8 elements", 1.0, _equal(many)),
    ]
    return [target._asdict() for target in found]


Values = list[tuple[float, str]]  # with where each was measured


def _target(what: str, wanted: float, values: Values, *, at_most: bool = False) -> Target:
    """The worst of the values."""
    if not values:
        return Target(what, wanted, None, "", None)
    measured, where = (max if at_most else min)(values, key=lambda pair: pair[0])
    return Target(what, wanted, measured, where, measured <= wanted if at_most else measured >= wanted)


def _of_copy(records: Iterable[Record], functions: Sequence[str], choices: Sequence[int]) -> Values:
    """The fractions of the copy among float32 timings."""
    return [
        (record["of_copy"], _where(record))
        for record in records
        if record["what"] in functions and record["choices"] in choices and record["dtype"] == "float32"
        if record.get("of_copy") is not None
    ]


def _to_ours(records: Iterable[Record], peer: str, functions: Sequence[str]) -> Values:
    """The ratios of a peer's time to npselect's, both of one interleaved run."""
    return [
        (record["to_npselect"], _where(record))
        for record in records
        if record["peer"] == peer and record["what"] in functions and record.get("to_npselect") is not None
    ]


def _public(records: Iterable[Record]) -> Values:
    """Microseconds of the public functions."""
    return [(record["median_us"], record["what"]) for record in records if record["layer"] == "public"]


def _equal(records: Sequence[Record]) -> Values:
    """The fraction of all elements that do not differ."""
    elements = sum(record["elements"] for record in records)
    differing = sum(record["differing"] for record in records)
    return [(1 - differing / elements, f"{elements} elements")] if elements else []


def _where(record: Record) -> str:
    return f"{record['what'].split('.', 1)[-1]}, K {record['choices']}, {record['dtype']}"


# ----------------------------------------------------------------------------------------------------------- tables


def markdown(results: Results) -> str:
    """What the README may show."""
    machine = {record["name"]: record["value"] for record in results.records("machine") if record["kind"] == "fact"}
    device = machine.get("device") or {}
    name = device.get("name", "no device seen") if isinstance(device, dict) else str(device)
    head = f"{name}, driver {machine.get('driver', '?')}, {results.content['began'][:10]}"
    blocks = [f"# npselect on a GPU: {head}", _sections(results), _targets(results)]
    blocks += [_fractions(results), _ratios(results), _host(results)]
    return "\n\n".join(filter(None, blocks)) + "\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, cells)) + " |" for cells in lines)


def _sections(results: Results) -> str:
    rows = [(name, entry["status"], f"{entry['seconds']:.1f}") for name, entry in results.content["sections"].items()]
    return _table(["section", "status", "seconds"], rows)


def _targets(results: Results) -> str:
    rows = []
    for target in results.content["targets"]:
        if target["measured"] is None:
            rows.append((target["what"], target["wanted"], "not measured", "", ""))
        else:
            met = "yes" if target["met"] else "**no**"
            measured = f"{target['measured']:.10g}" if target["met"] is False and target["wanted"] == 1.0 else ""
            measured = measured or f"{target['measured']:.3g}"
            rows.append((target["what"], target["wanted"], measured, target["where"], met))
    return _table(["target", "wanted", "measured", "worst at", "met"], rows)


def _fractions(results: Results) -> str:
    """Fractions of the copy: a row for each dtype and K, a column for each function."""
    timings = [r for r in results.records("speed") if r["kind"] == "timing" and r.get("of_copy") is not None]
    cells = {(r["dtype"], r["choices"], r["what"]): f"{r['of_copy']:.2f}" for r in timings}
    return _crossed("Bytes over time, as a fraction of a copy measured in the same run:", ["dtype", "K"], cells)


def _ratios(results: Results) -> str:
    """Peers' times over npselect's: a row for each function, dtype and K, a column for each peer."""
    timings = [r for r in results.records("peers", "compiled") if r["kind"] == "timing" and r.get("to_npselect")]
    cells = {
        (r["what"], r["dtype"], r["choices"], r["peer"]): f"{r['to_npselect']:.2f}"
        + ("" if r.get("within_bound", True) else " (wrong)")
        for r in timings
        if r["peer"] != "npselect"
    }
    return _crossed("A peer's time over npselect's:", ["function", "dtype", "K"], cells)


def _crossed(title: str, head: Sequence[str], cells: Mapping[tuple[Any, ...], str]) -> str:
    """A table of cells by keys, the last part of which is the column's name; nothing if there are none."""
    if not cells:
        return ""
    columns = list(dict.fromkeys(key[-1] for key in cells))
    rows = [
        (*row, *(cells.get((*row, column), "") for column in columns)) for row in sorted({key[:-1] for key in cells})
    ]
    return f"{title}\n\n" + _table([*head, *columns], rows)


def _host(results: Results) -> str:
    costs = [record for record in results.records("host") if record["kind"] == "host"]
    if not costs:
        return ""
    rows = [(record["what"], record["layer"], f"{record['median_us']:.1f}") for record in costs]
    return "What a call costs on the host:\n\n" + _table(["function", "layer", "median, us"], rows)
