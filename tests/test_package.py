"""The house: what may import what, what an import costs, and what the README promises."""

import ast
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import children
import pytest
from hypothesis import settings

import npselect
import npselect.testing

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "npselect"

# A room may import the rooms named here, and none else of the package. Data flows one way.
ROOMS = {
    "npselect": {
        "npselect.straight_through",
        "npselect.gumbel_softmax",
        "npselect.selection",
        "npselect.noise",
        "npselect.backends",
        "npselect._warm_up",
    },
    "npselect._warm_up": {
        "npselect.straight_through",
        "npselect.gumbel_softmax",
        "npselect.noise",
        "npselect.selection",
        "npselect._kinds",
        "npselect.backends",
    },
    "npselect.__main__": {"npselect.cli"},
    "npselect.cli": {"npselect", "npselect._commands", "npselect.backends", "npselect.bench", "npselect.testing"},
    "npselect._commands": set(),
    "npselect.bench": {  # of the backends, the number of threads and the features of processors alone
        "npselect",
        "npselect._commands",
        "npselect.backends",
        "npselect.straight_through",
        "npselect.gumbel_softmax",
        "npselect.selection",
        "npselect.noise",
        "npselect.bench",
        "npselect.testing",
    },
    "npselect.straight_through": {"npselect._arrays", "npselect._operators", "npselect._plain"},
    "npselect._operators": set(),
    "npselect._plain": {
        "npselect._arguments",
        "npselect._draws",
        "npselect._host",
        "npselect._kinds",
        "npselect._modes",
        "npselect.backends",
    },
    "npselect.gumbel_softmax": {"npselect._arrays", "npselect._draws", "npselect._operators", "npselect._plain"},
    "npselect.selection": {
        "npselect.straight_through",
        "npselect._arguments",
        "npselect._arrays",
        "npselect._host",
        "npselect._kinds",
        "npselect._modes",
        "npselect._vectors",
    },
    "npselect._vectors": set(),
    "npselect.noise": {
        "npselect._arguments",
        "npselect._arrays",
        "npselect._draws",
        "npselect._kinds",
        "npselect.backends",
    },
    "npselect._arrays": {
        "npselect._arguments",
        "npselect._draws",
        "npselect._host",
        "npselect._kinds",
        "npselect._modes",
        "npselect.backends",
    },
    "npselect._host": {"npselect._arguments", "npselect._kinds", "npselect._vectors"},
    "npselect._arguments": {"npselect._kinds"},
    "npselect._kinds": set(),
    "npselect._draws": {"npselect._arguments"},
    "npselect.reference": {"npselect._modes", "npselect._rounding", "npselect._numbers", "npselect._philox"},
    "npselect._modes": set(),
    "npselect._philox": set(),
    "npselect._rounding": {"npselect._numbers"},
    "npselect._numbers": set(),
    "npselect.backends": {
        "npselect.backends",
        "npselect._arguments",
        "npselect._draws",
        "npselect._kinds",
        "npselect._modes",
    },
    "npselect.testing": {
        "npselect",
        "npselect._kinds",
        "npselect.backends",
        "npselect.straight_through",
        "npselect.gumbel_softmax",
        "npselect.selection",
        "npselect.testing",
    },
}


def room_of(module):
    return next(name for name in (module, *(module.rsplit(".", n)[0] for n in (1, 2))) if name in ROOMS)


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write the whole name of {node.module}"
            if node.module == "npselect":
                yield from (
                    f"npselect.{alias.name}" if (PACKAGE / f"{alias.name}.py").exists() else "npselect"
                    for alias in node.names
                )
            else:
                yield node.module


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_rooms(path):
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    allowed = ROOMS[room_of(module)]
    for name in imports(path):
        if name.split(".")[0] == "npselect":
            assert room_of(name) in allowed, f"{module} imports {name}"
            assert (
                room_of(module) != "npselect.bench"
                or room_of(name) != "npselect.backends"
                or name.endswith((".threads", ".features"))
            )
        elif name.split(".")[0] in ("numba", "llvmlite"):
            assert room_of(module) == "npselect.backends", f"{module} imports {name}"
    if module in (
        "npselect.reference",
        "npselect._rounding",
        "npselect._numbers",
        "npselect._philox",
        "npselect._modes",
    ):
        third_party = {name.split(".")[0] for name in imports(path)} - set(sys.stdlib_module_names)
        assert third_party <= {"numpy", "npselect"}


