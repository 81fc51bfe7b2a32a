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
import paddle; x = paddle.to_tensor([[1.0, 2.0, 3.0]], stop_gradient=False); g = paddle.to_tensor([[1.0, 0.0, 0.0]])
for hard in (True, False): paddle.seed(0); y = paddle.nn.functional.gumbel_softmax(x, 0.1, hard); print(paddle.grad(y, x, g))
paddle.seed(0); y = paddle.nn.functional.gumbel_softmax(x, 0.1); print(y * (g - (y * g).sum()) / 0.1)  # expected twice"""
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
