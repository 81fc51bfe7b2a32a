"""The playground's formulas, in node and in a browser, judged by the vectors; and its page, by what it shows."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from npselect import gumbel_softmax, noise, straight_through, testing

ROOT = Path(__file__).parents[2]
PLAYGROUND = ROOT / "docs" / "_static" / "playground"
JUDGE = Path(__file__).with_name("judge_playground.js")


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    """The files of float64: the numbers that JavaScript has."""
    folder = tmp_path_factory.mktemp("vectors")
    return testing.write_vectors(folder, dtypes="float64", operators=[straight_through, gumbel_softmax])


def in_node(*arguments):
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed: JavaScript cannot be run")
    return subprocess.run([node, *map(str, arguments)], capture_output=True, text=True, check=True, timeout=120).stdout


def in_chromium(page):
    """What a page holds once its scripts have run."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("neither Chromium nor Chrome is installed: no page can be looked at")
    command = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000", "--dump-dom"]
    profile = f"--user-data-dir={page.parent / 'profile'}"
    done = subprocess.run([*command, profile, page.as_uri()], capture_output=True, text=True, check=True, timeout=180)
    return done.stdout


def assert_all_judged(found, paths):
    assert len(found) == len(paths)
    for each in found:
        assert each["faults"] == []
        assert (each["cases"] > 80, each["rows"] > 1000, each["entries"] > 20000) == (True, True, True)
        assert 0 < each["worst"] <= 1


def test_formulas_in_node(vectors):
    found = json.loads(in_node(JUDGE, PLAYGROUND / "formulas.js", *vectors))
    assert_all_judged(found, vectors)


MISTAKES = {
    "1/temp is missing": ("* (h[i] - d)) / temp", "* (h[i] - d))"),
    "the last of equals": ("w[i] > w[m]", "w[i] >= w[m]"),
    "no mean": ("(h[i] - d)", "h[i]"),
    "the maximum is not subtracted": ("Math.exp((x - w[m]) / temp)", "Math.exp(x / temp)"),
    "infinite cotangents": ("const finite = ", "const finite = true || "),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_found_in_node(name, vectors, tmp_path):
    text = (PLAYGROUND / "formulas.js").read_text(encoding="utf-8")
    right, wrong = MISTAKES[name]
    assert text.count(right) == 1
    (tmp_path / "formulas.js").write_text(text.replace(right, wrong), encoding="utf-8")
    assert all(each["faults"] for each in json.loads(in_node(JUDGE, tmp_path / "formulas.js", *vectors)))


@pytest.mark.parametrize("seed", [0, 1, 2**40 + 12345])
def test_noise_in_node(seed):
    """The same numbers as npselect's, but for the roundings of two logarithms.

    u is exact. A logarithm is within 1 ULP, that is 2**-52 of its result: of the inner one that moves G by 2**-52, of
    the outer one by 2**-52 |G|. Together that is less than 2**-51 max(1, |G|).
    """
    code = f"console.log(JSON.stringify(require({str(PLAYGROUND / 'formulas.js')!r}).gumbel(2000, {seed})))"
    g = np.array(json.loads(in_node("-e", code)))
    exact = noise.gumbel(2000, seed, dtype=np.float64)
    np.testing.assert_array_less(np.abs(g - exact), 2.0**-51 * np.maximum(1, np.abs(exact)))


def test_formulas_in_chromium(vectors, tmp_path):
    files = "\n".join(f"found.push(judge({path.read_text(encoding='utf-8')}, npselectFormulas));" for path in vectors)
    scripts = [(PLAYGROUND / "formulas.js").read_text(encoding="utf-8"), JUDGE.read_text(encoding="utf-8")]
    shown = "document.getElementById('found').textContent = JSON.stringify(found);"
    body = "".join(f"<script>{script}</script>" for script in [*scripts, f"const found = [];{files}{shown}"])
    (tmp_path / "judge.html").write_text(f"<!doctype html><meta charset=utf-8><pre id=found></pre>{body}")
    found = json.loads(
        html.unescape(re.search(r"<pre id=.found.>(.*?)</pre>", in_chromium(tmp_path / "judge.html"))[1])
    )
    assert_all_judged(found, vectors)


def test_page_in_chromium(tmp_path):
    """Sliders are moved, as a keyboard does it; the numbers are npselect's, and every one is text."""
    text = (ROOT / "docs" / "playground.md").read_text(encoding="utf-8")
    (body,) = re.findall(r"```\{raw\} html\n(.*?)```", text, re.DOTALL)
    move = """
    const put = (input, value) => { input.value = value; input.dispatchEvent(new Event("input", {bubbles: true})); };
    put(document.querySelectorAll('input[data-kind="logits"]')[4], 3.5);
    put(document.querySelectorAll('input[data-kind="cotangent"]')[0], -1.5);
    put(document.querySelector('input[data-role="temp"]'), 0);
    document.querySelector('input[data-role="noisy"]').click();
    put(document.querySelector('input[data-role="seed"]'), 7);
    """
    body = body.replace("_static/playground", PLAYGROUND.as_uri())
    (tmp_path / "page.html").write_text(f"<!doctype html><meta charset=utf-8>{body}<script>{move}</script>")
    page = html.unescape(in_chromium(tmp_path / "page.html"))
    logits, grad_mask = np.array([1.0, 3.0, 2.0, 0.5, 3.5]), np.array([-1.5, -2.0, 0.5, 1.5, 0.0])

    def column(kind):
        cells = re.findall(rf'<td [^>]*data-kind="{kind}">(.*?)</td>', page, re.DOTALL)
        texts = [re.sub(r"<[^>]*>", "", cell).strip().replace("\N{MINUS SIGN}", "-") for cell in cells]
        return np.array([float(cell) for cell in texts])

    np.testing.assert_array_equal(column("mask"), gumbel_softmax.forward(logits, 1.0, seed=7))
    np.testing.assert_allclose(column("noise"), noise.gumbel(5, 7, dtype=np.float64), atol=5.1e-4)
    for kind, right in (
        ("probs", gumbel_softmax.soft(logits, 1.0, seed=7)),
        ("grad", gumbel_softmax.backward(grad_mask, logits, 1.0, seed=7)),
    ):
        np.testing.assert_allclose(column(kind), right, atol=5.1e-4, rtol=0.06)
    index = gumbel_softmax.index(logits, seed=7)
    assert f"Candidate {index} is selected" in page
    (python,) = re.findall(r'<pre data-role="python"[^>]*>(.*?)</pre>', page, re.DOTALL)
    names: dict[str, object] = {}
    first, second = python.splitlines()
    exec(f"{first}\nresult = {second}", names)
    np.testing.assert_array_equal(names["result"], gumbel_softmax.backward(grad_mask, logits, 1.0, seed=7))
    labels = re.findall(r"<input[^>]*>", page)
    assert all("aria-label" in label or "data-role" in label for label in labels)
