"""The CUDA tier's kernels in numba's simulator beside the CPU tier, bit for bit: ``python -m fakes.simulated GROUP``.

A process of its own, as the simulator is chosen when numba is imported: `tests/cuda_nodevice/test_cuda.py` starts it.
"""

import itertools
import sys
from functools import partial

import ml_dtypes
import numpy as np

from fakes import simulator

simulated = simulator.device()  # before kernels are imported

from npselect import gumbel_softmax, noise, selection, straight_through  # noqa: E402
from npselect._arithmetic.steps import ADAPTIVE, EMPTY  # noqa: E402
from npselect._gpu.array import DeviceArray  # noqa: E402
from npselect._gpu.driver import LEGACY  # noqa: E402
from npselect._oracle.philox import words  # noqa: E402
from npselect._stream import Stream, StreamNumbers  # noqa: E402
from npselect.tiers import choose  # noqa: E402
from npselect.tiers.cuda import choosing, plan, row_kernel, storing, sums, teams  # noqa: E402
from npselect.tiers.cuda import estimates as estimates_of_noise  # noqa: E402
from npselect.tiers.cuda import noise as device_noise  # noqa: E402

DTYPES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float32": np.float32, "float64": np.float64}
SEED = 0xFEDCBA9876543210
compared = 0


def bits(array):
    array = np.asarray(array)
    words = array.view({2: np.uint16, 4: np.uint32, 8: np.uint64}[array.dtype.itemsize])
    if array.dtype.kind == "i":
        return words
    return np.where(np.isnan(array.astype(np.float64)), words.dtype.type(0x7E57), words)


def same(name, call, **about):
    """Whether a call of an operator gives the same bits on both tiers."""
    global compared
    cpu, cuda = (call(backend) for backend in ("cpu", "cuda"))
    results = [(x, y) for x, y in zip(cpu, cuda, strict=True)] if isinstance(cpu, tuple) else [(cpu, cuda)]
    for i, (x, y) in enumerate(results):
        assert x.shape == y.shape
        assert x.dtype == y.dtype
        different = np.argwhere(bits(x) != bits(y))
        assert not len(different), f"{name}, result {i}: {len(different)} differ, first at {different[0]}, with {about}"
        compared += x.size


