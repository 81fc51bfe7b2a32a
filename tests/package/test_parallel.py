"""Tests in several processes: what runs together."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("nodeid", "expected"),
    [
        ("tests/cpu/test_cpu.py::test_threads[1-float16]", "float16"),
        ("tests/cpu/test_cpu.py::test_threads[bfloat16-7]", "bfloat16"),
        ("tests/testing/test_check_accepts.py::test_honest_is_accepted[in float64, rounded once-float32]", "float32"),
        ("tests/testing/test_adapters.py::test_agrees_with_npselect[float16-jax-custom_vjp]", "jax"),
        ("tests/testing/test_adapters.py::test_torch_compile_agrees[detach_select-float16]", "torch"),
        ("tests/bench/test_bench.py::test_every_peer_is_right[tf.function-noise]", "tensorflow"),
        ("tests/cpu/test_callers.py::test_after_a_fork", "tests/cpu/test_callers.py"),
        (
            "tests/testing/test_vectors_reading.py::test_round_trip[reinmax-float16]",
            "tests/testing/test_vectors",
        ),
        ("README.md::README.md", "README.md"),
        (
            "tests/cpu/test_cpu.py::test_processors[haswell-float32]",
            "tests/cpu/test_cpu.py::test_processors[haswell-float32]",
        ),
    ],
)
def test_groups(nodeid: str, expected: str) -> None:
    parallel = pytest.importorskip("parallel", reason="pytest-xdist is not installed")
    assert parallel.group(nodeid) == expected


def test_what_takes_longest_begins_first() -> None:
    parallel = pytest.importorskip("parallel", reason="pytest-xdist is not installed")
    groups = {"README.md": 1, "float32": 300, "tests/cpu/test_cpu.py::test_processors[haswell-float32]": 1}
    assert sorted(groups, key=lambda name: parallel.place(name, groups[name])) == [*groups][::-1]
