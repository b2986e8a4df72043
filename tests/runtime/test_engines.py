"""Engines are built once, kept in a folder that only their owner may write to, and not trusted after a change."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from facerecon_rt.errors import ProviderMissing
from facerecon_rt.providers import engines
from facerecon_rt.providers.engines import (
    ABOUT,
    default_root,
    entry_name,
    fault,
    is_kept,
    open_with_engine,
    private_entry,
)

KEY = {"model": "ab" * 32, "gpu": "H100", "tensorrt": "10.13.3"}


class Builder:
    """A stand-in for ONNX Runtime that reads the engine in a folder, or leaves a new engine there."""

    def __init__(self) -> None:
        self.built = 0
        self.read = 0
        self.fails: Callable[[Path | None], bool] = lambda folder: False

    def __call__(self, folder: Path | None) -> str:
        if self.fails(folder):
            raise ProviderMissing("no tensorrt: the engine does not load")
        if folder is not None and (folder / "a.engine").exists():
            self.read += 1
        else:
            self.built += 1
            if folder is not None:
                (folder / "a.engine").write_bytes(b"machine code")
        return "session"


@pytest.fixture
def builder() -> Builder:
    return Builder()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "engines"


def opened(root: Path, builder: Builder, key: dict[str, str] = KEY) -> str:
    return open_with_engine(root, key, "face.onnx", builder)


def test_an_engine_is_built_once(root: Path, builder: Builder) -> None:
    assert not is_kept(root, KEY)
    for _ in range(3):
        assert opened(root, builder) == "session"
    assert (builder.built, builder.read) == (1, 2)
    assert is_kept(root, KEY)
    assert stat.S_IMODE(root.stat().st_mode) == stat.S_IMODE((root / entry_name(KEY)).stat().st_mode) == 0o700


@pytest.mark.parametrize("part", KEY)
def test_another_model_machine_or_release_has_another_engine(root: Path, builder: Builder, part: str) -> None:
    opened(root, builder)
    opened(root, builder, {**KEY, part: "another"})
    assert builder.built == 2


def spoil_the_engine(entry: Path) -> None:
    (entry / "a.engine").write_bytes(b"other code")


def add_an_engine(entry: Path) -> None:
    (entry / "b.engine").write_bytes(b"more code")


def lose_the_list(entry: Path) -> None:
    (entry / ABOUT).unlink()


def garble_the_list(entry: Path) -> None:
    (entry / ABOUT).write_text("[1, 2")


def nest_the_list(entry: Path) -> None:
    (entry / ABOUT).write_text("[" * 100_000)


def make_the_list_a_device(entry: Path) -> None:
    (entry / ABOUT).unlink()
    (entry / ABOUT).symlink_to("/dev/zero")


def make_the_list_a_pipe(entry: Path) -> None:
    (entry / ABOUT).unlink()
    os.mkfifo(entry / ABOUT)


def make_the_list_endless(entry: Path) -> None:
    with (entry / ABOUT).open("wb") as file:
        file.truncate(10**12)


def make_the_list_a_folder(entry: Path) -> None:
    (entry / ABOUT).unlink()
    (entry / ABOUT).mkdir()


def make_the_engine_a_device(entry: Path) -> None:
    (entry / "a.engine").unlink()
    (entry / "a.engine").symlink_to("/dev/zero")


def add_a_pipe(entry: Path) -> None:
    os.mkfifo(entry / "b.engine")


def rename_it_from_another_key(entry: Path) -> None:
    about = json.loads((entry / ABOUT).read_text())
    about["key"]["gpu"] = "A100"
    (entry / ABOUT).write_text(json.dumps(about))


def open_it_to_all(entry: Path) -> None:
    entry.chmod(0o777)


def make_it_a_link(entry: Path) -> None:
    elsewhere = entry.with_name("elsewhere")
    entry.rename(elsewhere)
    entry.symlink_to(elsewhere)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (spoil_the_engine, "files have changed"),
        (add_an_engine, "files have changed"),
        (lose_the_list, "incomplete"),
        (garble_the_list, "cannot be read"),
        (nest_the_list, "cannot be read"),
        (make_the_list_a_device, "cannot be read"),
        (make_the_list_a_pipe, "cannot be read"),
        (make_the_list_endless, "cannot be read"),
        (make_the_list_a_folder, "cannot be read"),
        (make_the_engine_a_device, "cannot be read"),
        (add_a_pipe, "cannot be read"),
        (rename_it_from_another_key, "made for another key"),
        (open_it_to_all, "writable by others"),
        (make_it_a_link, "is a link"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_has_changed_is_set_aside_and_built_again(
    root: Path, builder: Builder, spoil: Callable[[Path], None], says: str, caplog: pytest.LogCaptureFixture
) -> None:
    opened(root, builder)
    entry = root / entry_name(KEY)
    for times in (1, 2):  # the entry that was set aside before is replaced
        spoil(entry)
        assert says in fault(entry, KEY)
        opened(root, builder)
        assert builder.built == 1 + times
        assert "is set aside" in caplog.text and says in caplog.text
        assert fault(entry, KEY) == ""
        assert os.path.lexists(root / f"{entry.name}.bad")
        if spoil is make_it_a_link:
            shutil.rmtree(root / "elsewhere")


@pytest.mark.parametrize("what", ["a pipe", "a file", "a link to a folder", "a folder with a pipe"])
def test_whatever_lies_where_engines_are_set_aside_makes_room(root: Path, builder: Builder, what: str) -> None:
    opened(root, builder)
    kept = root.parent / "kept"
    kept.mkdir()
    (kept / "file").touch()
    for place in (root / f"{entry_name(KEY)}.bad", root / f"{entry_name(KEY)}.building-x"):
        if what == "a pipe":
            os.mkfifo(place)
        elif what == "a file":
            place.touch()
        elif what == "a link to a folder":
            place.symlink_to(kept)
        else:
            place.mkdir()
            os.mkfifo(place / "pipe")
    spoil_the_engine(root / entry_name(KEY))
    opened(root, builder)
    assert builder.built == 2
    assert sorted(path.name for path in (root / f"{entry_name(KEY)}.bad").iterdir()) == ["a.engine", ABOUT]
    assert (kept / "file").exists()
    assert is_kept(root, KEY)


def test_what_belongs_to_another_user_is_not_read(
    root: Path, builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(root, builder)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert fault(root / entry_name(KEY), KEY) == "it belongs to another user"
    opened(root, builder)  # nothing is written there either
    assert builder.built == 2
    assert not list(root.glob("*.bad"))


def test_an_engine_that_does_not_load_is_built_again(root: Path, builder: Builder) -> None:
    opened(root, builder)
    builder.fails = lambda folder: folder is not None and (folder / "a.engine").exists()
    assert opened(root, builder) == "session"
    assert builder.built == 2


def test_a_user_without_a_home_keeps_no_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    assert default_root() == Path("/nonexistent/facerecon-rt/engines")
    assert not is_kept(default_root(), KEY)


def test_a_provider_that_never_starts_leaves_nothing(root: Path, builder: Builder) -> None:
    builder.fails = lambda folder: True
    with pytest.raises(ProviderMissing, match="does not load"):
        opened(root, builder)
    assert [path.suffix for path in root.iterdir()] == [".lock"]


@pytest.mark.parametrize("when", ["before", "at the end"])
def test_a_full_disk_costs_the_cache_and_not_the_session(
    root: Path, builder: Builder, when: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if when == "before":
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10))
    else:
        monkeypatch.setattr(engines, "seal", full)
    assert opened(root, builder) == "session"
    assert builder.built == 1
    assert "MB are free" in caplog.text if when == "before" else "No space left" in caplog.text
    assert not list(root.glob(entry_name(KEY)))
    assert not list(root.glob("*building*"))


def test_what_a_killed_builder_left_is_removed(root: Path, builder: Builder) -> None:
    left = root / f"{entry_name(KEY)}.building-abc"
    left.mkdir(parents=True, mode=0o700)
    root.chmod(0o700)
    opened(root, builder)
    assert not left.exists()


def test_an_entry_that_a_provider_keeps_itself_is_private_too(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    entry = private_entry(root, KEY)
    assert entry is not None and stat.S_IMODE(entry.stat().st_mode) == 0o700
    (entry / "cache").touch()
    assert private_entry(root, KEY) == entry
    entry.chmod(0o777)
    assert private_entry(root, KEY) is None
    assert "is writable by others" in caplog.text


def test_a_folder_that_others_write_to_keeps_no_engines(
    root: Path, builder: Builder, caplog: pytest.LogCaptureFixture
) -> None:
    root.mkdir(parents=True)
    root.chmod(0o777)
    assert opened(root, builder) == "session"
    assert "is writable by others (chmod 700)" in caplog.text
    assert not list(root.iterdir())


def test_a_cache_that_cannot_be_made_is_done_without(
    tmp_path: Path, builder: Builder, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    assert opened(tmp_path / "file" / "engines", builder) == "session"
    assert "engines are not kept" in caplog.text


def test_the_second_of_two_processes_waits_and_reads_what_the_first_built(
    root: Path, builder: Builder, caplog: pytest.LogCaptureFixture
) -> None:
    program = (
        "import sys; from pathlib import Path; from facerecon_rt.providers.engines import open_with_engine\n"
        "def build(folder):\n"
        "    print('building', flush=True); sys.stdin.readline()\n"
        "    (folder / 'a.engine').write_bytes(b'theirs')\n"
        f"open_with_engine(Path(sys.argv[1]), {KEY!r}, 'face.onnx', build)\n"
    )
    command = [sys.executable, "-c", program, str(root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin and other.stdout
        assert other.stdout.readline() == "building\n"
        caplog.set_level(logging.INFO, "facerecon_rt")
        waiting = threading.Thread(target=opened, args=(root, builder))
        waiting.start()
        while "another process that builds" not in caplog.text:
            waiting.join(0.01)
        assert builder.read == 0
        other.stdin.write("\n")
        other.stdin.flush()
        waiting.join(20)
    assert (builder.built, builder.read) == (0, 1)
    assert (root / entry_name(KEY) / "a.engine").read_bytes() == b"theirs"


def test_long_work_says_that_it_goes_on(
    root: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "facerecon_rt")
    monkeypatch.setattr(engines, "HEARTBEAT_S", 0.001)
    beaten = threading.Event()
    monkeypatch.setattr(engines.log, "info", lambda text, *args: beaten.set() if text == "%s: %.0f s" else None)
    with engines.heartbeat("building"):
        assert beaten.wait(20)
    assert "heartbeat" not in [thread.name for thread in threading.enumerate()]
