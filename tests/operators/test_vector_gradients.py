"""Identity and rotation as callers meet them: copies, dtypes, layouts, threads, modes, and what is refused."""

from __future__ import annotations

import pickle
from functools import partial
from hashlib import sha256
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from inputs import DTYPES
from modes import in_modes, known
from rotations import KINDS, pairs

from npselect import _threads, selection
from npselect.selection import identity, rotation

BACKENDS = ["reference", "cpu"]
PINNED = {
    "float32": "8fa25f851d082c809b670dda15824aa24ea7219bf85bb4650f3363d6c8cf12de",
    "float64": "299b3c91b65b7fff7b4764141bff88ef0d9394ea9e0c304b9f810f04cf047622",
}


def every_kind(dtype: str, rows: int, features: int) -> list[Any]:
    """Grad, e and q, of all kinds, and degenerate rows."""
    parts = [pairs(kind, rows, features, dtype, seed) for seed, kind in enumerate(KINDS)]
    g, e, q = (np.concatenate([part[i] for part in parts]) for i in range(3))
    e[0], q[1], g[2, 0], q[3] = 0, 0, np.nan, e[3]
    return [g, e, q]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("function", [identity.forward, rotation.forward], ids=["identity", "rotation"])
def test_forward_is_the_selected_vector(function: Any, dtype: str) -> None:
    q = np.array([[1.5, -0.0, np.nan], [np.inf, 0.0, -7.25]]).astype(DTYPES[dtype])
    q.view(f"u{q.itemsize}")[0, 2] += 1  # a payload
    for backend in (None, *BACKENDS):
        result = function(np.ones((2, 3), np.float64), q, backend=backend)
        assert result.dtype == q.dtype
        assert result.tobytes() == q.tobytes()
        assert not np.shares_memory(result, q)


def test_identity_copies_the_cotangent() -> None:
    g, e, q = every_kind("float32", 2, 3)
    for backend in (None, *BACKENDS):
        result = identity.backward(g, e, q, backend=backend)
        assert result.tobytes() == g.tobytes()
        assert not np.shares_memory(result, g)
    assert identity.backward([1, 2], [0.0, np.nan], [np.inf, 0.0]).tolist() == [1.0, 2.0]
    assert identity.backward(g.T, e.T, q.T).tolist()[0] == pytest.approx(g.T.tolist()[0], nan_ok=True)


@pytest.mark.parametrize("function", [identity.backward, rotation.backward], ids=["identity", "rotation"])
@pytest.mark.parametrize(
    ("dtypes", "expected"),
    [
        (("float32", "float16", "float16"), "float32"),
        (("float16", "float32", "float16"), "float32"),
        (("bfloat16", "bfloat16", "float64"), "float64"),
        (("int8", "float32", "float32"), "float64"),
        (("bool", "int64", "uint8"), "float64"),
        ((">f4", ">f4", ">f4"), "float32"),
    ],
)
def test_dtypes_that_differ(function: Any, dtypes: tuple[str, ...], expected: str) -> None:
    values = np.array([[1, 0, 1], [1, 1, 0]]), np.array([[2, 0, 1], [0, 3, 1]]), np.array([[1, 2, 0], [4, 0, 3]])
    given = [x.astype(DTYPES.get(dtype, dtype)) for x, dtype in zip(values, dtypes, strict=True)]
    for backend in BACKENDS:
        result = function(*given, backend=backend)
        assert result.dtype.name == expected
        assert result.dtype.isnative
        np.testing.assert_array_equal(result, function(*(x.astype(expected) for x in values), backend=backend))


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_layouts_and_neighbours_do_not_matter(dtype: str) -> None:
    arrays = every_kind(dtype, 3, 5)
    expected = rotation.backward(*arrays).tobytes()

    def strided(x: Any) -> Any:
        wide = np.zeros([2 * n for n in x.shape], x.dtype).T
        view = wide[::-2, ::-2].T
        view[...] = x
        view.flags.writeable = False
        return view

    assert rotation.backward(*map(strided, arrays)).tobytes() == expected
    copies = [x.copy() for x in arrays]
    split = [x.reshape(4, 6, 5) for x in copies]
    assert rotation.backward(*split).tobytes() == expected
    alone = [rotation.backward(*(x[r] for x in copies)) for r in range(len(copies[0]))]
    assert np.stack(alone).tobytes() == expected
    for x, y in zip(arrays, copies, strict=True):
        assert x.tobytes() == y.tobytes()


