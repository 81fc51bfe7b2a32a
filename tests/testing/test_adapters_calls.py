"""What adapters hand to a function, and what they take of it."""

from __future__ import annotations

import functools
import re

import ml_dtypes
import numpy as np
import pytest
from frameworks import DTYPES, FROM, agree, everything, inputs, needs, of_every_framework, some

from npselect.testing import OPTIONS, adapters

# ------------------------------------------------------------------------------------------------ what fn is given


def recording(seen, framework):
    """A function that notes what it is given, and returns zeros that depend on the logits."""

    def fn(logits, temp, *, axis=None, where=None, noise=None):
        seen.update(logits=logits, temp=temp, axis=axis, where=where, noise=noise)
        return logits * 0

    return FROM[framework](fn)


@pytest.mark.frameworks
@of_every_framework
def test_options_arrive_as_tensors(framework):
    kind = {"torch": "Tensor", "jax": "Array", "tensorflow": "Tensor"}[framework]
    kind, seen = getattr(needs(framework), kind), {}
    for dtype in DTYPES:
        logits, grad_mask, noise, where = inputs(dtype)
        subject = recording(seen, framework)
        for call in (
            functools.partial(subject.forward, logits),
            functools.partial(subject.backward, grad_mask, logits),
        ):
            seen.clear()
            call(0.5, axis=0, where=where, noise=noise)
            assert all(isinstance(seen[name], kind) for name in ("logits", "where", "noise"))
            assert re.search(r"\bbool", str(seen["where"].dtype))
            assert dtype in str(seen["noise"].dtype)
            assert dtype in str(seen["logits"].dtype)
            assert (type(seen["temp"]), seen["temp"], type(seen["axis"]), seen["axis"]) == (float, 0.5, int, 0)
            call(0.5, where=None)
            assert seen["axis"] is seen["where"] is seen["noise"] is None


@pytest.mark.frameworks
@of_every_framework
def test_noise_keeps_its_own_dtype(framework):
    needs(framework)
    logits, _, noise, _ = inputs("float32")
    seen = {}
    for dtype in DTYPES:
        recording(seen, framework).forward(logits, 0.5, noise=noise.astype(dtype))
        assert dtype in str(seen["noise"].dtype)
        assert "float32" in str(seen["logits"].dtype)


class Callable:
    def __call__(self, logits, temp, where=None):
        return logits * 1


SIGNATURES = {
    "all": (everything, {"axis", "where", "noise"}),
    "one, not by keyword only": (some, {"axis"}),
    "none": (lambda logits, temp: logits * 1, set()),
    "anything": (lambda logits, temp, **options: logits * 1, {*OPTIONS}),
    "anything at all": (lambda *arguments, **options: arguments[0] * 1, {*OPTIONS}),
    "partial": (functools.partial(some, other=1), {"axis"}),
    "partial of a partial": (functools.partial(functools.partial(everything, axis=0)), {"axis", "where", "noise"}),
    "positional only": (lambda logits, temp, axis=-1, /: logits * 1, set()),
    "an object": (Callable(), {"where"}),
    "a method": (Callable().__call__, {"where"}),
}


@pytest.mark.frameworks
@of_every_framework
@pytest.mark.parametrize("kind", SIGNATURES)
def test_options_of_a_function(framework, kind):
    needs(framework)
    fn, options = SIGNATURES[kind]
    takes_exactly(FROM[framework](fn), options)


def takes_exactly(subject, options):
    logits, grad_mask, noise, where = inputs("float32")
    assert subject.options == options
    given = {
        "axis": -1,
        "where": where,
        "noise": noise,
        "index": np.zeros(len(logits), np.int64),
        "sample_noise": noise[None],
    }
    given |= {"forward_temp": 1.0, "unimix": 0.0, "gap": 1.0}
    taken = {option: given[option] for option in options}
    np.testing.assert_array_equal(subject.forward(logits, 0.5, **taken), logits)
    np.testing.assert_array_equal(subject.backward(grad_mask, logits, 0.5, **taken), grad_mask)
    for option in given.keys() - options:
        words = rf"was given {option}; it takes {', '.join(sorted(options)) or 'no options'}"
        with pytest.raises(TypeError, match=re.escape(words)):
            subject.forward(logits, 0.5, **{option: given[option]})


@pytest.mark.frameworks
def test_options_of_what_torch_makes_of_a_function():
    torch = needs("torch")

    class Module(torch.nn.Module):
        def forward(self, logits, temp, *, noise=None):
            return logits * 1

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx, logits, temp):
            return logits * 1

        @staticmethod
        def backward(ctx, grad_mask):
            return grad_mask, None

    compiled = functools.partial(torch.compile, backend="eager")
    for fn, options, name in [
        (compiled(everything), {"axis", "where", "noise"}, "everything"),
        (functools.partial(compiled(some), other=1), {"axis"}, "some"),
        (Module(), {"noise"}, "Module"),
        (functools.partial(Module()), {"noise"}, "Module"),
        (compiled(Module()), {"noise"}, "OptimizedModule"),
        (Function.apply, set(), "Function.apply"),
    ]:
        subject = adapters.from_torch(fn)
        takes_exactly(subject, options)
        assert subject.__name__ == name


