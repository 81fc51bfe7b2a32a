"""The pages of the reference, made of each module's ``__all__``: a public name that is added has its place at once."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

__all__ = ["write"]

MODULES = {
    "npselect": "`npselect.differentiable_select` is `npselect.straight_through.forward`, by the name that the "
    "technique is known by; ``OPERATORS`` has a record for each operator.",
    "npselect.straight_through": "The one-hot of the argmax forward, the gradient of the softmax backward.",
    "npselect.gumbel_softmax": "The same on logits with Gumbel noise, given, or drawn from a seed.",
    "npselect.categorical": "A sample forward, the gradient of its probabilities backward: three dialects in one.",
    "npselect.reinmax": "A sample forward, a gradient of second order backward.",
    "npselect.gapped": "A sample forward, the gradient of a softmax in which it leads by a gap backward.",
    "npselect.gumbel_rao": "A sample forward, the Gumbel-softmax's mean gradient given it backward.",
    "npselect.selection": "Choose from an array, and the gradients of both; `npselect.selection.identity` and "
    "`npselect.selection.rotation` are gradients at the level of vectors.",
    "npselect.selection.identity": "The selected vector forward, its cotangent as it is backward: the VQ-VAE's copy.",
    "npselect.selection.rotation": "The selected vector forward, its cotangent turned and scaled backward: the "
    "rotation trick.",
    "npselect.sharded": "Rows that are split: what each part computes and sends, with the bits of the whole.",
    "npselect.noise": "Counter-based Gumbel noise.",
    "npselect.reference": 'The oracle: row functions over arrays of shape (rows, K), which ``backend="reference"`` '
    "calls. The first file to open.",
    "npselect.testing": "The oracle for somebody else's code.",
    "npselect.testing.tolerance": "The bounds, derived in :doc:`/why/bounds`.",
    "npselect.testing.strategies": "Rows for hypothesis that are hard to get right, and shrink.",
    "npselect.survey": "What ``npselect survey`` does: the ops of the packages that are installed, judged.",
    "npselect.bench": "What ``npselect bench`` does: judged, then timed, in turns, beside a copy.",
}
SECTIONS = {
    "npselect.testing": {
        "Check": ("assert_", "check"),
        "Adapters": ("from_", "layer_from_", "sampling_from_"),
        "Cases and vectors": ("cases", "find_case", "load_", "selection_cases", "write_"),
    }
}


def write(folder: Path) -> list[str]:
    """Write a page for each module; return the modules that there are."""
    folder.mkdir(exist_ok=True)
    found = []
    for name, text in MODULES.items():
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        (folder / f"{name}.rst").write_text(f"{name}\n{'=' * len(name)}\n\n{text}\n{_body(module)}", encoding="utf-8")
        found.append(name)
    listed = "\n".join(f"   {name}" for name in found)
    (folder / "modules.rst").write_text(f":orphan:\n\n.. toctree::\n   :maxdepth: 1\n\n{listed}\n", encoding="utf-8")
    return found


def _body(module: ModuleType) -> str:
    objects = {name: getattr(module, name, None) for name in module.__all__ if not name.startswith("__")}
    constants = [name for name in objects if name.isupper()]
    left = [name for name, value in objects.items() if not inspect.ismodule(value) and name not in constants]
    text = ""
    if constants:
        text += f"\nConstants: {', '.join(f'``{name}``' for name in constants)}.\n"
    for title, starts in SECTIONS.get(module.__name__, {}).items():
        names = [name for name in left if name.startswith(starts)]
        left = [name for name in left if name not in names]
        text += _table(module.__name__, names, title)
    return text + _table(module.__name__, left, "What comes back" if module.__name__ in SECTIONS else None)


def _table(module: str, names: Iterable[str], title: str | None) -> str:
    heading = f"\n{title}\n{'-' * len(title)}\n" if title else ""
    listed = "\n".join(f"   {module}.{name}" for name in names)
    return f"{heading}\n.. autosummary::\n   :toctree: .\n   :nosignatures:\n\n{listed}\n"
