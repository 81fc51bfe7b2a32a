"""Checking somebody else's implementation against the oracle.

Examples
--------
>>> from npselect import straight_through, testing
>>> testing.check(straight_through, profile="strict").ok
True
"""

from npselect.testing.adapters import (
    Layer,
    from_array_functions,
    from_jax,
    from_mlx,
    from_paddle,
    from_tensorflow,
    from_tinygrad,
    from_torch,
    layer_from_jax,
    layer_from_tensorflow,
    layer_from_torch,
    sampling_from_jax,
    sampling_from_mlx,
    sampling_from_paddle,
    sampling_from_tensorflow,
    sampling_from_tinygrad,
    sampling_from_torch,
)
from npselect.testing.case import Case
from npselect.testing.cases import cases, find_case
from npselect.testing.check import assert_conforms, check
from npselect.testing.dtypes import DTYPES
from npselect.testing.implementation import OPTIONS, Implementation
from npselect.testing.outcome import Difference, Group, Outcome
from npselect.testing.profile import PROFILES
from npselect.testing.report import Report
from npselect.testing.sampler import check_sampler
from npselect.testing.sampler_report import SamplerReport, SamplerTest
from npselect.testing.sampling.check import check_sampling_op
from npselect.testing.sampling.op import SamplingOp
from npselect.testing.sampling.report import SamplingReport, SamplingTest
from npselect.testing.selection_case import SelectionCase
from npselect.testing.selection_cases import selection_cases
from npselect.testing.selection_check import check_selection
from npselect.testing.stored import load_vectors
from npselect.testing.vector_check import check_vector_gradient
from npselect.testing.vectors import write_vectors

__all__ = [
    "DTYPES",
    "OPTIONS",
    "PROFILES",
    "Case",
    "Difference",
    "Group",
    "Implementation",
    "Layer",
    "Outcome",
    "Report",
    "SamplerReport",
    "SamplerTest",
    "SamplingOp",
    "SamplingReport",
    "SamplingTest",
    "SelectionCase",
    "assert_conforms",
    "cases",
    "check",
    "check_sampler",
    "check_sampling_op",
    "check_selection",
    "check_vector_gradient",
    "find_case",
    "from_array_functions",
    "from_jax",
    "from_mlx",
    "from_paddle",
    "from_tensorflow",
    "from_tinygrad",
    "from_torch",
    "layer_from_jax",
    "layer_from_tensorflow",
    "layer_from_torch",
    "load_vectors",
    "sampling_from_jax",
    "sampling_from_mlx",
    "sampling_from_paddle",
    "sampling_from_tensorflow",
    "sampling_from_tinygrad",
    "sampling_from_torch",
    "selection_cases",
    "write_vectors",
]