def inputs(shape, dtype, seed=0):
    """Logits and two cotangents, with rows of every kind."""
    rng = np.random.default_rng(seed)
    logits, grad, grad_grad = (rng.standard_normal(shape).astype(dtype) for _ in range(3))
    rows, choices = shape
    if choices > 1 and rows > 5:
        logits[1] = 0.5  # a tie
        logits[2, choices // 2] = np.inf
        logits[3, choices - 1] = np.nan
        logits[4] = -np.inf
        logits[5, ::2] = -np.inf
        grad[6 % rows, choices - 1] = np.nan
        logits[0] *= 1000
    return logits, grad, grad_grad


def every_function(operator, shape, dtype, functions, *, grad_dtype=None, axis=-1, **options):
    logits, grad, grad_grad = inputs(shape, dtype)
    if grad_dtype is not None:
        grad, grad_grad = grad.astype(grad_dtype), grad_grad.astype(grad_dtype)
    if axis == 0:
        logits, grad, grad_grad = (np.ascontiguousarray(array.T) for array in (logits, grad, grad_grad))
    temps = np.linspace(0.1, 3, shape[0]).astype(np.float32)
    temps = temps[:, np.newaxis] if axis == -1 else temps
    everywhere = {"axis": axis, **options}
    calls = {
        "forward": lambda backend: operator.forward(logits, backend=backend, **everywhere),
        "index": lambda backend: operator.index(logits, backend=backend, **everywhere),
        "soft": lambda backend: operator.soft(logits, temps, backend=backend, **everywhere),
        "backward": lambda backend: operator.backward(grad, logits, 0.6, backend=backend, **everywhere),
        "backward_temp": lambda backend: operator.backward_temp(grad, logits, temps, backend=backend, **everywhere),
        "double_backward": lambda backend: operator.double_backward(
            grad_grad, grad, logits, temps, backend=backend, **everywhere
        ),
    }
    for name in functions or calls:
        same(name, calls[name], shape=shape, dtype=dtype, options=list(options), axis=axis)


def wheres(shape):
    rng = np.random.default_rng(1)
    offered = rng.random(shape) < 0.6
    offered[-1] = False
    return offered


def shapes():
    """Every way to share a row out: groups, warps, several warps, several rounds; for all functions it is the same."""
    two = "index", "backward"
    for choices in (1, 3, 4, 8, 10, 31, 64, 100, 132):
        every_function(straight_through, (7, choices), np.float32, None if choices in (3, 10, 132) else two)
    for choices in (2, 5, 16, 33, 128):
        functions = None if choices in (5, 33) else two
        every_function(straight_through, (7, choices), np.float32, functions, where=wheres((7, choices)))


def long_rows():
    every_function(straight_through, (2, 300), np.float32, None)
    for choices in (1025, 4100):
        every_function(straight_through, (2, choices), np.float32, ("index", "backward", "double_backward"))
    every_function(straight_through, (7, 300), np.float32, None, where=wheres((7, 300)))
    every_function(straight_through, (2, 2101), np.float32, None, where=np.arange(2101) % 3 > 0)


def types():
    for name, choices in itertools.product(("float16", "bfloat16", "float64"), (3, 132)):
        every_function(straight_through, (7 if choices < 100 else 2, choices), DTYPES[name], None)


def noises():
    functions = "forward", "backward", "double_backward"
    for name, choices in (*itertools.product(("float32",), (3, 8, 132)), *((other, 10) for other in DTYPES)):
        shape = (5, choices)
        g = noise.gumbel(shape, 3, dtype=np.float64 if name == "float64" else np.float32)
        every_function(gumbel_softmax, shape, DTYPES[name], functions, noise=g)
        every_function(gumbel_softmax, shape, DTYPES[name], ("soft",), noise=g[:1])
        every_function(gumbel_softmax, shape, DTYPES[name], functions, seed=SEED, offset=7)
    for name, choices in (("float32", 8), ("float32", 132), ("float64", 10)):  # the types of computation
        shape = (5, choices)
        g = noise.gumbel(shape, 3, dtype=np.float64 if name == "float64" else np.float32)
        for given in ({"noise": g}, {"seed": SEED}):
            every_function(gumbel_softmax, shape, DTYPES[name], ("forward", "backward"), forward_temp=0.3, **given)
    for choices in (1025, 2100):
        every_function(gumbel_softmax, (2, choices), np.float32, ("index", "backward"), seed=SEED, offset=2**64 - 8000)
    estimates()
    close_calls()
    every_function(gumbel_softmax, (5, 8), np.float32, None, seed=SEED, axis=0)
    every_function(gumbel_softmax, (5, 8), np.float32, functions, seed=SEED, grad_dtype=np.float64)
    every_function(gumbel_softmax, (5, 7), np.float16, functions, seed=SEED, grad_dtype=np.float32)
    for dtype, size, offset in itertools.product((np.float32, np.float64), (0, 1, 2, 257, 300), (0, 7, 2**64 - 400)):
        draw = partial(noise.gumbel, size, SEED, offset=offset, dtype=dtype)
        same("gumbel", lambda backend, draw=draw: draw(backend=backend))


def row_function(name, *arguments, shape, dtype):
    """Whether a row function gives the same bits on both tiers; what it gives."""
    outs = {}

    def call(backend):
        outs[backend] = np.full(shape, 7, dtype)
        getattr(choose(backend), name)(*arguments, outs[backend])
        return outs[backend]

    same(name, call, shape=shape, dtype=dtype)
    return outs["cpu"]


def given_index(choice, choices):
    """Some are not the largest, some are none of the row's."""
    index = choice.copy()
    index[:3] = np.arange(3) % choices
    index[-2:] = choices, -1
    return index


def choose_and_weigh(shape, dtype, wheres):
    """Choices that are found, drawn or given; one-hots and gradients at them; mixtures, and their logarithms."""
    rows, choices = shape
    logits, grad, _ = inputs(shape, dtype)
    compute = np.dtype(np.float64 if dtype == np.float64 else np.float32)
    temps = np.linspace(0.1, 3, rows).astype(compute)
    drawn = StreamNumbers.of(Stream(SEED, 3), shape, (0, 1), compute)
    for where, temp in zip(wheres, (temps, temps[:1]), strict=True):
        for g in (drawn, noise.gumbel(shape, 3, dtype=compute.type), None):
            choice = row_function("choice", logits, g, None, where, shape=rows, dtype=np.int64)
        index = given_index(choice, choices)
        found = row_function("choice", logits, None, index, where, shape=rows, dtype=np.int64)
        at = np.where(found >= EMPTY, found, choice)
        row_function("mask_at", choice, shape=shape, dtype=dtype)
        row_function("reinmax", grad, logits, at, temp, where, shape=shape, dtype=dtype)
        for gap in (0.7, ADAPTIVE):
            row_function("gapped", grad, logits, at, temp, where, gap, shape=shape, dtype=dtype)
            row_function("gapped_soft", logits, at, temp, where, gap, shape=shape, dtype=dtype)
        for unimix in (0.0, 0.3):
            row_function("mixture", logits, temp, where, unimix, shape=shape, dtype=dtype)
        wide = logits.astype(np.float64), temps.astype(np.float64), where, 0.01
        mixture = row_function("mixture", *wide, shape=shape, dtype=np.float64)
        row_function("log", mixture, shape=shape, dtype=compute)


def reinmax():
    for choices in (1, 8, 132):
        choose_and_weigh((7, choices), np.float32, (None, wheres((7, choices))))
    for name in ("float16", "bfloat16", "float64"):
        choose_and_weigh((7, 10), DTYPES[name], (None, wheres((1, 10)) | (np.arange(10) > 4)))
    choose_and_weigh((5, 1030), np.float32, (None, wheres((5, 1030))))


def wild_numbers():
    """Numbers of the stream at the very ends of the noise, where estimates are no good."""
    numbers = np.arange(2**21, dtype=np.uint64)
    high = words(SEED, numbers) >> np.uint64(32)
    return [int(ends[0]) for ends in (numbers[high < 2**12], numbers[high >= 2**32 - 2**12])]


def estimates():
    """The error of an estimate is below its bound, wherever it is to be relied on."""
    rng = np.random.default_rng(3)
    near_ends = np.concatenate([np.arange(0, 5000), np.arange(5000, 2**14, 97)])
    near_seam = 2**32 - 2**26 + np.arange(-300, 300)  # where 1 - u is 2**-6
    high = np.concatenate([rng.integers(0, 2**32, 20_000), near_ends, 2**32 - 1 - near_ends, near_seam]).astype(
        np.uint64
    )
    words = (high << np.uint64(32)) | rng.integers(0, 2**32, len(high), np.uint64)
    exact = -np.log(-np.log1p(-(2.0**53 - ((words >> np.uint64(11)) | np.uint64(1)).astype(np.float64)) / 2.0**53))
    pairs = [estimates_of_noise._estimated(np.float32(0), word) for word in words]
    estimate, wild = (np.array(list(column)) for column in zip(*pairs, strict=True))
    assert np.array_equal(wild, (high < 2**12) | (high >= 2**32 - 2**12))
    error = np.abs(estimate - exact)[~wild].max() / 2.0**-12.1
    print(f"estimates of the noise: {error:.3f} of the bound")
    assert 0.4 < error < 1


def closest_rows(choices):
    """Where in the stream the largest two of so many numbers are nearly the same."""
    rows = noise.gumbel(2**21, SEED, dtype=np.float64, backend="cpu").reshape(-1, choices)
    second, first = np.partition(rows, choices - 2, axis=1)[:, -2:].T
    return choices * np.argsort(first - second)[:12]


def close_calls():
    """Sums that estimates of the noise do not tell apart."""
    for offset in closest_rows(8):
        index = partial(gumbel_softmax.index, np.zeros((1, 8), np.float32), seed=SEED, offset=int(offset))
        same("index", lambda backend, index=index: index(backend=backend), offset=int(offset))
    offsets = 0, *(number - 5 for number in wild_numbers())
    for shape in ((6, 8), (6, 33), (5, 100), (2, 1030)):
        logits = inputs(shape, np.float32)[0]
        alike, where = np.full(shape, 3e7, np.float32), wheres(shape)
        others = np.round(logits) + np.float32(2.0**21), logits
        asked = itertools.product((alike, *others) if shape[1] < 100 else (alike,), offsets)
        for values, offset in (*asked, *((other, offsets[-1]) for other in others if shape[1] >= 100)):
            about = {"seed": SEED, "offset": offset}
            index = partial(gumbel_softmax.index, values, **about)
            same("index", lambda backend, index=index: index(backend=backend), shape=shape, **about)
        forward = partial(gumbel_softmax.forward, alike, seed=7, where=where)
        same("forward", lambda backend, forward=forward: forward(backend=backend), shape=shape)


def shifted(array, by):
    """A copy of an array on the device that begins `by` elements after an aligned place."""
    flat = np.concatenate([np.full(by, np.nan, array.dtype), array.reshape(-1)])
    whole = DeviceArray.from_host(flat, LEGACY)
    strides = tuple(stride for stride in np.empty(array.shape, array.dtype).strides)
    address = whole.address + by * array.dtype.itemsize
    return DeviceArray(address, array.shape, strides, array.dtype, whole, whole.stream, whole.device)


def on_the_device():
    """Arrays that stay there, at odd places too."""
    for by, choices in itertools.product((0, 1, 2), (8, 132)):
        for dtype in DTYPES.values():
            logits, grad, _ = inputs((7, choices), dtype)
            out = shifted(np.full_like(logits, np.nan), by)

            def call(backend, out=out, logits=logits, grad=grad, by=by):
                if backend == "cpu":
                    return straight_through.backward(grad, logits)
                arrays = shifted(grad, 0), shifted(logits, by)
                assert straight_through.backward(*arrays, out=out) is out
                return out.to_host()

            same("backward", call, by=by, dtype=dtype)


def selections():
    x, logits = np.random.default_rng(2).standard_normal((5, 3)), inputs((7, 5), np.float32)[0]
    same("selection.forward", lambda backend: selection.forward(x, logits, backend=backend))


def add_in_another_order(team, lanes):
    right = teams.fold(team, lanes)
    return lambda x: right([x[0], x[2], x[1], x[3], *x[4:]])


def forget_the_last_warp(team):
    share, total_of = teams.totalling_warps(team)
    return lambda segment, place, *where: share(segment if place.warp == 0 else np.float32(0), place, *where), total_of


def take_the_last_of_equals(top, column, other, other_column):
    return (other, other_column) if other > top or (other == top and other_column > column) else (top, column)


def leave_nan_out(kind, team, quads):
    write = WRITING(kind, team, quads)
    return lambda address, place, left, x: None if np.isnan(x).any() else write(address, place, left, x)


def one_place_on(team, quads):
    chunk = teams.chunking(team, quads)

    def moved(place, n, round_, step):
        here = chunk(place, n, round_, step)
        return here._replace(first=here.first + (round_ > 0))

    return moved


WRITING = storing.writing
FAULTS = {
    "the largest estimate for the largest sum": (choosing, "lowest_rival", lambda top: top, None),
    "sums in another order": (sums, "fold", add_in_another_order, (40, 132)),
    "a segment forgotten": (sums, "totalling_warps", forget_the_last_warp, (2, 2048)),
    "the last of equals": (teams, "_first_of", take_the_last_of_equals, (7, 100)),
    "NaN not written": (storing, "writing", leave_nan_out, (7, 8)),
    "another column in the second round": (choosing, "chunking", one_place_on, (2, 4100)),
    "no noise in the second quad": (
        device_noise,
        "_contiguous_words",
        lambda seed, number, step: device_noise._scattered_words(seed, number, np.uint64(2)),
        (5, 8),
    ),
}


def faults():
    """What `same` must notice."""
    for fault, (module, name, wrong, shape) in FAULTS.items():
        right = getattr(module, name)
        setattr(module, name, wrong)
        row_kernel._kernel.cache_clear()
        plan.plan.cache_clear()
        try:
            operator, options = (gumbel_softmax, {"seed": 1}) if module is device_noise else (straight_through, {})
            if shape is None:
                close_calls()
            else:
                every_function(operator, shape, np.float32, ("forward", "backward"), **options)
        except AssertionError as error:
            print(f"{fault}: {error}")
        else:
            raise RuntimeError(f"{fault}: not noticed")
        finally:
            setattr(module, name, right)


if __name__ == "__main__":
    with simulated:
        globals()[sys.argv[1]]()
    print(f"{sys.argv[1]}: {compared} numbers, all the same")
