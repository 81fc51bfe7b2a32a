"""A thread that flushes subnormal numbers to zero, or rounds elsewhere than to the nearest, gets the same bits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import children
import inputs
import modes
import numpy as np
import pytest
from digests import THREADS, all_functions, digest
from inputs import Batch
from modes import MODES, in_modes
from numba import njit

from npselect import _modes, gumbel_softmax, noise, selection, straight_through
from npselect.tiers.cpu import noise as kernels

ROOT = Path(__file__).parents[2]

pytestmark = modes.known
dtypes = pytest.mark.parametrize("dtype", list(inputs.DTYPES))
every_mode = pytest.mark.parametrize("name", list(MODES))


def batches(dtype: str, rows: int, choices: int) -> list[Batch]:
    """Logits, cotangents, probabilities and gradients among the subnormal numbers; and usual ones."""
    rng = np.random.default_rng(choices)
    least = inputs.limits(dtype)[2]
    tiny, g, v = (least * rng.integers(-9, 10, (rows, choices)) for _ in range(3))
    found = inputs.adversarial(dtype, rows, choices, 3)
    some = [found["subnormal probabilities"], found["subnormal gradients"], inputs.random(dtype, rows, choices, 4)]
    temps = least * rng.integers(1, 9, (rows, 1)) if dtype in ("float32", "float64") else 0.6
    return [inputs.batch(dtype, tiny, temps, None, g, v), inputs.batch(dtype, tiny, 1.0, None, g, v), *some]


def of_all(dtype: str, shapes: list[tuple[int, int]], backend: str) -> str:
    results: list[Any] = []
    for shape in shapes:
        for b in batches(dtype, *shape):
            results += all_functions(b, backend=backend)
            wide = inputs.compute_type(dtype)
            results.append(gumbel_softmax.backward(b.g, b.logits, 0.6, seed=5, backend=backend))
            results.append(gumbel_softmax.soft(b.logits, 0.6, noise=b.v.astype(wide), where=b.where, backend=backend))
    return digest(results)


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Batches are made here, and not again in another thread."""
    made: dict[Any, list[Batch]] = {}
    make = batches

    def get(*key: Any) -> list[Batch]:
        return made[key] if key in made else made.setdefault(key, make(*key))

    monkeypatch.setattr(sys.modules[__name__], "batches", get)


@every_mode
def test_the_modes_are_felt(name: str) -> None:
    """By NumPy: the other tests ask something."""
    assert not modes.are_felt()
    assert in_modes(name, modes.are_felt)
    assert not modes.are_felt()


@dtypes
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_every_function(dtype: str, backend: str, kept: None) -> None:
    shapes = [(20, 3), (18, 9), (5, 133)] if backend == "cpu" else [(2, 5)]
    expected = of_all(dtype, shapes, backend)
    for name in MODES:
        assert in_modes(name, lambda: of_all(dtype, shapes, backend)) == expected, name


def test_what_is_not_protected_is_another() -> None:
    """A kernel compiled without `FloatModesCompiler` has other bits in every mode: what is compared shows it."""
    protected: Any = kernels.add_rows
    unprotected = njit(nogil=True, error_model="numpy")(protected.py_func)
    rng = np.random.default_rng(5)
    tiny = np.float32(2.0**-149) * rng.integers(1, 9, (2, 8)).astype(np.float32)
    logits, added_to = np.concatenate(
        [np.stack([tiny, tiny]), rng.standard_normal((2, 2, 8)).astype(np.float32)], axis=1
    )

    def added(kernel: Any) -> str:
        out = np.empty_like(logits)
        kernel(logits, added_to, np.float32(1), out)
        return digest([out])

    expected = added(protected)
    assert added(unprotected) == expected
    for name in MODES:
        assert in_modes(name, lambda: added(protected)) == expected, name
        assert in_modes(name, lambda: added(unprotected)) != expected, name


def test_threads_of_the_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """They have the modes of the thread in which they were made: rows do not differ within a call."""
    least = np.float32(inputs.limits("float32")[2])
    logits = least * np.random.default_rng(0).integers(-9, 10, (33_000, 8)).astype(np.float32)
    expected = digest([straight_through.forward(logits), straight_through.soft(logits, 1e-44)])
    for number, name in enumerate(MODES):
        monkeypatch.setenv(THREADS, str(5 + number))  # a pool of its own
        found = in_modes(name, lambda: digest([straight_through.forward(logits), straight_through.soft(logits, 1e-44)]))
        assert found == expected, name


@every_mode
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_temperatures(name: str, backend: str) -> None:
    """Rounded to the type that is computed in, and remembered: to the nearest."""
    logits = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
    temps = [0.7 + 0.1 * i + 1e-3 * list(MODES).index(name) for i in range(4)] + [1e-40, 1e-45]
    nearest = [np.array(temp, np.float32) for temp in temps]

    def soft() -> str:
        each = [straight_through.soft(logits, temp, backend=backend) for temp in temps]
        each += [straight_through.soft(logits, np.array([[temp]] * 3), backend=backend) for temp in temps]
        return digest(each)

    expected = digest([straight_through.soft(logits, temp, backend=backend) for temp in nearest * 2])
    assert in_modes(name, soft) == expected
    assert soft() == expected


