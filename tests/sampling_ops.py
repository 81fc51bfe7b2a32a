"""Ops that draw their own noise, in NumPy: honest ones, and faults of which several tests make use."""

import numpy as np

from npselect import gumbel_softmax
from npselect.testing import SamplingOp


def uniforms(shape, seed, bits=53):
    u = np.random.default_rng(seed).random(shape)
    return np.floor(u * 2.0**bits + 0.5).clip(1) / 2.0**bits if bits < 53 else u


def gumbel(logits, temp, seed):
    return -np.log(-np.log(uniforms(logits.shape, seed)))


def total(values):
    wide = np.float32 if values.dtype.itemsize == 2 else None
    return np.sum(values, axis=-1, keepdims=True, dtype=wide).astype(values.dtype)


def perturbed(logits, temp, seed, noise=gumbel):
    w = logits.astype(np.float64) + noise(logits, temp, seed)  # 16 bits are too few for noise
    return w.astype(np.float32 if logits.dtype.itemsize == 2 else logits.dtype)


def softmax(w, temp):
    t = w / w.dtype.type(temp)
    e = np.exp(t - np.max(t, axis=-1, keepdims=True))
    return e / total(e)


def by_log_softmax(w, temp):
    t = w / w.dtype.type(temp)
    z = t - np.max(t, axis=-1, keepdims=True)
    return np.exp(z - np.log(total(np.exp(z))))


def by_logsumexp(w, temp):
    t = w / w.dtype.type(temp)
    top = np.max(t, axis=-1, keepdims=True)
    return np.exp(t - (top + np.log(total(np.exp(t - top)))))


def one_hot(y):
    return (np.arange(y.shape[-1]) == np.argmax(y, axis=-1)[:, None]).astype(y.dtype)


def product(y, g, temp):
    return y * (g - total(y * g)) / y.dtype.type(temp)


def op(name, *, noise=gumbel, probs=softmax, behind=None, hard=one_hot, gradient=product, soft_gradient=None, **traits):
    """An op of its parts. `behind` are the probabilities of the gradient; ``gradient(y, g, temp)``."""

    def sample(logits, temp, is_hard, seed):
        w = perturbed(logits, temp, seed, noise)
        y = probs(w, temp).astype(logits.dtype)
        return hard(one_hot(w) if hard is one_hot else y) if is_hard else y

    def backward(g, logits, temp, is_hard, seed):
        w = perturbed(logits, temp, seed, noise)
        y = (behind or probs)(w, temp).astype(logits.dtype)
        by = gradient if is_hard or soft_gradient is None else soft_gradient
        grad = by(y, g, temp, logits) if getattr(by, "plain", False) else by(y, g, temp)
        return np.where(logits > -np.inf, grad, 0).astype(logits.dtype)

    return SamplingOp(name, sample, backward, **traits)


def of_logits(function):
    """A gradient that is also given the logits: ``function(y, g, temp, logits)``."""
    function.plain = True
    return function


def own(**traits):
    """npselect's own."""

    def sample(logits, temp, hard, seed):
        return (gumbel_softmax.forward if hard else gumbel_softmax.soft)(logits, temp, seed=seed)

    def backward(grad_sample, logits, temp, hard, seed):
        return gumbel_softmax.backward(grad_sample, logits, temp, seed=seed)

    return SamplingOp("npselect", sample, backward, **traits)


HONEST = {
    "softmax": op("softmax"),
    "log_softmax, then exp": op("log_softmax", probs=by_log_softmax),
    "logsumexp, then exp": op("logsumexp", probs=by_logsumexp),
    "two softmaxes": op("two softmaxes", probs=by_log_softmax, behind=softmax),
    "own": own(),
}

# ------------------------------------------------------------------------------------------ faults of the gradient


def mean_over_rows(y, g, temp):
    return y * (g - np.sum(y * g)) / y.dtype.type(temp)


@of_logits
def without_noise(y, g, temp, logits):
    return product(softmax(logits, temp), g, temp)


@of_logits
def without_noise_or_temp(y, g, temp, logits):
    return product(softmax(logits, 1.0), g, 1.0)


def clamped(y, g, temp):
    """As pyro 1.9.2 has it: autodiff of a clamp to the range from eps to 1 - eps."""
    eps = np.finfo(y.dtype).eps
    return product(y, np.where((y >= eps) & (y <= 1 - eps), g, 0).astype(y.dtype), temp)


def without_temp(y, g, temp):
    return product(y, g, 1.0)


