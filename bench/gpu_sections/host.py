"""What a call costs on the host, with preallocated arrays and without waiting for the device.

=======  ============================================================================================
layer    what is timed
=======  ============================================================================================
public   the public function, with arrays of the library that is there
own      the same, with arrays of npselect's own
launch   the tier's row function alone, replayed with what the public function gave it
driver   the driver's launch alone, likewise
peer     a call of torch, for comparison
=======  ============================================================================================

Shapes are small, so that the device is never what is waited for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
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
    made |= {"out": arrays.empty(SHAPE, "float32"), "out2": arrays.empty(SHAPE, "float32")}
    made["indices"] = arrays.empty(SHAPE[:1], "int64")
    for name in report.units(FUNCTIONS):
        with report.attempt(name):
            public = _call(function(name), made)
            layers = {"public": public}
            if arrays.backend is None:
                layers["own"] = _call(function(name), _own(made, arrays))
            launch = captured(public)
            if launch is None:
                report.note(f"{name}: the tier's row function was not seen to be called")
            else:
                layers["launch"] = launch
                if arrays.backend is None:
                    layers["driver"] = _driven(launch)
            for layer, call in layers.items():
                _report(report, arrays, name, layer, call)
    if arrays.name == "torch":
        with report.attempt("torch"):
            torch = arrays.torch
            peer = lambda: torch.softmax(made["w"], -1, out=made["out"])  # noqa: E731
            _report(report, arrays, "torch.softmax", "peer", peer)


def _call(each: Any, made: dict[str, Any]) -> Callable[[], Any]:
    out = {"index": made["indices"], "double_backward": (made["out"], made["out2"])}.get(each.name, made["out"])
    cotangents = [made[role] for role in "vg"[2 - each.cotangents :]]
    return lambda: each(cotangents, made["w"], 0.6, out=out)


def _own(made: dict[str, Any], arrays: Any) -> dict[str, Any]:
    from npselect._gpu.array import DeviceArray

    return {role: DeviceArray.from_host(arrays.to_host(array), 1) for role, array in made.items()}


def _driven(launch: Callable[[], Any]) -> Callable[[], Any]:
    from npselect._gpu.driver import gpu

    driven = captured(launch, gpu(), ("launch",))
    if driven is None:
        raise RuntimeError("nothing was launched")
    return driven


def captured(
    public: Callable[[], Any], module: Any = None, names: Sequence[str] = ROW_FUNCTIONS
) -> Callable[[], Any] | None:
    """The call of a function of a module, the tier unless it is given, that `public` leads to, to be repeated.

    None if it leads to none.
    """
    if module is None:
        from npselect.tiers import choose

        module = choose("cuda")
    seen: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = []
    originals = {name: getattr(module, name) for name in names if hasattr(module, name)}

    def listening(original: Callable[..., Any]) -> Callable[..., Any]:
        def listen(*arguments: Any, **options: Any) -> Any:
            seen.append((original, arguments, options))
            return original(*arguments, **options)

        return listen

    try:
        for name, original in originals.items():
            setattr(module, name, listening(original))
        public()
    finally:
        for name, original in originals.items():
            setattr(module, name, original)
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
