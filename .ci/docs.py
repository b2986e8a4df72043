"""README, pages and docstrings -> one site with search, or a list of their errors.

    python .ci/docs.py                   writes build/site/index.html; needs pip install -e '.[dev]'
    python .ci/docs.py -o FOLDER
    python -m http.server -d build/site  shows it; search needs a server

Every warning is an error: a link or an anchor that leads nowhere, a page that .ci/mkdocs.yml does not list, a name in a
docstring that does not exist (.ci/api_reference.py), a page that loads anything from another server.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("benchmarks", "export", "models", "runtime", "tests", "training")
LINK = re.compile(r'\]\(([^)\s]+)\)|<img src="([^"]+)"')
"""Pattern for the targets of Markdown's links and pictures, and of the README's small pictures."""
LOADING = {"img": "src", "link": "href", "script": "src"}
"""Tags whose target a browser loads by itself."""


def pages(root: Path) -> list[Path]:
    """Return all Markdown files of the repository, relative to its root."""
    found = [*root.glob("*.md"), *(page for folder in FOLDERS for page in (root / folder).rglob("*.md"))]
    return sorted(page.relative_to(root) for page in found)


def links(text: str) -> list[str]:
    """Return the targets of all links and pictures in a Markdown text, without those in code."""
    text = re.sub(r"^ *```.*?^ *```|`[^`\n]*`", "", text, flags=re.DOTALL | re.MULTILINE)
    return [markdown or html for markdown, html in LINK.findall(text)]


def stage(root: Path, folder: Path) -> None:
    """Copy all pages, and the files that they link to, into `folder` under the same paths."""
    for page in pages(root):
        text = (root / page).read_text(encoding="utf-8")
        linked = [(root / page).parent / unquote(urlsplit(link).path) for link in links(text) if "://" not in link]
        for file in [root / page, *linked]:
            if file.is_file():
                target = folder / file.resolve().relative_to(root)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)


class Targets(HTMLParser):
    """The links and anchors of one HTML file."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[tuple[str, bool]] = []
        """Each target, and whether a browser loads it by itself."""
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note one tag's anchor and target."""
        given = dict(attrs)
        self.anchors |= {value for name in ("id", "name") if (value := given.get(name))}
        loaded = given.get(LOADING.get(tag, ""))
        target = loaded or given.get("href") or ""
        # A link to the page's own address is not loaded.
        if target and given.get("rel") != "canonical":
            self.links.append((target, bool(loaded)))


def dead_links(site: Path) -> Iterator[str]:
    """Yield a line for each link of the built site that leads nowhere, or loads something from another server."""
    found = {page: Targets(page.read_text(encoding="utf-8")) for page in site.rglob("*.html")}
    for page, targets in sorted(found.items()):
        if page.name == "404.html":
            continue  # the links of this page start at the root of a server
        for link, loaded in targets.links:
            parts = urlsplit(link)
            if parts.scheme in ("http", "https") or parts.netloc:
                if loaded:
                    yield f"{page.relative_to(site)} loads {link} from another server"
                continue
            if parts.scheme:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            target = target / "index.html" if target.is_dir() else target
            if not target.exists():
                yield f"{page.relative_to(site)} links to {link}, which is not there"
            elif parts.fragment and target in found and unquote(parts.fragment) not in found[target].anchors:
                yield f"{page.relative_to(site)} links to {link}, which has no such heading"


def main() -> int:
    """Build the site and return the exit code: 1 if something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("build/site"), metavar="FOLDER", help="folder to write [%(default)s]"
    )
    parser.add_argument("--api", type=Path, metavar="FOLDER", help="folder of an existing API reference [build it]")
    options = parser.parse_args()
    site = options.output.resolve()
    with tempfile.TemporaryDirectory() as folder:
        stage(ROOT, Path(folder))
        commands: list[list[str | Path]] = [
            [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", ROOT / ".ci" / "mkdocs.yml"]
        ]
        if options.api is None:
            commands.insert(0, [sys.executable, ROOT / ".ci" / "api_reference.py", "-o", Path(folder) / "api"])
        else:
            shutil.copytree(options.api, Path(folder) / "api")
        environment = {**os.environ, "DOCS_DIR": folder, "SITE_DIR": str(site), "NO_MKDOCS_2_WARNING": "1"}
        for command in commands:
            done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                # mkdocs counts warnings only if it may also print them.
                problems = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("INFO")]
                print("\n".join(problems), file=sys.stderr)
                return done.returncode
    dead = list(dead_links(site))
    print("\n".join(dead), file=sys.stderr, end="\n" if dead else "")
    if not dead:
        print(f"{len(list(site.rglob('*.html')))} pages: {options.output / 'index.html'}")
    return 1 if dead else 0


if __name__ == "__main__":
    sys.exit(main())
