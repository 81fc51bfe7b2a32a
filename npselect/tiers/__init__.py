"""Choosing a tier: each is a module of row functions, loaded when first asked for.

The arguments of a row function. All arrays are C-contiguous; the compute type of float64 is float64, of every other
dtype float32.

- `logits`: (rows, K), in float16, bfloat16, float32 or float64.
- `noise`: what is added to the logits, in their compute type: an array in that type, (rows, K) or (1, K);
  `npselect._stream.StreamNumbers`, which name numbers of a seed's stream; either of them in a `ScaledNoise`, with what
  it is multiplied by; or None.
- cotangents: (rows, K), in the dtype of the results. Without noise the logits have that dtype too.
- `temp`: (rows,) or (1,), in the compute type of the results.
- `where`: bool, (rows, K) or (1, K), or None.
- `index`: int64, (rows,), the choice that a caller gave, with `noise` None; or None.
- `choice`: int64, (rows,), what the row function `choice` filled: the selected column or, below 0, why there is none.
- `scale`: what the gradient is multiplied by; `unimix`: the share of the uniform distribution; `gap`: in GST's logits,
  or 0 for the adaptive one. Numbers.
- `draws`: noise of several samples, in the logits' compute type: an array in that type, (samples, rows, K), which is
  finite at the candidates of rows with a choice; or `npselect._stream.SampleNumbers`.
- `out`: an array for each result, which is filled.

The function `gumbel` takes a seed and the first number's position in the stream, and fills an array of one axis.

Arrays are NumPy's. On the tier "cuda" all but `temp` may be of type `DeviceArray`: on one device, and for use on one
stream, which each of them names.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

from npselect._forks import check, loading
from npselect._modes import in_usual_modes
from npselect._stream import SampleNumbers, ScaledNoise, StreamNumbers

__all__ = ["HostRowFunctions", "RowFunctions", "Tier", "backends", "choose"]

Rows: TypeAlias = Any  # numpy.ndarray or, on the tier "cuda", DeviceArray
Noise: TypeAlias = Rows | StreamNumbers | ScaledNoise | None
Draws: TypeAlias = Rows | SampleNumbers

_MODULES = {"reference": "npselect.reference", "cpu": "npselect.tiers.cpu.rows", "cuda": "npselect.tiers.cuda.rows"}


class RowFunctions(Protocol):
    """What a tier's module has: the row functions of `npselect._operators`, and the noise."""

    def mask(self, logits: Rows, noise: Noise, where: Rows | None, out: Rows) -> None:
        """The exact one-hot of the selected candidate."""

    def index(self, logits: Rows, noise: Noise, where: Rows | None, out: Rows) -> None:
        """Index of the selected candidate, -1 where nothing is selected."""

    def soft(self, logits: Rows, noise: Noise, temp: Rows, where: Rows | None, out: Rows) -> None:
        """``probs = softmax(logits / temp)``."""

    def mixture(self, logits: Rows, temp: Rows, where: Rows | None, unimix: float, out: Rows) -> None:
        """``(1 - unimix) softmax(logits / temp)``, and as much for each candidate as makes the sum 1."""

    def log(self, x: Rows, out: Rows) -> None:
        """The logarithm of float64 numbers, in the dtype of `out`."""

    def backward(
        self, grad_mask: Rows, logits: Rows, noise: Noise, temp: Rows, where: Rows | None, scale: float, out: Rows
    ) -> None:
        """The softmax's Jacobian times `grad_mask`."""

    def backward_temp(
        self, grad_mask: Rows, logits: Rows, noise: Noise, temp: Rows, where: Rows | None, scale: float, out: Rows
    ) -> None:
        """The gradient of each temperature, summed over the ``rows // temps`` rows that share it."""

    def double_backward(
        self,
        grad_grad_logits: Rows,
        grad_mask: Rows,
        logits: Rows,
        noise: Noise,
        temp: Rows,
        where: Rows | None,
        scale: float,
        out_grad_mask: Rows,
        out_logits: Rows,
    ) -> None:
        """The gradient of `backward`."""

    def choice(self, logits: Rows, noise: Noise, index: Rows | None, where: Rows | None, out: Rows) -> None:
        """The selected column: that of ``argmax(logits + noise)``, or `index`, checked; below 0, why there is none."""

    def mask_at(self, choice: Rows, out: Rows) -> None:
        """The exact one-hot of each row's choice."""

    def reinmax(self, grad_mask: Rows, logits: Rows, choice: Rows, temp: Rows, where: Rows | None, out: Rows) -> None:
        """The gradient of ReinMax at each row's choice."""

    def gapped(
        self, grad_mask: Rows, logits: Rows, choice: Rows, temp: Rows, where: Rows | None, gap: float, out: Rows
    ) -> None:
        """The gradient of GST at each row's choice."""

    def gapped_soft(self, logits: Rows, choice: Rows, temp: Rows, where: Rows | None, gap: float, out: Rows) -> None:
        """The probabilities of GST at each row's choice."""

    def gumbel(self, seed: int, first: int, out: Rows) -> None:
        """The noise from number `first` on, into an array of one axis."""


