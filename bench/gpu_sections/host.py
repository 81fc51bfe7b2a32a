"""What a call costs on the host, with preallocated arrays and without waiting for the device.

Three layers: the public function; the tier's row function alone ("launch"), replayed with what the public function gave
it; and a call of torch, for comparison. Shapes are small, so that the device is never what is waited for.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from gpu_sections.device_arrays import find
from gpu_sections.functions import function
from gpu_sections.report import Report
from gpu_sections.timing import spread

__all__ = ["captured", "run"]

FUNCTIONS = (
    "straight_through.forward",
    "straight_through.backward",
    "straight_through.index",
    "straight_through.double_backward",
    "gumbel_softmax.forward seed",
    "gumbel_softmax.backward seed",
)
ROW_FUNCTIONS = ("mask", "index", "soft", "backward", "backward_temp", "double_backward")
CALLS = 50  # between two looks at the clock; far fewer than the driver queues
SHAPE = (32, 128)


def run(report: Report, part: str) -> None:
    arrays = find(report)
    made = {role: arrays.random(SHAPE[0] * SHAPE[1], "float32", i).reshape(SHAPE) for i, role in enumerate("vgw")}
    outs = arrays.empty(SHAPE, "float32"), arrays.empty(SHAPE, "float32")
    indices = arrays.empty(SHAPE[:1], "int64")
    for name in report.units(FUNCTIONS):
        each = function(name)
        out = {"index": indices, "double_backward": outs}.get(each.name, outs[0])
        cotangents = [made[role] for role in "vg"[2 - each.cotangents :]]

        def public(each: Any = each, cotangents: Any = cotangents, out: Any = out) -> Any:
            return each(cotangents, made["w"], 0.6, out=out)

        with report.attempt(name):
            _report(report, arrays, name, "public", public)
            launch = captured(public)
            if launch is None:
                report.note(f"{name}: the tier's row function was not seen to be called")
            else:
                _report(report, arrays, name, "launch", launch)
    if arrays.name == "torch":
        with report.attempt("torch"):
            torch = arrays.torch
            _report(report, arrays, "torch.softmax", "public", lambda: torch.softmax(made["w"], -1, out=outs[0]))


def captured(public: Callable[[], Any], tier: Any = None) -> Callable[[], Any] | None:
    """The call of a row function of the tier that `public` leads to, to be repeated; None if it leads to none."""
    if tier is None:
        from npselect.backends import choose

        tier = choose("cuda")
    seen: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = []
    originals = {name: getattr(tier, name) for name in ROW_FUNCTIONS if hasattr(tier, name)}

    def listening(original: Callable[..., Any]) -> Callable[..., Any]:
        def listen(*arguments: Any, **options: Any) -> Any:
            seen.append((original, arguments, options))
            return original(*arguments, **options)

        return listen

    try:
        for name, original in originals.items():
            setattr(tier, name, listening(original))
        public()
    finally:
        for name, original in originals.items():
            setattr(tier, name, original)
    if not seen:
        return None
    original, arguments, options = seen[0]
    return lambda: original(*arguments, **options)


def _report(report: Report, arrays: Any, what: str, layer: str, call: Callable[[], Any]) -> None:
    """Medians over batches of calls."""
    for _ in range(20):
        call()
    samples = []
    for _ in range(10 if report.quick else 40):
        arrays.synchronize()
        begun = time.perf_counter()
        for _ in range(CALLS):
            call()
        samples.append((time.perf_counter() - begun) / CALLS)
    arrays.synchronize()
    report.line("host", what=what, layer=layer, **spread(samples), samples=samples)
    report.fact(f"{what}, {layer}", f"{spread(samples)['median_us']:.1f} us")
