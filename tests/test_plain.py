"""The short way gives what the long way gives, and is not taken by anything out of the ordinary."""

import numpy as np
import pytest

from npselect import _arrays, _plain, gumbel_softmax, straight_through

RNG = np.random.default_rng(5)


def arrays(shape=(6, 5), dtype=np.float32):
    return RNG.standard_normal(shape).astype(dtype), RNG.standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("temp", [0.6, np.float32(2.5), np.float64(1e-3)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1,), (7,), (6, 5), (2, 3, 4), (1, 1, 1, 9)])
def test_same_bits_as_the_long_way(shape, dtype, temp, monkeypatch):
    logits, grad_mask = arrays(shape, dtype)
    short = straight_through.forward(logits, temp), straight_through.backward(grad_mask, logits, temp)
    assert _plain.plain_mask(logits, temp, None) is not None
    monkeypatch.setattr(straight_through, "are_usual", lambda *_: False)
    for x, y in zip(
        short, (straight_through.forward(logits, temp), straight_through.backward(grad_mask, logits, temp)), strict=True
    ):
        assert x.dtype == y.dtype == dtype
        assert x.shape == y.shape == shape
        assert x.tobytes() == y.tobytes()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(7,), (6, 5), (2, 3, 4)])
def test_same_noise_as_the_long_way(shape, dtype, monkeypatch):
    logits, grad_mask = arrays(shape, dtype)

    def both():
        return (
            gumbel_softmax.forward(logits, seed=3, offset=5).tobytes(),
            gumbel_softmax.backward(grad_mask, logits, seed=3, offset=5).tobytes(),
        )

    short = both()
    monkeypatch.setattr(gumbel_softmax, "are_usual", lambda *_: False)
    assert both() == short
    with pytest.raises(ValueError, match="stream ends"):
        gumbel_softmax.forward(logits, seed=3, offset=2**64 - 1)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="stream ends"):
        gumbel_softmax.forward(logits, seed=3, offset=2**64 - 1)


def test_the_long_way_is_not_taken_by_plain_arrays(monkeypatch):
    monkeypatch.setattr(straight_through, "arrange", None)
    logits, grad_mask = arrays()
    out = np.empty_like(logits)
    assert straight_through.forward(logits, out=out) is out
    assert straight_through.backward(grad_mask, logits, out=out) is out


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
        lambda x: x.astype(np.float16),
        lambda x: x.astype(np.int64),
        lambda x: x.view(Sub),
        lambda x: np.ma.masked_array(x),
        lambda x: read_only(x.copy()),
        lambda x: x[:, :0],
        lambda x: x[:0],
        lambda x: np.float32(1.0),
    ],
)
def test_other_arrays_take_the_long_way(change):
    logits, grad_mask = arrays()
    odd = change(logits)
    assert _plain.plain_mask(odd, 0.6, None) is None
    assert _plain.plain_backward(grad_mask, odd, 0.6, None) is None
    assert _plain.plain_backward(odd, logits, 0.6, None) is None
    assert _plain.plain_mask(logits, 0.6, odd) is None


@pytest.mark.parametrize("temp", [0.0, -1.0, np.inf, np.nan, 1e-60, 1e60, 1, True, "1", [0.5], np.float32(0), None])
def test_other_temperatures_take_the_long_way(temp):
    logits, grad_mask = arrays()
    assert _plain.plain_mask(logits, temp, None) is None
    assert _plain.plain_backward(grad_mask, logits, temp, None) is None


def test_other_options_take_the_long_way():
    assert _plain.are_usual(-1, None, "propagate", None)
    for options in [
        (1, None, "propagate", None),
        (np.array([-1, -1]), None, "propagate", None),
        (-1, True, "propagate", None),
        (-1, None, "raise", None),
        (-1, None, "propagate", "cpu"),
    ]:
        assert not _plain.are_usual(*options)


def test_results_that_overlap_what_is_read():
    logits, grad_mask = arrays()
    memory = np.empty((7, 5), np.float32)
    assert _plain.plain_mask(logits, 0.6, logits) is None
    assert _plain.plain_mask(memory[1:], 0.6, memory[:-1]) is None
    assert _plain.plain_backward(grad_mask, logits, 0.6, grad_mask) is None
    assert _plain.plain_backward(grad_mask, logits, 0.6, logits) is None
    expected = straight_through.backward(grad_mask, logits)
    assert straight_through.backward(grad_mask, logits, out=grad_mask) is grad_mask
    assert grad_mask.tobytes() == expected.tobytes()


def test_shapes_that_do_not_fit_are_named():
    logits, grad_mask = arrays()
    with pytest.raises(ValueError, match=r"\(5, 5\).*\(6, 5\)"):
        straight_through.backward(grad_mask[:5], logits)
    with pytest.raises(ValueError, match=r"\(5, 5\).*\(6, 5\)"):
        straight_through.forward(logits, out=np.empty((5, 5), np.float32))


def test_the_long_way_knows_what_the_short_one_assumes():
    """The tier is chosen alike."""
    assert _plain.choose is _arrays.choose
