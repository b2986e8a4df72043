"""benchmarks/pages.py: pages have the figures of the results that they quote, and every new result reaches them."""

from __future__ import annotations

import hashlib
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from facerecon_rt.errors import UsageError

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"


@pytest.fixture(scope="module")
def pages() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        yield importlib.import_module("pages")


@pytest.fixture(scope="module")
def quotes(pages: ModuleType) -> ModuleType:
    return sys.modules["quotes"]


def read(name: str) -> Any:
    return json.loads((RESULTS / name).read_text())


@pytest.mark.parametrize(("folder", "model"), [(".", "face.onnx"), ("clean", "face.clean.onnx")])
def test_accuracy_is_that_of_the_shipped_model(folder: str, model: str) -> None:
    shipped = hashlib.sha256((ROOT / "models" / model).read_bytes()).hexdigest()
    assert shipped.startswith(read(f"{folder}/accuracy.json")["model"])


def test_rendered_people_were_evaluated_with_the_shipped_weights() -> None:
    """The report names no weights, but the true boxes' errors are those of the same crops in another script."""
    evaluated = read("evaluate.json")["Landmarks, true box"]["lfpw-test"]["nme_inner51"]
    assert evaluated == pytest.approx(read("precisions.json")["files"]["face.onnx"]["nme_inner51"], abs=1e-3)


def test_pages_have_the_figures_of_the_results() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "pages.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"run python benchmarks/pages.py\n{done.stdout}{done.stderr}"


def test_every_main_page_quotes_results(quotes: ModuleType) -> None:
    quoted = {quote.page for quote in quotes.quotes()}
    assert quoted >= {"README.md", "models/README.md", "models/face.clean.md", "benchmarks/docs/accuracy.md"}
    assert all(quote.figures for quote in quotes.quotes())


def test_figures_are_rewritten_and_nothing_else(quotes: ModuleType) -> None:
    page = "| inner, 51 points | **3.11 %** | – |\nAn error of\n2 degrees, and 2 pixels.\n"
    row = quotes.quote("a.md", "| inner, 51 points | **{} %** | {} |", "2.95", "0.70")
    assert row.written(page) == page.replace("3.11", "2.95").replace("–", "0.70")
    sentence = quotes.quote("a.md", "An error of {} degrees,", "1.75")
    assert sentence.written(page) == page.replace("2 degrees", "1.75 degrees")


def test_a_quote_that_is_not_there_once_is_named(quotes: ModuleType) -> None:
    for page, count in (("nothing", 0), ("3 mm and 4 mm", 2)):
        with pytest.raises(UsageError, match=rf"a\.md has {count} places like '{{}} mm'"):
            quotes.quote("a.md", "{} mm", "1").written(page)
    with pytest.raises(ValueError, match="has 2 places for 1 figures"):
        quotes.quote("a.md", "{} / {} mm", "1")


def test_a_stale_page_is_rewritten_or_only_named(
    pages: ModuleType, quotes: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    page = tmp_path / "page.md"
    page.write_text("An error of 2 mm.\nNo figure.\n")
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    monkeypatch.setattr(pages, "quotes", lambda: [quotes.quote("page.md", "error of {} mm", "1.5")])
    assert pages.main(["--check"]) == 1
    assert capsys.readouterr().out.startswith("page.md\n- An error of 2 mm.\n+ An error of 1.5 mm.\n")
    assert page.read_text() == "An error of 2 mm.\nNo figure.\n"
    assert pages.main([]) == 0
    assert page.read_text() == "An error of 1.5 mm.\nNo figure.\n"
    assert pages.main(["--check"]) == 0
