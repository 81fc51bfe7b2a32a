"""The bits of the CPU tier, pinned: digests of every row function, for every dtype, length and origin of the noise.

``python tests/bits.py`` prints a line for each, as tests/bits.sha256 has them, ``--check`` compares
with that file, and ``--write`` replaces it: a change of last bits is announced, never slipped in. It needs NumPy,
ml_dtypes and npselect alone, so that it runs in an emulator too.

The inputs are made of integers by exact operations, from a generator whose numbers NumPy has promised never to change.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from npselect import categorical, gapped, gumbel_rao, gumbel_softmax, reinmax, straight_through

FILE = Path(__file__).with_name("bits.sha256")
DTYPES = {
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
}
CHOICES = (1, 2, 3, 8, 10, 33, 128, 129, 1024, 1025, 5000)
NOISES = ("no noise", "noise array", "seed")
FUNCTIONS = (
    *("mask", "index", "soft", "backward", "backward_temp", "double_backward", "mask_at", "reinmax"),
    *("gapped", "gapped_soft", "adaptive", "mixture", "mixed index", "mixed backward", "decoupled"),
    "gumbel_rao",
)
DRAWN: dict[str, tuple[Any, str, dict[str, Any]]] = {  # operator, function, options
    "mask_at": (reinmax, "forward", {}),
    "reinmax": (reinmax, "backward", {}),
    "gapped": (gapped, "backward", {"gap": 0.7}),
    "gapped_soft": (gapped, "soft", {"gap": 0.7}),
    "adaptive": (gapped, "backward", {"gap": "adaptive"}),
    "mixture": (categorical, "soft", {"unimix": 0.3}),
    "mixed index": (categorical, "index", {"forward_temp": 0.4, "unimix": 0.01}),
    "mixed backward": (categorical, "backward_temp", {"forward_temp": 0.4, "unimix": 0.01}),
    "decoupled": (gumbel_softmax, "backward", {"forward_temp": 0.4}),
    "gumbel_rao": (gumbel_rao, "backward", {}),
}
TEMPS = (0.6, 0.05, 1.0, 1e-30, 7.0, 1e30, 0.3, 2.0)


def rows_for(choices: int) -> int:
    """Whole tiles of sixteen rows, and one that is not."""
    return 53 if choices <= 128 else 21


def numbers(random: np.random.RandomState, shape: tuple[int, int], dtype: np.dtype[Any]) -> Any:
    """Bell-shaped numbers in the dtype, of another size in each row."""
    sums = sum(random.randint(0, 1 << 20, shape) - (1 << 19) for _ in range(4))
    sizes = np.exp2(random.randint(-6, 7, (shape[0], 1)))
    wide = np.asarray(sums, np.float64) * 2.0**-19 * sizes
    return wide.astype(np.float32).astype(dtype) if dtype.itemsize < 8 else wide


def inputs(dtype: np.dtype[Any], choices: int) -> dict[str, Any]:
    """Logits and cotangents with all that a row may hold, temperatures, excluded entries and noise."""
    random = np.random.RandomState(choices)
    rows = rows_for(choices)
    compute = np.dtype(np.float64 if dtype.itemsize == 8 else np.float32)
    made = {name: numbers(random, (rows, choices), dtype) for name in ("logits", "grad_mask", "grad_grad_logits")}
    logits, grad = made["logits"], made["grad_mask"]
    logits[1] = random.randint(0, 3, choices)  # ties
    logits[2, ::2], logits[2, 1::2] = -0.0, 0.0
    logits[3, choices // 2], logits[4, choices - 1] = np.nan, np.inf
    logits[5] = -np.inf
    logits[6, choices // 3 :] = -np.inf
    logits[7] *= np.float32(64).astype(dtype)  # saturated, and far below the selected entry
    logits[8] = random.choice([1.0, -1.0], choices) * float(ml_dtypes.finfo(dtype).max)
    grad[9, choices // 2], grad[10, 0] = np.nan, -np.inf
    grad[6, choices - 1] = np.nan
    logits[11] = logits[11, 0]
    logits[17, choices - 1] = float(ml_dtypes.finfo(dtype).max) / 8  # the last of a row
    where = random.randint(0, 5, (rows, choices)) > 0
    where[12], where[13, 1:], where[14, : choices - 1] = False, False, False
    made["where"] = where
    made["temp"] = np.resize(np.array(TEMPS, compute), rows)[:, None]
    made["noise"] = numbers(random, (rows, choices), compute)
    return made


def digest(results: Iterable[Any]) -> str:
    """Of dtypes, shapes and bits."""
    found = sha256()
    for result in results:
        found.update(f"{result.dtype.name} {result.shape}".encode() + np.ascontiguousarray(result).tobytes())
    return found.hexdigest()


def unlikely(logits: Any, where: Any) -> Any:
    """The first of each row's smallest candidates; -1 in a row that has none."""
    wide = logits.astype(np.float64)
    offered = (wide > -np.inf) & (True if where is None else where)
    return np.where(offered.any(axis=-1), np.argmin(np.where(offered, wide, np.inf), axis=-1), -1)


