"""Samplers that select by probabilities: honest ones, and the faults that several tests share."""

import numpy as np

from npselect import noise


def one_hot(index, choices):
    return (np.arange(choices) == index[:, None]).astype(np.float32)


def select(w):
    return one_hot(np.argmax(w, axis=-1), w.shape[-1])


def gumbel(logits, seed):
    return np.random.default_rng(seed).gumbel(size=logits.shape)


def softmax(logits):
    e = np.exp(logits.astype(np.float64) - np.max(logits, axis=-1, keepdims=True).astype(np.float64))
    return e / np.sum(e, axis=-1, keepdims=True)


def by_gumbel(logits, seed):
    return select(logits + gumbel(logits, seed))


def by_gumbel_float32(logits, seed):
    u = np.random.default_rng(seed).random(logits.shape, dtype=np.float32)
    with np.errstate(divide="ignore"):
        return select(logits.astype(np.float32) - np.log(-np.log(u)))


def by_inverse(logits, seed, u=None):
    below = np.cumsum(softmax(logits), axis=-1)
    u = np.random.default_rng(seed).random(len(logits)) if u is None else u
    return one_hot(np.sum(below <= u[:, None] * below[:, -1:], axis=-1), logits.shape[-1])


def by_multinomial(logits, seed):
    return np.random.default_rng(seed).multinomial(1, softmax(logits))


def by_exponential_race(logits, seed):
    times = np.random.default_rng(seed).exponential(size=logits.shape)
    return select(softmax(logits) / times)


def at_a_temperature(logits, seed):
    return select((logits + gumbel(logits, seed)) / 0.1)


def straight_through_idiom(logits, seed):
    probs = softmax(logits + gumbel(logits, seed)).astype(np.float32)
    return probs + (select(probs) - probs)


def by_old_generator(logits, seed):
    return select(logits + np.random.RandomState(seed).gumbel(size=logits.shape))


def in_place(logits, seed):
    logits += gumbel(logits, seed).astype(logits.dtype)
    return select(logits)


HONEST = [
    by_gumbel,
    by_gumbel_float32,
    by_inverse,
    by_multinomial,
    by_exponential_race,
    at_a_temperature,
    straight_through_idiom,
    by_old_generator,
    in_place,
]


def noise_of_one_row(logits, seed):
    return select(logits + np.random.default_rng(seed).gumbel(size=logits.shape[-1]))


def noise_repeated(logits, seed, rows):
    added = np.random.default_rng(seed).gumbel(size=(min(rows, len(logits)), logits.shape[-1]))
    return select(logits + np.resize(added, logits.shape))


def stream(logits, start, stride=None):
    """One stream for all seeds, beginning at `start`; a row takes its noise `stride` after the row before it."""
    rows, choices = logits.shape
    stride = choices if stride is None else stride
    drawn = noise.gumbel(stride * rows + choices, 5, offset=start, dtype=np.float64)
    return select(logits + np.lib.stride_tricks.sliding_window_view(drawn, choices)[: stride * rows : stride])


def scaled(logits, seed, factor):
    return by_gumbel(logits * factor, seed)
