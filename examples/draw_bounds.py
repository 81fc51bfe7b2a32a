"""How much of the bounds honest code uses
=======================================

Draw the README's picture of the bounds, examples/bounds.png: how much of them honest implementations use up.

Run ``python examples/draw_bounds.py`` from anywhere; it needs matplotlib and ml_dtypes (``pip install '.[dev,test]'``).
Each point is an entry of a gradient: its error, measured from the oracle's, over what `npselect.testing` allows there.
On the left the textbook's formula in four dtypes, written in three ways; on the right the same beside mistakes.
"""

from pathlib import Path

import matplotlib as mpl
import ml_dtypes
import numpy as np

from npselect import testing

mpl.use("Agg")
import matplotlib.pyplot as plt

BESIDE = Path(__file__).with_name("bounds.png")
TEMP = 0.6
DTYPES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float32": np.float32, "float64": np.float64}
CHOICES = [2, 4, 10, 32, 100, 316, 1000, 3162]
COLOURS = dict(zip(DTYPES, plt.get_cmap("viridis")(np.linspace(0.0, 0.85, len(DTYPES))), strict=True))


def total(values):
    """A sum of 16-bit numbers is accumulated in 32 bits."""
    wide = np.float32 if values.dtype.itemsize == 2 else values.dtype
    return np.sum(values, axis=-1, keepdims=True, dtype=wide).astype(values.dtype)


def softmax(logits, temp):
    """Divided first."""
    quotients = logits / temp
    exps = np.exp(quotients - np.max(quotients, axis=-1, keepdims=True))
    return exps / total(exps)


def softmax_of_differences(logits, temp):
    """Subtracted first."""
    exps = np.exp((logits - np.max(logits, axis=-1, keepdims=True)) / temp)
    return exps / total(exps)


def textbook(g, logits, temp):
    """One product."""
    p = softmax(logits, temp)
    return p * (g - total(p * g)) / temp


def textbook_of_differences(g, logits, temp):
    """The same with the other softmax."""
    p = softmax_of_differences(logits, temp)
    return p * (g - total(p * g)) / temp


def two_products(g, logits, temp):
    """The mean is subtracted last."""
    p = softmax(logits, temp)
    return (p * g - p * total(p * g)) / temp


def clamped(g, logits, temp):
    """Probabilities are kept from falling below 1e-6."""
    p = np.maximum(softmax(logits, temp), logits.dtype.type(1e-6))
    return p * (g - total(p * g)) / temp


HONEST = [textbook, textbook_of_differences, two_products]
MISTAKES = {
    "1/temp is missing": lambda g, logits, temp: textbook(g, logits, temp) * temp,
    "off by one in a thousand": lambda g, logits, temp: textbook(g, logits, temp) * logits.dtype.type(1.001),
    "probs clamped at 1e-6": clamped,
    "sum over the batch": lambda g, logits, temp: (
        softmax(logits, temp) * (g - np.sum(softmax(logits, temp) * g)) / temp
    ),
}


def case(dtype, choices, entries=50_000):
    """So many entries in rows of so many choices."""
    rng = np.random.default_rng(choices)
    shape = entries // choices, choices
    logits, grad_mask = (scale * rng.standard_normal(shape) for scale in (3.0, 1.0))
    temp = float(np.asarray(TEMP).astype(dtype))
    return testing.Case("random/drawn", "for a picture", logits.astype(dtype), grad_mask.astype(dtype), temp)


def fractions(case, backward):
    """Error over bound, of all entries."""
    actual = backward(case.grad_mask, case.logits, case.logits.dtype.type(case.temp)).astype(np.float64)
    return (np.abs(actual - case.grad_logits.astype(np.float64)) / case.bound).ravel()


def by_dtype_and_choices(axes):
    """The largest error of each, and the median."""
    for name, dtype in DTYPES.items():
        errors = [
            np.concatenate([fractions(case(dtype, choices), backward) for backward in HONEST]) for choices in CHOICES
        ]
        largest, median = [np.max(e) for e in errors], [np.median(e) for e in errors]
        axes.plot(CHOICES, largest, "o-", ms=3, color=COLOURS[name], label=name)
        axes.plot(CHOICES, median, ":", color=COLOURS[name])
    axes.axhline(1.0, color="black", lw=1)
    axes.set(
        title="honest implementations: the largest error of 150 000 entries\n(dotted: the median)",
        xlabel="choices",
        ylabel="error / bound",
        xscale="log",
        yscale="log",
        ylim=(1e-3, 3),
    )
    axes.legend(frameon=False, fontsize="small", loc="lower left")


def beside_mistakes(axes):
    """Histograms in float32, ten choices."""
    drawn = case(np.float32, 10)
    bins = np.logspace(-4, 8, 121)
    kinds = {"honest": HONEST, **{name: [mistake] for name, mistake in MISTAKES.items()}}
    colours = ["black", *plt.get_cmap("plasma")(np.linspace(0.1, 0.8, len(MISTAKES)))]
    for (name, kind), colour in zip(kinds.items(), colours, strict=True):
        errors = np.concatenate([fractions(drawn, backward) for backward in kind])
        weights = np.full(errors.shape, 1 / errors.size)
        style = {"histtype": "stepfilled", "alpha": 0.4} if name == "honest" else {"histtype": "step"}
        axes.hist(np.clip(errors, bins[0], bins[-1]), bins, weights=weights, color=colour, label=name, **style)
    axes.axvline(1.0, color="black", lw=1)
    axes.set(
        title="float32, ten choices:\nhonest implementations and mistakes",
        xlabel="error / bound",
        ylabel="share of entries",
        xscale="log",
        ylim=(0, 0.3),
    )
    axes.legend(frameon=False, fontsize="small", loc="upper right")


def main(target=BESIDE):
    """Write the picture, beside this script unless told otherwise."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.2), layout="constrained")
    by_dtype_and_choices(left)
    beside_mistakes(right)
    figure.savefig(target, dpi=100, metadata={"Software": None})
    print(f"wrote {target.name}")


if __name__ == "__main__":
    main()
