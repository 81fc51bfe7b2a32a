"""PTX as text, and the kernel that stands in it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

__all__ = ["Instruction", "Program", "PtxError", "read"]


class PtxError(Exception):
    """PTX that is not understood."""


@dataclass(frozen=True)
class Instruction:
    line: int
    opcode: str
    guard: str | None  # a predicate's name, after "!" where it is negated
    operands: tuple[str, ...]

    def __str__(self) -> str:
        guard = f"@{self.guard} " if self.guard else ""
        return f"line {self.line}, {guard}{self.opcode} {', '.join(self.operands)}".rstrip()


@dataclass
class Program:
    most_threads: int = 0  # of a block
    parameters: dict[str, str] = field(default_factory=dict)  # name: type
    registers: dict[str, str] = field(default_factory=dict)  # name without its number: type
    shared: dict[str, tuple[int, int]] = field(default_factory=dict)  # name: alignment, bytes
    local: dict[str, tuple[int, int]] = field(default_factory=dict)
    constants: dict[str, tuple[int, bytes]] = field(default_factory=dict)  # name: alignment, contents
    instructions: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)  # name: the instruction that follows

    def type_of(self, register: str) -> str:
        return self.registers[register.rstrip("0123456789")]


_IGNORED = re.compile(
    r"\.version \d+\.\d+|\.target sm_\w+|\.address_size 64|\.minnctapersm 1|\.pragma \"nounroll\";|[{})]"
    r"|\.common \.global \.align 8 \.u64 \w+;|(\.visible )?\.entry \w+\("
)
_BOUNDS = re.compile(r"\.maxntid (\d+)(, 1, 1)?")
_PARAMETER = re.compile(r"\.param \.(\w+) (\w+),?")
_REGISTERS = re.compile(r"\.reg \.(\w+) (%[A-Za-z]+)(<\d+>)?;")
_SHARED = re.compile(r"\.visible \.shared \.align (\d+) \.b8 (\w+)\[(\d+)\];")
_LOCAL = re.compile(r"\.local \.align (\d+) \.b8 (\w+)\[(\d+)\];")
_CONSTANT = re.compile(r"\.const \.align (\d+) \.b8 ([\w$]+)\[(\d+)\] = \{([\d, ]+)\};")
_LABEL = re.compile(r"(\$\w+):")
_INSTRUCTION = re.compile(r"(?:@(!?%\w+) )?([a-z][a-z0-9_.]*)( [^;]+)?;")
_HALF = re.compile(r"\{ \.reg \.b32 tmp; mov\.b64 \{tmp, (%\w+)\}, (%\w+); \}")  # the upper one of 64 bits
_COMMA = re.compile(r",(?![^{]*\})")  # none within braces


def read(ptx: str) -> Program:
    """The one kernel of a module."""
    program = Program()
    for number, text in enumerate(ptx.splitlines(), 1):
        line = _HALF.sub(r"mov.b64 {_, \1}, \2;", " ".join(text.partition("//")[0].split()))
        if line and not _IGNORED.fullmatch(line) and not _take(program, number, line):
            raise PtxError(f"line {number}: {line}")
    if ptx.count(".entry") != 1 or not program.most_threads:
        raise PtxError("not one kernel with launch bounds")
    return program


def _take(program: Program, number: int, line: str) -> bool:
    if found := _INSTRUCTION.fullmatch(line):
        operands = tuple(part.strip() for part in _COMMA.split(found[3] or "") if part.strip())
        program.instructions.append(Instruction(number, found[2], found[1], operands))
    elif found := _LABEL.fullmatch(line):
        program.labels[found[1]] = len(program.instructions)
    elif found := _REGISTERS.fullmatch(line):
        program.registers[found[2]] = found[1]
    elif found := _PARAMETER.fullmatch(line):
        program.parameters[found[2]] = found[1]
    elif found := _SHARED.fullmatch(line):
        program.shared[found[2]] = int(found[1]), int(found[3])
    elif found := _LOCAL.fullmatch(line):
        program.local[found[2]] = int(found[1]), int(found[3])
    elif found := _CONSTANT.fullmatch(line):
        contents = bytes(map(int, found[4].split(",")))
        program.constants[found[2]] = int(found[1]), contents
        return len(contents) == int(found[3])
    elif found := _BOUNDS.fullmatch(line):
        program.most_threads = int(found[1])
    else:
        return False
    return True