def run(code, **environment):
    result = subprocess.run(
        [*children.python(), "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, **environment},
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_import_loads_neither_numba_nor_a_framework():
    code = "import sys, json, npselect, npselect.testing; print(json.dumps(sorted(sys.modules)))"
    loaded_modules = json.loads(run(code))
    loaded = {name.split(".")[0] for name in loaded_modules}
    assert "npselect" in loaded
    assert "npselect.bench" not in loaded_modules
    assert not loaded & {"numba", "llvmlite", "numba_cuda", "torch", "jax", "tensorflow", "ml_dtypes", "rich"}


def test_the_bench_and_the_command_load_no_framework_before_they_are_asked():
    loaded = {
        name.split(".")[0]
        for name in json.loads(
            run("""
import sys, json, npselect.bench, npselect.cli
print(json.dumps(sorted(sys.modules)))
""")
        )
    }
    assert not loaded & {"numba", "llvmlite", "torch", "jax", "tensorflow", "scipy", "matplotlib", "rich"}


def test_public_names():
    assert npselect.differentiable_select is npselect.straight_through.forward
    operators = (npselect.straight_through, npselect.gumbel_softmax)
    for module in (npselect, *operators, npselect.selection, npselect.noise):
        for name in module.__all__:
            assert getattr(module, name, None) is not None
    assert operators[0].__all__ == operators[1].__all__
    for path in PACKAGE.rglob("*.py"):
        assert path.name == "__main__.py" or "__all__ = [" in path.read_text(encoding="utf-8"), f"{path} has no __all__"


def test_works_without_a_cache_directory():
    code = """
import numba.core.caching as caching
caching.CacheImpl._locator_classes = []  # as on a machine where no directory can be written
import npselect
print(npselect.straight_through.index([[1.0, 3.0, 2.0]]))
"""
    assert run(code).strip() == "[1]"


def test_a_compiler_that_is_switched_off():
    """There is no CPU tier then: `backends` says so, and every call that would take it, and the command."""
    code = """
import numpy as np, npselect
from npselect import cli
tiers = npselect.backends()
print([name for name in ("reference", "cpu") if tiers[name].available], tiers["cpu"].detail)
print(npselect.straight_through.index([1.0, 3.0], backend="reference"))
for call in (
    lambda: npselect.straight_through.index(np.array([[1.0, 3.0]])),
    lambda: npselect.straight_through.index([1, 3], backend="cpu"),
    lambda: npselect.noise.gumbel(3, 1),
    lambda: npselect.warm_up("float32"),
):
    try:
        call()
    except RuntimeError as error:
        print(error)
print(cli.main(["warm-up"]))
"""
    first, reference, *errors, status = run(code, NUMBA_DISABLE_JIT="1").splitlines()
    assert first.startswith("['reference'] ")
    assert (reference, status, len(errors)) == ("1", "2", 4)
    for line in errors:
        assert line.startswith("backend 'cpu' does not run here: ")
    for line in (first, *errors):
        assert "NUMBA_DISABLE_JIT" in line
        assert "'reference'" in line


def test_fast_maths_is_off():
    paths = list((PACKAGE / "backends").rglob("*.py"))
    assert len(paths) >= 25
    for path in paths:
        assert "fastmath" not in path.read_text(encoding="utf-8")


def test_readme_has_two_commands_in_its_quick_start():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    quick_start = re.search(r"^## Quick start\n(.*?)^## ", readme, re.DOTALL | re.MULTILINE)
    blocks = re.findall(r"^```(\w+)\n(.*?)^```", quick_start[1], re.DOTALL | re.MULTILINE)
    assert [language for language, _ in blocks] == ["bash", "bash"]
    assert "npselect check examples/numpy_select.py" in blocks[0][1]
    assert "python -m pytest" in blocks[1][1]


def test_readme_has_a_profile_for_hypothesis(monkeypatch):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(import npselect\nfrom hypothesis .*?)^```", readme, re.DOTALL | re.MULTILINE)
    warmed = []
    monkeypatch.setattr(npselect, "warm_up", lambda *asked: warmed.append(asked))
    try:
        exec(block, {})
        assert settings.default.deadline is None
        assert settings.get_profile("npselect").deadline is None
    finally:
        settings.load_profile("ci" if os.environ.get("CI") else "dev")  # as in conftest.py
    monkeypatch.undo()
    ((dtypes, operators),) = warmed
    signature = inspect.signature(npselect.warm_up).bind(dtypes, operators).arguments
    assert {*signature["dtypes"]} <= {*npselect.testing.DTYPES}
    assert all(hasattr(npselect, name) for name in signature["operators"])


def test_readme_names_only_files_that_exist():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", readme):
        assert (ROOT / target).exists(), target