class HostRowFunctions(Protocol):
    """What the tiers on the host have beyond that."""

    def gumbel_rao(
        self, grad_mask: Rows, logits: Rows, choice: Rows, draws: Draws, temp: Rows, where: Rows | None, out: Rows
    ) -> None:
        """The gradient of Gumbel-Rao at each row's choice: the mean over the samples."""


@dataclass(frozen=True)
class Tier:
    """What `backends` says of one tier.

    Attributes
    ----------
    name : str
        What ``backend=`` calls it.
    available : bool
        Whether it runs here.
    detail : str
        What it runs on or, where it does not run, why.
    """

    name: str
    available: bool
    detail: str

    def __str__(self) -> str:
        return f"{self.name}: {'available' if self.available else 'not available'} ({self.detail})"


def backends() -> dict[str, Tier]:
    """Which tiers work here and, where one does not, why.

    Returns
    -------
    dict of str to Tier
        The tiers by name, the oracle first. Looking loads numba.

    Examples
    --------
    >>> import npselect
    >>> [name for name, tier in npselect.backends().items() if tier.available or name == "cuda"]
    ['reference', 'cpu', 'cuda']
    >>> print(npselect.backends()["reference"])
    reference: available (plain NumPy, to learn from and to judge by)
    """
    return {name: _look(name) for name in _MODULES}


def _look(name: str) -> Tier:
    try:
        _load(name)
    except RuntimeError as error:
        return Tier(name, False, str(error.__cause__))
    if name == "reference":
        return Tier(name, True, "plain NumPy, to learn from and to judge by")
    if name == "cuda":
        from npselect._gpu.driver import describe

        return Tier(name, True, describe())
    from npselect._threads import thread_count

    numba = import_module("numba")
    threads = thread_count()
    return Tier(name, True, f"numba {numba.__version__}, {threads} thread{'s' if threads > 1 else ''}")


def choose(backend: str | None, on_gpu: bool = False) -> RowFunctions:
    """The tier that was named or, if none was, the one for data on the host or on a GPU.

    Raises
    ------
    ValueError
        No tier has that name.
    RuntimeError
        The tier does not run here, or cannot be loaded in this child of a fork; the message says why.
    """
    if backend is None:
        backend = "cuda" if on_gpu else "cpu"
    if not isinstance(backend, str) or backend not in _MODULES:
        raise ValueError(f"backend is {backend!r}; it takes None or one of {', '.join(map(repr, _MODULES))}")
    return _load(backend)


@cache
@in_usual_modes
def _load(name: str) -> RowFunctions:
    check()
    try:
        with loading:
            reason = _unavailable(name)
            if reason is not None:
                raise ImportError(reason)
            return cast(RowFunctions, import_module(_MODULES[name]))
    except ImportError as error:
        raise RuntimeError(f"backend {name!r} does not run here: {error}") from error


def _unavailable(name: str) -> str | None:
    """Why a tier does not run here, as far as can be said before its module is loaded."""
    if name == "cuda":
        from npselect._gpu.driver import unavailable

        return unavailable()
    if name == "cpu" and import_module("numba").config.DISABLE_JIT:
        return (
            "numba compiles nothing, as the environment variable NUMBA_DISABLE_JIT says; unset it, or name 'reference'"
        )
    return None


if TYPE_CHECKING:  # every tier's module has what the protocol asks for
    from npselect import reference
    from npselect.tiers.cpu import rows as cpu
    from npselect.tiers.cuda import rows as cuda

    _tiers: tuple[RowFunctions, ...] = (reference, cpu, cuda)
    _on_the_host: tuple[HostRowFunctions, ...] = (reference, cpu)
