"""Kernels run, all threads of a launch at a time.

Threads that are at the same place go on together. Those that are furthest behind go first, so that threads of a warp
that have parted ways meet again. At a shuffle a thread waits for all lanes of its warp, at a barrier for all threads of
its block, at the same instruction.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from ptx.counts import Counts, classes
from ptx.flow import Part, divide, doubtful
from ptx.memory import Fault, Space
from ptx.operations import TYPES
from ptx.program import Instruction, Program, PtxError
from ptx.steps import WARP, Step, meeting, step

__all__ = ["Kernel", "Launch"]

_SHARED, _LOCAL, _CONSTANT = 1 << 24, 1 << 26, 1 << 28  # where their addresses begin
_GAP = 64  # bytes between variables
_PATIENCE = 10**6  # parts gone through by a launch
_OF_WARPS = "shfl.sync.bfly.b32", "bar.warp.sync"
_RUNNING, _WAITING, _GONE = range(3)
_ALL = slice(None)


class Kernel:
    """A kernel made ready to run; an instruction that is not known is an error now."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.symbols: dict[str, int] = {}
        constants = {name: (align, len(contents)) for name, (align, contents) in program.constants.items()}
        self.shared_size, self.local_size = self._place(_SHARED, program.shared), self._place(_LOCAL, program.local)
        self.constants = Space("constant", _CONSTANT, self._place(_CONSTANT, constants))
        for name, (_, contents) in program.constants.items():
            self.constants.allot(self.symbols[name], len(contents))
            self.constants.fill(self.symbols[name], np.frombuffer(contents, np.uint8))
        self.parts = divide(program)
        self.doubtful = doubtful(self.parts)
        self.steps = [[step(program, self.symbols, each) for each in part.body] for part in self.parts]
        of_warps = {part.number: part.end for part in self.parts if part.end and part.end.opcode in _OF_WARPS}
        self.meetings = {number: meeting(program, self.symbols, end) for number, end in of_warps.items()}
        self.visited: set[int] = set()  # the parts that were ever gone through
        self.classes = [classes([*part.body, *([part.end] if part.end else [])]) for part in self.parts]

    def _place(self, base: int, variables: dict[str, tuple[int, int]]) -> int:
        end = base + _GAP
        for name, (align, nbytes) in variables.items():
            self.symbols[name] = -(-end // align) * align
            end = self.symbols[name] + nbytes + _GAP
        return end - base

    def run(self, blocks: int, threads: int, arguments: Sequence[Any], memory: Space) -> Counts:
        """Launch it; its threads may use whatever is allotted in `memory`, which nobody has used before."""
        launch = Launch(self, blocks, threads, arguments, memory)
        with np.errstate(all="ignore"):
            launch.run()
        return launch.counts


class Launch:
    """The threads of a launch, and all that they see; `lanes` are numbers of threads, rising, or the slice of all."""

    def __init__(self, kernel: Kernel, blocks: int, threads: int, arguments: Sequence[Any], memory: Space) -> None:
        program = kernel.program
        if not 0 < threads <= program.most_threads or blocks < 1:
            raise Fault(f"{blocks} blocks of {threads} threads, each to have at most {program.most_threads}")
        self.kernel, self.blocks, self.threads, self.size = kernel, blocks, threads, blocks * threads
        self.number = np.arange(self.size)
        self.block, self.thread = np.divmod(self.number, threads)
        self.warp = self.block * -(-threads // WARP) + self.thread // WARP
        self.places = {"%tid.x": self.thread.astype(np.uint32), "%ctaid.x": self.block.astype(np.uint32)}
        self.arguments = [_argument(*pair) for pair in zip(arguments, program.parameters.values(), strict=True)]
        shared = Space("shared", _SHARED, kernel.shared_size, blocks, self.warp)
        local = Space("local", _LOCAL, kernel.local_size, self.size)
        for space, variables in ((shared, program.shared), (local, program.local)):
            for name, (_, nbytes) in variables.items():
                space.allot(kernel.symbols[name], nbytes)
        self.spaces = {"global": memory, "shared": shared, "local": local, "const": kernel.constants}
        self.copies = {"shared": self.block, "local": self.number}
        self.registers: dict[str, Any] = {}
        self.certain = {name: np.zeros(self.size, bool) for name in kernel.doubtful}
        self.part = np.zeros(self.size, np.int64)
        self.state = np.full(self.size, _RUNNING)
        self.counts = Counts()

    # -------------------------------------------------------------------------------------------- what steps use

    def read(self, name: str, lanes: Any) -> Any:
        if name in self.certain and not self.certain[name][lanes].all():
            raise Fault(f"{name} was never written")
        return self.registers[name][lanes]

    def write(self, name: str, lanes: Any, values: Any) -> None:
        if lanes is _ALL:
            self.registers[name] = self.wide(values, lanes)
        else:
            if name not in self.registers:
                self.registers[name] = np.zeros(self.size, values.dtype)
            self.registers[name][lanes] = values
        if name in self.certain:
            self.certain[name][lanes] = True

    def wide(self, values: Any, lanes: Any) -> Any:
        """One entry for each thread, where there is one for all."""
        size = self.size if lanes is _ALL else len(lanes)
        return values if len(values) == size else np.repeat(values, size)

    def load(self, space: str, addresses: Any, lanes: Any, dtype: np.dtype[Any], count: int) -> Any:
        copies = self._asked(space, addresses, lanes, dtype.itemsize * count)
        return self.spaces[space].load(addresses, copies, self.number[lanes] + 1, dtype, count)

    def store(self, space: str, addresses: Any, lanes: Any, values: Any) -> None:
        copies = self._asked(space, addresses, lanes, values[0].nbytes)
        self.spaces[space].store(addresses, copies, self.number[lanes] + 1, values)

    def _asked(self, space: str, addresses: Any, lanes: Any, nbytes: int) -> Any:
        if space == "global":
            self.counts.asked(self.warp[lanes], addresses, nbytes)
        return self.copies[space][lanes] if space in self.copies else np.zeros(len(addresses), np.int64)

    # -------------------------------------------------------------------------------------------- the order of things

    def run(self) -> None:
        for _ in range(_PATIENCE):
            running = self.state == _RUNNING
            if not running.any():
                break
            number = int(self.part[running].min())
            here = running & (self.part == number)
            self._go(self.kernel.parts[number], _ALL if here.all() else np.flatnonzero(here))
        if not (self.state == _GONE).all():
            raise Fault(f"threads go on for ever, or wait in vain: {self._positions()}")

    def _go(self, part: Part, lanes: Any) -> None:
        self.kernel.visited.add(part.number)
        warps = self.warp[lanes]
        self.counts.went_through(self.kernel.classes[part.number], len(warps), 1 + np.count_nonzero(np.diff(warps)))
        for instruction, each in zip(part.body, self.kernel.steps[part.number], strict=True):
            self._do(instruction, each, lanes)
        end = part.end
        if end is None:
            self.part[lanes] = part.number + 1
        elif end.opcode == "ret":
            self.state[lanes] = _GONE
        elif end.opcode == "bra.uni" or (end.opcode == "bra" and end.guard is None):
            self.part[lanes] = part.target
        elif end.opcode == "bra":
            assert end.guard is not None
            taken = self.read(end.guard.lstrip("!"), lanes) != end.guard.startswith("!")
            self.part[lanes] = np.where(taken, part.target, part.number + 1)
        else:
            self.state[lanes] = _WAITING
            self._meet(part)

    def _do(self, instruction: Instruction, step: Step, lanes: Any) -> None:
        try:
            step(self, lanes)
        except (Fault, ZeroDivisionError, NotImplementedError) as error:
            raise Fault(f"{instruction}: {error}") from error

    def _meet(self, part: Part) -> None:
        """Let those go on for whom all have come."""
        waiting = (self.state == _WAITING) & (self.part == part.number)
        meeting = self.kernel.meetings.get(part.number)
        groups, complete = (self.warp, WARP) if meeting else (self.block, self.threads)
        met = np.bincount(groups[waiting], minlength=groups[-1] + 1) == complete
        lanes = np.flatnonzero(waiting & met[groups])
        if not len(lanes):
            return
        if meeting and part.end:
            self._do(part.end, meeting, _ALL if len(lanes) == self.size else lanes)
        else:
            self.spaces["shared"].forget(np.flatnonzero(met))
        self.state[lanes], self.part[lanes] = _RUNNING, part.number + 1

    def _positions(self) -> str:
        found = []
        for (state, number), members in itertools.groupby(self.number, lambda i: (self.state[i], self.part[i])):
            end = self.kernel.parts[number].end
            where = "have ended" if state == _GONE else f"are at {end}" if state == _WAITING else f"go on at {end}"
            found.append(f"{len(list(members))} threads {where}")
        return ", ".join(found[:8])


def _argument(value: Any, kind: str) -> Any:
    if kind == "f64":
        return np.array([value], np.float64)
    if kind != "u64":
        raise PtxError(f"a parameter of type {kind}")
    return np.array([int(value) % 2**64], TYPES[kind])
