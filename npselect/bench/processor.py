"""Code for another processor, for npselect and as far as possible for every peer, in one place."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module

from npselect.bench.features import features, missing
from npselect.testing.aliases import Tensor

__all__ = ["LEVELS", "Restriction", "code_is_for", "compiled_for", "level", "numpy_disables", "restricted", "variables"]

LEVELS: Mapping[str, frozenset[str]] = {
    "x86-64-v4": frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}),
    "x86-64-v3": frozenset({"avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe"}),
    "x86-64-v2": frozenset({"popcnt", "sse4.1", "sse4.2", "ssse3"}),
}
"""The levels of the ABI and what marks them, the highest first: peers know levels, not names of processors."""

_PEERS: Mapping[str, Mapping[str, str]] = {
    "x86-64-v4": {
        "ATEN_CPU_CAPABILITY": "avx512",  # PyTorch's kernels, and the vectors that torch.compile writes
        "TORCHINDUCTOR_CPP_MARCH": "x86-64-v4",  # what torch.compile tells the C++ compiler, else "native"
        "ONEDNN_MAX_CPU_ISA": "AVX512_CORE",  # oneDNN, in PyTorch and TensorFlow
        "MKL_ENABLE_INSTRUCTIONS": "AVX512",  # MKL, in PyTorch
        "XLA_FLAGS": "--xla_cpu_max_isa=AVX512",  # JAX
        "OPENBLAS_CORETYPE": "SkylakeX",  # products of matrices in NumPy
    },
    "x86-64-v3": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "TORCHINDUCTOR_CPP_MARCH": "x86-64-v3",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "XLA_FLAGS": "--xla_cpu_max_isa=AVX2",
        "OPENBLAS_CORETYPE": "Haswell",
    },
    "x86-64-v2": {
        "ATEN_CPU_CAPABILITY": "default",
        "TORCHINDUCTOR_CPP_MARCH": "x86-64-v2",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
        "XLA_FLAGS": "--xla_cpu_max_isa=SSE4_2",
        "OPENBLAS_CORETYPE": "Nehalem",
    },
}
_NUMPY = "NPY_DISABLE_CPU_FEATURES"  # read when it is loaded
_NUMPY_NEEDS = {  # the features that NumPy dispatches to, by level, under old names and new; others are above
    "x86-64-v2": {"SSE", "SSE2", "SSE3", "SSSE3", "SSE41", "POPCNT", "SSE42", "X86_V2"},
    "x86-64-v3": {"AVX", "F16C", "FMA3", "AVX2", "X86_V3"},
    "x86-64-v4": {"AVX512F", "AVX512CD", "AVX512_SKX", "X86_V4"},
}
_NEVER = {
    "tensorflow": "its own kernels are as its wheel was compiled; those of oneDNN alone are restricted",
    "copy": "copies memory as NumPy and the C library do on this processor",
}
_LOADED = {"torch": "PyTorch", "jax": "JAX", "tensorflow": "TensorFlow"}


@dataclass(frozen=True)
class Restriction:
    """Which processor code is for.

    Attributes
    ----------
    npselect : str
        The name of the processor for which npselect's kernels are compiled.
    peers : str
        The level that the peers are restricted to; "this processor" if they are not.
    not_restricted : dict of str to str
        What may use more than that, and why.
    """

    npselect: str
    peers: str = "this processor"
    not_restricted: Mapping[str, str] = field(default_factory=dict)


def level(uses: frozenset[str]) -> str:
    """The highest level within some features: that of a processor which peers cannot be told by name.

    Examples
    --------
    >>> from npselect.bench.processor import LEVELS, level
    >>> level(LEVELS["x86-64-v2"] | {"avx", "fma4"})
    'x86-64-v2'
    """
    order = list(LEVELS)
    within = [name for i, name in enumerate(order) if frozenset().union(*(LEVELS[n] for n in order[i:])) <= uses]
    return within[0] if within else "x86-64"


def variables(name: str, of_level: str) -> dict[str, str]:
    """What the packages read: npselect's kernels for the processor, the peers for its level."""
    wanted = {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": ""}  # "": those that the name stands for
    wanted |= _PEERS.get(of_level, _PEERS["x86-64-v2"])  # none of them goes below
    flags = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if not flag.startswith("--xla_cpu_max_isa")]
    wanted["XLA_FLAGS"] = " ".join([*flags, wanted["XLA_FLAGS"]])
    return wanted


