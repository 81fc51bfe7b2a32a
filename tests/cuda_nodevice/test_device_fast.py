"""The fast path on a GPU: what it gives, what it raises and what it asks of the streams is as on the slow path."""

import sys

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from npselect import gumbel_softmax
from npselect import straight_through as st

pytest.importorskip("numba.cuda", reason="needs numba.cuda, which the device arrays' kernels are compiled by")

from fakes.host_device import Device, Interface, Lent, Tensor, seen, torch_like

from npselect._call import call as way_in
from npselect._call import fast_on_gpu
from npselect._gpu.array import DeviceArray

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = [np.dtype("float16"), BFLOAT16, np.dtype("float32"), np.dtype("float64")]
FUNCTIONS = ["forward", "soft", "index", "backward", "jvp", "double_backward"]


def own(array, stream=1, device=0):
    return DeviceArray(
        array.ctypes.data if array.size else 0,
        array.shape,
        array.strides,
        array.dtype,
        array,
        stream,
        device,
        not array.flags.writeable,
    )


WRAPPERS = {
    "own": own,
    "own, another stream": lambda x: own(x, 9),
    "own, another device": lambda x: own(x, device=1),
    "interface": Interface,
    "interface with a stream": lambda x: Interface(x, stream=7),
    "interface 2": lambda x: Interface(x, 2),
    "torch": Tensor,
    "DLPack": Lent,
    "on the host": lambda x: x,
    "of no memory": lambda x: Interface(x, data=("no address", False)),
}
LAYOUTS = {
    "plain": lambda x: x,
    "turned": lambda x: np.asfortranarray(x),
    "spaced": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "odd": lambda x: np.frombuffer(b"x" + x.tobytes(), x.dtype, x.size, 1).reshape(x.shape),
    "frozen": lambda x: np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape),
}
USUAL = some.sampled_from(["own", "interface", "interface with a stream", "torch"])


SHAPES = [(1,), (5,), (3, 4), (2, 3, 4)]


@some.composite
def calls(draw):
    """How a call is made: by arrays of one library, with one thing out of the ordinary."""
    function = draw(some.sampled_from(FUNCTIONS))
    count = {"backward": 2, "jvp": 2, "double_backward": 3}.get(function, 1)
    results = 2 if function == "double_backward" else 1
    wrapper, dtype, shape = draw(USUAL), draw(some.sampled_from(DTYPES)), draw(some.sampled_from(SHAPES))
    arguments = [[wrapper, "plain", dtype, shape] for _ in range(count + results)]
    outs = [draw(some.sampled_from(["new", "given"])) for _ in range(results)]
    temp, seed, offset, backend = 0.6, draw(some.sampled_from([None, 3])), 0, None
    odd = draw(some.sampled_from(["wrapper", "layout", "dtype", "shape", "all shapes", "temp", "out", "rest"]))
    one = draw(some.integers(0, len(arguments) - 1))
    if one >= count:
        outs[one - count] = "given"
    if odd == "wrapper":
        arguments[one][0] = draw(some.sampled_from(list(WRAPPERS)))
    elif odd == "layout":
        arguments[one][1] = draw(some.sampled_from(list(LAYOUTS)))
    elif odd == "dtype":
        arguments[one][2] = draw(some.sampled_from([*DTYPES, np.dtype("int64")]))
    elif odd == "shape":
        arguments[one][3] = draw(some.sampled_from([*SHAPES, (4, 3), ()]))
    elif odd == "all shapes":
        shape = draw(some.sampled_from([(0, 4), (3, 0), ()]))
        arguments = [[wrapper, "plain", dtype, shape] for _ in arguments]
    elif odd == "temp":
        temp = draw(some.sampled_from([np.float32(2.5), 0.0, np.nan, 1e-60, 1, "1", np.ones(1)]))
    elif odd == "out":
        outs[0], outs[-1] = (
            "given",
            draw(some.sampled_from(["logits", "the first", "shifted", "the same", "one for two"])),
        )
    else:
        backend, offset = draw(some.sampled_from([("cuda", 0), ("cpu", 0), ("gpu", 0), (None, 2**64 - 1)]))
    return function, arguments, outs, temp, seed, 0 if seed is None else offset, backend


