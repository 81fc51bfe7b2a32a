"""Hard forward, soft backward, in one picture
===========================================

Draw the README's picture, examples/selection.png: the hard forward and the soft backward at several temperatures.

Run ``python examples/draw_selection.py`` from anywhere; it needs matplotlib (``pip install '.[dev]'``). Every curve and
bar is what `npselect.straight_through` returns: on the left for two candidates, on the right for one of the handwritten
digits that the package ships the logits of.
"""

from importlib.resources import files
from pathlib import Path

import matplotlib as mpl
import numpy as np

from npselect import straight_through

mpl.use("Agg")
import matplotlib.pyplot as plt

BESIDE = Path(__file__).with_name("selection.png")
TEMPS = [0.25, 0.6, 1.5, 4.0]
COLOURS = plt.get_cmap("viridis")(np.linspace(0.0, 0.85, len(TEMPS)))


def two_candidates(forward, backward):
    """The mask of the first of two candidates, and its gradient, against the difference of their logits."""
    difference = np.linspace(-4.0, 4.0, 801)
    logits = np.stack([difference, np.zeros_like(difference)], axis=-1)
    first = np.zeros_like(logits)
    first[:, 0] = 1.0
    forward.plot(difference, straight_through.forward(logits)[:, 0], color="black", lw=2, label="mask[0]")
    for temp, colour in zip(TEMPS, COLOURS, strict=True):
        forward.plot(difference, straight_through.soft(logits, temp)[:, 0], color=colour, lw=1, ls="--")
        backward.plot(
            difference, straight_through.backward(first, logits, temp)[:, 0], color=colour, label=f"temp {temp}"
        )
    forward.set(title="hard forward: mask[0]\n(dashed: the probabilities behind it)", ylabel="mask[0]")
    backward.set(title="soft backward:\ngradient of mask[0] to logits[0]", ylabel="grad_logits[0]")
    for axes in (forward, backward):
        axes.set_xlabel("logits[0] - logits[1]")
        axes.legend(frameon=False, loc="upper left")


def ten_candidates(axes):
    """The gradient of the selected entry of the mask, for a digit that the classifier is unsure of."""
    with np.load(str(files("npselect.testing") / "data" / "digits_logits.npz")) as stored:
        logits = stored["logits"]
    row = int(np.argmin(straight_through.soft(logits, temp=4.0).max(axis=-1)))
    mask = straight_through.forward(logits[row])
    for i, (temp, colour) in enumerate(zip(TEMPS, COLOURS, strict=True)):
        gradient = straight_through.backward(mask, logits[row], temp)
        axes.bar(np.arange(10) + 0.2 * (i - 1.5), gradient, width=0.2, color=colour, label=f"temp {temp}")
    axes.axhline(0.0, color="black", lw=0.5)
    axes.set(
        title=f"soft backward, ten candidates:\nhandwritten digit no. {row}, class {int(np.argmax(mask))} selected",
        xlabel="class",
        ylabel="gradient of mask[selected] to logits",
        xticks=range(10),
    )
    axes.legend(frameon=False)


def main(target=BESIDE):
    """Write the picture, beside this script unless told otherwise."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    two_candidates(left, middle)
    ten_candidates(right)
    figure.savefig(target, dpi=110, metadata={"Software": None})
    print(f"wrote {target.name}")


if __name__ == "__main__":
    main()