GRADIENTS = {  # name: (gradient, likely cause)
    "zero": (
        lambda y, g, temp: 0 * g,
        "hard form: gradient of the hard softmax (zero); soft form: gradient of a constant (zero)",
    ),
    "no 1/temp": (without_temp, "1/temp is missing"),
    "1/temp twice": (lambda y, g, temp: product(y, g, temp) / y.dtype.type(temp), "1/temp is there twice"),
    "without the noise": (without_noise, "gradient without the noise"),
    "without noise and temp": (without_noise_or_temp, "gradient without the noise and without the temperature"),
    "clamped": (clamped, "probabilities clamped"),
    "sign": (lambda y, g, temp: -product(y, g, temp), "the sign is wrong"),
    "no mean": (lambda y, g, temp: y * g / y.dtype.type(temp), "the mean of the cotangent is not subtracted"),
    "selected": (
        lambda y, g, temp: y * (g - total(one_hot(y) * g)) / y.dtype.type(temp),
        "the selected entry's cotangent is subtracted, not the mean",
    ),
    "identity": (lambda y, g, temp: g, "the cotangent is handed on, as though the sample were the logits"),
    "selected only": (
        lambda y, g, temp: one_hot(y) * product(y, g, temp),
        "only the selected entry has a gradient",
    ),
    "all rows": (mean_over_rows, "the mean of the cotangent is that of all rows"),
}

# ------------------------------------------------------------------------------------------------ faults of the noise


def from_uniforms(u):
    with np.errstate(all="ignore"):
        return -np.log(-np.log(u))


def cut_off(logits, temp, seed, least=1e-7, most=0.999):
    """As candle-nn 0.10.2 draws: no number above `most`."""
    return from_uniforms(least + (most - least) * uniforms(logits.shape, seed))


def tau_inside(logits, temp, seed):
    """As xn 0.1.1 draws: uniform numbers up to 0.999 temp."""
    return from_uniforms(np.minimum(0.999 * temp, 0.999) * uniforms(logits.shape, seed))


def of_24_bits(logits, temp, seed):
    return from_uniforms(uniforms(logits.shape, seed, bits=24).clip(2.0**-25, 1 - 2.0**-25))


def shared(logits, temp, seed):
    return np.random.default_rng(seed).gumbel(size=logits.shape[-1])


def normal(logits, temp, seed):
    return np.random.default_rng(seed).standard_normal(logits.shape)


def scaled(logits, temp, seed):
    return temp * gumbel(logits, temp, seed)


NOISES = {  # name: (noise, likely cause)
    "cut off": (cut_off, "uniforms cut off: no draw beyond G = 6.9"),
    "tau inside": (tau_inside, "tau inside the logarithm"),
    "shared": (shared, "all rows share their noise"),
    "normal": (normal, "noise is normal, not Gumbel's"),
    "times temp": (scaled, "noise is multiplied by the temperature"),
    "none": (lambda logits, temp, seed: np.zeros(logits.shape), "there is no noise"),
    "sign": (lambda logits, temp, seed: -gumbel(logits, temp, seed), "noise has the wrong sign"),
    "exponential": (
        lambda logits, temp, seed: -np.log(uniforms(logits.shape, seed)),
        "noise is exponential, without its logarithm",
    ),
    "uniform": (lambda logits, temp, seed: uniforms(logits.shape, seed), "noise is uniform, not Gumbel's"),
}


def off_by_rounding(y):
    """As vector-quantize-pytorch 1.32 has it: one_hot + y - y."""
    return one_hot(y) + y - y


OTHERS = {  # name: (op, likely cause)
    "mask off": (op("mask off", hard=off_by_rounding), "mask is off by rounding"),
    "soft for hard": (op("soft for hard", hard=lambda y: y), "the soft sample is returned for the hard one"),
    "no effect": (
        op("no effect", probs=lambda w, temp: softmax(w, 1.0), gradient=without_temp),
        "the temperature has no effect on the sample",
    ),
    "soft without temp": (
        op("soft without temp", soft_gradient=without_temp),
        "1/temp is missing",
    ),
    "paddle": (
        op("paddle", gradient=lambda y, g, temp: 0 * g, soft_gradient=without_temp),
        "hard form: gradient of the hard softmax (zero); soft form: 1/temp is missing",
    ),
    "twice": (
        op("twice", probs=lambda w, temp: softmax(w, temp**2), gradient=lambda y, g, temp: product(y, g, temp**2)),
        "the temperature is applied twice",
    ),
}
FAULTS = {
    **{f"gradient, {name}": (op(name, gradient=gradient), cause) for name, (gradient, cause) in GRADIENTS.items()},
    **{f"noise, {name}": (op(name, noise=noise), cause) for name, (noise, cause) in NOISES.items()},
    **OTHERS,
}
HARD_ONLY = {
    name: (
        op(name, gradient=GRADIENTS[name][0], hard_and_soft=False),
        GRADIENTS[name][1].split(";")[0].removeprefix("hard form: "),
    )
    for name in ("zero", "no 1/temp", "without the noise", "1/temp twice", "sign")
}
