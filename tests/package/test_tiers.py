"""Every row function that a record names is in the protocol of the tiers, and in the CUDA tier's table of kernels."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import npselect
from npselect._operators import ROW_FUNCTIONS as FUNCTIONS
from npselect.tiers import RowFunctions


def test_the_protocol_has_every_row_function():
    listed = {name for name in vars(RowFunctions) if not name.startswith("_")} - {"gumbel"}
    assert listed == set(FUNCTIONS)
    for name, function in FUNCTIONS.items():
        parameters = [*inspect.signature(getattr(RowFunctions, name)).parameters][1:]
        assert parameters[len(function.cotangents) : -len(function.results)] == [*function.reads]


def test_the_cuda_tier_lists_every_kernel():
    """Read, not imported: numba-cuda may be missing."""
    path = Path(npselect.__file__).parent / "tiers" / "cuda" / "rows.py"
    tables = [
        node.value
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "KERNELS"
    ]
    (table,) = tables
    listed = {ast.unparse(key).removesuffix(".name").lower() for key in table.keys}
    assert listed == set(FUNCTIONS)
