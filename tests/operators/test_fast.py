"""The fast path gives what the other gives, and is not taken by anything out of the ordinary."""

import numpy as np
import pytest

from npselect import gumbel_softmax, straight_through
from npselect._call import call as way_in
from npselect._call import fast, layout
from npselect._operators import BACKWARD, MASK

RNG = np.random.default_rng(5)


def arrays(shape=(6, 5), dtype=np.float32):
    return RNG.standard_normal(shape).astype(dtype), RNG.standard_normal(shape).astype(dtype)


def mask(logits, temp=0.6, axis=-1, where=None, nan_policy="propagate", out=None, backend=None):
    return fast.fast_call(MASK, (logits,), temp, None, axis, where, nan_policy, out, backend, False)


def backward(grad_mask, logits, temp=0.6, out=None):
    return fast.fast_call(BACKWARD, (grad_mask, logits), temp, None, -1, None, "propagate", out, None, False)


def bits(results):
    results = results if isinstance(results, tuple) else (results,)
    return [(type(x), x.dtype, x.shape, x.tobytes()) for x in results]


def every_function(logits, grad_mask, temp, **options):
    module = gumbel_softmax if options else straight_through
    return {
        "forward": lambda **out: module.forward(logits, temp, **options, **out),
        "soft": lambda **out: module.soft(logits, temp, **options, **out),
        "index": lambda **out: module.index(logits, **options, **out),
        "backward": lambda **out: module.backward(grad_mask, logits, temp, **options, **out),
        "jvp": lambda **out: module.jvp(grad_mask, logits, temp, **options, **out),
        "double_backward": lambda **out: module.double_backward(grad_mask, logits, logits, temp, **options, **out),
    }


@pytest.fixture
def the_slow_path(monkeypatch):
    return lambda: monkeypatch.setattr(way_in, "fast_call", lambda *_: None)


@pytest.fixture
def only_the_fast_path(monkeypatch):
    monkeypatch.setattr(way_in, "lay_out", None)


@pytest.mark.parametrize("options", [{}, {"seed": 3, "offset": 5}])
@pytest.mark.parametrize("temp", [0.6, np.float32(2.5), np.float64(1e-3)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1,), (7,), (6, 5), (2, 3, 4), (1, 1, 1, 9)])
def test_same_bits_on_both_paths(shape, dtype, temp, options, the_slow_path):
    calls = every_function(*arrays(shape, dtype), temp, **options)
    quick = {name: bits(call()) for name, call in calls.items()}
    the_slow_path()
    assert {name: bits(call()) for name, call in calls.items()} == quick


def test_streams_end_alike(the_slow_path):
    logits, _ = arrays()
    messages = []
    for close in (lambda: None, the_slow_path):
        close()
        with pytest.raises(ValueError, match="stream ends") as raised:
            gumbel_softmax.forward(logits, seed=3, offset=2**64 - 1)
        messages.append(str(raised.value))
    assert messages[0] == messages[1]


@pytest.mark.parametrize("options", [{}, {"seed": 3}])
@pytest.mark.parametrize("backend", [None, "cpu", "reference"])
def test_plain_arrays_take_the_fast_path(backend, options, only_the_fast_path):
    logits, grad_mask = arrays()
    for name, call in every_function(logits, grad_mask, 0.6, **options).items():
        call(backend=backend)
        if name == "double_backward":
            out = np.empty_like(logits), np.empty_like(logits)
            for result, one in zip(call(backend=backend, out=out), out, strict=True):
                assert result is one
        else:
            out = np.empty(6, np.int64) if name == "index" else np.empty_like(logits)
            assert call(backend=backend, out=out) is out


def read_only(array):
    array.flags.writeable = False
    return array


class Sub(np.ndarray):
    pass


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.tolist(),
        lambda x: np.asfortranarray(x),
        lambda x: x[::2],
        lambda x: x.astype(">f4"),
        lambda x: x.astype(np.int64),
        lambda x: x.view(Sub),
        lambda x: np.ma.masked_array(x),
        lambda x: read_only(x.copy()),
        lambda x: x[:, :0],
        lambda x: x[:0],
        lambda x: np.float32(1.0),
    ],
)
def test_other_arrays_take_the_slow_path(change):
    logits, grad_mask = arrays()
    odd = change(logits)
    assert mask(odd) is None
    assert backward(grad_mask, odd) is None
    assert backward(odd, logits) is None
    assert mask(logits, out=odd) is None


@pytest.mark.parametrize("temp", [0.0, -1.0, np.inf, np.nan, 1e-60, 1e60, 1, True, "1", [0.5], np.float32(0), None])
def test_other_temperatures_take_the_slow_path(temp):
    logits, grad_mask = arrays()
    assert mask(logits, temp) is None
    assert backward(grad_mask, logits, temp) is None


def test_other_options_take_the_slow_path():
    logits, _ = arrays()
    assert mask(logits) is not None
    for options in ({"axis": 1}, {"axis": np.array([-1, -1])}, {"where": True}, {"nan_policy": "raise"}):
        assert mask(logits, **options) is None
    noise = logits
    assert fast.fast_call(MASK, (logits,), 0.6, noise, -1, None, "propagate", None, None, False) is None


def test_tiers_that_there_are_not_are_named(the_slow_path):
    for close in (lambda: None, the_slow_path):
        close()
        with pytest.raises(ValueError, match="backend is 'gpu'; it takes None or one of"):
            straight_through.forward(arrays()[0], backend="gpu")


def test_results_that_overlap_what_is_read():
    logits, grad_mask = arrays()
    memory = np.empty((7, 5), np.float32)
    assert mask(logits, out=logits) is None
    assert mask(memory[1:], out=memory[:-1]) is None
    assert backward(grad_mask, logits, out=grad_mask) is None
    assert backward(grad_mask, logits, out=logits) is None
    expected = straight_through.backward(grad_mask, logits)
    assert straight_through.backward(grad_mask, logits, out=grad_mask) is grad_mask
    assert grad_mask.tobytes() == expected.tobytes()


def test_two_results(the_slow_path):
    logits, grad_mask = arrays()
    first = np.empty_like(logits)
    for close in (lambda: None, the_slow_path):
        close()
        results = straight_through.double_backward(grad_mask, grad_mask, logits, out=(first, None))
        assert results[0] is first
        assert results[1] is not None
        with pytest.raises(ValueError, match="share memory; each result needs its own"):
            straight_through.double_backward(grad_mask, grad_mask, logits, out=(first, first))
        with pytest.raises(TypeError, match="it takes a tuple of 2 arrays, one a result"):
            straight_through.double_backward(grad_mask, grad_mask, logits, out=first)
        with pytest.raises(ValueError, match="out holds 1 arrays; there are 2 results"):
            straight_through.double_backward(grad_mask, grad_mask, logits, out=(first,))


def test_shapes_that_do_not_fit_are_named():
    logits, grad_mask = arrays()
    with pytest.raises(ValueError, match=r"\(5, 5\).*\(6, 5\)"):
        straight_through.backward(grad_mask[:5], logits)
    with pytest.raises(ValueError, match=r"\(5, 5\).*\(6, 5\)"):
        straight_through.forward(logits, out=np.empty((5, 5), np.float32))


def test_both_paths_choose_the_tier_alike():
    assert fast.choose is layout.choose
