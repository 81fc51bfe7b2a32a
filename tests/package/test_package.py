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

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "npselect"

# The rooms of the house, from the street to the cellar: a folder or a file, and what of the package it may import.
FACTS = {
    "npselect._operators",
    "npselect._dtypes",
    "npselect._places",
    "npselect._stream",
    "npselect._threads",
    "npselect._tuning",
    "npselect._modes",
    "npselect._forks",
    "npselect._machine_code",
}
OPERATORS = {
    "npselect.straight_through",
    "npselect.gumbel_softmax",
    "npselect.categorical",
    "npselect.reinmax",
    "npselect.gapped",
    "npselect.gumbel_rao",
    "npselect.selection",
    "npselect.sharded",
    "npselect.noise",
}
ROOMS = {
    "npselect.__main__": {"npselect.cli"},
    "npselect.cli": {
        "npselect",
        "npselect._commands",
        "npselect.bench",
        "npselect.survey",
        "npselect.testing",
        "npselect.tiers.cpu",
    },
    "npselect.survey": {"npselect._commands", "npselect.testing"},
    "npselect.bench": {
        "npselect",
        "npselect._commands",
        "npselect._operators",
        "npselect._threads",
        "npselect.testing",
        *OPERATORS,
    },
    "npselect.testing": {"npselect", "npselect._dtypes", "npselect._places", "npselect.tiers", *OPERATORS},
    "npselect": {"npselect._operators", "npselect._warm_up", "npselect.tiers", "npselect._gpu", *OPERATORS},
    "npselect._commands": set(),
    "npselect._warm_up": {"npselect._dtypes", "npselect._operators", "npselect.tiers", *OPERATORS},
    "npselect.straight_through": {"npselect._call", "npselect._dtypes", "npselect._operators"},
    "npselect.gumbel_softmax": {"npselect._call", "npselect._dtypes", "npselect._operators"},
    "npselect.categorical": {"npselect._call", "npselect._dtypes", "npselect._operators"},
    "npselect.reinmax": {"npselect._call", "npselect._dtypes", "npselect._operators"},
    "npselect.gapped": {"npselect._call", "npselect._dtypes", "npselect._operators"},
    "npselect.gumbel_rao": {"npselect._call", "npselect._dtypes", "npselect._operators"},
    "npselect.noise": {"npselect._call", "npselect._dtypes", "npselect._places", "npselect._stream", "npselect.tiers"},
    "npselect.sharded": {"npselect._call", "npselect._dtypes", "npselect._modes", "npselect.tiers.cpu"},
    "npselect.selection": {"npselect._call", "npselect.tiers", "npselect.tiers.cpu", *FACTS},
    "npselect._call": {"npselect.tiers", "npselect.tiers.cpu", "npselect.tiers.cuda", "npselect._gpu", *FACTS},
    "npselect.tiers": {"npselect._gpu", "npselect.reference", "npselect.tiers.cpu", "npselect.tiers.cuda", *FACTS},
    "npselect.tiers.cpu": {"npselect._arithmetic", *FACTS},
    "npselect.tiers.cuda": {"npselect._arithmetic", "npselect._gpu", *FACTS},
    "npselect.reference": {"npselect._oracle", "npselect._modes"},
    "npselect._gpu": {"npselect._arithmetic", *FACTS},
    "npselect._oracle": set(),
    "npselect._arithmetic": set(),
    "npselect._operators": set(),
    "npselect._dtypes": set(),
    "npselect._places": {"npselect._dtypes"},
    "npselect._stream": {"npselect._dtypes"},
    "npselect._threads": {"npselect._tuning"},
    "npselect._tuning": set(),
    "npselect._modes": set(),
    "npselect._forks": set(),
    "npselect._machine_code": set(),
}
COMPILING = {
    "npselect._arithmetic",
    "npselect.tiers.cpu",
    "npselect.tiers.cuda",
    "npselect._gpu",
    "npselect.bench.features",
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
                    f"npselect.{alias.name}" if any(PACKAGE.glob(f"{alias.name}*")) else "npselect"
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
            assert room_of(name) in allowed | {room_of(module)}, f"{module} imports {name}"
        elif name.split(".")[0] in ("numba", "llvmlite"):
            assert {room_of(module), module} & COMPILING, f"{module} imports {name}"
    if room_of(module) in ("npselect.reference", "npselect._oracle", "npselect._modes"):
        third_party = {name.split(".")[0] for name in imports(path)} - set(sys.stdlib_module_names)
        assert third_party <= {"numpy", "npselect"}


def module_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def circle(graph):
    """A list of modules of which each imports the next, and the last the first; None if there is none."""
    done = set()

    def search(module, path):
        if module in path:
            return path[path.index(module) :]
        if module in done:
            return None
        found = next(filter(None, (search(other, [*path, module]) for other in sorted(graph.get(module, ())))), None)
        done.add(module)
        return found

    return next(filter(None, (search(module, []) for module in sorted(graph))), None)


def test_no_module_imports_itself_by_way_of_others():
    """Neither at its top, nor in functions, nor for types alone."""
    assert circle({"a": {"b"}, "b": {"c", "d"}, "c": set(), "d": {"b"}}) == ["b", "d"]
    modules = {module_of(path): path for path in PACKAGE.rglob("*.py")}
    graph = {}
    for module, path in modules.items():
        names = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names |= {f"{node.module}.{alias.name}" if f"{node.module}.{alias.name}" in modules else node.module
                          for alias in node.names}  # fmt: skip
        graph[module] = names & modules.keys() - {module}
    assert circle(graph) is None


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
    assert not loaded & {"hypothesis", "pytest"}


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


def test_device_arrays_are_public_and_load_numba_when_they_are_asked_for():
    code = """
import sys, npselect
assert "DeviceArray" in dir(npselect)
print("numba" in sys.modules)
try:
    print(npselect.DeviceArray.__name__)
except AttributeError as error:
    print(str(error).partition(" ")[0])
from npselect._gpu.array import DeviceArray
print(npselect.DeviceArray is DeviceArray)
"""
    assert run(code).split() == ["False", "DeviceArray", "True"]
    without = "import sys; sys.modules['numba.cuda'] = None; import npselect; print(hasattr(npselect, 'DeviceArray'))"
    assert run(without).strip() == "False"
    with pytest.raises(AttributeError, match="module 'npselect' has no attribute 'device_array'"):
        npselect.device_array  # noqa: B018


def test_public_names():
    assert npselect.differentiable_select is npselect.straight_through.forward
    operators = (npselect.straight_through, npselect.gumbel_softmax)
    for module in (npselect, *operators, npselect.selection, npselect.noise):
        for name in module.__all__:
            assert getattr(module, name, None) is not None
    assert operators[0].__all__ == operators[1].__all__
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert path.name == "__main__.py" or "def " not in text or "__all__ = [" in text, f"{path} has no __all__"


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
    paths = [path for room in ("_arithmetic", "_gpu", "tiers") for path in (PACKAGE / room).rglob("*.py")]
    assert len(paths) >= 35
    for path in paths:
        assert "fastmath" not in path.read_text(encoding="utf-8")


def test_readme_has_two_commands_in_its_quick_start():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    quick_start = re.search(r"^## Quick start\n(.*?)^## ", readme, re.DOTALL | re.MULTILINE)
    blocks = re.findall(r"^```(\w+)\n(.*?)^```", quick_start[1], re.DOTALL | re.MULTILINE)
    assert [language for language, _ in blocks] == ["bash", "bash"]
    assert "npselect check examples/numpy_select.py" in blocks[0][1]
    assert "python -m pytest" in blocks[1][1]


def test_readme_fits_a_screen_or_two():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 130


def test_docs_have_a_profile_for_hypothesis(monkeypatch):
    readme = (ROOT / "docs" / "howto" / "properties.md").read_text(encoding="utf-8")
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


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_only_files_that_exist_are_named(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / target).exists(), target


PAGES = [page for page in sorted((ROOT / "docs").rglob("*.md")) if "generated" not in page.parts]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT / "docs").as_posix())
def test_docs_name_only_files_that_exist(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)(?:#[\w-]*)?\)", text):
        assert (page.parent / target).exists(), target
    for target in re.findall(r"\{doc\}`(?:[^`<]*<)?([^`>]+)>?`", text):
        if not target.removeprefix("../").startswith(("generated/", "gallery/")):
            assert (page.parent / f"{target}.md").exists(), target


def test_docs_are_all_there():
    """Fewer would mean that a folder has moved, and that the two tests before ask nothing."""
    assert len(PAGES) > 30


def test_the_picture_of_the_house_shows_its_walls():
    """Each arrow of docs/architecture.md is an import that is allowed, and leads to another room."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    names = dict(re.findall(r'(\w+)\["([\w/]+)[^"]*"\]', page))
    rooms = {
        node: "npselect.straight_through" if node == "operators" else f"npselect.{name.replace('/', '.')}"
        for node, name in names.items()
    }
    arrows = re.findall(r'^    (\w+)(?:\[".*?"\])? --> (\w+)', page, re.MULTILINE)
    assert len(arrows) > 12
    for start, end in arrows:
        assert rooms[end] in ROOMS[rooms[start]] | {rooms[start]}, f"{start} --> {end}"
