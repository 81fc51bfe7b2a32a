"""The parts of a kernel that are gone through as one, and what that says of its registers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

from ptx.program import Instruction, Program, PtxError

__all__ = ["Part", "divide", "doubtful"]

_ENDS = {
    "bra": 1,
    "bra.uni": 1,
    "ret": 0,
    "bar.sync": 1,
    "bar.warp.sync": 1,
    "shfl.sync.bfly.b32": 5,
}  # how many operands


@dataclass(frozen=True)
class Part:
    """Instructions from a label, a branch or a meeting to the next; the last, if it is one of these, apart."""

    number: int
    body: list[Instruction]
    end: Instruction | None
    target: int | None  # the part that is branched to

    @property
    def following(self) -> list[int]:
        """The parts that may come after it."""
        falls = self.end is None or self.end.guard or self.end.opcode not in ("bra", "bra.uni", "ret")
        return [self.number + 1] * bool(falls) + ([] if self.target is None else [self.target])


def divide(program: Program) -> list[Part]:
    instructions = _without_idle_halves(program.instructions)
    starts = {0, *program.labels.values()} | {i + 1 for i, each in enumerate(instructions) if each.opcode in _ENDS}
    bounds = [*sorted(start for start in starts if start < len(instructions)), len(instructions)]
    numbers = {start: number for number, start in enumerate(bounds)}
    parts = []
    for number, (start, stop) in enumerate(pairwise(bounds)):
        body, end, target = instructions[start:stop], None, None
        if body[-1].opcode in _ENDS:
            end = body.pop()
            if len(end.operands) != _ENDS[end.opcode] or (end.guard and end.opcode != "bra"):
                raise PtxError(str(end))
            if end.opcode in ("bra", "bra.uni"):
                if end.operands[0] not in program.labels:
                    raise PtxError(str(end))
                target = numbers[program.labels[end.operands[0]]]
        parts.append(Part(number, body, end, target))
    if len(parts) in {number for part in parts for number in part.following}:
        raise PtxError("the kernel has no end")
    return parts


def _registers_of(instruction: Instruction) -> tuple[set[str], set[str]]:
    """Those that it writes, and those that it reads."""
    operands = list(instruction.operands)
    written = "" if instruction.opcode.split(".")[0] in ("st", "bra", "bar", "ret") else operands.pop(0)
    read = " ".join([*operands, instruction.guard or ""])
    writes, reads = (set(re.findall(r"%\w+", text)) for text in (written, read))
    return writes, reads - {"%tid", "%ctaid"}


def _without_idle_halves(instructions: list[Instruction]) -> list[Instruction]:
    """NVVM 20 makes 64 bits of 32 and a register that nothing writes, where the lower half alone is wanted."""
    written: set[str] = set()
    uses: dict[str, set[str]] = {}
    for instruction in instructions:
        writes, reads = _registers_of(instruction)
        written |= writes
        for name in reads:
            uses.setdefault(name, set()).add(instruction.opcode)

    def plain(instruction: Instruction) -> Instruction:
        found = re.fullmatch(
            r"mov\.b64 (%\w+) \{(%\w+), (%\w+)\}", " ".join((instruction.opcode, *instruction.operands))
        )
        if found is None or found[3] in written or uses.get(found[1]) != {"cvt.u32.u64"}:
            return instruction
        return Instruction(instruction.line, "cvt.u64.u32", None, (found[1], found[2]))

    return [plain(instruction) for instruction in instructions]


def doubtful(parts: list[Part]) -> set[str]:
    """The registers that are read before they are written, should the kernel go a certain way: live when it begins."""
    used: list[set[str]] = []  # by each part before it writes them
    written: list[set[str]] = []
    for part in parts:
        used.append(set())
        written.append(set())
        for instruction in [*part.body, *([part.end] if part.end else [])]:
            writes, reads = _registers_of(instruction)
            used[-1] |= reads - written[-1]
            written[-1] |= writes
    live = [set(names) for names in used]
    changed = True
    while changed:
        before = [len(names) for names in live]
        for part in reversed(parts):
            for number in part.following:
                live[part.number] |= live[number] - written[part.number]
        changed = before != [len(names) for names in live]
    return live[0]
