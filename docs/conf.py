"""How Sphinx builds the site: ``pip install '.[docs]'``, then ``sphinx-build -W docs site``."""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from pathlib import Path

import matplotlib as mpl
from docutils import nodes
from matplotlib import pyplot
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

sys.path.insert(0, str(Path(__file__).parent))
import api_pages

import npselect
from npselect import cli

mpl.use("Agg")

DOCS = Path(__file__).parent
ROOT = DOCS.parent
GENERATED = DOCS / "generated"  # ignored by git, with all that is made here

project = "npselect"
author = "The npselect developers"
copyright = "2026, the npselect developers"  # noqa: A001
version = release = npselect.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "numpydoc",
    "myst_parser",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["generated/examples/**", "gallery_header.rst", "survey.md"]  # which is copied, if it is there
templates_path = ["_templates"]
default_role = "py:obj"
highlight_language = "text"  # in docstrings, formulas; examples are marked as what they are

autosummary_generate = [f"reference/api/{name}.rst" for name in api_pages.write(DOCS / "reference" / "api")]
autodoc_typehints = "none"  # numpydoc's sections have them, with shapes
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
myst_fence_as_directive = ["mermaid"]
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_theme = "pydata_sphinx_theme"
html_title = "npselect"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_favicon = "_static/favicon.svg"
html_copy_source = html_show_sourcelink = False
html_last_updated_fmt = None
html_theme_options = {
    "logo": {"text": "npselect"},
    "show_prev_next": True,
    "navigation_with_keys": False,
    "header_links_before_dropdown": 8,
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
    "secondary_sidebar_items": {"**": ["page-toc"], "index": [], "playground": []},
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_sidebars = {"index": [], "playground": [], "generated/changelog": []}

# The examples that need no framework run while the site is built; the others are shown as they are.
RUN = ("numpy_select", "toy_losses", "wrong_select")
sphinx_gallery_conf = {
    "examples_dirs": str(GENERATED / "examples"),
    "gallery_dirs": "gallery",
    "filename_pattern": rf"[/\\](?:{'|'.join(RUN)})\.py$",
    "ignore_pattern": r"__init__\.py",
    "within_subsection_order": "FileNameSortKey",
    "download_all_examples": False,
    "show_memory": False,
    "remove_config_comments": True,
    "default_thumb_file": str(ROOT / "examples" / "bounds.png"),
    "abort_on_example_error": True,
}


# Large letters and a colour for examples without a picture.
THUMBNAILS = {
    "compare_frameworks": ("a table\nof four", "#37474f"),
    "jax_estimators": ("JAX,\nestimators", "#4527a0"),
    "jax_select": ("JAX", "#5e35b1"),
    "numpy_select": ("NumPy", "#0d5a9c"),
    "reinmax_select": ("ReinMax", "#00695c"),
    "tensorflow_estimators": ("Tensor-\nFlow,\nestimators", "#9f2d0a"),
    "tensorflow_select": ("Tensor-\nFlow", "#bf360c"),
    "torch_estimators": ("PyTorch,\nestimators", "#8e1616"),
    "torch_select": ("PyTorch", "#b71c1c"),
    "torch_sharded": ("PyTorch,\nsplit rows", "#6d1b1b"),
    "toy_losses": ("a plateau\nabove 0", "#4e342e"),
    "wrong_select": ("1 / temp\nis missing", "#8e0000"),
}

# Pages of the repository, and where they are on the site, as seen from `GENERATED`. Those without a folder are copied.
PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "bench/cpu.md": "cpu.md",
    "bench/cuda.md": "cuda.md",
    "docs/architecture.md": "../architecture.md",
    "docs/new_operator.md": "../new_operator.md",
    "docs/survey.md": "survey.md",
}
NO_SURVEY = """\
# Survey

No survey is committed yet. `npselect survey` judges every op that npselect knows of in the packages that are installed.
"""


