"""Where the straight-through gradient leads
=========================================

Where the straight-through gradient leads: toy problems of the literature, by gradient descent without a framework.

One choice between the values 1 and 0 is drawn from softmax(logits), and E|z - c|**p is to be made small. The sample is
hard (`gumbel_softmax.forward`), the gradient that of the probabilities at temp 1 (`straight_through.backward`): the
classical sampled straight-through estimator. With P the probability of 1, the first logit's gradient is expected to be
::

    P (1 - P) [P p (1 - c)**(p - 1) - (1 - P) p c**(p - 1)]

which vanishes at P = c**(p - 1) / (c**(p - 1) + (1 - c)**(p - 1)). For c < 1/2 the best is P = 0, with the loss c**p:
the estimator is biased, and settles on a plateau above. (b - t)**2 over a Bernoulli b is the case p = 2, c = t.

Run ``python examples/toy_losses.py``.
"""

import numpy as np

from npselect import gumbel_softmax, straight_through

VALUES = np.array([1.0, 0.0])
PROBLEMS = [(2.0, 0.45), (2.0, 0.499), (1.5, 0.45), (3.0, 0.45)]  # p, c


def loss(z, p, c):
    """``|z - c|**p``."""
    return np.abs(z - c) ** p


def grad_loss(z, p, c):
    """Its derivative in z."""
    return p * np.abs(z - c) ** (p - 1) * np.sign(z - c)


def descend(p, c, steps=2000, samples=2000, rate=0.5):
    """Mean losses of the samples, step after step; every step has a seed of its own."""
    logits = np.zeros(2)
    losses = []
    for step in range(steps):
        batch = np.broadcast_to(logits, (samples, 2))
        z = gumbel_softmax.forward(batch, seed=step) @ VALUES
        losses.append(loss(z, p, c).mean())
        grad_mask = grad_loss(z, p, c)[:, np.newaxis] * VALUES
        logits = logits - rate * straight_through.backward(grad_mask, batch, temp=1.0).mean(axis=0)
    return losses


def plateau(p, c):
    """The loss where the expected gradient vanishes."""
    one, zero = c ** (p - 1), (1 - c) ** (p - 1)
    return (one * loss(1, p, c) + zero * loss(0, p, c)) / (one + zero)


def main():
    """Descend, and print where it ends."""
    print("  p      c   settles at   plateau   optimum")
    for p, c in PROBLEMS:
        losses = descend(p, c)
        settled = np.mean(losses[len(losses) // 2 :])
        print(f"{p:3}  {c:5}       {settled:.4f}    {plateau(p, c):.4f}    {c**p:.4f}")


if __name__ == "__main__":
    main()
