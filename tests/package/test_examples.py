"""The examples do what their first lines say."""

from __future__ import annotations

import json
import math
import os
import re
import runpy
import shutil
import socket
import statistics
import subprocess
import sys
from collections import Counter
from pathlib import Path

import children
import exact
import numpy as np
import pytest
from frameworks import module, needs

import npselect
from npselect import straight_through, testing
from npselect.testing import tolerance_reinmax

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def check(example, *options):
    command = [*children.python(), "-m", "npselect", "check", str(EXAMPLES / example), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_numpy_select_passes(dtype):
    done = check("numpy_select.py", "--dtype", dtype)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^PASSED: (\d+) of \1 cases$", done.stdout, re.MULTILINE)


def test_numpy_select_is_what_check_checks_by_default():
    command = [sys.executable, "-m", "npselect", "check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^numpy_select, ", done.stdout, re.MULTILINE)


def test_wrong_select_is_found_out(tmp_path):
    done = check("wrong_select.py", "--json", str(tmp_path / "report.json"))
    assert (done.returncode, done.stderr) == (1, "")
    assert "likely cause: backward: 1/temp is missing" in done.stdout
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["likely_cause"] == "backward: 1/temp is missing"
    assert not report["ok"]


@pytest.mark.frameworks
def test_rows_that_are_split_over_processes():
    needs("torch")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    two = ["--nproc-per-node", "2", "--master-addr", "127.0.0.1", "--master-port", str(port)]
    command = [sys.executable, "-m", "torch.distributed.run", *two, str(EXAMPLES / "torch_sharded.py")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": ""}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("every bit is that of the unsplit call") == 2


def told(lines):
    """What a quotation holds, by lines; numbers as numbers, as their last digits are the processor's."""

    def token(text):
        try:
            value = float(text.rstrip(",;"))
        except ValueError:
            return text
        return value if math.isfinite(value) else text

    return [[token(text) for text in line.split()] for line in lines]


@pytest.mark.parametrize(("page", "lines"), [("README.md", 10), ("docs/index.md", 5), ("docs/start/report.md", 20)])
def test_what_is_quoted_of_wrong_select_is_what_it_prints(page, lines):
    """In its order, `...` where it is cut; the README's ends with the likely cause."""
    blocks = re.findall(r"^```text\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    (block,) = (block for block in blocks if "likely cause" in block)
    block = block.removeprefix("$ npselect check examples/wrong_select.py\n")
    quoted = [line for line in block.splitlines() if line.strip()]
    assert len(quoted) >= lines
    printed = iter(told(check("wrong_select.py").stdout.splitlines()))
    for line in told(line for line in quoted if line != "..."):
        assert any(same(line, other) for other in printed), line
    if page == "README.md":
        assert len(quoted) == lines
        assert quoted[-1] == "likely cause: backward: 1/temp is missing"


def same(line, other):
    return len(line) == len(other) and all(
        a == b or (isinstance(a, float) and isinstance(b, float) and abs(a - b) <= 0.01 * abs(b))
        for a, b in zip(line, other, strict=True)
    )


def test_the_two_differ_in_the_forgotten_factor_alone():
    right, wrong = ((EXAMPLES / f"{name}_select.py").read_text().splitlines() for name in ("numpy", "wrong"))
    code = right.index("import numpy as np"), wrong.index("import numpy as np")
    different = [pair for pair in zip(right[code[0] :], wrong[code[1] :], strict=True) if pair[0] != pair[1]]
    assert [(a.removesuffix(" / temp"), b) for a, b in different] == [(different[0][1], different[0][1])]


ESTIMATORS = {
    "torch": ("categorical", "gapped"),  # ReinMax is in an example of its own
    "jax": ("reinmax", "categorical", "gapped"),
    "tensorflow": ("reinmax", "categorical", "gapped"),
}
# Published plateaus of the mean loss; none for the second, which is its t (1 - t).
TOYS = {(2.0, 0.45): 0.2475, (2.0, 0.499): 0.499 * 0.501, (1.5, 0.45): 0.3522, (3.0, 0.45): 0.1213}


@pytest.mark.parametrize(("p", "c"), TOYS)
def test_toy_losses_settle_on_the_plateau(p, c):
    """On the known, biased one, far from the optimum, as the sampled straight-through gradient must.

    Over the last n = 2e6 samples: a loss has a standard deviation below 0.055, so its mean 4e-5. The logits' difference
    has one of sigma / (lambda n**0.5) in the mean, sigma < 0.25 being the noise of its gradient and lambda > 0.08 the
    slope of what that is expected to be: 2.2e-3, for P a quarter, for the loss a tenth of that, 6e-5. The published
    values are rounded by up to 5e-5.
    """
    toy = runpy.run_path(str(EXAMPLES / "toy_losses.py"))
    assert (p, c) in toy["PROBLEMS"]
    losses = toy["descend"](p, c)
    settled = statistics.fmean(losses[1000:])
    assert abs(settled - TOYS[p, c]) < 5 * (4e-5 + 6e-5) + 5e-5
    assert abs(toy["plateau"](p, c) - TOYS[p, c]) < 5e-5
    if c != 0.499:
        assert settled > c**p + 0.02
    assert toy["descend"](p, c, steps=20) == losses[:20]


@pytest.mark.frameworks
@pytest.mark.parametrize("name", ["", ":function"])
def test_reinmax_select_passes(name):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    done = check(f"reinmax_select.py{name}", "--operator", "reinmax", "--dtype", "float32")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^PASSED: (\d+) of \1 cases$", done.stdout, re.MULTILINE)
    assert "operator reinmax" in done.stdout
    assert "temp 1 (rounded to the dtype), takes index=" in done.stdout


def of_shared_shapes(cases):
    """The edges, and of the rest those whose shapes several have: JAX compiles anew for every shape."""
    count = Counter(case.logits.shape for case in cases)
    return [case for case in cases if case.group == "edge" or count[case.logits.shape] > 1]


@pytest.mark.frameworks
@pytest.mark.parametrize(
    ("framework", "operator"),
    [(framework, operator) for framework in ("torch", "jax", "tensorflow") for operator in ESTIMATORS[framework]],
)
def test_estimators_pass(framework, operator):
    needs(framework)
    implementation, chosen = getattr(module(f"{framework}_estimators"), operator), getattr(npselect, operator)
    options = implementation.options - {"index"}
    cases = testing.cases("float32", operator=chosen, options=options)
    if framework == "jax":
        cases = of_shared_shapes(cases)
    report = testing.check(implementation, operator=chosen, dtypes="float32", cases=cases)
    assert report.ok, str(report)
    assert len(report.cases) == len(cases) > 40


@pytest.mark.frameworks
def test_reinmax_select_samples_the_softmax():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    example = runpy.run_path(str(EXAMPLES / "reinmax_select.py"))
    logits = torch.log(torch.tensor([0.7, 0.2, 0.1, 0.0])).expand(5000, 2, 4)
    index = example["sample"](logits, torch.Generator().manual_seed(1))
    assert index.shape == (5000, 2)
    shares = np.bincount(index.numpy().ravel(), minlength=4) / 10000
    np.testing.assert_allclose(shares, [0.7, 0.2, 0.1, 0.0], atol=5 * 0.5 / 100)


@pytest.mark.frameworks
@pytest.mark.parametrize("temp", [0.5, 1.0, 1.5])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_reinmax_select_is_reinmax(dtype, temp):
    """All three ways, by the published definition in mpmath and the bound."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    example = runpy.run_path(str(EXAMPLES / "reinmax_select.py"))
    rng = np.random.default_rng(3)
    g, w = rng.normal(size=(2, 30, 6)).astype(dtype)
    w[:10] *= 20
    d = np.argmax(w + rng.gumbel(size=w.shape).astype(dtype), axis=-1)
    rows = exact.rows(w, np.full((30, 1), temp), None, g, g)
    values = [exact.exact_reinmax(row, int(i), "float64") for row, i in zip(rows, d, strict=True)]
    right = np.array([[exact.rounded(x, "float64") for x in row] for row in values])
    bound = tolerance_reinmax.reinmax(g, w, d, temp, dtype)
    assert np.all(np.abs(example["backward"](g, w, temp, index=d) - right) <= bound)
    for name in ("function_select", "published_select"):
        logits = torch.tensor(w, requires_grad=True)
        mask = example[name](logits, temp, index=torch.tensor(d))
        np.testing.assert_array_equal(mask.detach().numpy(), np.eye(6, dtype=dtype)[d])
        mask.backward(torch.tensor(g))
        assert np.all(np.abs(logits.grad.numpy() - right) <= bound), name


@pytest.mark.frameworks
def test_reinmax_select_of_a_saturated_row():
    """Autograd has nothing left of what the function keeps."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    example = runpy.run_path(str(EXAMPLES / "reinmax_select.py"))

    def gradient(name):
        logits = torch.tensor([[0.0, -50.0]], dtype=torch.float64, requires_grad=True)
        mask = example[name](logits, index=torch.tensor([0]))
        mask.backward(torch.tensor([[1.0, 0.0]], dtype=torch.float64))
        return logits.grad[0, 0].item()

    assert abs(gradient("function_select") - np.exp(-50.0) / 2) < 1e-37
    assert gradient("published_select") == 0.0


# ------------------------------------------------------------------------------------------------ in C


@pytest.fixture(scope="module")
def judge_in_c(tmp_path_factory):
    """``judge(changed, *flags)``: the status of examples/vectors.c, and what it says, once vectors are changed so."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no C compiler, cc or gcc")
    folder = tmp_path_factory.mktemp("vectors")
    (path,) = testing.write_vectors(folder, dtypes="float32", operators=straight_through)
    vectors = json.loads(path.read_text())

    def judge(changed=lambda vectors: None, *flags):
        strict = ["-std=c99", "-O2", "-Wall", "-Wextra", "-Werror", "-pedantic"]
        program = folder / "-".join(["judge", *flags])
        if not program.exists():
            subprocess.run([compiler, *strict, *flags, EXAMPLES / "vectors.c", "-o", program, "-lm"], check=True)
        whole = json.loads(json.dumps(vectors))
        changed(whole)
        (folder / "changed.json").write_text(json.dumps(whole, indent=3))  # in another layout
        done = subprocess.run([program, folder / "changed.json"], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    return judge


def test_vectors_in_c_accepts_its_own_functions(judge_in_c):
    """All rows that the vectors say are judged, as Python counts them."""
    judged = []
    status, text = judge_in_c(lambda vectors: judged.extend(sum(c["judged"] or ()) for c in vectors["cases"]))
    assert (status, text) == (0, f"0 of {len(judged)} cases are wrong, {sum(judged)} rows judged\n")


def test_vectors_in_c_refuses_a_planted_fault(judge_in_c):
    """Without 1/temp, by the bound that the vectors hold."""
    status, text = judge_in_c(lambda vectors: None, "-DWRONG")
    assert status == 1
    assert re.search(r"^[1-9]\d of \d+ cases are wrong", text, re.MULTILINE)
    assert '"float32/digits/1797x10[:25]", row 0, choice 0: mask 1, expected 1; gradient ' in text


def first(vectors, name):
    return next(entry for entry in vectors["cases"] if entry["id"].startswith(f"float32/{name}"))


def bits(value):
    return f"f32:{np.float32(value).view(np.uint32):08x}"


ANOTHER_ANSWER = {
    "a mask": lambda vectors: first(vectors, "edge/ties")["mask"].__setitem__(slice(3), map(bits, (0, 0, 1))),
    "a gradient": lambda vectors: first(vectors, "edge/K=1")["grad_logits"].__setitem__(2, bits(1e-30)),
    "along an axis": lambda vectors: first(vectors, "axis/")["grad_logits"].__setitem__(5, bits(9)),
    "where": lambda vectors: first(vectors, "where/").__setitem__("where", None),
    "a bound": lambda vectors: first(vectors, "random/K=10")["bound"].__setitem__(
        slice(0, None), ["f64:" + 16 * "0"] * 250
    ),
    "an error": lambda vectors: first(vectors, "random/K=10").__setitem__("error", "ValueError"),
    "no error": lambda vectors: first(vectors, "edge/temp=0.0").__setitem__("temp", "f32:3f800000"),
}


@pytest.mark.parametrize("name", ANOTHER_ANSWER)
def test_vectors_in_c_reads_what_it_judges_by(judge_in_c, name):
    """With another answer in the place of the right one, one case is wrong."""
    status, text = judge_in_c(ANOTHER_ANSWER[name])
    assert status == 1, text
    assert re.search(r"^1 of \d+ cases are wrong", text, re.MULTILINE)


UNREADABLE = {
    "no vectors/1": lambda vectors: vectors.__setitem__("schema", "npselect-vectors/2"),
    "float32": lambda vectors: vectors.__setitem__("dtype", "float16"),
    "reinmax": lambda vectors: vectors.__setitem__("operator", "reinmax"),
    "shape says: bound": lambda vectors: first(vectors, "edge/ties")["bound"].pop(),
    "no grad_mask": lambda vectors: first(vectors, "edge/ties").pop("grad_mask"),
    "0 rows judged": lambda vectors: vectors["cases"].clear(),
}


@pytest.mark.parametrize("says", UNREADABLE)
def test_vectors_in_c_says_what_it_cannot_read(judge_in_c, says):
    status, text = judge_in_c(UNREADABLE[says])
    assert status == 2
    assert says in text
