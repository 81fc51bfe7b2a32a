"""The picture: time against choices for all peers, the copy limit drawn in. matplotlib is loaded when it is drawn."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from npselect.bench.copying import COPIES
from npselect.bench.problem import CALLS
from npselect.bench.report import BenchReport, Timing
from npselect.testing.aliases import Tensor

__all__ = ["draw"]


@np.errstate(all="ignore")
def draw(report: BenchReport, path: Path) -> None:
    """Draw a panel for each operator and dtype: nanoseconds for each element of the logits, from quartile to quartile.

    The call is the most comprehensive one. The shapes are those of nearly as many elements as the largest has: small
    batches are another matter.

    Parameters
    ----------
    report : BenchReport
        What was measured.
    path : Path
        Its ending says which format.

    Raises
    ------
    ModuleNotFoundError
        matplotlib is not installed.
    ValueError
        matplotlib writes no such format, or nothing was timed.
    """
    timed = [timing for timing in report.timings if timing.median is not None]
    groups = list(dict.fromkeys((timing.operator, timing.dtype) for timing in timed))
    if not groups:
        raise ValueError("nothing was timed, so there is nothing to draw")
    figure = import_module("matplotlib.figure").Figure(figsize=(7.5 * len(groups), 5), layout="constrained")
    palette = import_module("matplotlib").colormaps["tab20"]
    names = list(dict.fromkeys(timing.peer for timing in timed if timing.peer not in COPIES))
    colours = {name: palette(i % 20) for i, name in enumerate(names)}
    for axes, (operator, dtype) in zip(figure.subplots(1, len(groups), squeeze=False)[0], groups, strict=True):
        some = [timing for timing in timed if (timing.operator, timing.dtype) == (operator, dtype)]
        call = max((timing.call for timing in some), key=CALLS.index)
        largest = max(timing.rows * timing.choices for timing in some)
        _panel(axes, [one for one in some if one.call == call and 2 * one.rows * one.choices > largest], colours)
        axes.set(title=f"{operator}, {dtype}, {call}\n{largest} elements", xlabel="choices", xscale="log", yscale="log")
        axes.set_ylabel("time for each element, ns")
        axes.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.suptitle(f"{report.machine['cpu']}, {report.settings['threads']} threads", fontsize="medium")
    figure.savefig(path, dpi=100)


def _panel(axes: Tensor, timings: list[Timing], colours: dict[str, Any]) -> None:
    limits: dict[int, Timing] = {}
    for timing in timings:
        if timing.peer in COPIES:
            known = limits.get(timing.choices)
            if known is None or (timing.median or 0) < (known.median or 0):
                limits[timing.choices] = timing
    _line(axes, limits.values(), "copy of as many bytes", {"color": "black", "ls": "--", "lw": 2})
    for name, colour in colours.items():
        own = [timing for timing in timings if timing.peer == name]
        style = {"lw": 2.5} if name.startswith("npselect") else {"lw": 1}
        _line(axes, own, name, {"color": colour, "marker": "o", "ms": 3, **style})


def _line(axes: Tensor, timings: Iterable[Timing], label: str, style: dict[str, Any]) -> None:
    some = sorted(timings, key=lambda timing: timing.choices)
    if not some:
        return
    choices = [timing.choices for timing in some]

    def each(name: str) -> list[float]:
        return [1e9 * getattr(timing, name) / (timing.rows * timing.choices) for timing in some]

    axes.plot(choices, each("median"), label=label, **style)
    axes.fill_between(choices, each("first_quartile"), each("third_quartile"), color=style["color"], alpha=0.2, lw=0)
