"""Straight-through selection in JAX
=================================

Straight-through selection in JAX, by the `stop_gradient` idiom and with a `jax.custom_vjp`.

Check them with ``npselect check examples/jax_select.py:stop_gradient`` and ``examples/jax_select.py:custom_vjp``. With
``noise=`` both are straight-through Gumbel-softmax; `gumbel_noise` draws it.
"""

from functools import partial

import jax
import jax.numpy as jnp

from npselect.testing import from_jax


def stop_gradient_select(logits, temp=0.6, *, axis=-1, where=None, noise=None):
    """The value is the mask, exactly; the gradient is that of ``probs = softmax((logits + noise) / temp)``."""
    w, top, excluded = candidates(logits, axis, where, noise)
    probs = jax.nn.softmax((w - top) / temp, axis)
    mask = one_hot_of_largest(w, axis)
    return jnp.where(excluded, 0.0, probs + jax.lax.stop_gradient(mask - probs)).astype(logits.dtype)


def custom_vjp_select(logits, temp=0.6, *, axis=-1, where=None, noise=None):
    """The same, its gradient written out."""
    w, top, excluded = candidates(logits, axis, where, noise)
    return select(w, top, excluded, temp, axis).astype(logits.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def select(w, top, excluded, temp, axis):
    """``mask = one_hot(argmax(w))``, differentiated as if it were the softmax."""
    return select_forward(w, top, excluded, temp, axis)[0]


def select_forward(w, top, excluded, temp, axis):
    """The mask, and what the backward pass needs."""
    z = jnp.where(excluded, 0.0, w - top)
    exps = jnp.where(excluded, 0.0, jnp.exp(z / temp))
    probs = exps / jnp.sum(exps, axis, keepdims=True)
    mask = one_hot_of_largest(w, axis)
    return jnp.where(excluded, 0.0, jnp.where(jnp.isnan(probs), probs, mask)), (z, probs, mask, excluded, temp)


def select_backward(axis, kept, grad_mask):
    """``probs * (h - sum(probs * h)) / temp``; measured from the selected entry, h keeps its digits."""
    z, probs, mask, excluded, temp = kept
    g = jnp.where(excluded, 0.0, grad_mask)
    h = jnp.where(excluded, 0.0, g - jnp.sum(g * mask, axis, keepdims=True))
    grad_w = probs * (h - jnp.sum(probs * h, axis, keepdims=True)) / temp
    return grad_w, None, None, -jnp.sum(grad_w * z) / temp


select.defvjp(select_forward, select_backward)


def candidates(logits, axis, where, noise):
    """What is compared, in 32 bits or more; its maximum; and what cannot be selected."""
    w = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    if noise is not None:
        w = w + noise.astype(w.dtype)
    if where is not None:
        w = jnp.where(where, w, -jnp.inf)
    top = jax.lax.stop_gradient(jnp.max(w, axis, keepdims=True))
    excluded = (w == -jnp.inf) & jnp.isfinite(top)  # a row of nothing but -inf is a row of NaN,
    return w, top, excluded if where is None else excluded | ~where  # of nothing but where=False one of 0


def one_hot_of_largest(w, axis):
    """A 1 at the first of the largest, on w itself, never on rounded probabilities."""
    return jax.nn.one_hot(jnp.argmax(w, axis), w.shape[axis], dtype=w.dtype, axis=axis)


def gumbel_noise(key, logits):
    """Independent standard Gumbel noise in the shape of `logits`."""
    return jax.random.gumbel(key, logits.shape, jnp.promote_types(logits.dtype, jnp.float32))


stop_gradient = from_jax(jax.jit(stop_gradient_select, static_argnames="axis"))
custom_vjp = from_jax(jax.jit(custom_vjp_select, static_argnames="axis"))
