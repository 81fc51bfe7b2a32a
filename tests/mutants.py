"""Mutants: every small change of two implementations in blocks, and whether `npselect.testing.check` refuses it.

The two are written plainly: in tiles (one pass over the blocks for each of maximum and sums; lanes that are folded),
and with a running maximum (one pass for all of them). `BLOCK` columns are read at a time, `ROWS` rows; shorter rows are
one narrower block. The last, partial block is padded. They take ``noise=`` and ``where=``.

`mutants` changes one place of a function at a time: each comparison, operator, constant, initial value, dtype, axis,
bound of a range or a slice, statement and loop. A `Court` asks cases until one refuses a mutant; the judge is that of
`npselect.testing.check`.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from npselect.testing.check import _near_ties_allowed as near_ties_allowed
from npselect.testing.judge import judge
from npselect.testing.profile import Profile

BLOCK, ROWS, LANES = 1024, 4096, 8

# ------------------------------------------------------------------------------------------------ the two


def forward_tiles(logits, temp, noise=None, where=None):
    w = logits if noise is None else logits + noise
    w = w if where is None else np.where(where, w, -np.inf)
    rows, choices = w.shape
    block = min(BLOCK, 1 << (choices - 1).bit_length())
    index = np.empty(rows, np.int64)
    for row in range(0, rows, ROWS):
        last = min(row + ROWS, rows)
        top = np.full(last - row, -np.inf, w.dtype)
        best = np.zeros(last - row, np.int64)
        for start in range(0, choices, block):
            stop = min(start + block, choices)
            tile = np.full((last - row, block), -np.inf, w.dtype)
            tile[:, : stop - start] = w[row:last, start:stop]
            place = np.argmax(tile, axis=-1)
            largest = np.max(tile, axis=-1)
            better = largest > top
            top = np.where(better, largest, top)
            best = np.where(better, start + place, best)
        index[row:last] = best
    mask = np.zeros(rows * choices, w.dtype)
    mask[np.arange(rows, dtype=np.int64) * choices + index] = 1
    return mask.reshape(rows, choices)


def forward_lanes(logits, temp, noise=None, where=None):
    """Columns go to lanes by turns; lanes are folded by halves at the end."""
    w = logits if noise is None else logits + noise
    w = w if where is None else np.where(where, w, -np.inf)
    rows, choices = w.shape
    block = max(LANES, min(BLOCK, 1 << (choices - 1).bit_length()))
    index = np.empty(rows, np.int64)
    lanes = np.arange(LANES, dtype=np.int64)
    for row in range(0, rows, ROWS):
        last = min(row + ROWS, rows)
        top = np.full((last - row, LANES), -np.inf, w.dtype)
        best = np.zeros((last - row, LANES), np.int64) + lanes
        for start in range(0, choices, block):
            stop = min(start + block, choices)
            tile = np.full((last - row, block), -np.inf, w.dtype)
            tile[:, : stop - start] = w[row:last, start:stop]
            turns = tile.reshape(last - row, block // LANES, LANES)
            place = np.argmax(turns, axis=1) * LANES + lanes
            largest = np.max(turns, axis=1)
            better = largest > top
            top = np.where(better, largest, top)
            best = np.where(better, start + place, best)
        for half in (LANES // 2, LANES // 4, LANES // 8):
            a, b, i, j = top[:, :half], top[:, half:], best[:, :half], best[:, half:]
            other = (b > a) | ((b == a) & (j < i))
            top, best = np.where(other, b, a), np.where(other, j, i)
        index[row:last] = best[:, 0]
    mask = np.zeros((rows, choices), w.dtype)
    np.put_along_axis(mask, index[:, None], 1, axis=-1)
    return mask


def backward_tiles(grad_mask, logits, temp, noise=None, where=None):
    w = logits if noise is None else logits + noise
    w = w if where is None else np.where(where, w, -np.inf)
    rows, choices = w.shape
    block = min(BLOCK, 1 << (choices - 1).bit_length())
    grad_logits = np.empty_like(w)
    for row in range(0, rows, ROWS):
        last = min(row + ROWS, rows)
        top = np.full((last - row, 1), -np.inf, w.dtype)
        for start in range(0, choices, block):
            stop = min(start + block, choices)
            tile = np.full((last - row, block), -np.inf, w.dtype)
            tile[:, : stop - start] = w[row:last, start:stop]
            top = np.maximum(top, np.max(tile, axis=-1, keepdims=True))
        total = np.zeros((last - row, 1), w.dtype)
        mean = np.zeros((last - row, 1), w.dtype)
        for start in range(0, choices, block):
            stop = min(start + block, choices)
            tile = np.full((last - row, block), -np.inf, w.dtype)
            tile[:, : stop - start] = w[row:last, start:stop]
            g = np.zeros((last - row, block), w.dtype)
            g[:, : stop - start] = grad_mask[row:last, start:stop]
            e = np.exp((tile - top) / temp)
            total = total + np.sum(e, axis=-1, keepdims=True)
            mean = mean + np.sum(e * g, axis=-1, keepdims=True)
        for first in range(0, choices, block):
            end = min(first + block, choices)
            e = np.exp((w[row:last, first:end] - top) / temp)
            h = grad_mask[row:last, first:end] - mean / total
            grad_logits[row:last, first:end] = e / total * h / temp
    return grad_logits


def backward_online(grad_mask, logits, temp, noise=None, where=None):
    """What was added up so far is scaled down when a larger maximum is met."""
    w = logits if noise is None else logits + noise
    w = w if where is None else np.where(where, w, -np.inf)
    rows, choices = w.shape
    block = min(BLOCK, 1 << (choices - 1).bit_length())
    grad_logits = np.empty_like(w)
    for row in range(0, rows, ROWS):
        last = min(row + ROWS, rows)
        top = np.full((last - row, 1), -np.inf, w.dtype)
        total = np.zeros((last - row, 1), w.dtype)
        mean = np.zeros((last - row, 1), w.dtype)
        for start in range(0, choices, block):
            stop = min(start + block, choices)
            tile = np.full((last - row, block), -np.inf, w.dtype)
            tile[:, : stop - start] = w[row:last, start:stop]
            g = np.zeros((last - row, block), w.dtype)
            g[:, : stop - start] = grad_mask[row:last, start:stop]
            larger = np.maximum(top, np.max(tile, axis=-1, keepdims=True))
            level = np.where(larger > -np.inf, larger, 0)
            scale = np.exp((top - level) / temp)
            e = np.exp((tile - level) / temp)
            total = total * scale + np.sum(e, axis=-1, keepdims=True)
            mean = mean * scale + np.sum(e * g, axis=-1, keepdims=True)
            top = larger
        for first in range(0, choices, block):
            end = min(first + block, choices)
            e = np.exp((w[row:last, first:end] - top) / temp)
            h = grad_mask[row:last, first:end] - mean / total
            grad_logits[row:last, first:end] = e / total * h / temp
    return grad_logits


ORIGINALS = {f.__name__: f for f in (forward_tiles, forward_lanes, backward_tiles, backward_online)}

# ------------------------------------------------------------------------------------------------ the changes


class Mutant(NamedTuple):
    """A function of `ORIGINALS`, changed in one place; `change`: a line before and after; `line`: its number."""

    original: str
    line: int
    change: str
    source: str

    @property
    def id(self) -> str:
        return f"{self.original}, {self.line}: {self.change}"

    def function(self, block: int) -> Callable:
        return compiled(self.source, self.original, block)


def source(name: str) -> str:
    return textwrap.dedent(inspect.getsource(ORIGINALS[name]))


def compiled(source: str, name: str, block: int) -> Callable:
    space = {"np": np, "BLOCK": block, "ROWS": ROWS, "LANES": LANES}
    exec(source, space)
    return space[name]


COMPARISONS = {
    ast.Lt: (ast.LtE, ast.Gt, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt, ast.GtE),
    ast.Gt: (ast.GtE, ast.Lt, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt, ast.LtE),
    ast.Eq: (ast.NotEq, ast.LtE, ast.GtE),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
}
OPERATORS = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div,),
    ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Mult,),
    ast.LShift: (ast.RShift,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,),
}
FUNCTIONS = {"max": ("min",), "maximum": ("minimum",), "argmax": ("argmin",), "min": ("max",), "sum": ("mean", "max")}
DTYPES = {
    "np.int64": ("np.int8", "np.uint8", "np.int16", "np.uint16", "np.int32", "np.float16", "np.float32"),
    "w.dtype": ("np.float16", "np.float32"),
}
INITIAL = ("0.0", "np.finfo(w.dtype).tiny", "-1e2", "-1e4", "-5e4", "np.finfo(w.dtype).min", "np.inf")
RIGHT_ANYHOW = ("block = ", "'")  # blocks may have any size, docstrings any text
SIZES = [2**power for power in range(11, 17)]


def expression(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


def changes(node: ast.AST) -> Iterator[ast.AST | None]:
    """What may stand in the place of a node; None: nothing."""
    if isinstance(getattr(node, "ctx", None), ast.Store):
        return
    text = ast.unparse(node) if isinstance(node, ast.expr) else ""
    if isinstance(node, ast.Compare):
        for other in COMPARISONS[type(node.ops[0])]:
            yield ast.Compare(node.left, [other()], node.comparators)
        if "None" not in text:
            yield expression("True")
            yield expression("False")
    elif isinstance(node, ast.BinOp):
        for other in OPERATORS.get(type(node.op), ()):
            yield ast.BinOp(node.left, other(), node.right)
        yield node.left
        yield node.right
    elif text == "-np.inf":
        yield from map(expression, INITIAL)
    elif text in DTYPES:
        yield from map(expression, DTYPES[text])
    elif isinstance(node, ast.Attribute) and node.attr in FUNCTIONS:
        for other in FUNCTIONS[node.attr]:
            yield ast.Attribute(node.value, other, node.ctx)
    elif isinstance(node, ast.Constant) and type(node.value) is int:
        for value in sorted({node.value + 1, node.value - 1, 0} - {node.value}):
            yield ast.Constant(value)
    elif text in ("BLOCK", "block", "ROWS", "rows", "choices", "LANES", "half"):
        for other in ("{} - 1", "{} + 1", "2 * {}", "{} // 2"):
            yield expression(other.format(text))
    elif text in ("start", "stop", "first", "end", "row", "last"):
        for other in ("{} - 1", "{} + 1"):
            yield expression(other.format(text))
    elif text == "temp":
        for other in ("max(temp, 0.1)", "max(temp, 1e-3)", "min(temp, 10.0)", "(temp + 1e-6)", "1.0"):
            yield expression(other)
    elif isinstance(node, ast.Call):
        name = ast.unparse(node.func)
        if name == "np.where":
            yield node.args[1]
            yield node.args[2]
            yield ast.Call(node.func, [node.args[0], node.args[2], node.args[1]], node.keywords)
        if name in ("np.maximum", "min", "max"):
            yield from node.args
        if name == "min":
            yield ast.Call(ast.Name("max", ast.Load()), node.args, [])
        if name == "range" and len(node.args) == 3:
            start, stop, step = map(ast.unparse, node.args)
            for bounds in (
                f"{step}, {stop}, {step}",
                f"{start}, {stop} - {step}, {step}",
                f"{start}, {stop} - 1, {step}",
                f"{start}, {stop} // {step} * {step}, {step}",
                f"{start}, {stop} + {step}, {step}",
                f"{start}, min({stop}, {step}), {step}",
                f"{start}, {stop}, 2 * {step}",
            ):
                yield expression(f"range({bounds})")
            for size in SIZES:  # what is beyond is forgotten
                yield expression(f"range({start}, min({stop}, {size}), {step})")
                yield expression(f"range({start}, min({stop}, {size - 1}), {step})")
    elif isinstance(node, ast.Assign):
        target = node.targets[0]
        if isinstance(target, ast.Subscript) or ast.unparse(target) in ast.unparse(node.value):
            yield None  # what was there before stays
        for column in ("start", "first"):
            if isinstance(target, ast.Subscript) and column in ast.unparse(target):
                for size in SIZES:  # from there on it is 0
                    for before in (f"({column} < {size})", f"(row + ROWS <= {size})"):
                        yield ast.Assign([target], ast.BinOp(node.value, ast.Mult(), expression(before)))
    elif isinstance(node, ast.For):
        name = ast.unparse(node.target)
        ends = {"row": "row + ROWS >= rows", "half": "half == 1"}.get(name, f"{name} + block >= choices")
        for condition in (ends, f"{name} > 0"):
            for leave in ("break", "continue"):
                step_out = ast.parse(f"if {condition}:\n    {leave}").body
                yield ast.For(node.target, node.iter, [*step_out, *node.body], [], lineno=node.lineno)
        yield ast.For(node.target, node.iter, [*node.body, ast.Break()], [], lineno=node.lineno)
    if isinstance(node, ast.keyword) and node.arg == "axis":
        assert isinstance(node.value, (ast.UnaryOp, ast.Constant))
        for other in ("0", "1", "-1", "None"):
            if other != ast.unparse(node.value):
                yield ast.keyword("axis", expression(other))


def mutants(name: str, every: int = 1) -> list[Mutant]:
    """All of a function, each source once; or one of so many."""
    tree = ast.parse(source(name))
    body, original = tree.body[0].body, ast.unparse(tree)
    found, sources, count = [], {original}, 0
    changed = [statement for statement in body if not ast.unparse(statement).startswith(RIGHT_ANYHOW)]
    places = [(partial(body.__setitem__, body.index(statement)), statement) for statement in changed]
    places += [place for statement in changed for parent in ast.walk(statement) for place in _places(parent)]
    for put, node in places:
        for replacement in changes(node):
            count += 1
            if count % every:
                continue
            put(ast.Pass() if replacement is None else replacement)
            text = ast.unparse(ast.fix_missing_locations(tree))
            put(node)
            if text not in sources:
                sources.add(text)
                found.append(Mutant(name, *_change(original, text), text))
    return found


def _places(parent: ast.AST) -> Iterator[tuple[Callable, ast.AST]]:
    """The nodes below one, and how to put others there."""
    if ast.unparse(parent) == "-np.inf" or (isinstance(parent, ast.keyword) and parent.arg == "axis"):
        return  # changed as wholes
    for field, value in ast.iter_fields(parent):
        if isinstance(value, ast.AST):
            yield partial(setattr, parent, field), value
        elif isinstance(value, list):
            for i, item in enumerate(value):
                if isinstance(item, ast.AST):
                    yield partial(value.__setitem__, i), item


def _change(before: str, after: str) -> tuple[int, str]:
    """The number of the first line that is different, and the lines that are."""
    a, b = before.splitlines(), after.splitlines()
    first = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    end = next((i for i, (x, y) in enumerate(zip(a[::-1], b[::-1], strict=False)) if x != y), 0)
    end = min(end, len(a) - first, len(b) - first)
    lines = ["; ".join(line.strip() for line in text[first : len(text) - end]) for text in (a, b)]
    return first, f"{lines[0]} -> {lines[1]}"


# ------------------------------------------------------------------------------------------------ the judgement


class Subject:
    """A function in one direction; in the other, the oracle's answer to the case."""

    def __init__(self, function: Callable, direction: str):
        self.call, self.direction, self.case = function, direction, None

    def forward(self, logits, temp, **options):
        if self.direction == "forward":
            return self.call(logits, logits.dtype.type(temp), **options)
        return self.case.mask.copy()

    def backward(self, grad_mask, logits, temp, **options):
        if self.direction == "backward":
            return self.call(grad_mask, logits, logits.dtype.type(temp), **options)
        return self.case.grad_logits.copy()


class Court:
    """Cases, asked one after another until one refuses: the cheapest first, and sooner those that have refused many."""

    def __init__(self, cases: list):
        usable = [case for case in cases if case.axis == -1 and case.logits.ndim == 2 and "error" not in case.flags]
        self.cases = [case for case in usable if case.logits.size and np.any(case.judged(Profile("standard")))]
        self.refused = dict.fromkeys((case.id for case in self.cases), 0)

    def refusal(self, function: Callable, direction: str) -> str | None:
        """The case that refuses a function; or None, and `check` accepts it."""
        subject, outcomes = Subject(function, direction), []
        for case in sorted(self.cases, key=lambda case: (1000 + case.logits.size) / (1 + self.refused[case.id])):
            subject.case = case
            outcomes.append(judge(subject, case, Profile("standard"))[0])
            if outcomes[-1].verdict == "failed":
                self.refused[case.id] += 1
                return case.id
        near = sum(outcome.near_ties for outcome in outcomes if outcome.close_rows)
        return "too many near ties" if near > max(near_ties_allowed(outcomes).values()) else None
