"""What builds the site: the reference has every public name, and the checker of links finds dead ones."""

from __future__ import annotations

import importlib
import inspect
import runpy
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


def test_reference_has_every_public_name(tmp_path):
    pages = runpy.run_path(str(DOCS / "api_pages.py"))
    found = pages["write"](tmp_path)
    assert {"npselect", "npselect.straight_through", "npselect.testing", "npselect.bench"} <= {*found}
    index = (DOCS / "reference" / "index.md").read_text(encoding="utf-8")
    for module in found:
        assert f"api/{module}\n" in index
        text = (tmp_path / f"{module}.rst").read_text(encoding="utf-8")
        found_there = importlib.import_module(module)
        for name in found_there.__all__:
            if module == "npselect" and (name == "__version__" or inspect.ismodule(getattr(found_there, name))):
                continue  # a module has a page of its own
            assert name in text, f"{module}.{name}"


@pytest.mark.parametrize(
    ("link", "dead"),
    [
        ("other.html", None),
        ("other.html#place", None),
        ("#here", None),
        ("https://example.org/nowhere", None),
        ("missing.html", "no such file"),
        ("other.html#nowhere", "no such place"),
        ("#nowhere", "no such place"),
        ("../outside.html", "no such file"),
    ],
)
def test_dead_links_are_found(tmp_path, link, dead):
    site = tmp_path / "site"
    site.mkdir()
    (site / "index.html").write_text(f'<h1 id="here">Front</h1><a href="{link}">on</a><img src="picture.png">')
    (site / "other.html").write_text('<h1 id="place">Other</h1>')
    (site / "picture.png").write_bytes(bytes(100))
    found, weights, count = runpy.run_path(str(DOCS / "check_site.py"))["check"](site)
    assert [text.rpartition(": ")[2] for text in found] == ([] if dead is None else [dead])
    assert weights[site / "index.html"] == (site / "index.html").stat().st_size + 100
    assert count == (1 if link.startswith("https") else 2)
