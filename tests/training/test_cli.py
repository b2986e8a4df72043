"""facerecon-train: help at once, one line for what is wrong, exit codes."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from facerecon_training.checkpoint import load_weights, save_weights
from facerecon_training.cli import build_parser, idle_options, main, next_steps, train_config
from facerecon_training.data import CLEAN_BATCH, BatchConfig
from facerecon_training.model import FaceModel, ModelConfig

from tests.interrupted import console_script, signalled_while_importing
from tests.numbers import assert_numbers_have_a_range


def commands() -> list[str]:
    (choices,) = (action.choices for action in build_parser()._actions if isinstance(action.choices, dict))
    return list(choices)


@pytest.fixture(autouse=True)
def no_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FACERECON_DATA", raising=False)


def complaint(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and what was said on stderr, which must be one line."""
    code = main(arguments)
    text = capsys.readouterr().err
    assert text.startswith("facerecon-train: ")
    assert text.count("\n") == 1
    return code, text


@pytest.mark.parametrize("command", ["", *commands()])
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*command.split(), "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert f"usage: facerecon-train {command}".rstrip() in text


def test_the_commands_are_those_of_the_readme() -> None:
    assert {"prepare", "train", "evaluate", "sample-clip"} <= set(commands())


def test_help_loads_neither_torch_nor_the_face_model() -> None:
    code = (
        "import sys; from facerecon_training.cli import build_parser; build_parser().format_help(); "
        "sys.exit(bool({'torch', 'scipy', 'matplotlib'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_command_or_an_unknown_one_is_exit_code_2() -> None:
    for arguments in ([], ["paint"]):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 2


@pytest.mark.parametrize("command", ["prepare", "train"])
def test_without_a_data_folder_the_option_is_named(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = complaint([command], capsys)
    assert code == 2
    assert "no data folder was given; give --data or set FACERECON_DATA" in text


@pytest.mark.parametrize("command", ["prepare", "train"])
def test_a_data_folder_that_is_not_there_is_named(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = complaint([command, "--data", str(tmp_path / "nowhere")], capsys)
    assert code == 2
    assert f"--data {tmp_path / 'nowhere'} is not a folder" in text


def test_the_data_folder_may_come_from_the_environment(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FACERECON_DATA", str(data))
    code, text = complaint(["prepare", "--clean", "--out", str(tmp_path / "out")], capsys)
    assert code == 2
    assert f"no face model at {data / 'face_model' / 'ict_facekit.npz'}; run `git clone" in text


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["prepare"], 2, "faces holds no folder of annotated photographs"),
        (["prepare", "--photographs", "mine"], 5, "faces/mine is not a folder of photographs"),
        (
            ["train", "--backbone", "huge"],
            2,
            "there is no such backbone; choose one of compact, medium, mobile, resnet18, resnet50, densenet121, tiny",
        ),
        (["train", "--size", "100"], 2, "--size 100: must be a multiple of 32, at least 64"),
        (["train", "--prepared", "nowhere", "--device", "abacus"], 2, "--device abacus is not supported"),
        (["train", "--prepared", "nowhere", "--pictures", "65"], 2, "a batch has 66 crops; give at least as many"),
        (["train", "--prepared", "nowhere"], 2, "nowhere holds no prepared data; run `facerecon-train prepare"),
        (["train", "--init", "missing.safetensors"], 3, "no weights at missing.safetensors"),
    ],
)
def test_what_makes_no_sense_is_said_in_one_line(
    arguments: list[str], code: int, text: str, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, said = complaint([*arguments, "--data", str(data)], capsys)
    assert found == code
    assert text in said


def test_every_number_has_a_range() -> None:
    assert assert_numbers_have_a_range(build_parser()) > 10


def test_ctrl_c_while_torch_is_imported_is_exit_code_130(tmp_path: Path) -> None:
    # Before the arguments are understood it ends at once; later the import goes on to its end first.
    command = console_script("facerecon-train", tmp_path)
    for module, arguments, go_on, what in (
        ("cv2", ["--help"], False, "facerecon-train: interrupted\n"),
        ("torch", ["average", "a.safetensors", "b.safetensors", "-o", "c.safetensors"], True, ""),
    ):
        folder = tmp_path / module
        folder.mkdir()
        code, said = signalled_while_importing([*command, *arguments], module, signal.SIGINT, folder, go_on=go_on)
        assert (code, said) == (130, what)


@pytest.mark.parametrize("text", ["mine", "mine=", "mine=much", "mine=-1", "mine=1,-2", "mine=nan"])
def test_a_folder_is_a_name_a_share_and_a_weight(text: str, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = complaint(["train", "--data", str(data), "--folder", text], capsys)
    assert code == 2
    assert f"--folder {text}: " in said


def test_a_share_alone_leaves_a_folder_its_weight(data: Path, prepared: Path) -> None:
    words = ["--folder", "aaf-train=0.3", "--folder", "mine=0.5", "--folder", "afw=0.1,0.2"]
    options = build_parser().parse_args(["train", "--data", str(data), "--prepared", str(prepared), *words])
    assert [(one.share, one.weight) for one in train_config(options).folders] == [(0.3, 0.7), (0.5, 1.0), (0.1, 0.2)]


def test_terms_that_no_file_may_hold_are_refused(
    data: Path, prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    words = ["--prepared", str(prepared), "--run", str(run), "--terms", "for tests\nonly"]
    code, said = complaint(["train", "--data", str(data), *words], capsys)
    assert (code, run.exists()) == (2, False)
    assert "--terms 'for tests\\nonly': terms is not a text of one line" in said


def test_loss_weights_that_do_nothing_are_named(data: Path) -> None:
    def said(*words: str) -> list[str]:
        return idle_options(build_parser().parse_args(["train", "--data", str(data), *words]))

    assert said("--loss", "shape=3") == []
    assert said("--loss", "distillation=2", "--distil", "a.safetensors") == []
    assert said("--loss", "skin_prior=1", "--loss", "photometric=1") == []
    assert said("--loss", "distillation=2", "--loss", "skin_prior=1") == [
        "--loss distillation does nothing here; it is for --distil",
        "--loss skin_prior does nothing here; it is for --loss photometric",
    ]


def test_the_head_is_written_to_an_npz_file_alone(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = complaint(["head", "--data", str(data), "out.bin"], capsys)
    assert code == 2
    assert "out.bin: give a path ending in .npz" in said


def test_clean_and_photographs_exclude_each_other(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["prepare", "--data", str(data), "--clean", "--photographs", "mine"])
    assert stopped.value.code == 2
    assert "not allowed with argument" in capsys.readouterr().err


def test_the_recipe_leads_step_by_step_to_the_shipped_network(data: Path, prepared: Path, tmp_path: Path) -> None:
    # In place of the program: a note of how it was called. A step of training leaves an untrained network.
    calls = tmp_path / "calls"
    program = tmp_path / "facerecon-train"
    program.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n')
    program.chmod(0o755)
    recipe = Path(__file__).parents[2] / "training" / "recipe.sh"
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    start = tmp_path / "runs" / "start.safetensors"
    start.parent.mkdir()
    save_weights(FaceModel(ModelConfig("tiny", 64)), start)
    subprocess.run(["bash", str(recipe), str(data), str(tmp_path / "runs")], env=environment, check=True)
    made = {start}
    for line in calls.read_text().splitlines():
        options = build_parser().parse_args(line.split())
        if "pictures" in options:
            needed = [*filter(None, [options.init]), *options.distil]
            made_by_it = {options.run / "face.safetensors"}
            options.prepared = prepared
            options.run.mkdir()
            save_weights(FaceModel(train_config(options).model), options.run / "face.safetensors")
        else:
            needed = getattr(options, "weights", [])
            made_by_it = {options.out} if options.out is not None else set()
        assert set(needed) <= made, line
        if line.startswith("average "):
            shutil.copy(needed[0], options.out)
        made |= made_by_it
    last = load_weights(tmp_path / "runs" / "final" / "face.safetensors").config
    assert (last.backbone, last.input_size) == ("medium", 160)


def network(arguments: list[str], data: Path, prepared: Path) -> ModelConfig:
    """The network that `train` with these arguments trains."""
    options = ["train", "--data", str(data), "--prepared", str(prepared), *arguments]
    return train_config(build_parser().parse_args(options)).model


def test_the_default_backbone_and_size_are_the_shipped_ones(data: Path, prepared: Path) -> None:
    shipped = Path(__file__).parents[2] / "models" / "face.safetensors"
    trained = network([], data, prepared), network(["--init", str(shipped)], data, prepared)
    for model in (*trained, load_weights(shipped).config):
        assert (model.backbone, model.input_size) == ("medium", 160)
    # Heads and features that older weights lack are added.
    assert all((model.gaze, model.places) == (True, 128) for model in trained)


def test_clean_data_have_few_photographs_in_a_batch(data: Path, prepared: Path, tmp_path: Path) -> None:
    (tmp_path / "prepare.json").write_text('{"clean": true}')
    for folder, expected in ((prepared, BatchConfig()), (tmp_path, CLEAN_BATCH)):
        options = build_parser().parse_args(["train", "--data", str(data), "--prepared", str(folder)])
        assert train_config(options).batch == expected
    assert CLEAN_BATCH.photographs + CLEAN_BATCH.head_poses < CLEAN_BATCH.size / 4


def test_init_gives_the_network_unless_another_is_named(data: Path, prepared: Path, tmp_path: Path) -> None:
    init = tmp_path / "small.safetensors"
    save_weights(FaceModel(ModelConfig("tiny", 64, shape_code=8, hidden=16)), init)
    for arguments, expected in (
        ([], ("tiny", 64)),
        (["--size", "96"], ("tiny", 96)),
        (["--backbone", "compact"], ("compact", 64)),
    ):
        model = network(["--init", str(init), *arguments], data, prepared)
        assert (model.backbone, model.input_size, model.shape_code, model.hidden) == (*expected, 8, 16)


def test_the_next_steps_are_commands_that_work() -> None:
    said = next_steps(Path("runs/face/face.safetensors"), Path("DATA"))
    assert "evaluate runs/face/face.safetensors --data DATA and" in said
    assert "facerecon-export runs/face/face.safetensors -o out/ " in said
    assert "--data" not in next_steps(Path("mean.safetensors"))


def test_weights_are_averaged_into_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / f"{name}.safetensors" for name in "ab"]
    for file in files:
        save_weights(FaceModel(ModelConfig("tiny", 64, shape_code=8, hidden=16, terms="mine")), file)
    names, target = [str(file) for file in files], tmp_path / "mean.safetensors"
    assert main(["average", *names, "-o", str(target)]) == 0
    assert load_weights(target).config.terms == "mine"
    capsys.readouterr()
    assert complaint(["average", *names, "-o", str(tmp_path / "mean.onnx")], capsys)[0] == 2
    assert (
        "does not exist; create it first"
        in complaint(["average", *names, "-o", str(tmp_path / "no" / "m.safetensors")], capsys)[1]
    )
    assert complaint(["average", names[0], "-o", str(target)], capsys)[0] == 2
    code, said = complaint(["average", *names, "-o", names[0]], capsys)
    assert (code, "is an input and would be overwritten; choose another name" in said) == (2, True)
