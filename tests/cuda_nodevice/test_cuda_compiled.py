"""The CUDA tier's kernels as they are compiled: their PTX interpreted, from the operators down to the last instruction.

Launches, grids and arguments are the tier's own. The interpreter is tested in test_ptx*.py; what `compiled.py` puts
through each kernel is rows of every kind, with and without `where`, with temperatures of every size.
"""

import itertools
import re
from fractions import Fraction
from importlib.util import find_spec

import ml_dtypes
import numpy as np
import pytest

if find_spec("numba_cuda") is None:
    pytest.skip("numba-cuda is not installed: pip install 'npselect[cuda]'", allow_module_level=True)

from npselect._gpu.intrinsics import simulated

if simulated():
    pytest.skip("numba's simulator compiles nothing", allow_module_level=True)

from compiled import ARRAYS, DTYPES, compare, on_device, rows_for, same_bits, temps, trials, wheres
from ptx.device import Device
from ptx.memory import Fault
from ptx.operations import fma
from ptx.program import PtxError, read
from ptx.rounding import is_nearest

from npselect import gumbel_softmax, noise, selection, straight_through
from npselect._arithmetic.steps import ADAPTIVE
from npselect._gpu.array import DeviceArray
from npselect._stream import Stream, StreamNumbers
from npselect.tiers.cpu import rows as cpu
from npselect.tiers.cuda import gather as device_selection
from npselect.tiers.cuda import rows as cuda

SEED = 0xFEDCBA9876543210


@pytest.fixture(scope="module")
def device():
    with Device().installed() as device:
        yield device


# ------------------------------------------------------------------------------------------------ operators


@pytest.mark.parametrize(
    ("choices", "skew"),
    [(4, 0), (8, 0), (64, 0), (100, 0), (1, 0), (2, 0), (10, 0), (31, 0), (33, 0), (127, 0), (64, 3), (1024, 1)],
)
def test_rows(choices, skew, device):
    """Of any length: how threads share them is the same for all functions."""
    compare(device, straight_through, "backward", choices, np.float32, skew=skew)


@pytest.mark.parametrize("name", ARRAYS)
def test_functions(name, device):
    """Each kernel is compiled and interpreted for seconds; there are more lengths of rows in `test_rows`."""
    more = ((8, 1), (1000, 0), (4100, 0)) if name in ("forward", "backward") else ()
    for choices, skew in ((128, 0), (3, 0), (1025, 0), *more):
        compare(device, straight_through, name, choices, np.float32, skew=skew)


@pytest.mark.parametrize(("name", "choices"), [("double_backward", 17412), ("backward", 33001), ("forward", 33004)])
def test_rows_of_three_rounds(name, choices, device):
    """The sums of the third lie in shared memory where those of the first did."""
    compare(device, straight_through, name, choices, np.float32)


@pytest.mark.parametrize(("name", "choices"), [("index", 129), ("backward", 200), ("soft", 300), ("forward", 511)])
def test_rows_between(name, choices, device):
    compare(device, straight_through, name, choices, np.float32)


@pytest.mark.parametrize(
    ("dtype", "name", "choices"),
    [
        ("float16", "forward", 100),
        ("float16", "backward", 3),
        ("float16", "double_backward", 128),
        ("bfloat16", "forward", 1),
        ("bfloat16", "backward", 8),
        ("float64", "backward_temp", 33),
        ("float64", "double_backward", 8),
        ("float16", "backward", 2052),
        ("bfloat16", "soft", 1025),
        ("float64", "backward", 4100),
    ],
)
def test_other_types(dtype, name, choices, device):
    """How threads share a row is the same for all of them: some have short rows, others long ones."""
    compare(device, straight_through, name, choices, DTYPES[dtype])


@pytest.mark.parametrize(
    ("dtype", "name", "choices"),
    [("float32", "forward", 8), ("float32", "backward", 33), ("float16", "forward", 3), ("float64", "soft", 132)],
)
def test_noise_that_is_given(dtype, name, choices, device):
    kind = np.float64 if dtype == "float64" else np.float32
    g = noise.gumbel((rows_for(choices), choices), 3, dtype=kind)
    compare(device, gumbel_softmax, name, choices, DTYPES[dtype], noise=g)
    compare(device, gumbel_softmax, name, choices, DTYPES[dtype], noise=g[:1])


