"""Where an array is, in the host's memory or on a GPU, asked before any of it is read; and lazy arrays, refused."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from npselect._dtypes import ml_dtypes_bfloat16

__all__ = ["as_numpy_sees", "names_on_gpu", "on_device", "refuse_lazy"]

_HOST_TYPES = frozenset({np.ndarray, type(None), float, int, list, np.float64, np.float32})
_GPU = (2, 13)  # DLPack's CUDA memory, and its managed memory
_LAZY = ("dask", "cubed")


def on_device(values: Any) -> bool:
    """Whether an array is on a GPU, by DLPack and the CUDA array interface."""
    if type(values) in _HOST_TYPES:
        return False
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(values, torch.Tensor):
        return bool(values.is_cuda)  # the same, and quicker
    asked = getattr(type(values), "__dlpack_device__", None)
    try:
        if asked is not None and asked(values)[0] in _GPU:
            return True
        return getattr(values, "__cuda_array_interface__", None) is not None
    except Exception:  # an array on several devices, say; reading it raises the error, with the argument's name
        return False


def names_on_gpu(arrays: Mapping[str, object]) -> list[str]:
    """The names of those arrays that live on a GPU."""
    return [name for name, values in arrays.items() if on_device(values)]


def as_numpy_sees(values: Any) -> Any:
    """A torch tensor on the host as a NumPy array that shares its memory; everything else as it is.

    As on a GPU, it is read as its `detach()` would be: npselect records nothing for anybody's autograd. bfloat16, which
    torch hands to nobody, is taken by its bits.
    """
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(values, torch.Tensor) or values.is_cuda:
        return values
    tensor = values.detach()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes_bfloat16())
    return tensor.numpy()


def refuse_lazy(values: Any, name: str) -> None:
    """TypeError for an array that is yet to be computed: NumPy would compute the whole of it, in silence."""
    library = type(values).__module__.partition(".")[0]
    graph = None if library in _LAZY else getattr(values, "__dask_graph__", None)  # xarray's, whatever they hold
    if library in _LAZY or (callable(graph) and graph() is not None):
        what = library if library in _LAZY else f"{library} array on dask"
        raise TypeError(
            f"{name} is a lazy array ({what}), and npselect does not compute lazily; give {name}.compute(), which is "
            "the whole of it in memory, or call npselect for one block at a time"
        )