@pytest.mark.frameworks
def test_options_of_what_jax_makes_of_a_function():
    jax = needs("jax")
    for fn, options in [
        (jax.jit(everything, static_argnames="axis"), {"axis", "where", "noise"}),
        (functools.partial(jax.jit(some), other=1), {"axis"}),
        (jax.checkpoint(some), {"axis"}),
    ]:
        subject = adapters.from_jax(fn)
        takes_exactly(subject, options)
        assert subject.name == ("some" if options == {"axis"} else "everything")


@pytest.mark.frameworks
def test_options_of_what_tensorflow_makes_of_a_function():
    tf = needs("tensorflow")

    class Module(tf.Module):
        @tf.function
        def __call__(self, logits, temp, *, noise=None):
            return logits * 1

    for fn, options, name in [
        (tf.function(everything), {"axis", "where", "noise"}, "everything"),
        (functools.partial(tf.function(some), other=1), {"axis"}, "some"),
        (tf.function(jit_compile=True)(some), {"axis"}, "some"),
        (Module(), {"noise"}, "Module"),
    ]:
        subject = adapters.from_tensorflow(fn)
        takes_exactly(subject, options)
        assert subject.__name__ == name


def test_array_functions_take_what_both_take():
    def backward(grad_mask, logits, temp, *, where=None, noise=None):
        return grad_mask

    assert adapters.from_array_functions(some, backward).options == set()
    assert adapters.from_array_functions(everything, backward).options == {"where", "noise"}
    assert adapters.from_array_functions(max, min).options == set()  # which have no signature


@pytest.mark.frameworks
def test_torch_puts_tensors_on_the_device():
    torch, seen = needs("torch"), []
    adapters.from_torch(lambda w, temp: (seen.append(w.device), torch.zeros(3))[1], device="meta").forward([1.0], 0.5)
    assert seen == [torch.device("meta")]


# ------------------------------------------------------------------------------------------------ what fn returns


def without_gradient(framework):
    """Functions whose mask does not depend on the logits, as the framework's autodiff sees it."""
    if framework == "torch":
        torch = needs("torch")
        weight = torch.nn.Parameter(torch.ones(()))
        return [
            lambda logits, temp: torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]),
            lambda logits, temp: torch.ones_like(logits),
            lambda logits, temp: logits.detach(),
            lambda logits, temp: weight * torch.ones_like(logits),
            torch.no_grad()(lambda logits, temp: logits * 1),
        ]
    if framework == "jax":
        jax = needs("jax")
        return [
            lambda logits, temp: jax.nn.one_hot(logits.argmax(-1), logits.shape[-1], dtype="int32"),
            lambda logits, temp: jax.nn.one_hot(logits.argmax(-1), logits.shape[-1], dtype="bool"),
            lambda logits, temp: jax.lax.stop_gradient(logits),
            lambda logits, temp: np.ones(logits.shape, np.float32),
        ]
    tf = needs("tensorflow")
    return [
        lambda logits, temp: tf.one_hot(tf.argmax(logits, -1), logits.shape[-1], dtype=tf.int32),
        lambda logits, temp: tf.one_hot(tf.argmax(logits, -1), logits.shape[-1]),
        lambda logits, temp: tf.stop_gradient(logits),
        tf.function(lambda logits, temp: tf.stop_gradient(logits)),
    ]


@pytest.mark.frameworks
@of_every_framework
@pytest.mark.parametrize("dtype", DTYPES)
def test_no_gradient_is_a_gradient_of_zeros(framework, dtype):
    logits, grad_mask, *_ = inputs(dtype)
    for fn in without_gradient(framework):
        subject = FROM[framework](fn)
        assert subject.forward(logits, 0.5).shape == logits.shape
        grad_logits = subject.backward(grad_mask, logits, 0.5)
        assert grad_logits.dtype == logits.dtype
        np.testing.assert_array_equal(grad_logits, np.zeros_like(logits))


@pytest.mark.frameworks
@of_every_framework
def test_wrong_results_are_handed_on(framework):
    needs(framework)
    logits, grad_mask, *_ = inputs("float32")

    def narrowed(logits, temp):
        if framework == "tensorflow":
            tf = needs("tensorflow")
            return tf.cast(logits, tf.bfloat16)
        return logits.bfloat16() if framework == "torch" else logits.astype("bfloat16")

    dtype = FROM[framework](narrowed)
    assert dtype.forward(logits, 0.5).dtype == ml_dtypes.bfloat16
    assert dtype.backward(grad_mask, logits, 0.5).dtype == np.float32

    shape = FROM[framework](lambda logits, temp: logits[:, :2])
    assert shape.forward(logits, 0.5).shape == (16, 2)
    words = r"<lambda> returned shape \(16, 2\) and grad_mask has shape \(16, 10\)"
    with pytest.raises(ValueError, match=words):
        shape.backward(grad_mask, logits, 0.5)

    for answer in (None, "abc", (1, 2), [1.0]):
        nothing = FROM[framework](lambda logits, temp, answer=answer: answer)
        with pytest.raises(TypeError, match=f"returned a {type(answer).__name__}; expected a tensor of its framework"):
            nothing.forward(logits, 0.5)


