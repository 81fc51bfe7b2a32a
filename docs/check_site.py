"""Whether every link of the built site that stays on it leads somewhere: ``python docs/check_site.py site``.

Prints how many pages and links there are, what a page weighs with all that it loads, and the links that are dead.
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

__all__ = ["Page", "check", "main"]


class Page(HTMLParser):
    """What a page links to, loads, and can be linked to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.places: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Called by `HTMLParser`."""
        found = dict(attrs)
        self.places.update(value for name in ("id", "name") if (value := found.get(name)))
        target = found.get("href") or found.get("src")
        if target is not None:
            (self.links if tag == "a" else self.loads).append(target)


def check(site: Path) -> tuple[list[str], dict[Path, int], int]:
    """Look at all pages of a site.

    Returns
    -------
    list of str
        The dead links.
    dict of Path to int
        What each page weighs, in bytes, with what it loads from the site.
    int
        How many links were followed.
    """
    pages = {path: Page(path) for path in sorted(site.rglob("*.html")) if "_static" not in path.parts}
    dead, weights, count = [], {}, 0
    for path, page in pages.items():
        weights[path] = path.stat().st_size
        for target in dict.fromkeys([*page.links, *page.loads]):
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            count += 1
            there = (path.parent / unquote(parts.path)).resolve() if parts.path else path.resolve()
            there = there / "index.html" if there.is_dir() else there
            known = (
                pages.get(site / there.relative_to(site.resolve())) if there.is_relative_to(site.resolve()) else None
            )
            if not there.is_file():
                dead.append(f"{path.relative_to(site)}: {target}: no such file")
            elif parts.fragment and known and unquote(parts.fragment) not in known.places:
                dead.append(f"{path.relative_to(site)}: {target}: no such place")
            elif target in page.loads:
                weights[path] += there.stat().st_size
    return dead, weights, count


def main() -> int:
    """Run on the folder that the command names."""
    site = Path(sys.argv[1])
    dead, weights, count = check(site)
    if not weights:
        raise SystemExit(f"{site} holds no pages")
    heaviest = max(weights, key=lambda path: weights[path])
    print(f"{len(weights)} pages, {count} links within the site, {len(dead)} dead")
    print(f"index.html weighs {weights[site / 'index.html'] / 1e3:.0f} kB with all that it loads; "
          f"the heaviest, {heaviest.relative_to(site)}, {weights[heaviest] / 1e3:.0f} kB")  # fmt: skip
    print("\n".join(dead))
    return 1 if dead else 0


if __name__ == "__main__":
    sys.exit(main())