@pytest.mark.parametrize(
    ("dtype", "name", "choices"),
    [
        ("float32", "forward", 8),
        ("float32", "backward", 33),
        ("float32", "forward", 2100),
        ("float64", "index", 10),
        ("bfloat16", "double_backward", 128),
    ],
)
def test_noise_that_is_drawn(dtype, name, choices, device):
    for offset in (0, 7, 2**64 - rows_for(choices) * choices):
        compare(device, gumbel_softmax, name, choices, DTYPES[dtype], seed=SEED, offset=offset)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_noise_alone(dtype, device):
    for size, offset in itertools.product((1, 2, 257, 3000), (0, 7, 2**64 - 4000)):
        expected = noise.gumbel(size, SEED, offset=offset, dtype=dtype)
        same_bits(noise.gumbel(size, SEED, offset=offset, dtype=dtype, backend="cuda"), expected, size=size)


def test_other_axes_and_arrays_of_the_host(device):
    arrays = trials(10, np.float32)
    logits, grad = (np.ascontiguousarray(arrays[name].T) for name in ("logits", "grad"))
    for operator, options in ((straight_through, {}), (gumbel_softmax, {"seed": SEED})):
        expected = operator.backward(grad, logits, axis=0, **options)
        moved = (on_device(device, array, 1) for array in (grad, logits))
        same_bits(operator.backward(*moved, axis=0, **options), expected)
        same_bits(operator.backward(grad, logits, axis=0, backend="cuda", **options), expected)


def test_results_that_begin_anywhere(device):
    arrays = trials(8, np.float16)
    expected = straight_through.backward(arrays["grad"], arrays["logits"])
    for skew in range(9):
        out = on_device(device, np.full_like(expected, np.nan), skew)
        logits = on_device(device, arrays["logits"])
        assert straight_through.backward(on_device(device, arrays["grad"]), logits, out=out) is out
        same_bits(out, expected, skew=skew)
        straight_through.backward(on_device(device, arrays["grad"]), logits, out=logits)
        same_bits(logits, expected)


def row_function(device, name, *arguments, shape, dtype, skew=0):
    """Whether a row function gives the same bits on both tiers; what it gives."""
    expected = np.full(shape, 7, dtype)
    getattr(cpu, name)(*arguments, expected)
    temps = (each for each in arguments if isinstance(each, np.ndarray) and each.dtype.kind == "f" and each.ndim == 1)
    temp = next(temps, None)  # which stays on the host
    out = on_device(device, np.full(shape, 7, dtype), skew)
    moved = (
        on_device(device, each, skew) if isinstance(each, np.ndarray) and each is not temp else each
        for each in arguments
    )
    getattr(cuda, name)(*moved, out)
    same_bits(out, expected, name=name, shape=shape, dtype=dtype)
    return expected


@pytest.mark.parametrize(
    ("dtype", "choices", "skew"),
    [("float32", 8, 0), ("float32", 1024, 0), ("float32", 2052, 0), ("float32", 132, 1), ("float16", 100, 0),
     ("bfloat16", 1, 0), ("float64", 10, 0)],
)  # fmt: skip
def test_choose_and_weigh(dtype, choices, skew, device):
    """Choices that are found, drawn or given; one-hots; gradients at them; mixtures, and their logarithms."""
    kind = np.dtype(DTYPES[dtype])
    compute = np.dtype(np.float64 if dtype == "float64" else np.float32)
    arrays = trials(choices, kind)
    logits, grad, rows = arrays["logits"], arrays["grad"], rows_for(choices)
    integers = {"shape": rows, "dtype": np.int64}
    for where, temp in zip(wheres(choices)[:2], (temps(rows, kind)[:, 0], temps(1, kind)[:, 0]), strict=True):
        drawn = StreamNumbers.of(Stream(SEED, 3), logits.shape, (0, 1), compute)
        row_function(device, "choice", logits, drawn, None, where, **integers)
        choice = row_function(device, "choice", logits, None, None, where, **integers)
        index = np.where(np.arange(rows) % 3 > 0, choice, np.arange(rows) % (choices + 2) - 1)
        found = row_function(device, "choice", logits, None, index, where, **integers)
        assert choices == 1 or {-3, -2} < {*found}
        row_function(device, "mask_at", choice, shape=logits.shape, dtype=kind, skew=skew)
        at = np.where(found >= -1, found, choice)
        whole = {"shape": logits.shape, "dtype": kind, "skew": skew}
        row_function(device, "reinmax", grad, logits, at, temp, where, **whole)
        row_function(device, "gapped", grad, logits, at, temp, where, 0.7, **whole)
        row_function(device, "gapped", grad, logits, at, temp, where, ADAPTIVE, **whole)
        row_function(device, "gapped_soft", logits, at, temp, where, 0.7, **whole)
        row_function(device, "mixture", logits, temp, where, 0.3, **whole)
        wide = row_function(device, "mixture", logits.astype(np.float64), temp.astype(np.float64), where, 0.01,
                            shape=logits.shape, dtype=np.dtype(np.float64))  # fmt: skip
        row_function(device, "log", wide, shape=logits.shape, dtype=compute)