@pytest.mark.frameworks
def test_the_gradient_of_a_gather_is_an_array():
    tf = needs("tensorflow")
    logits, grad_mask, *_ = inputs("float32")
    subject = adapters.from_tensorflow(lambda logits, temp: tf.gather(logits, range(16)))
    np.testing.assert_array_equal(subject.backward(grad_mask, logits, 0.5), grad_mask)


@pytest.mark.frameworks
@of_every_framework
def test_results_are_the_callers_own(framework):
    needs(framework)
    kept = []
    subject = FROM[framework](lambda logits, temp: (kept.append(logits), logits)[1])
    logits = inputs("float32")[0]
    mask = subject.forward(logits, 0.5)
    mask[:] = 7.0
    assert not np.any(np.asarray(kept[0].detach() if framework == "torch" else kept[0]) == 7.0)
    assert not np.any(logits == 7.0)


# ------------------------------------------------------------------------------------------------ arguments


@pytest.mark.frameworks
@pytest.mark.parametrize("dtype", DTYPES)
def test_torch_functions_may_write_to_their_arguments(dtype):
    torch = needs("torch")

    def in_place(logits, temp, *, where=None, noise=None):
        if noise is not None:
            logits += noise.mul_(1)
        if where is not None:
            logits.masked_fill_(where.logical_not_(), -torch.inf)
        mask = torch.zeros_like(logits).scatter_(-1, logits.argmax(-1, keepdim=True), 1)
        probs = torch.softmax(logits.div_(temp), -1, dtype=torch.promote_types(logits.dtype, torch.float32))
        return (probs + (mask - probs).detach()).to(logits.dtype)

    logits, grad_mask, noise, where = inputs(dtype)
    noise = np.zeros_like(noise)
    arguments = [array.copy() for array in (logits, grad_mask, noise, where)]
    subject = adapters.from_torch(in_place)
    agree(subject, dtype)
    for call in (
        functools.partial(subject.forward, arguments[0]),
        functools.partial(subject.backward, arguments[1], arguments[0]),
    ):
        assert np.all(np.isfinite(call(0.5, noise=arguments[2], where=arguments[3]).astype(np.float64)))
    for argument, array in zip(arguments, (logits, grad_mask, noise, where), strict=True):
        np.testing.assert_array_equal(argument, array)


def test_array_functions_may_write_to_their_arguments():
    def forward(logits, temp, *, noise=None):
        logits += noise
        noise[:] = 0
        return logits

    def backward(grad_mask, logits, temp, *, noise=None):
        grad_mask /= temp
        return forward(logits, temp, noise=noise) * grad_mask

    arrays = inputs("float32")[:3]
    copies = [array.copy() for array in arrays]
    subject = adapters.from_array_functions(forward, backward)
    subject.forward(copies[0], 0.5, noise=copies[2])
    subject.backward(copies[1], copies[0], 0.5, noise=copies[2])
    for copy, array in zip(copies, arrays, strict=True):
        np.testing.assert_array_equal(copy, array)


@pytest.mark.frameworks
@of_every_framework
@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_arrays_of_any_layout(framework, dtype):
    needs(framework)
    subject = FROM[framework](lambda logits, temp: logits * 1)
    logits = inputs(dtype)[0]
    read_only = logits.copy()
    read_only.flags.writeable = False
    for given in (logits[::-1, ::2], logits.T, np.asfortranarray(logits), logits[:0], logits[0, 0], read_only):
        np.testing.assert_array_equal(subject.forward(given, 0.5), given)
        np.testing.assert_array_equal(subject.backward(given, given, 0.5), given)


@pytest.mark.frameworks
def test_jax_computes_in_64_bits_where_it_is_given_them_and_nowhere_else():
    jax = needs("jax")

    @jax.jit
    def select(logits, temp, *, noise=None):
        return jax.numpy.ones(logits.shape) * logits * 1 + (0 if noise is None else noise)

    subject = adapters.from_jax(select)
    for dtype in ("float32", "float64", "float32", "float64"):
        logits, grad_mask, noise, _ = inputs(dtype)
        assert subject.forward(logits, 0.5).dtype == dtype
        assert subject.backward(grad_mask, logits, 0.5).dtype == dtype
        assert subject.forward(logits, 0.5, noise=noise).dtype == dtype
        assert jax.numpy.ones(1).dtype == np.float32
    exact = 1 / np.arange(1, 10.0)
    np.testing.assert_array_equal(subject.forward(exact, 0.5), exact)
