"""Known ops of PaddlePaddle."""

from __future__ import annotations

from importlib import import_module

from npselect.testing.adapters import sampling_from_paddle
from npselect.testing.known_ops.judging import sampling
from npselect.testing.known_ops.record import KnownOp, Package
from npselect.testing.sampling.op import SamplingOp

__all__ = ["PACKAGE"]


def gumbel_softmax() -> SamplingOp:
    functional = import_module("paddle.nn.functional")
    return sampling_from_paddle(
        lambda logits, temp, hard: functional.gumbel_softmax(logits, temperature=temp, hard=hard)
    )


_REPRODUCE = """\
import paddle; op, x = paddle.nn.functional.gumbel_softmax, paddle.to_tensor([[1.0, 1.5, 2.0]], stop_gradient=False)
for hard in (True, False): paddle.seed(3); y = op(x, 0.5, hard); print(paddle.grad(y, x, x))
paddle.seed(3); y = op(x, 0.5); print(y * (x - (y * x).sum()) / 0.5)  # expected of both"""
PACKAGE = Package(
    "paddle",
    ("paddle",),
    ("paddlepaddle", "paddlepaddle-gpu"),
    (
        KnownOp(
            "paddle.nn.functional.gumbel_softmax",
            gumbel_softmax,
            sampling(),
            "Hard and soft; the gradient of the hard form is to be that of the soft one. Its uniforms begin at 1e-5.",
            ("https://www.paddlepaddle.org.cn/documentation/docs/en/api/paddle/nn/functional/gumbel_softmax_en.html",),
            _REPRODUCE,
        ),
    ),
)
