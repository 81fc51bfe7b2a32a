"""The CUDA tier on a GPU against the CPU tier, bit for bit; skipped, with the reason, where there is none."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

import npselect
from cuda_device import large, many
from cuda_device.correctness import cases, check, more_axes
from cuda_device.frameworks import check_frameworks, check_stream
from cuda_device.noise_and_selection import check_gumbel, check_selection
from cuda_device.refusals import check_refusals
from npselect.bench import devices
from npselect.bench.devices import FUNCTIONS, Host

pytestmark = pytest.mark.cuda

DTYPES = ("float32", "bfloat16", "float16", "float64")
CHOICES = (1, 2, 3, 8, 10, 31, 32, 33, 64, 100, 1000, 1024, 1025, 4097, 16384, 50257, 131072)  # every class of kernels
NOISES = {noise or "plain": tuple(each for each in FUNCTIONS if each.noise == noise) for noise in ("", "seed", "noise")}


class Strict:
    """A log in which any difference fails, and an exception stays one."""

    def line(self, kind, **fields):
        assert not fields.get("differing"), (kind, fields)

    def note(self, text):
        print(text)

    def beat(self):
        pass

    def attempt(self, where):
        return nullcontext()


@pytest.fixture(scope="session")
def arrays():
    tier = npselect.backends()["cuda"]
    if not tier.available:
        pytest.skip(f"needs a GPU: {tier.detail}")
    return devices.find()[0]


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("choices", CHOICES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_functions(arrays, dtype, choices, noise):
    check(Strict(), arrays, dtype, cases(dtype, choices), functions=NOISES[noise])


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_axes_and_arrays_of_the_host(arrays, dtype, noise):
    check(Strict(), arrays, dtype, more_axes(dtype), "axes", NOISES[noise])
    check(Strict(), Host(), dtype, cases(dtype, 33), "host", NOISES[noise])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_noise(arrays, dtype):
    check_gumbel(Strict(), arrays, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_selection(arrays, dtype):
    check_selection(Strict(), arrays, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_refusals(arrays, dtype):
    check_refusals(Strict(), arrays, dtype)


@pytest.mark.frameworks
def test_frameworks(arrays):
    check_frameworks(Strict())
    check_stream(Strict(), arrays)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "choices"), many.UNITS)
def test_many(arrays, name, choices):
    many.check_many(Strict(), arrays, name, choices, many.ELEMENTS)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "dtype", "choices"), large.UNITS)
def test_large(arrays, name, dtype, choices):
    if arrays.name == "numba":
        pytest.skip("numba alone would fill 8 GB from the host")
    if large.bytes_of(name, dtype, choices, large.ELEMENTS) > 0.85 * devices.device()["memory_bytes"]:
        pytest.skip("the device's memory is too small")
    large.check_large(Strict(), arrays, name, dtype, choices, large.ELEMENTS)
