"""The other estimators in JAX
===========================

ReinMax, the straight-through gradient of a drawn sample, and the gapped one (GST), in JAX, by `jax.custom_vjp`.

Check them with ``npselect check examples/jax_estimators.py:reinmax --operator reinmax``; likewise `categorical` and
`gapped`. All are given the index, which `sample` draws.
"""

from functools import partial

import jax
import jax.numpy as jnp

from npselect.testing import from_jax


def reinmax_select(logits, temp=1.0, *, index):
    """A mask with ReinMax's gradient, ``2 J((q + D) / 2) g - J(p) g / 2``."""
    z = differences(logits)
    return select(wide(logits), (z, index, temp), second_order).astype(logits.dtype)


def categorical_select(logits, temp=1.0, *, index, forward_temp=1.0, unimix=0.0):
    """A mask with the gradient of ``(1 - unimix) softmax(logits / (forward_temp temp))``."""
    kept = differences(logits), index, forward_temp * temp, 1 - unimix
    return select(wide(logits), kept, first_order).astype(logits.dtype)


def gapped_select(logits, temp=1.0, *, index, gap=1.0):
    """A mask with the gradient of a softmax in which the drawn logit leads by `gap`."""
    z, drawn = differences(logits), one_hot(index, logits)
    if gap == "adaptive":
        p = jnp.sum(jnp.where(drawn, jax.nn.softmax(z, -1), 0.0), -1, keepdims=True)
        gap = -jnp.log1p(-p) / p
    moved = jnp.where(drawn, 0.0, jnp.minimum(z, -gap))
    return select(wide(logits), (jnp.where(jnp.isnan(z), z, moved), index, temp, 1.0), first_order).astype(logits.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def select(logits, kept, gradient):
    """``mask = one_hot(index)``, NaN in a row that is spoilt; its gradient is ``gradient(grad_mask, *kept)``."""
    z, index = kept[:2]
    spoilt = jnp.isnan(jnp.sum(jnp.where(z == -jnp.inf, 0.0, z), -1, keepdims=True))
    return jnp.where(spoilt, jnp.nan, one_hot(index, logits).astype(logits.dtype))


def select_forward(logits, kept, gradient):
    """The mask, and what the backward pass needs."""
    return select(logits, kept, gradient), kept


def select_backward(gradient, kept, grad_mask):
    """Whatever the estimator's gradient is."""
    return gradient(grad_mask, *kept), None


select.defvjp(select_forward, select_backward)


def first_order(grad_mask, z, _, temp, scale):
    """``probs * (h - sum(probs * h)) * scale / temp``, ``probs = softmax(z / temp)``."""
    probs, h = jax.nn.softmax(z / temp, -1), measured_from(jnp.argmax(z, -1), grad_mask, z)
    return probs * (h - jnp.sum(probs * h, -1, keepdims=True)) * scale / temp


def second_order(grad_mask, z, index, temp):
    """ReinMax's, its terms collected: no ``1 - p`` is formed, of which a saturated row would have no digits."""
    p, q, h = jax.nn.softmax(z, -1), jax.nn.softmax(z / temp, -1), measured_from(index, grad_mask, z)
    a, b = jnp.sum(q * h, -1, keepdims=True), jnp.sum(p * h, -1, keepdims=True)
    return jnp.where(one_hot(index, z), p * b - (1 + q) * a, q * (2 * h - a) - p * (h - b)) / 2


def measured_from(index, grad_mask, z):
    """The cotangent less an entry of its own, as constants drop out: so it keeps its digits. 0 at excluded entries."""
    entry = jnp.sum(jnp.where(one_hot(index, z), grad_mask, 0.0), -1, keepdims=True)
    return jnp.where(z == -jnp.inf, 0.0, grad_mask - entry)


def differences(logits):
    """The logits measured from the largest, in 32 bits or more."""
    w = jax.lax.stop_gradient(wide(logits))
    return w - jnp.max(w, -1, keepdims=True)


def wide(logits):
    """The logits in 32 bits or more."""
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))


def one_hot(index, logits):
    """Whether an entry is the drawn one."""
    return jnp.arange(logits.shape[-1]) == index[..., None]


def sample(key, logits, forward_temp=1.0, unimix=0.0):
    """An index for each row, drawn from ``(1 - unimix) softmax(logits / forward_temp) + unimix / K``."""
    probs = (1 - unimix) * jax.nn.softmax(logits / forward_temp, -1) + unimix / logits.shape[-1]
    return jax.random.categorical(key, jnp.log(probs), -1)


reinmax = from_jax(jax.jit(reinmax_select))
categorical = from_jax(jax.jit(categorical_select))
gapped = from_jax(jax.jit(gapped_select, static_argnames="gap"))
