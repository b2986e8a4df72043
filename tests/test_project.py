"""READMEs, changelog, citation and CI agree with each other and with the folders."""

from __future__ import annotations

import ast
import hashlib
import re
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from tests.conftest import SLOW, TOGETHER

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def command_after(mark: str) -> str:
    """Return the README's command in the block after <!-- mark -->."""
    block = re.search(rf"<!-- {mark} -->\n```bash\n(.*)\n```", (ROOT / "README.md").read_text())
    assert block is not None, mark
    return block.group(1)


@pytest.mark.parametrize(
    ("page", "pattern"),
    [
        ("runtime/README.md", "facerecon_rt/**/*.py"),
        ("runtime/README.md", "examples/*.py"),
        ("export/README.md", "facerecon_export/**/*.py"),
        ("training/README.md", "facerecon_training/**/*.py"),
        ("training/README.md", "*.py"),
        ("benchmarks/README.md", "*.py"),
    ],
)
def test_every_module_is_named_in_its_folders_readme(page: str, pattern: str) -> None:
    folder = (ROOT / page).parent
    modules = {found.relative_to(folder).as_posix() for found in folder.glob(pattern)}
    modules = {module for module in modules if not module.endswith(("/__init__.py", "/__main__.py"))}
    assert modules
    assert not modules - set(LINK.findall((ROOT / page).read_text())), f"give each a line in {page}"


def test_the_functions_of_one_camera_frame_are_there() -> None:
    package = ROOT / "runtime" / "facerecon_rt"
    section = (ROOT / "runtime" / "README.md").read_text().partition("## One camera frame\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([\w/]+\.py)` \| (.*?) \|", section, re.MULTILINE)
    assert len(rows) > 10
    for module, functions in rows:
        tree = ast.parse((package / module).read_text())
        names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        for owner in (node for node in tree.body if isinstance(node, ast.ClassDef)):
            names |= {f"{owner.name}.{node.name}" for node in owner.body if isinstance(node, ast.FunctionDef)}
        assert not set(re.findall(r"`([\w.]+)`", functions)) - names, module


FOLDERS = ("", "sources", "providers", "networks", "faces", "sinks", "web", "commands", "bench", "archive")
"""Folders of the runtime in the order in which data flows; "" are the modules at the top."""
ENTRANCES = ("__init__", "cli", "annotated")
"""Modules at the top that reach into the folders: the package's public names, its command, and landmark errors."""


def test_no_folder_imports_from_a_folder_below_it() -> None:
    package = ROOT / "runtime" / "facerecon_rt"
    order = {folder: index for index, folder in enumerate(FOLDERS)}
    wrong = []
    for path in package.rglob("*.py"):
        here = path.relative_to(package).parts
        own = here[0] if len(here) > 1 else ""
        if not own and path.stem in ENTRANCES:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                folder = here[: len(here) - node.level]
                target = (*folder, *(node.module or "").split("."))[0]
                if order.get(target, 0) > order[own]:
                    wrong.append(f"{'/'.join(here)} imports from {target}/")
    assert set(FOLDERS) == {"", *(child.name for child in package.iterdir() if (child / "__init__.py").exists())}
    assert wrong == []


def test_every_top_level_folder_has_a_readme() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("this is no git checkout")
    folders = {path.partition("/")[0] for path in tracked.stdout.splitlines() if "/" in path and path[0] != "."}
    assert {"runtime", "export", "training", "tests", "benchmarks", "models"} <= folders
    assert [folder for folder in sorted(folders) if not (ROOT / folder / "README.md").is_file()] == []


def test_files_that_share_what_is_slow_to_build_run_in_one_process() -> None:
    asking: dict[str, set[str]] = {}
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                for argument in node.args.args:
                    asking.setdefault(argument.arg, set()).add(path.relative_to(ROOT).as_posix())
    assert {fixture: asking[fixture] for fixture in TOGETHER} == {name: set(files) for name, files in TOGETHER.items()}
    assert all((ROOT / file).is_file() for file in SLOW)


