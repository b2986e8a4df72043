"""Malformed lists of sources, folders of engines, names and numbers."""

from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path

import numpy as np
from facerecon_rt.providers.engines import ABOUT, entry_name, seal
from numpy.random import Generator

from .damage import chosen, damaged, spoiled_json, written

KEY = {"model": "ab" * 32, "gpu": "H100", "tensorrt": "10.13.3"}
"""Key of an engine."""


ENTRY = {
    "uri": "cam0",
    "name": "door",
    "size": "1280x720",
    "fps": "15",
    "flip": "180",
    "timeout": "2.5",
    "retries": "3",
}
"""Valid entry of a list of sources."""


def yaml_list(random: Generator, folder: Path) -> Path:
    """Write a sources.yaml that uses random YAML features, or a damaged valid file."""
    kind = random.random()
    if kind < 0.4:
        good = "sources:\n  - &a {uri: 'rtsp://u:p@host/door', name: door, fps: 15, size: 1280x720, flip: 180}\n"
        good += "  - {<<: *a, name: other, timeout: 2.5, retries: null}\n  - cam0\n  - photo.jpg\n"
        data = damaged(good.encode(), random)
    elif kind < 0.5:
        names = "abcdefghi"[: int(random.integers(2, 10))]
        times = int(random.integers(2, 40))
        lines = [f"{names[0]}: &{names[0]} {chosen(random, ('{x: 1}', '[x, x, x]', 'x'))}"]
        for before, name in pairwise(names):
            inside = ", ".join([f"*{before}"] * times)
            lines.append(f"{name}: &{name} " + chosen(random, (f"[{inside}]", f"{{<<: [{inside}]}}")))
        data = "\n".join(
            [*lines, f"sources: {chosen(random, ('[{uri: cam0, name: *' + names[-1] + '}]', '*' + names[-1]))}"]
        ).encode()
    else:
        entries = []
        for _ in range(int(random.integers(1, 6))):
            pairs = [
                f"{key}: {good if random.random() < 0.8 else _yaml_value(random, 0)}"
                for key, good in ENTRY.items()
                if key == "uri" or random.random() < 0.5
            ]
            entries.append("{" + ", ".join(pairs) + "}")
        data = "\n".join(f"- {entry}" for entry in entries).encode("utf-8", "surrogatepass")
    return written(folder / "sources.yaml", data)


def _yaml_value(random: Generator, depth: int) -> str:
    if depth < 4 and random.random() < 0.15:
        inside = ", ".join(_yaml_value(random, depth + 1) for _ in range(int(random.integers(0, 4))))
        return chosen(random, (f"[{inside}]", f"{{? [{inside}] : x}}", f"{{a: [{inside}]}}"))
    texts = (
        "cam0", "cam99999999999999999999", "photo.jpg", "rtsp://127.0.0.1:9/a", "15", "-1", "0", "1e999", ".nan",
        ".inf", "0x7fffffff", "0b11", "1_000", ":".join(["59"] * 50), ":".join(["59"] * 500) + ".5", "9" * 5000,
        "2024-01-31", "2024-13-45", "12:30:45", "yes", "null", "~", "''", '"a\\nb"', '"\\e[31m"', '"\\ud800"', '"\\0"',
        '"\\Uffffffff"', "!!binary aGFsbG8=", "!!python/object:os.system x", "!!int x", "!!float x", "!<tag:x> y",
        "*nothing", "&a b", "&a *a", "1280x720", "0x0", "99999x99999", "x" * 3000, "180", "horizontal", "'${HOME}'",
        "'http://h/${NOT_SET}'", "|\n x", ">\n y", "%", "@", "`", "- -", "? ?", "\t",
    )  # fmt: skip
    return str(chosen(random, texts))


def engines(random: Generator, folder: Path) -> Path:
    """Make a folder of engines that somebody else changed."""
    root = folder / "engines"
    entry = root / entry_name(KEY)
    entry.mkdir(parents=True)
    for each in (root, entry):
        each.chmod(0o700)
    (entry / "a.engine").write_bytes(random.integers(0, 256, 200, np.uint8).tobytes())
    seal(entry, KEY)
    about = entry / ABOUT
    whole = json.loads(about.read_text())
    for _ in range(int(random.integers(1, 3))):
        place = chosen(
            random, (about, about, entry / "a.engine", entry / "b.engine", entry, root / f"{entry.name}.bad")
        )
        kind = int(random.integers(8))
        if kind < 3 and place == about and about.is_file() and not about.is_symlink():
            about.write_bytes(spoiled_json(whole, random).encode("utf-8", "surrogatepass"))
            continue
        if place in (entry, root):
            place.chmod(int(chosen(random, (0o777, 0o700, 0o722, 0o755))))
            continue
        if os.path.lexists(place) and (place.is_symlink() or not place.is_dir()):
            place.unlink()
        if os.path.lexists(place):
            continue
        if kind == 3:
            os.mkfifo(place)
        elif kind == 4:
            place.symlink_to(chosen(random, ("/dev/zero", "/dev/null", "/etc/passwd", "nothing", ".", place.name)))
        elif kind == 5:
            place.mkdir()
        elif kind == 6:
            with place.open("wb") as file:
                file.truncate(10**12)
        else:
            place.write_bytes(random.integers(0, 256, int(random.integers(0, 300)), np.uint8).tobytes())
    return root


PIECES = (
    "a", "photo", "ä", "中", "\n", "\r", "\x1b[31m", "\t", " ", ".", "..", "/", "//", "*", "**", "?", "[", "]", "{",
    "}", "%s", "%", "$", "${HOME}", "${NOT_SET}", "~", "-", "--", ":", "@", "#", "\\", "'", '"', "\u2028", "\u202e",
    "\udcff", "\udc80", "cam", "cam0", "cam9999", "csi://", "file://", "rtsp://127.0.0.1:9/",
    "http://127.0.0.1:9/a?token=x", "x" * 100, "x" * 300, "/dev/", "/proc/self/", "/tmp", "9" * 30, "\x7f", "\x80",
    "\xa0", "&", ";", "|", "<", ">", "=", ",",
)  # fmt: skip
SUFFIXES = (
    ".jpg", ".png", ".mp4", ".avi", ".yaml", ".jsonl", ".obj", ".ply", ".glb", ".rrd", ".mkv", ".pts", "", ".JPG",
    ".x", "/",
)  # fmt: skip
NUMBERS = (
    "0", "1", "-1", "1.5", "1e9", "1e309", "nan", "inf", "-inf", "", " ", "ten", "0x10", "1_000", "٣", "9" * 30,
    "9" * 5000, "1280x720", "x", "1x", "99999x99999", "127.0.0.1:80", ":", "host:99999", "1,2,3,4", "1,2,3",
    "nan,nan,1,1", "1e300,1,1,1", "2-8", "8-2", "1-" + "9" * 5000, "NAME=VALUE", "dynamic", "1" * 19, "1" * 20,
)  # fmt: skip


def name(random: Generator, folder: Path) -> str:
    """Return the name of a source or an output."""
    pieces = [chosen(random, PIECES) for _ in range(int(random.integers(1, 6)))]
    return "".join(pieces) + chosen(random, SUFFIXES)


def number(random: Generator, folder: Path) -> str:
    """Return a text where a command line expects a number."""
    text = str(chosen(random, NUMBERS))
    if random.random() < 0.3:
        text = damaged(text.encode(), random).decode("utf-8", "replace").replace("\0", "")
    return text
