"""Every row function that a record names is in the protocol of the tiers, and in the CUDA tier's table of kernels."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import npselect
from npselect._operators import ROW_FUNCTIONS as FUNCTIONS
from npselect.tiers import HostRowFunctions, RowFunctions


def test_the_protocol_has_every_row_function():
    for protocol, on_gpu in ((RowFunctions, True), (HostRowFunctions, False)):
        listed = {name for name in vars(protocol) if not name.startswith("_")} - {"gumbel"}
        assert listed == {name for name, function in FUNCTIONS.items() if function.on_gpu == on_gpu}
    for name, function in FUNCTIONS.items():
        protocol = RowFunctions if function.on_gpu else HostRowFunctions
        parameters = [*inspect.signature(getattr(protocol, name)).parameters][1:]
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
    assert listed == {name for name, function in FUNCTIONS.items() if function.on_gpu}
