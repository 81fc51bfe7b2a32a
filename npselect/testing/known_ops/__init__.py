"""Ops that people ship, and that draw masks or samples: what ``npselect survey`` runs where they are installed.

A file has the ops of one package, as records (`KnownOp`): a function that makes what is judged, one of the judges of
`npselect.testing.known_ops.judging`, and what is documented. Importing this imports none of the packages.
"""

from npselect.testing.known_ops.by_distrax import PACKAGE as DISTRAX
from npselect.testing.known_ops.by_entmax import PACKAGE as ENTMAX
from npselect.testing.known_ops.by_jax import PACKAGE as JAX
from npselect.testing.known_ops.by_mlx import PACKAGE as MLX
from npselect.testing.known_ops.by_numpyro import PACKAGE as NUMPYRO
from npselect.testing.known_ops.by_paddle import PACKAGE as PADDLE
from npselect.testing.known_ops.by_pyro import PACKAGE as PYRO
from npselect.testing.known_ops.by_softjax import SOFTJAX, SOFTTORCH
from npselect.testing.known_ops.by_tensorflow import PACKAGE as TENSORFLOW
from npselect.testing.known_ops.by_tfp import PACKAGE as TFP
from npselect.testing.known_ops.by_tinygrad import PACKAGE as TINYGRAD
from npselect.testing.known_ops.by_torch import PACKAGE as TORCH
from npselect.testing.known_ops.by_torchrl import PACKAGE as TORCHRL
from npselect.testing.known_ops.by_vector_quantize_pytorch import PACKAGE as VECTOR_QUANTIZE_PYTORCH
from npselect.testing.known_ops.record import Finding, KnownOp, Package

__all__ = ["PACKAGES", "Finding", "KnownOp", "Package"]

PACKAGES = {
    package.name: package
    for package in (
        TORCH,
        JAX,
        TENSORFLOW,
        TFP,
        PADDLE,
        PYRO,
        NUMPYRO,
        TORCHRL,
        DISTRAX,
        VECTOR_QUANTIZE_PYTORCH,
        ENTMAX,
        TINYGRAD,
        MLX,
        SOFTJAX,
        SOFTTORCH,
    )
}
"""By name, in the order in which they are run."""