def made(function, arguments, outs):
    """Fresh arrays of the host and, about them, what is given."""
    rng, memories, hosts = np.random.default_rng(1), [], []
    count = len(arguments) - len(outs)
    for i, (_, layout, dtype, shape) in enumerate(arguments):
        if i >= count and function == "index":
            shape, dtype = shape[:-1], np.dtype("int64") if dtype in DTYPES else dtype
        memories.append((rng.standard_normal(int(np.prod(shape)) + 1) * 3).astype(dtype))
        hosts.append(LAYOUTS[layout](memories[-1][:-1].reshape(shape)))
    wrapped = [WRAPPERS[argument[0]](host) for argument, host in zip(arguments, hosts, strict=True)]
    inputs, given = wrapped[:count], wrapped[count:]
    for i, out in enumerate(outs):
        if out == "new":
            given[i] = None
        elif out in ("logits", "the first"):
            given[i] = inputs[-1 if out == "logits" else 0]
        elif out == "the same":
            given[i] = given[0]
        elif out == "shifted":
            given[i] = WRAPPERS[arguments[0][0]](memories[count - 1][1:].reshape(arguments[count - 1][3]))
    return [*memories, *hosts], inputs, given


def outcome(call):
    """What a call gives, what it leaves in memory, what it asks of the device, and what it raises."""
    function, arguments, outs, temp, seed, offset, backend = call
    with Device().installed() as device, pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch", torch_like(7, quick=True))
        hosts, inputs, given = made(function, arguments, outs)
        module, options = (st, {}) if seed is None else (gumbel_softmax, {"seed": seed, "offset": offset})
        if function != "index":
            options["temp"] = temp
        out = given[0] if len(given) == 1 or outs[-1] == "one for two" else tuple(given)
        try:
            results = getattr(module, function)(*inputs, out=out, backend=backend, **options)
        except Exception as error:
            about = type(error), str(error), getattr(error, "__notes__", None)
        else:
            about = []
            for result, one in zip(results if isinstance(results, tuple) else (results,), given, strict=True):
                assert one is None or result is one
                if one is None:
                    place = (result.device, result.stream) if isinstance(result, DeviceArray) else None
                    about.append((type(result), place, result.dtype, result.shape, seen(result).tobytes()))
        return about, [host.tobytes() for host in hosts], device.log


@settings(deadline=None, max_examples=600)
@given(calls())
def test_both_paths_are_one(call):
    quick = outcome(call)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(way_in, "fast_call", lambda *_: None)
        slow = outcome(call)
    assert quick == slow


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("wrapper", ["own", "interface", "interface with a stream", "interface 2", "torch"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_usual_arrays_take_the_fast_path(wrapper, function, dtype, monkeypatch):
    monkeypatch.setattr(way_in, "lay_out", None)
    count = {"backward": 2, "jvp": 2, "double_backward": 3}.get(function, 1)
    for shape in ((3, 4), (2, 3, 4)):
        for out in ("new", "given"):
            outs = [out] * (2 if function == "double_backward" else 1)
            arguments = [[wrapper, "plain", dtype, shape] for _ in range(count + len(outs))]
            for seed in (None, 3):
                about, _, _ = outcome((function, arguments, outs, 0.6, seed, 0, None))
                assert isinstance(about, list), about


def test_what_the_fast_path_leaves_to_the_slow_one(device, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", torch_like(7, quick=True))
    array = np.ones((3, 4), np.float32)
    for wrapper in ("DLPack", "of no memory"):
        assert fast_on_gpu.usable(WRAPPERS[wrapper](array)) is None
    for layout in ("turned", "spaced", "odd", "frozen"):
        assert fast_on_gpu.usable(Interface(LAYOUTS[layout](array))) is None
    assert fast_on_gpu.usable(Interface(array[:0])) is None
    assert fast_on_gpu.usable(Interface(np.ones((), np.float32))) is None
    view = fast_on_gpu.usable(Interface(array))
    assert fast_on_gpu.fits(view, (3, 4), np.dtype("f4"), view)
    for other in ("own, another stream", "own, another device"):
        assert not fast_on_gpu.fits(WRAPPERS[other](array), (3, 4), np.dtype("f4"), view)


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("stream", [0, 7])
def test_tensors_of_torch(stream, quick, device, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", torch_like(stream, quick))
    logits = np.float32([[1.0, 3.0, 2.0], [5.0, 4.0, 6.0]])
    out = Tensor(np.empty((2, 3), np.float32))
    assert st.forward(Tensor(logits), out=out) is out
    assert out.array.tolist() == [[0, 1, 0], [0, 0, 1]]
    assert st.forward(Tensor(logits)).stream == (stream or 1)
    assert seen(st.index(Tensor(logits.T), axis=0)).tolist() == [1, 2]
    tensor = Tensor(logits)
    tensor.negative = True
    with pytest.raises(TypeError, match="without a negative bit"):
        st.forward(tensor)
    tensor = Tensor(logits)
    tensor.layout = "sparse"
    with pytest.raises(TypeError, match="a torch tensor must be dense"):
        st.forward(tensor)