# ------------------------------------------------------------------------------------------------ copies, vectors


COPIES = [
    *itertools.product(("float64", "float32", "uint64"), ("float16", "bfloat16", "float32")),
    *(("bool", "float64"), ("int8", "float16"), ("float16", "float64"), ("bfloat16", "float32")),
]


def to_be_copied(source, target):
    """Numbers of a dtype, of any size; some lie halfway between those of the other, or all but that."""
    rng = np.random.default_rng(4)
    if source.kind in "biu":
        return (2.0 ** rng.integers(0, 8 * source.itemsize - 1, 240) - rng.integers(0, 3, 240)).astype(source)
    info = ml_dtypes.finfo(target)
    some = rng.standard_normal(60) * 2.0 ** rng.integers(info.minexp - 12, 16, 60)
    near, half = some.astype(target).astype(np.float64), float(info.eps) / 2
    return np.concatenate([some, near, near * (1 + half), near * (1 + half + 2e-16)]).astype(source)


@pytest.mark.parametrize(("source", "target"), COPIES)
def test_copies_are_rounded_once(source, target, device):
    source, target = (np.dtype(DTYPES.get(name, name)) for name in (source, target))
    values = to_be_copied(source, target).reshape(60, 4)
    array = on_device(device, values)
    for numbers, result in ((values, array.astype(target)), (values.T, array.transpose((1, 0)).astype(target))):
        for x, y in zip(numbers.reshape(-1), result.to_host().reshape(-1), strict=True):
            exact = Fraction(float(x)) if source.kind in "fV" else Fraction(int(x))
            assert is_nearest(y, exact) if exact else y == 0


def test_copies_of_many_axes_and_of_odd_addresses(device):
    values = np.arange(2 * 3 * 2 * 3 * 2 * 2, dtype=np.float32).reshape(2, 3, 2, 3, 2, 2)
    order = 4, 1, 5, 0, 3, 2
    same_bits(on_device(device, values).transpose(order).copy(), np.ascontiguousarray(values.transpose(order)))
    owner = device.allocate(4 * 5, skew=1)
    device.upload(owner.address, values.reshape(-1)[:5], 1)
    same_bits(DeviceArray(owner.address, (5,), (4,), values.dtype, owner, 1, 0).copy(), values.reshape(-1)[:5])


@pytest.mark.parametrize("dtype", DTYPES)
def test_selections(dtype, device):
    rng = np.random.default_rng(5)
    shapes = ((6, 10, 33), (6, 10)), ((3, 2), (7, 3)), ((5, 40), (5,))
    for x_shape, shape in shapes if dtype == "float32" else shapes[:1]:
        x, logits = (rng.standard_normal(each).astype(DTYPES[dtype]) for each in (x_shape, shape))
        if logits.ndim > 1:
            logits[1, 1] = np.nan
        chosen = selection.forward(x, logits)
        same_bits(selection.forward(on_device(device, x), on_device(device, logits)), chosen)
        grad = rng.standard_normal(chosen.shape).astype(DTYPES[dtype])
        expected, _ = selection.backward(grad, x, logits)
        got, _ = selection.backward(*(on_device(device, array) for array in (grad, x, logits)))
        same_bits(got, expected)


@pytest.mark.parametrize("dtypes", [("float32", "float32"), ("float16", "float64"), ("bfloat16", "float32")])
def test_products(dtypes, device):
    """32 columns at a time by fma from 0, then the sums of these."""
    rng, compute = np.random.default_rng(6), np.dtype("float64" if "float64" in dtypes else "float32")
    left, right = (rng.standard_normal(shape).astype(DTYPES[name])
                   for shape, name in zip(((2, 35, 70), (2, 33, 70)), dtypes, strict=True))  # fmt: skip
    got = device_selection.batched_dot(on_device(device, left), on_device(device, right), compute)
    a, b = left.astype(compute)[:, :, None], right.astype(compute)[:, None]
    total = np.zeros((2, 35, 33), compute)
    for start in range(0, 70, 32):
        part = np.zeros_like(total)
        for k in range(start, min(start + 32, 70)):
            part = fma(a[..., k], b[..., k], part)
        total = total + part
    same_bits(got, total)


