"""The other estimators in TensorFlow
==================================

ReinMax, the straight-through gradient of a drawn sample, and the gapped one (GST), in TensorFlow, each with a
`tf.custom_gradient`.

Check them with ``npselect check examples/tensorflow_estimators.py:reinmax --operator reinmax``; likewise `categorical`
and `gapped`. All are given the index, which `sample` draws.
"""

import tensorflow as tf

from npselect.testing import from_tensorflow

INF = float("inf")


def reinmax_select(logits, temp=1.0, *, index):
    """A mask with ReinMax's gradient, ``2 J((q + D) / 2) g - J(p) g / 2``."""
    z = differences(logits)
    p, q, drawn = tf.nn.softmax(z), tf.nn.softmax(z / temp), one_hot(index, z)

    def gradient(grad_mask):
        h = measured_from(index, grad_mask, z)
        a, b = total(q * h), total(p * h)
        return tf.where(drawn, p * b - (1 + q) * a, q * (2 * h - a) - p * (h - b)) / 2

    return select(logits, z, index, gradient)


def categorical_select(logits, temp=1.0, *, index, forward_temp=1.0, unimix=0.0):
    """A mask with the gradient of ``(1 - unimix) softmax(logits / (forward_temp temp))``."""
    z = differences(logits)
    return select(logits, z, index, lambda g: (1 - unimix) * softmax_gradient(g, z, forward_temp * temp))


def gapped_select(logits, temp=1.0, *, index, gap=1.0):
    """A mask with the gradient of a softmax in which the drawn logit leads by `gap`."""
    z = differences(logits)
    drawn = one_hot(index, z)
    if gap == "adaptive":
        p = total(tf.where(drawn, tf.nn.softmax(z), tf.zeros_like(z)))
        gap = -tf.math.log1p(-p) / p
    moved = tf.where(drawn, tf.zeros_like(z), tf.minimum(z, -tf.cast(gap, z.dtype)))
    return select(logits, z, index, lambda g: softmax_gradient(g, moved, temp))


def select(logits, z, index, gradient):
    """``mask = one_hot(index)``, NaN in a row that is spoilt; its gradient is ``gradient(grad_mask)``."""
    spoilt = tf.math.is_nan(total(tf.where(z == -INF, tf.zeros_like(z), z)))

    @tf.custom_gradient
    def mask_of(w):
        return tf.where(spoilt, tf.constant(float("nan"), w.dtype), tf.cast(one_hot(index, w), w.dtype)), gradient

    return tf.cast(mask_of(tf.cast(logits, z.dtype)), logits.dtype)


def softmax_gradient(grad_mask, z, temp):
    """``probs * (h - sum(probs * h)) / temp``, ``probs = softmax(z / temp)``."""
    probs, h = tf.nn.softmax(z / temp), measured_from(tf.argmax(z, -1), grad_mask, z)
    return probs * (h - total(probs * h)) / temp


def measured_from(index, grad_mask, z):
    """The cotangent less an entry of its own, as constants drop out: so it keeps its digits. 0 at excluded entries."""
    h = grad_mask - total(tf.where(one_hot(index, z), grad_mask, tf.zeros_like(grad_mask)))
    return tf.where(z == -INF, tf.zeros_like(h), h)


def differences(logits):
    """The logits measured from the largest, in 32 bits or more."""
    w = tf.stop_gradient(tf.cast(logits, tf.float64 if logits.dtype == tf.float64 else tf.float32))
    return w - tf.reduce_max(w, -1, keepdims=True)


def total(values):
    """The sum of each row."""
    return tf.reduce_sum(values, -1, keepdims=True)


def one_hot(index, z):
    """Whether an entry is the drawn one."""
    return tf.one_hot(index, z.shape[-1], on_value=True, off_value=False, dtype=tf.bool)


def sample(logits, forward_temp=1.0, unimix=0.0, seed=None):
    """An index for each row, drawn from ``(1 - unimix) softmax(logits / forward_temp) + unimix / K``."""
    probs = (1 - unimix) * tf.nn.softmax(logits / forward_temp) + unimix / logits.shape[-1]
    flat = tf.reshape(tf.math.log(probs), [-1, logits.shape[-1]])
    return tf.reshape(tf.random.categorical(flat, 1, seed=seed), tf.shape(logits)[:-1])


reinmax = from_tensorflow(reinmax_select)
categorical = from_tensorflow(categorical_select)
gapped = from_tensorflow(gapped_select)
