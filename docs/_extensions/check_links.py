"""Every link of the built site that leads into the site: the page must be there, and the place on it.

Scripts, styles and pictures must be files of the site, so that a page opens without a network and asks nobody else.

Run: python docs/_extensions/check_links.py docs/_build/html
"""

from __future__ import annotations

import argparse
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The links of a page, and the places on it that a link may name."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.places: set[str] = {"", "top"}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value for name, value in attrs if value}
        self.places |= {values[name] for name in ("id", "name") if name in values}
        self.links |= {values[name] for name in ("href", "src") if name in values}
        if "src" in values or values.get("rel") == "stylesheet":
            self.loaded.add(values.get("src") or values.get("href", ""))


def broken_links(site: Path) -> list[str]:
    """A line for each link that leads nowhere. Search pages and static files are not looked into."""
    pages = {path.resolve(): Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    pages = {path: page for path, page in pages.items() if "_static" not in path.parts}
    found = [] if pages else [f"{site} holds no pages"]
    for path, page in pages.items():
        found += [
            f"{path.name}: {link}: loaded from elsewhere" for link in sorted(page.loaded) if urlsplit(link).netloc
        ]
        for link in sorted(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or path.name in ("search.html", "genindex.html"):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir():
                target /= "index.html"
            if not target.is_file():
                found.append(f"{path.name}: {link}: no such file")
            elif target in pages and unquote(parts.fragment) not in pages[target].places:
                found.append(f"{path.name}: {link}: no such place")
    return found


def main() -> None:
    """Print what is broken, and end with status 1 if anything is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("site", type=Path)
    found = broken_links(parser.parse_args().site)
    print("\n".join(found) or "every internal link leads somewhere")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
