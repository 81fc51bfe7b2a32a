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

from gpu.device import find
from gpu.report import Report
from npselect import OPERATORS
from npselect.bench import Times
from npselect.bench.devices import Arrays, Function, Torch, function, percentiles
from npselect.bench.devices.arrays import DeviceArray

__all__ = ["captured", "run"]

FUNCTIONS = (
    "straight_through.forward",
    "straight_through.backward",
    "straight_through.index",
    "straight_through.double_backward",
    "gumbel_softmax.forward seed",
    "gumbel_softmax.backward seed",
)
ROW_FUNCTIONS = tuple(
    {record.name: None for one in OPERATORS.values() for record in one.functions.values() if record.on_gpu}
)
CALLS = 50  # between two looks at the clock; far fewer than the driver queues
SHAPE = (32, 128)

Call = Callable[[], object]


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
    if isinstance(arrays, Torch):
        with report.attempt("torch"):
            torch = arrays.torch
            peer = lambda: torch.softmax(made["w"], -1, out=made["out"])  # noqa: E731
            _report(report, arrays, "torch.softmax", "peer", peer)


def _call(each: Function, made: dict[str, DeviceArray]) -> Call:
    outs = [made["indices"]] if each.name == "index" else [made["out"], made["out2"]][: len(each.record.results)]
    out = tuple(outs) if len(outs) > 1 else outs[0]
    cotangents = [made[role] for role in "vg"[2 - each.cotangents :]]
    return lambda: each(cotangents, made["w"], 0.6, out=out)


def _own(made: dict[str, DeviceArray], arrays: Arrays) -> dict[str, DeviceArray]:
    from npselect._gpu.array import DeviceArray as Own

    return {role: Own.from_host(arrays.to_host(array), 1) for role, array in made.items()}


def _driven(launch: Call) -> Call:
    from npselect._gpu.driver import gpu

    driven = captured(launch, gpu(), ("launch",))
    if driven is None:
        raise RuntimeError("nothing was launched")
    return driven


def captured(public: Call, module: Any = None, names: Sequence[str] = ROW_FUNCTIONS) -> Call | None:
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


def _report(report: Report, arrays: Arrays, what: str, layer: str, call: Call) -> None:
    """Medians over batches of calls."""
    for _ in range(20):
        call()
    times = Times()
    for turn in range(10 if report.quick else 40):
        arrays.synchronize()
        begun = time.perf_counter()
        for _ in range(CALLS):
            call()
        times.seconds[turn] = (time.perf_counter() - begun) / CALLS
    arrays.synchronize()
    report.line("host", what=what, layer=layer, **percentiles(times), samples=list(times.seconds.values()))
    report.fact(f"{what}, {layer}", f"{1e6 * times.median:.1f} us")