def test_threads_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = [np.tile(x, (5000, 1)) for x in every_kind("float32", 1, 9)]
    assert arrays[0].size > _threads.WORTH_THREADS
    results = []
    for count in ("1", "3"):
        monkeypatch.setenv(_threads.VARIABLE, count)
        results.append(rotation.backward(*arrays).tobytes())
    assert results[0] == results[1] == rotation.backward(*(x[: len(KINDS)] for x in arrays)).tobytes() * 5000


@known
@pytest.mark.parametrize("name", ["flushed", "up"])
def test_modes_of_the_thread_do_not_matter(name: str) -> None:
    arrays = {dtype: every_kind(dtype, 2, 3) for dtype in ("float16", "float64")}
    arrays["float64"][1][4:] *= 2.0**-1020

    def results() -> bytes:
        return b"".join(
            rotation.backward(*given, backend=backend).tobytes() for given in arrays.values() for backend in BACKENDS
        )

    assert in_modes(name, results) == results()


@pytest.mark.parametrize("dtype", PINNED)
def test_the_bits_are_pinned(dtype: str) -> None:
    """Of inputs that are made of integers by exact operations."""
    random = np.random.RandomState(7)
    found = sha256()
    for features in (1, 2, 3, 16, 33, 130, 1030):
        g, e, q = (
            random.randint(-(1 << 20), 1 << 20, (12, features)) * np.exp2(random.randint(-9, 9, (12, features)))
            for _ in range(3)
        )
        q[:3] = -e[:3] + (random.randint(0, 9, (3, features)) == 0) * e[:3] * 2.0**-20
        q[3], q[4], q[5], e[6] = -e[3], 3 * e[4], 0, 0
        found.update(rotation.backward(*(x.astype(dtype) for x in (g, e, q)), backend="cpu").tobytes())
    assert found.hexdigest() == PINNED[dtype]


def test_they_travel() -> None:
    for function in (identity.backward, rotation.backward):
        call = pickle.loads(pickle.dumps(partial(function, backend="reference")))
        assert call([1.0, 2.0], [1.0, 0.0], [1.0, 0.0]).tolist() == [1.0, 2.0]
    assert selection.rotation is rotation


# ------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize("module", [identity, rotation], ids=["identity", "rotation"])
def test_what_is_refused(module: Any) -> None:
    x, y = np.ones((2, 3)), np.ones((3, 3))
    for match, error, g, e, q, options in (
        (r"grad has shape \(3, 3\) and e has shape \(2, 3\); the two must be equal", ValueError, y, x, x, {}),
        (r"grad has shape \(2, 3\) and q has shape \(3, 3\)", ValueError, x, x, y, {}),
        (r"grad has shape \(\); it takes vectors", ValueError, 1.0, 1.0, 1.0, {}),
        ("q has dtype complex128", TypeError, x, x, x * 1j, {}),
        ("e is a masked array", TypeError, x, np.ma.array(x), x, {}),
        ("neither holds the other's numbers", TypeError, x.astype("f2"), x.astype(ml_dtypes.bfloat16), x[:], {}),
        ("backend is 'gpu'", ValueError, x, x, x, {"backend": "gpu"}),
    ):
        if "neither" in match:
            q = q.astype("f2")
        with pytest.raises(error, match=match):
            module.backward(g, e, q, **options)
    with pytest.raises(ValueError, match=r"e has shape \(2, 3\) and q has shape \(3, 3\)"):
        module.forward(x, y)


def test_rotation_has_no_kernel_for_gpus() -> None:
    x = np.ones((2, 3))
    with pytest.raises(
        RuntimeError, match="'cuda' has no kernel for the rotation trick; 'cpu' and 'reference' compute"
    ):
        rotation.backward(x, x, x, backend="cuda")

    class OnGpu:
        @property
        def __cuda_array_interface__(self) -> dict[str, Any]:
            return {"shape": (2, 3), "typestr": "<f8", "data": (0, False), "version": 3}

    with pytest.raises(RuntimeError, match="e lives on a GPU: copy it to the host"):
        rotation.backward(x, OnGpu(), x)
    with pytest.raises(TypeError, match="e lives on a GPU"):
        rotation.backward(x, OnGpu(), x, backend="cpu")
