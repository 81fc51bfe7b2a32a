"""What tests of the checker share."""

from __future__ import annotations

import functools
import shutil
import sys
from pathlib import Path

import pytest
from honest import remembered_cases, small_cases
from written_vectors import remembered

from npselect import testing

_cases = functools.cache(testing.selection_cases)


@pytest.fixture
def remembered_selections(monkeypatch):
    """Cases with their answers, which take most of the time."""

    def remembered(dtype, temp, *, operator, options, x_axes):
        return _cases(dtype, temp, operator=operator, options=options, x_axes=x_axes)

    monkeypatch.setattr(sys.modules["npselect.testing.selection_check"], "selection_cases", remembered)


@pytest.fixture
def small_checks(monkeypatch):
    """`check` asks without the large cases, with remembered answers."""
    monkeypatch.setattr(sys.modules["npselect.testing.check"], "all_cases", small_cases)


@pytest.fixture
def with_large_cases(small_checks, monkeypatch):
    """Those of many rows and of long ones too, which take most of the time and ask for nothing but their size."""
    monkeypatch.setattr(sys.modules["npselect.testing.check"], "all_cases", remembered_cases)


@pytest.fixture(scope="module")
def remembered_vectors():
    """The cases that are written, with remembered answers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["npselect.testing.vectors"], "all_cases", remembered)
        yield


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """All vectors; not to be written to."""
    folder = tmp_path_factory.mktemp("vectors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["npselect.testing.vectors"], "all_cases", remembered)
        testing.write_vectors(folder)
    return folder


@pytest.fixture
def copy(folder, tmp_path):
    """A file of its own."""
    return Path(shutil.copy(folder / "straight_through-float32.json", tmp_path))


@pytest.fixture
def small(monkeypatch):
    """check_sampling_op with fewer rows and seeds than a user gets."""
    sizes = {"gradients": (13, 5e4), "samples": (11, 2e5), "many": (13, 3e5), "equal": (9, 1e5)}
    monkeypatch.setattr("npselect.testing.sampling.check._SIZES", sizes)
    monkeypatch.setattr("npselect.testing.sampling.check._SEEDS", 4)
    monkeypatch.setattr("npselect.testing.sampler_questions._FAR_SEEDS", 64)