@every_mode
def test_types_are_changed(name: str) -> None:
    """What NumPy does on the way in and out: other dtypes, other layouts, out of another dtype."""
    rng = np.random.default_rng(1)
    tiny = np.float32(2.0**-149) * rng.integers(-9, 10, (6, 7)).astype(np.float32)
    g = rng.standard_normal((6, 7))
    integers = 256 * np.arange(42).reshape(6, 7) + 2**60  # of which float64 holds each

    def results() -> str:
        out = np.empty((6, 7), np.float16)
        straight_through.soft(g, 0.6, out=out, backend="cpu")
        return digest(
            [
                out,
                straight_through.index(tiny.T, axis=0),
                straight_through.backward(g, tiny, 1e-44, backend="cpu"),
                straight_through.backward(g, tiny, 1e-44, backend="reference"),
                straight_through.soft(integers, 300.0),
                gumbel_softmax.index(tiny, noise=g * 1e-40),
                gumbel_softmax.backward(g, tiny, seed=3),
            ]
        )

    assert in_modes(name, results) == results()


@every_mode
def test_selection_and_noise(name: str) -> None:
    rng = np.random.default_rng(2)
    x = np.float32(2.0**-149) * rng.integers(-9, 10, (5, 3)).astype(np.float32)
    logits, grad = rng.standard_normal((8, 5)).astype(np.float32), rng.standard_normal((8, 3)).astype(np.float32)

    def results() -> str:
        chosen = selection.forward(x, logits)
        drawn = [noise.gumbel(300, 3, dtype=dtype, backend=b) for dtype in "fd" for b in ("cpu", "reference")]
        return digest([chosen, *selection.backward(grad, x, logits, 0.1), *drawn])

    assert in_modes(name, results) == results()


def test_an_index_among_subnormal_numbers() -> None:
    logits = np.array([0, 1e-45, 0], np.float32)
    for backend in ("cpu", "reference"):
        assert in_modes("flushed", lambda backend=backend: straight_through.index(logits, backend=backend)) == 1


@pytest.mark.frameworks
def test_flushed_by_torch() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    logits = torch.tensor([0, 1e-45, 0])
    found: list[Any] = []

    def work() -> None:
        found.append(torch.set_flush_denormal(True))
        found.append(int((logits * 1).argmax()))
        found.extend(int(straight_through.index(logits, backend=backend)) for backend in ("cpu", "reference"))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [True, 0, 1, 1]


def test_a_first_call() -> None:
    """Everything that is loaded, and its constants, in a process that flushes from the start."""
    code = """
import sys
sys.path.insert(0, {tests!r})
import modes
import json, numpy as np
x = np.array([[0, 1e-45, 0], [1.0, 2.0, 90.0]], np.float32)
modes.set_modes(sys.argv[1])
from npselect import gumbel_softmax, straight_through as st
print(json.dumps([st.soft(x, 0.9, backend=b).view(np.int32).tolist() for b in ("cpu", "reference")]))
print(json.dumps(gumbel_softmax.soft(x, seed=1).view(np.int32).tolist()))
"""
    x = np.array([[0, 1e-45, 0], [1.0, 2.0, 90.0]], np.float32)
    expected = [[straight_through.soft(x, 0.9, backend=b).view(np.int32).tolist() for b in ("cpu", "reference")]]
    expected.append(gumbel_softmax.soft(x, seed=1).view(np.int32).tolist())
    command = [*children.python(), "-c", code.format(tests=str(ROOT / "tests"))]
    done = subprocess.run([*command, "flushed"], capture_output=True, text=True, env=os.environ, timeout=120)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line) for line in done.stdout.splitlines()] == expected


# ------------------------------------------------------------------------------------------------ setting them


@every_mode
def test_afterwards_they_are_as_before(name: str) -> None:
    def call() -> bool:
        assert modes.are_felt()
        with _modes.usual_modes(), _modes.usual_modes():
            assert not modes.are_felt()
        assert modes.are_felt()
        with pytest.raises(ZeroDivisionError), _modes.usual_modes():
            raise ZeroDivisionError
        with pytest.raises(ValueError, match="temp is -1"):
            straight_through.soft([1.0, 2.0], -1)
        return modes.are_felt()

    assert in_modes(name, call)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_where_they_cannot_be_set(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One error that says what to do; nothing in usual modes, and nothing of what the kernels do alone."""
    monkeypatch.setattr(sys, "platform", "plan9")
    _modes._functions.cache_clear()
    listed = [[0.0, 1.0, 2.0]]
    assert straight_through.index(listed, backend=backend) == [2]
    for name in MODES:
        with pytest.raises(RuntimeError, match=r"set_flush_denormal\(False\).*fesetround"):
            in_modes(name, lambda: straight_through.index(listed, backend=backend))
    assert straight_through.index(listed, backend=backend) == [2]