def relinked(text: str, page: Path) -> str:
    """A page of the repository, its links as seen from `GENERATED`."""

    def link(match: re.Match[str]) -> str:
        if ":" in match[2] or match[2].startswith("#"):
            return match[0]
        file, _, anchor = match[2].partition("#")
        there = (page.parent / file).resolve().relative_to(ROOT)
        if (ROOT / there).is_dir():
            return f"`{match[1]}`"
        target = PAGES.get(there.as_posix(), f"../../{there.as_posix()}")
        return f"[{match[1]}]({target}{'#' * bool(anchor)}{anchor})"

    return re.sub(r"\[([^]]*)\]\(([^)\s]+)\)", link, text)


def copy_pages() -> None:
    """The pages that live elsewhere in the repository, and the examples, which write beside themselves."""
    GENERATED.mkdir(exist_ok=True)
    for page in (ROOT / name for name, target in PAGES.items() if Path(target).parent == Path()):
        text = page.read_text(encoding="utf-8") if page.exists() else NO_SURVEY
        (GENERATED / page.name.lower()).write_text(relinked(text, page), encoding="utf-8")
    examples = GENERATED / "examples"
    shutil.rmtree(examples, ignore_errors=True)
    examples.mkdir()
    for path in sorted((ROOT / "examples").glob("*.py")):
        (examples / path.name).write_text(with_picture(path), encoding="utf-8")
    shutil.copy(DOCS / "gallery_header.rst", examples / "GALLERY_HEADER.rst")


def with_picture(path: Path) -> str:
    """The text of an example with a thumbnail and, of one that draws, with the picture that it has drawn."""
    text = path.read_text(encoding="utf-8")
    picture = path.with_name(path.stem.removeprefix("draw_") + ".png")
    drawn = picture.exists()
    below = f"\n.. image:: ../../examples/{picture.name}\n" if drawn else ""
    thumbnail = GENERATED / "thumbnails" / f"{path.stem}.png"
    draw_thumbnail(thumbnail, path.stem, picture if drawn else None)
    end = text.index('"""', 3)
    return f'{text[:end]}{below}"""\n\n# sphinx_gallery_thumbnail_path = \'{thumbnail}\'\n{text[end + 3 :]}'


def draw_thumbnail(path: Path, name: str, picture: Path | None) -> None:
    """A panel of the picture; or else what the example is about, in large letters."""
    path.parent.mkdir(exist_ok=True)
    figure, axes = pyplot.subplots(figsize=(4.0, 2.8), dpi=100)
    axes.set_axis_off()
    axes.set_position((0.0, 0.0, 1.0, 1.0))
    if picture is not None:
        panels = pyplot.imread(picture)
        wide = panels.shape[1] // (3 if name == "draw_selection" else 2)
        axes.imshow(panels[:, wide : 2 * wide] if name == "draw_selection" else panels[:, :wide])
    else:
        text, colour = THUMBNAILS.get(name, (name.replace("_", "\n"), "#37474f"))
        figure.set_facecolor(colour)
        axes.text(0.5, 0.5, text, ha="center", va="center", size=30, weight="bold", color="white", linespacing=1.3)
    figure.savefig(path)
    pyplot.close(figure)


class CommandHelp(SphinxDirective):
    """What ``npselect --help`` prints, and a section for each of its commands."""

    def run(self) -> list[nodes.Node]:
        """Literal blocks."""
        parser = cli._parser()
        (commands,) = (each for each in parser._actions if isinstance(each, argparse._SubParsersAction))
        blocks: list[nodes.Node] = [nodes.literal_block(text := parser.format_help(), text, language="text")]
        for name, command in commands.choices.items():
            section = nodes.section(ids=[f"npselect-{name}"], names=[f"npselect {name}"])
            section += nodes.title(text=f"npselect {name}")
            section += nodes.literal_block(text := command.format_help(), text, language="text")
            blocks.append(section)
        return blocks


class Mermaid(SphinxDirective):
    """A picture that GitHub draws: here its text, as drawing it would take a server or three megabytes."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """One literal block."""
        return [nodes.literal_block(text := "\n".join(self.content), text, language="text")]


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.add_directive("command-help", CommandHelp)
    app.add_directive("mermaid", Mermaid)


copy_pages()
