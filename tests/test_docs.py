"""The README and the pages: short, linked, with commands and options that the programs take; and the site builds."""

from __future__ import annotations

import argparse
import ast
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import cv2
import facerecon_rt.cli
import pytest

ROOT = Path(__file__).parents[1]
MOST_BYTES = 8000
CLIP = ROOT / "tests" / "data" / "talking_head.mp4"


def _docs() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs", ROOT / ".ci" / "docs.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


docs = _docs()
PAGES = [page.as_posix() for page in docs.pages(ROOT)]
USER_PAGES = [page for page in PAGES if "/docs/" in page or page == "runtime/deploy/README.md"]
NOT_RUN = "runtime/docs/not-run.md"


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_bytes()) <= MOST_BYTES


# Links


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for link in docs.links(text_of(page)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


@pytest.mark.parametrize("page", ["README.md", *(page for page in USER_PAGES if page != NOT_RUN)])
def test_a_page_says_where_to_find_what_was_not_run(page: str) -> None:
    linked = [((ROOT / page).parent / link.partition("#")[0]).resolve() for link in docs.links(text_of(page))]
    assert ROOT / NOT_RUN in linked


NEEDS_A_CLONE = ("runtime/docs/gpu.md", "runtime/deploy/README.md", "runtime/docs/onnx.md")
"""Pages about files that the wheel does not carry, or without the command."""


@pytest.mark.parametrize("page", [page for page in USER_PAGES if page not in NEEDS_A_CLONE])
def test_commands_find_their_model_outside_of_a_clone(page: str) -> None:
    assert not re.search(r"^facerecon-rt .*--model models/|`facerecon-rt [^`]*--model models/", text_of(page), re.M)


def test_what_was_not_run_is_dated() -> None:
    assert re.search(r"State of \d{1,2} [A-Z][a-z]+ 20\d\d\.", text_of(NOT_RUN))


@pytest.mark.parametrize("page", PAGES)
def test_scripts_that_a_page_names_are_there(page: str) -> None:
    for script in re.findall(r"python ((?:benchmarks|runtime|\.ci)/[\w/.]+\.py)", text_of(page)):
        assert (ROOT / script).is_file(), script


def test_results_that_the_benchmarks_page_names_are_there_or_marked() -> None:
    found = 0
    for row in re.findall(r"^\| \[`.*$", text_of("benchmarks/README.md"), re.MULTILINE):
        for name, after in re.findall(r"`([\w/]+\.(?:md|png|jpg))`([^`]*)", row.split(" | ")[2]):
            assert "not committed" in after or (ROOT / "benchmarks" / "results" / name).is_file(), name
            found += 1
    assert found > 20


# Commands


def commands_of(page: str) -> list[list[str]]:
    """Return the words of each command of this project in a page's blocks, without pipes and redirections."""
    found = []
    for block in re.findall(r"^ *```bash\n(.*?)^ *```", text_of(page), re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            for part in line.split(" && "):
                words = shlex.split(part, comments=True)
                if words and words[0] in ("facerecon-rt", "facerecon-export", "facerecon-train"):
                    end = min((words.index(sign) for sign in ("|", ">") if sign in words), default=len(words))
                    found.append(words[:end])
    return found


COMMANDS = [(page, command) for page in PAGES for command in commands_of(page)]


class Taken(Exception):
    """The options were accepted, so the command need not run."""


@pytest.mark.parametrize(("page", "command"), COMMANDS, ids=[f"{page}-{' '.join(words)}" for page, words in COMMANDS])
def test_commands_in_pages_are_ones_that_the_programs_take(
    page: str, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    parse = argparse.ArgumentParser.parse_args

    def taken(self: argparse.ArgumentParser, *given: list[str]) -> None:
        parse(self, *given)
        raise Taken

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", taken)
    program, *arguments = command
    if program == "facerecon-rt":
        main = facerecon_rt.cli.main
    else:
        package = "facerecon_" + {"facerecon-export": "export", "facerecon-train": "training"}[program]
        main = pytest.importorskip(f"{package}.cli", reason="the extra `dev` is not installed").main
    with pytest.raises(Taken):
        main(arguments)


# Options

NUMBER = re.compile(r"\d+(?:\.\d+)?")


def options_in_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Return the default, in the last brackets, of each option with its metavar in --help."""
    with pytest.raises(SystemExit):
        facerecon_rt.cli.main([*command, "--help"])
    found: dict[str, str] = {}
    name = ""
    for line in capsys.readouterr().out.splitlines():
        if line.startswith("  -"):
            name, _, text = line.strip().partition("  ")
            found[name] = text
        elif line.startswith(" " * 20) and name:
            found[name] += " " + line.strip()
        else:
            name = ""
    found.pop("-h, --help")
    return {name: (re.findall(r"\[([^\[\]]*)\]", text) or [""])[-1] for name, text in found.items()}


def options_in_page(heading: str) -> dict[str, str]:
    """Return the last column, the default, by the first column of a section's tables."""
    section = text_of("runtime/docs/cli.md").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`-.*?) \| .* \| (.*?) ?\|$", section, re.MULTILINE)
    return {name.replace("`", "").replace("\\|", "|"): default.replace("`", "") for name, default in rows}


@pytest.mark.parametrize("command", ["", "doctor", "build", "mesh", "bench", "bench compare", "archive"])
def test_the_tables_of_options_are_the_programs(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    there = options_in_help(command.split(), capsys)
    written = options_in_page(f"facerecon-rt {command}".strip())
    assert set(written) == set(there), "runtime/docs/cli.md has a row for each option"
    for option, default in there.items():
        choices = re.findall(r"\{(.*)\}", option)
        if choices and default in choices[0].split(","):
            assert written[option] == default, option
        elif NUMBER.search(default):
            assert set(NUMBER.findall(default)) <= set(NUMBER.findall(written[option])), option


def test_the_readme_shows_ten_options_of_the_program(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    there = {option.split()[0] for option in options_in_help([], capsys)}
    shown = re.findall(r"^\| `(--[\w-]+)", text_of("README.md"), re.MULTILINE)
    assert len(shown) == 10
    assert set(shown) <= there


def test_each_extra_has_a_row() -> None:
    extras = (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    written = re.findall(r"^\| `(\w+)` \|", text_of("runtime/docs/install.md"), re.MULTILINE)
    assert sorted(written) == sorted(re.findall(r"^(\w+) = \[", extras, re.MULTILINE))


# Messages


def texts_of_the_runtime() -> Iterator[str]:
    """Yield every text in the runtime's code, with … in place of each value."""
    for module in (ROOT / "runtime" / "facerecon_rt").rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_messages_that_troubleshooting_quotes_are_ones_that_the_program_says() -> None:
    quoted = re.findall(r"^### `([^`]* [^`]*)`$", text_of("runtime/docs/troubleshooting.md"), re.MULTILINE)
    assert len(quoted) > 10
    texts = list(texts_of_the_runtime())
    for message in quoted:
        # A message may be put together from several texts.
        for part in (part.strip(" :;,()") for part in message.split("…") if part.strip(" .:;,()")):
            assert any(part in text for text in texts), f"{message}: nothing says {part!r}"


# Code


@pytest.mark.parametrize("page", ["README.md", "runtime/docs/python.md"])
def test_the_python_of_a_page_runs(page: str, tmp_path: Path) -> None:
    (block,) = re.findall(r"<!-- python -->\n```python\n(.*?)```", text_of(page), re.DOTALL)
    (tmp_path / "models").symlink_to(ROOT / "models")
    capture = cv2.VideoCapture(str(CLIP))
    frames = [capture.read()[1] for _ in range(3)]
    capture.release()
    for name in ("photo", "a", "b"):
        cv2.imwrite(str(tmp_path / f"{name}.jpg"), frames[0])
    height, width = frames[0].shape[:2]
    video = cv2.VideoWriter(str(tmp_path / "video.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 25.0, (width, height))
    for frame in frames:
        video.write(frame)
    video.release()
    done = subprocess.run(
        [sys.executable, "-c", block],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "(4032, 3)" in done.stdout
    assert done.stdout.count("\n1 ") == len(frames)  # the track of each frame of the video


# The site


def test_the_site_is_built_without_a_warning(api_reference: Path, tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="the extra `dev` is not installed")
    done = subprocess.run(
        [sys.executable, ROOT / ".ci" / "docs.py", "--api", api_reference, "-o", tmp_path / "site"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (0, "")
    for page in PAGES:
        name = page.replace("README.md", "index.md").replace(".md", ".html")
        assert (tmp_path / "site" / name).is_file(), page
    assert 'href="api/index.html"' in (tmp_path / "site" / "index.html").read_text()
    index = json.loads((tmp_path / "site" / "search" / "search_index.json").read_text())
    found = {entry["location"].partition("#")[0] for entry in index["docs"] if "One Euro" in entry["text"]}
    assert "runtime/docs/cli.html" in found


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ('<a href="there.html#here">', None),
        ('<a href="#top"><i id="top">', None),
        ('<a href="https://example.org/">', None),
        ('<a href="folder/">', None),
        ('<a href="gone.html">', "page.html links to gone.html, which is not there"),
        ('<a href="there.html#gone">', "page.html links to there.html#gone, which has no such heading"),
        ('<img src="gone.jpg">', "page.html links to gone.jpg, which is not there"),
        (
            '<script src="https://example.org/a.js">',
            "page.html loads https://example.org/a.js from another server",
        ),
    ],
)
def test_a_link_of_the_site_that_leads_nowhere_is_found(tmp_path: Path, page: str, said: str | None) -> None:
    (tmp_path / "page.html").write_text(page)
    (tmp_path / "there.html").write_text('<h1 id="here">Here</h1>')
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "index.html").write_text("")
    assert list(docs.dead_links(tmp_path)) == ([] if said is None else [said])