def test_ci_and_contributors_run_the_readmes_command() -> None:
    yaml = pytest.importorskip("yaml", reason="the extra `dev` is not installed")
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    steps = {name: [step["run"] for step in job["steps"] if "run" in step] for name, job in workflow["jobs"].items()}
    assert steps["test"][0].startswith("sudo apt-get update")
    assert steps["test"][1:] == [command_after("test"), "python .ci/docs.py", ".ci/wheel"]
    assert steps["runtime"][0] == command_after("run")
    assert f"\n{command_after('test')}\n" in (ROOT / "CONTRIBUTING.md").read_text()
    assert workflow["permissions"] == {"contents": "read"}
    # YAML takes the key `on` for true.
    assert set(workflow[True]) == {"push", "pull_request"}
    uses = [
        step["uses"].partition("@")[0] for job in workflow["jobs"].values() for step in job["steps"] if "uses" in step
    ]
    assert set(uses) == {"actions/checkout", "actions/setup-python"}


def test_ci_runs_every_python_that_is_promised() -> None:
    yaml = pytest.importorskip("yaml", reason="the extra `dev` is not installed")
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    (oldest,) = [step["with"]["python-version"] for step in jobs["runtime"]["steps"] if "with" in step]
    promised = re.search(r'^requires-python = ">=(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert promised is not None and promised.group(1) == oldest
    minors = [int(version.removeprefix("3.")) for version in (oldest, *jobs["test"]["strategy"]["matrix"]["python"])]
    assert all(later == earlier + 1 for earlier, later in pairwise(minors))


def test_no_dependency_may_come_in_a_new_major() -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has none")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    named = [one for some in (project["dependencies"], *extras.values()) for one in some]
    wanted = [one.partition(";")[0].strip() for one in named if not one.startswith("facerecon-rt[")]
    assert len(wanted) > 20
    for one in wanted:
        assert re.search(r">=[\d.]+,<\d+$|==[\d.]+$", one), one
    # An installed OpenCV stays.
    assert not any("opencv" in one for one in project["dependencies"])
    assert all("facerecon-rt[opencv]" in extras[name] for name in ("cpu", "gpu"))


def test_the_version_has_an_entry_in_the_changelog() -> None:
    version = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    entries = re.findall(r"^## \[(.+)\](?: - (\d{4}-\d\d-\d\d))?$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert entries[0] == ("Unreleased", "")
    assert version.group(1) in dict(entries)
    assert all(date for _, date in entries[1:])
    dates = [date for _, date in entries[1:]]
    assert dates == sorted(dates, reverse=True)


def test_the_citation_names_the_newest_release() -> None:
    yaml = pytest.importorskip("yaml", reason="the extra `dev` is not installed")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    newest = re.search(r"^## \[(\d.*)\] - (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert (citation["version"], str(citation["date-released"])) == newest.groups()
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= citation.keys()


def test_the_site_the_api_reference_and_the_release_are_not_committed() -> None:
    made = ["build/api", "build/site", "dist/SHA256SUMS"]
    ignored = subprocess.run(["git", "check-ignore", *made], cwd=ROOT, capture_output=True, text=True)
    if ignored.returncode == 128:
        pytest.skip("this is no git checkout")
    assert ignored.stdout.split() == made


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ("version", "CHANGELOG.md has no dated entry for 9.9.9"),
        ("changes", "there are changes that are not committed"),
        ("models", "models/ is not what models/SHA256SUMS says"),
    ],
)
def test_a_release_is_refused(tmp_path: Path, spoil: str, said: str) -> None:
    (tmp_path / ".ci").mkdir()
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "face.onnx").write_bytes(b"weights")
    script = tmp_path / ".ci" / "release"
    script.write_bytes((ROOT / ".ci" / "release").read_bytes())
    version = "9.9.9" if spoil == "version" else "1.2.3"
    (tmp_path / "pyproject.toml").write_text(f'[project]\nversion = "{version}"\n')
    (tmp_path / "CHANGELOG.md").write_text("## [1.2.3] - 2026-01-31\n")
    sha256 = "0" * 64 if spoil == "models" else hashlib.sha256(b"weights").hexdigest()
    (tmp_path / "models" / "SHA256SUMS").write_text(f"{sha256}  face.onnx\n")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "All"]):
        subprocess.run([*git, *command], cwd=tmp_path, check=True)
    if spoil == "changes":
        (tmp_path / "CHANGELOG.md").write_text("## [1.2.3] - 2026-01-31\nmore\n")
    done = subprocess.run(["bash", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert said in done.stderr
    assert not (tmp_path / "dist").exists()