@pytest.mark.parametrize(
    ("name", "choices", "dtype", "options"),
    [
        ("forward", 33, "float32", {"seed": SEED}),
        ("double_backward", 1024, "float32", {}),
        ("backward", 2049, "float16", {}),
    ],
)
def test_newer_devices(name, choices, dtype, options):
    """From generation 10 on another NVVM compiles the kernels."""
    operator = gumbel_softmax if options else straight_through
    with Device((10, 0)).installed() as device:
        compare(device, operator, name, choices, DTYPES[dtype], **options)


def test_older_devices_run_the_same_instructions(device):
    device.kernels.clear()
    compare(device, straight_through, "soft", 8, np.float32)
    (kernel,) = device.kernels
    each = [read(text).instructions for text in (device.texts[kernel], kernel.ptx((8, 0)))]
    plain = [[re.sub(r"_ZN\w+(?=_param)|(?<=mem_)\d+", "", str(step)) for step in steps] for steps in each]
    assert plain[0] == plain[1]


# ------------------------------------------------------------------------------------------------ what must be noticed


@pytest.fixture(scope="module")
def backward(device):
    """The kernel and the PTX of `backward` for rows of a thread, of some threads of a warp, and of several warps."""
    found = {}
    for choices in (8, 64, 2048):
        device.kernels.clear()
        compare(device, straight_through, "backward", choices, np.float32)
        (kernel,) = device.kernels
        found[choices] = kernel, device.texts[kernel]
    return found


BROKEN = {
    "a load one number on": (8, r"(ld\.global\.v4\.f32 .*\[%rd\d+)\]", r"\1+4]", Fault, "no multiple of 16"),
    "a load four numbers on": (8, r"(ld\.global\.v4\.f32 .*\[%rd\d+\+)16\]", r"\g<1>32]", Fault, "was not allotted"),
    "a store four numbers on": (
        8,
        r"(st\.global\.v4\.f32 \t\[%rd\d+\+)16\]",
        r"\g<1>32]",
        Fault,
        "was not allotted|by another thread",
    ),
    "numbers stored singly, all but one": (
        8,
        r"st\.global\.v4\.f32 \t(\[%rd\d+)\], {(%f\d+), (%f\d+), (%f\d+), %f\d+};",
        r"st.global.f32 \1], \2;\nst.global.f32 \1+4], \3;\nst.global.f32 \1+8], \4;",
        Fault,
        "were never written",
    ),
    "no barrier": (2048, r"bar\.sync\s+0;", "", Fault, "was written by another thread|was never written"),
    "every other barrier left out": (
        2048,
        r"(?s)(bar\.sync\s+0;.*?)bar\.sync\s+0;",
        r"\1",
        Fault,
        "another thread|never written",
    ),
    "a fused product taken apart": (
        8,
        r"fma\.rn\.f32 \t(%f\d+), (%f\d+), (%f\d+), (%f\d+);",
        r"mul.f32 \1, \2, \3;\nadd.f32 \1, \1, \4;",
        AssertionError,
        "differ",
    ),
    "a sum for a difference": (8, r"sub\.f32", "add.f32", AssertionError, "differ"),
    "the last of equals": (8, r"setp\.lt\.f32(.*, %f\d+, %f\d+;)", r"setp.le.f32\1", AssertionError, "differ"),
    "one row more": (8, r"setp\.lt\.s64", "setp.le.s64", Fault, "was not allotted"),
    "half of the lanes": (64, r"(mov\.u32\s+%r\d+, )-1;", r"\g<1>65535;", Fault, "some lanes of a warp"),
    "flushed": (8, r"add\.f32", "add.ftz.f32", PtxError, "add.ftz.f32"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_broken_kernels_are_noticed(fault, backward, device, monkeypatch):
    choices, pattern, replacement, error, message = BROKEN[fault]
    kernel, text = backward[choices]
    text, count = re.subn(pattern, replacement, text)
    assert count
    monkeypatch.setitem(device.texts, kernel, text)
    monkeypatch.delitem(device.kernels, kernel, raising=False)
    with pytest.raises(error, match=message):
        compare(device, straight_through, "backward", choices, np.float32)
    device.kernels.pop(kernel, None)
