"""What tests of arrays share: random ones of every dtype, and the functions that take them. No expected values."""

import ml_dtypes
import numpy as np
import pytest

from npselect import straight_through as st

RNG = np.random.default_rng(20)
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = [np.dtype("float16"), BFLOAT16, np.dtype("float32"), np.dtype("float64")]
backends = pytest.mark.parametrize("backend", ["reference", "cpu"])
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def random(shape, dtype="float32"):
    return RNG.standard_normal(shape).astype(dtype)


def calls(grad, logits, **options):
    """Every function of the operator, as (name, call taking out)."""
    return {
        "forward": lambda out=None: st.forward(logits, out=out, **options),
        "soft": lambda out=None: st.soft(logits, out=out, **options),
        "backward": lambda out=None: st.backward(grad, logits, out=out, **options),
        "jvp": lambda out=None: st.jvp(grad, logits, out=out, **options),
    }
