"""Straight-through selection in TensorFlow
========================================

Straight-through selection in TensorFlow, by the `tf.stop_gradient` idiom and with a `tf.custom_gradient`.

Check them with ``npselect check examples/tensorflow_select.py:stop_gradient`` and
``examples/tensorflow_select.py:custom_gradient``. With ``noise=`` both are straight-through Gumbel-softmax;
`gumbel_noise` draws it.
"""

import tensorflow as tf

from npselect.testing import from_tensorflow

INF = float("inf")


def stop_gradient_select(logits, temp=0.6, *, axis=-1, where=None, noise=None):
    """The value is the mask, exactly; the gradient is that of ``probs = softmax((logits + noise) / temp)``."""
    w, top, excluded = candidates(logits, axis, where, noise)
    probs = softmax((w - top) / temp, axis)
    mask = one_hot_of_largest(w, axis)
    return tf.cast(zeros_where(excluded, probs + tf.stop_gradient(mask - probs)), logits.dtype)


def custom_gradient_select(logits, temp=0.6, *, axis=-1, where=None, noise=None):
    """The same, its gradient written out: ``probs * (h - sum(probs * h)) / temp``."""
    w, top, excluded = candidates(logits, axis, where, noise)

    @tf.custom_gradient
    def select(w):
        probs = zeros_where(excluded, softmax((w - top) / temp, axis))
        mask = one_hot_of_largest(w, axis)

        def backward(grad_mask):
            g = zeros_where(excluded, grad_mask)
            h = zeros_where(excluded, g - tf.reduce_sum(g * mask, axis, keepdims=True))  # keeps its digits
            return probs * (h - tf.reduce_sum(probs * h, axis, keepdims=True)) / temp

        return zeros_where(excluded, tf.where(tf.math.is_nan(probs), probs, mask)), backward

    return tf.cast(select(w), logits.dtype)


def candidates(logits, axis, where, noise):
    """What is compared, in 32 bits or more; its maximum; and what cannot be selected."""
    w = tf.cast(logits, wide(logits.dtype))
    if noise is not None:
        w = w + tf.cast(noise, w.dtype)
    if where is not None:
        w = tf.where(where, w, -INF)
    top = tf.stop_gradient(tf.reduce_max(w, axis, keepdims=True))
    excluded = (w == -INF) & tf.math.is_finite(top)  # a row of nothing but -inf is a row of NaN,
    return w, top, excluded if where is None else excluded | ~where  # of nothing but where=False one of 0


def one_hot_of_largest(w, axis):
    """A 1 at the first of the largest, on w itself, never on rounded probabilities."""
    return tf.one_hot(tf.argmax(w, axis), w.shape[axis], axis=axis % w.shape.rank, dtype=w.dtype)


def softmax(t, axis):
    """Of t whose maximum is 0; unlike that of `tf.nn.softmax`, a row with a NaN is NaN all over."""
    exps = tf.exp(t)
    return exps / tf.reduce_sum(exps, axis, keepdims=True)


def zeros_where(excluded, values):
    """Zero, and with a gradient of 0, at excluded entries."""
    return tf.where(excluded, tf.zeros_like(values), values)


def wide(dtype):
    """The type to compute in: 16-bit floats in 32 bits, rounded once."""
    return tf.float64 if dtype == tf.float64 else tf.float32


def gumbel_noise(logits, generator=None):
    """Independent standard Gumbel noise in the shape of `logits`."""
    uniform = (generator or tf.random).uniform
    return -tf.math.log(-tf.math.log(uniform(tf.shape(logits), minval=1e-30, maxval=1.0, dtype=wide(logits.dtype))))


stop_gradient = from_tensorflow(stop_gradient_select)
custom_gradient = from_tensorflow(custom_gradient_select)