def numpy_disables(of_level: str) -> str:
    """What `NPY_DISABLE_CPU_FEATURES` must be when NumPy is loaded, by the features that this NumPy dispatches to."""
    dispatched = getattr(import_module("numpy._core._multiarray_umath"), "__cpu_dispatch__", [])
    order = list(LEVELS)
    kept = set().union(*(_NUMPY_NEEDS[each] for each in order[order.index(of_level) :])) if of_level in order else set()
    return " ".join(name for name in dispatched if name not in kept)


def _checked(name: str) -> str:
    """The level of a processor whose code this one can run, or ValueError."""
    uses, has = features(name)
    if lacking := missing(uses, has):
        raise ValueError(
            f"code for {name!r} cannot run here: it may use {', '.join(lacking)}, which this processor lacks"
        )
    return level(uses)


def restricted(name: str) -> tuple[str, dict[str, str]]:
    """The level of a processor, and the variables with which a new process runs code for it: NumPy's are among them.

    Raises
    ------
    ValueError
        LLVM knows no such processor, or this one cannot run code for it.
    """
    found = _checked(name)
    return found, {**variables(name, found), _NUMPY: numpy_disables(found)}


@contextmanager
def code_is_for(name: str | None) -> Iterator[Restriction | None]:
    """Set the variables that the packages read, and set them back afterwards.

    Parameters
    ----------
    name : str or None
        Of a processor, as LLVM has it; None leaves everything as it is.

    Raises
    ------
    ValueError
        LLVM knows no such processor, or this one cannot run code for it.
    RuntimeError
        numba has been loaded, for another processor.
    """
    if name is None:
        yield None
        return
    found = _checked(name)
    numba = sys.modules.get("numba")
    if numba is not None and not _is_for(numba, name):
        raise RuntimeError(
            f"cpu is {name!r} and numba has been loaded already, for {compiled_for()}; set NUMBA_CPU_NAME={name} and "
            'NUMBA_CPU_FEATURES="" before the process starts, or run the command npselect bench --cpu'
        )
    not_restricted = dict(_NEVER)
    if found not in LEVELS:
        not_restricted["the peers"] = "know no level below x86-64-v2, and are restricted to that"
    late = " was loaded before its variables could be set"
    wanted = variables(name, found)
    if any(os.environ.get(each) != value for each, value in wanted.items()):
        not_restricted |= {package: title + late for package, title in _LOADED.items() if package in sys.modules}
    disables = numpy_disables(found)
    if not set(disables.split()) <= set(os.environ.get(_NUMPY, "").replace(",", " ").split()):
        not_restricted["numpy"] = f"NumPy{late}: {_NUMPY}={disables!r}"
    before = {each: os.environ.get(each) for each in wanted}
    os.environ.update(wanted)
    try:
        yield Restriction(name, found, not_restricted)
    finally:
        for each, value in before.items():
            if value is None:
                os.environ.pop(each, None)
            else:
                os.environ[each] = value


def _is_for(numba: Tensor, name: str) -> bool:
    return bool(name == numba.config.CPU_NAME and not numba.config.CPU_FEATURES)


def compiled_for() -> str:
    """The processor for which npselect's kernels are compiled in this process."""
    numba: Tensor = sys.modules.get("numba")
    named = os.environ.get("NUMBA_CPU_NAME") if numba is None else numba.config.CPU_NAME
    return str(named or import_module("llvmlite.binding").get_host_cpu_name())