def draws(given: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """The noise of Gumbel-Rao's samples: a few, given; or drawn, more than a kernel takes at once."""
    if "noise" in options:
        noise = np.stack([options["noise"], options["noise"][::-1], options["noise"][:, ::-1]])
        return {"sample_noise": noise, "index": unlikely(given["logits"], options.get("where"))}
    return {"samples": 18} if "seed" in options else {"seed": 7, "samples": 2}


def call(function: str, given: dict[str, Any], temp: Any, **options: Any) -> tuple[Any, ...]:
    """A row function over the whole batch, by the public function that does nothing else."""
    operator: Any = gumbel_softmax if options.keys() & {"seed", "noise"} else straight_through
    name = function
    if function in DRAWN:
        operator, name, settings = DRAWN[function]
        if not options.keys() & {"seed", "noise"}:
            options["index"] = unlikely(given["logits"], options.get("where"))
        if operator is gumbel_softmax and "index" in options:
            operator = categorical
        if function == "mixture":
            options = {key: value for key, value in options.items() if key == "where"}
        options |= settings
        if operator is gumbel_rao:
            options = {key: value for key, value in options.items() if key != "noise"} | draws(given, options)
    elif function == "mask":
        name = "forward"
    cotangents = {"backward": 1, "backward_temp": 1, "double_backward": 2}.get(name, 0)
    arrays = [given[key] for key in ("grad_grad_logits", "grad_mask")[2 - cotangents :]]
    more = () if name == "index" else (temp,)
    result = getattr(operator, name)(*arrays, given["logits"], *more, backend="cpu", **options)
    return result if isinstance(result, tuple) else (result,)


def results(function: str, given: dict[str, Any], noise: str) -> Iterator[Any]:
    """With and without excluded entries, which are each row's own or shared; a temperature for each row, or one."""
    options = {"no noise": {}, "noise array": {"noise": given["noise"]}, "seed": {"seed": 2**63 + 5, "offset": 3}}[
        noise
    ]
    for where, temp in ((None, given["temp"]), (given["where"], given["temp"]), (given["where"][:1], 0.6), (None, 0.6)):
        yield from call(function, given, temp, **options, **({} if where is None else {"where": where}))


def lines(
    dtypes: Iterable[str] = tuple(DTYPES), choices: Iterable[int] = CHOICES, functions: Iterable[str] = FUNCTIONS
) -> Iterator[str]:
    """A line for each digest, as the file has them."""
    for dtype in dtypes:
        for k in choices:
            given = inputs(DTYPES[dtype], k)
            for function in functions:
                for noise in NOISES:
                    yield f"{digest(results(function, given, noise))}  {function}, {dtype}, K = {k}, {noise}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Digests of the CPU tier's bits.")
    parser.add_argument("--dtype", choices=DTYPES, action="append", help="may be given several times (default: all)")
    parser.add_argument(
        "--function", choices=FUNCTIONS, action="append", help="may be given several times (default: all)"
    )
    parser.add_argument("--choices", type=int, choices=CHOICES, action="append", help="likewise")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help=f"compare with {FILE.name}; exit with 1 if any differs")
    what.add_argument("--write", action="store_true", help=f"replace {FILE.name}")
    options = parser.parse_args()
    found = lines(options.dtype or tuple(DTYPES), options.choices or CHOICES, options.function or FUNCTIONS)
    if options.write:
        if options.dtype or options.choices or options.function:
            parser.error("--write writes all of them")
        FILE.write_text("".join(f"{line}\n" for line in found), encoding="utf-8")
        return 0
    if not options.check:
        for line in found:
            print(line, flush=True)
        return 0
    expected = set(FILE.read_text(encoding="utf-8").splitlines())
    equal = different = 0
    for line in found:
        if line in expected:
            equal += 1
        else:
            different += 1
            print(f"differs: {line.partition('  ')[2]}", flush=True)
    print(f"{equal} digests equal, {different} different")
    return 1 if different or not equal else 0


if __name__ == "__main__":
    sys.exit(main())
