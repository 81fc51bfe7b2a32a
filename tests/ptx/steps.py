"""Instructions made into functions of a launch and of the threads of it that come to them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ptx.operations import OPERATIONS, TYPES
from ptx.program import Instruction, Program, PtxError

if TYPE_CHECKING:
    from ptx.machine import Launch

__all__ = ["WARP", "Step", "meeting", "step"]

WARP = 32

Step = Callable[["Launch", Any], None]
Getter = Callable[["Launch", Any], Any]
Putter = Callable[["Launch", Any, Any], None]

_ADDRESS = re.compile(r"\[(%?[\w$]+)(?:\+(-?\d+))?\]")
_REGISTER = re.compile(r"%[A-Za-z]+\d*")
_VECTORS = {"v2": 2, "v4": 4}


def step(program: Program, symbols: dict[str, int], instruction: Instruction) -> Step:
    """The function of an instruction that is no branch and no meeting."""
    try:
        if not instruction.guard:
            made = {"ld": _load, "st": _store}.get(instruction.opcode.split(".")[0], _computed)
            return made(program, symbols, instruction)
    except (KeyError, ValueError):
        pass
    raise PtxError(str(instruction))


def _computed(program: Program, symbols: dict[str, int], instruction: Instruction) -> Step:
    operation = OPERATIONS[instruction.opcode]
    result, *operands = instruction.operands
    if instruction.opcode == "mov.b64" and "{" in result:
        return _halved(program, symbols, result, *operands)
    if instruction.opcode == "mov.b64" and "{" in operands[0]:
        return _joined(program, symbols, result, *operands)
    longer = (
        instruction.opcode.startswith("cvt") and operation.operands[0][0] in "us"
    )  # of these the low bits are taken
    gets = [_getter(program, symbols, *pair, longer) for pair in zip(operands, operation.operands, strict=True)]
    put = _putter(program, result, operation.result)
    compute = operation.compute

    def computed(launch: Launch, lanes: Any) -> None:
        put(launch, lanes, compute(*[get(launch, lanes) for get in gets]))

    return computed


def _halved(program: Program, symbols: dict[str, int], halves: str, source: str) -> Step:
    """``mov.b64 {low, high}, source``; either may be _, which is nothing."""
    puts = [None if name == "_" else _putter(program, name, "b32") for name in _elements(halves, 2)]
    get = _getter(program, symbols, source, "b64")

    def halved(launch: Launch, lanes: Any) -> None:
        whole = get(launch, lanes)
        for put, shift in zip(puts, (0, 32), strict=True):
            if put:
                put(launch, lanes, (whole >> np.uint64(shift)).astype(np.uint32))

    return halved


def _joined(program: Program, symbols: dict[str, int], target: str, halves: str) -> Step:
    """``mov.b64 target, {low, high}``."""
    put = _putter(program, target, "b64")
    gets = [_getter(program, symbols, name, "b32") for name in _elements(halves, 2)]

    def joined(launch: Launch, lanes: Any) -> None:
        low, high = (launch.wide(get(launch, lanes), lanes).astype(np.uint64) for get in gets)
        put(launch, lanes, low | high << np.uint64(32))

    return joined


# ------------------------------------------------------------------------------------------------ operands


def _register(program: Program, name: str, kind: str, at_least: bool = False) -> np.dtype[Any]:
    """The dtype of a register, which must be as long as the type it is used as; or at least as long."""
    dtype, used_as = TYPES[program.type_of(name)], TYPES[kind]
    longer = at_least and dtype.itemsize > used_as.itemsize
    if not _REGISTER.fullmatch(name) or (dtype.kind == "b") != (kind == "pred"):
        raise ValueError(name)
    if dtype.itemsize != used_as.itemsize and not longer:
        raise ValueError(name)
    return dtype


def _getter(program: Program, symbols: dict[str, int], text: str, kind: str, at_least: bool = False) -> Getter:
    """What an operand is, as a type: an array with an entry for each thread, or with one for all."""
    dtype = TYPES[kind]
    if text in ("%tid.x", "%ctaid.x") and kind == "u32":
        return lambda launch, lanes: launch.places[text][lanes]
    if text.startswith("%"):
        own = _register(program, text, kind, at_least)
        if own.itemsize > dtype.itemsize:
            return lambda launch, lanes: launch.read(text, lanes).astype(dtype)
        return lambda launch, lanes: launch.read(text, lanes).view(dtype)
    constant = np.array([_constant(symbols, text, dtype)])
    return lambda launch, lanes: constant


def _constant(symbols: dict[str, int], text: str, dtype: np.dtype[Any]) -> Any:
    if dtype.kind == "f":
        prefix, length = {4: ("0f", 8), 8: ("0d", 16)}[dtype.itemsize]
        if not re.fullmatch(f"{prefix}[0-9A-F]{{{length}}}", text):
            raise ValueError(text)
        return np.array(int(text[2:], 16), f"u{dtype.itemsize}").view(dtype)
    number = symbols[text] if text in symbols else int(text, 0)
    if dtype.kind == "b":
        return np.bool_(number)
    if not -(2 ** (8 * dtype.itemsize - 1)) <= number < 2 ** (8 * dtype.itemsize):
        raise ValueError(text)
    return np.array(number % 2 ** (8 * dtype.itemsize), f"u{dtype.itemsize}").view(dtype)


def _putter(program: Program, name: str, kind: str, at_least: bool = False) -> Putter:
    """Writes a register; a number that is shorter than it is extended."""
    own = _register(program, name, kind, at_least)
    if own.itemsize > TYPES[kind].itemsize:
        wide = np.dtype(f"{TYPES[kind].kind}{own.itemsize}")
        return lambda launch, lanes, values: launch.write(name, lanes, values.astype(wide).view(own))
    return lambda launch, lanes, values: launch.write(name, lanes, values.view(own))


# ------------------------------------------------------------------------------------------------ meetings


def meeting(program: Program, symbols: dict[str, int], instruction: Instruction) -> Step:
    """What the lanes of whole warps do once all have come."""
    made = _shuffle if instruction.opcode.startswith("shfl") else _barrier_of_warps
    return made(program, symbols, instruction)


def _barrier_of_warps(program: Program, symbols: dict[str, int], instruction: Instruction) -> Step:
    """``bar.warp.sync -1``: the lanes see what the others have put into shared memory."""
    get = _getter(program, symbols, instruction.operands[0], "b32")

    def barrier(launch: Launch, lanes: Any) -> None:
        if (get(launch, lanes) != 0xFFFFFFFF).any():
            raise NotImplementedError("a barrier for some lanes of a warp")
        launch.spaces["shared"].met(np.unique(launch.warp[lanes]))

    return barrier


def _shuffle(program: Program, symbols: dict[str, int], instruction: Instruction) -> Step:
    """``shfl.sync.bfly.b32 d|p, a, distance, 31, -1``, for the lanes of whole warps, in their order."""
    result, *operands = instruction.operands
    puts = [_putter(program, *pair) for pair in zip(result.split("|"), ("b32", "pred"), strict=True)]
    gets = [_getter(program, symbols, operand, "b32") for operand in operands]

    def shuffled(launch: Launch, lanes: Any) -> None:
        values, distances, clamp, mask = (launch.wide(get(launch, lanes), lanes) for get in gets)
        if (clamp != WARP - 1).any() or (mask != 0xFFFFFFFF).any() or (distances >= WARP).any():
            raise NotImplementedError("a shuffle among some lanes of a warp")
        puts[0](launch, lanes, values[np.arange(len(values)) ^ distances])
        puts[1](launch, lanes, np.ones(len(values), bool))

    return shuffled


# ------------------------------------------------------------------------------------------------ memory


def _parsed(instruction: Instruction) -> tuple[str, int, str]:
    """Space, length of the vector, and type."""
    _, space, *vector, kind = instruction.opcode.split(".")
    count = _VECTORS[vector[0]] if vector else 1
    if len(vector) > 1 or space not in ("global", "shared", "local", "const", "param"):
        raise ValueError(instruction.opcode)
    return space, count, kind


def _elements(text: str, count: int) -> list[str]:
    names = text.strip("{}").replace(" ", "").split(",")
    if len(names) != count or text.startswith("{") != (count > 1):
        raise ValueError(text)
    return names


def _addresses(program: Program, symbols: dict[str, int], text: str) -> Getter:
    found = _ADDRESS.fullmatch(text)
    if found is None:
        raise ValueError(text)
    base = _getter(program, symbols, found[1], "u64")
    offset = np.array([int(found[2] or 0)]).view(np.uint64)
    return lambda launch, lanes: launch.wide(base(launch, lanes) + offset, lanes)


def _load(program: Program, symbols: dict[str, int], instruction: Instruction) -> Step:
    space, count, kind = _parsed(instruction)
    target, source = instruction.operands
    if space == "param":
        return _parameter(program, target, source, kind)
    puts = [_putter(program, name, kind, at_least=kind[0] in "usb") for name in _elements(target, count)]
    addresses, dtype = _addresses(program, symbols, source), TYPES[kind]

    def load(launch: Launch, lanes: Any) -> None:
        values = launch.load(space, addresses(launch, lanes), lanes, dtype, count)
        for i, put in enumerate(puts):
            put(launch, lanes, np.ascontiguousarray(values[:, i]))

    return load


def _parameter(program: Program, target: str, source: str, kind: str) -> Step:
    name = source.strip("[]")
    if program.parameters[name] != kind or source != f"[{name}]":
        raise ValueError(source)
    put, number = _putter(program, target, kind), list(program.parameters).index(name)
    return lambda launch, lanes: put(launch, lanes, launch.arguments[number])


def _store(program: Program, symbols: dict[str, int], instruction: Instruction) -> Step:
    space, count, kind = _parsed(instruction)
    if space not in ("global", "shared", "local"):
        raise ValueError(space)
    target, source = instruction.operands
    gets = [_getter(program, symbols, name, kind, at_least=kind[0] in "usb") for name in _elements(source, count)]
    addresses = _addresses(program, symbols, target)

    def store(launch: Launch, lanes: Any) -> None:
        values = [launch.wide(get(launch, lanes), lanes) for get in gets]
        launch.store(space, addresses(launch, lanes), lanes, np.stack(values, 1))

    return store
