"""Damaged pictures and videos, and landmarks beside pictures."""

from __future__ import annotations

import os
import zlib
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from facerecon_rt.template import load_template
from numpy.random import Generator

from .damage import chosen, damaged, written

CLIP = Path(__file__).parents[2] / "tests" / "data" / "talking_head.mp4"


@cache
def pictures() -> dict[str, bytes]:
    """Return a small picture in every format that OpenCV writes, by suffix."""
    random = np.random.default_rng(0)
    picture = cv2.GaussianBlur(random.integers(0, 256, (96, 128, 3)).astype(np.uint8), (0, 0), 3)
    grey, deep = picture[..., 0], picture.astype(np.uint16) * 257
    made = {suffix: cv2.imencode(suffix, picture)[1].tobytes() for suffix in (".jpg", ".webp", ".bmp", ".jp2", ".ppm")}
    made |= {".png": cv2.imencode(".png", np.dstack([picture, grey]))[1].tobytes()}
    made |= {".pgm": cv2.imencode(".pgm", grey)[1].tobytes(), ".pbm": cv2.imencode(".pbm", grey)[1].tobytes()}
    made |= {".tif": cv2.imencode(".tif", deep)[1].tobytes(), ".tiff": cv2.imencode(".tiff", picture)[1].tobytes()}
    for suffix in (".avif", ".gif", ".hdr"):
        if cv2.haveImageWriter(f"a{suffix}"):
            image = picture.astype(np.float32) / 255 if suffix == ".hdr" else picture
            made[suffix] = cv2.imencode(suffix, image)[1].tobytes()
    # A picture that EXIF turns.
    exif = b"\xff\xe1\x00\x22Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    made[".jpeg"] = made[".jpg"][:2] + exif + made[".jpg"][2:]
    return made


def picture(random: Generator, folder: Path) -> Path:
    """Write a damaged picture, sometimes with another kind's suffix.

    A PNG mostly gets its checksums repaired, so that the code behind them is reached.
    """
    suffix = chosen(random, list(pictures()))
    data = damaged(pictures()[suffix], random)
    if suffix == ".png" and random.random() < 0.7:
        data = with_sums(data)
    if random.random() < 0.1:
        suffix = chosen(random, list(pictures()))
    return written(folder / f"picture{suffix}", data)


def with_sums(png: bytes) -> bytes:
    """Return a PNG with correct checksums."""
    out, at = bytearray(png[:8]), 8
    while at + 8 <= len(png):
        length = int.from_bytes(png[at : at + 4], "big")
        body = png[at + 4 : at + 8 + length]
        out += png[at : at + 4] + body + zlib.crc32(body).to_bytes(4, "big")
        at += 12 + length
    return bytes(out)


@cache
def videos() -> dict[str, bytes]:
    """Return a short video in each codec and container that OpenCV writes, by name."""
    random = np.random.default_rng(1)
    small = [random.integers(0, 256, (48, 64, 3)).astype(np.uint8) for _ in range(12)]
    made = {"clip.mp4": CLIP.read_bytes()}
    codecs = {"a.mp4": "mp4v", "b.avi": "MJPG", "c.avi": "XVID", "d.mkv": "mp4v", "e.mkv": "FFV1", "f.webm": "VP80"}
    codecs |= {"g.flv": "FLV1", "h.mpg": "mpg1", "i.ts": "MPG2", "j.mov": "mp4v"}
    for name, codec in codecs.items():
        path = Path(os.environ["TMPDIR"]) / name
        writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), 25.0, (64, 48))
        if writer.isOpened():
            for frame in small:
                writer.write(cv2.GaussianBlur(frame, (0, 0), 3))
            writer.release()
            made[name] = path.read_bytes()
    made["k.gif"] = pictures().get(".gif", b"GIF89a")
    made["l.txt"] = b"ffconcat version 1.0\nfile clip.mp4\n"
    made["m.m3u8"] = b"#EXTM3U\n#EXTINF:1,\nclip.mp4\n"
    return made


def video(random: Generator, folder: Path) -> Path:
    """Write a damaged video, sometimes with another kind's suffix."""
    name = chosen(random, list(videos()))
    data = videos()[name]
    if random.random() < 0.97:
        data = damaged(data, random)
    suffix = Path(name).suffix if random.random() < 0.9 else ".mp4"
    if suffix in (".txt", ".m3u8"):
        suffix = ".mp4"
    return written(folder / f"video{suffix}", data)


def landmarks(random: Generator, folder: Path) -> Path:
    """Write a .pts file beside a picture."""
    template = load_template().landmark_positions[:, :2] * [1, -1]
    points = template * random.uniform(0.1, 3) + random.uniform(-50, 200, 2)
    lines = [f"{x:.4f} {y:.4f}" for x, y in points]
    for _ in range(int(random.integers(0, 4))):
        place = int(random.integers(len(lines)))
        words = (
            "nan nan",
            "inf 3",
            "1e38 1e38",
            "-1e38 5",
            "1e400 1",
            "0 0",
            "",
            "1",
            "1 2 3",
            "a b",
            "9" * 400 + " 1",
            "1e6 1e6",
        )
        lines[place] = chosen(random, words)
    if random.random() < 0.15:
        lines = [chosen(random, ("5 5", "5 7", "1e-9 3"))] * len(lines)
    if random.random() < 0.15:
        lines = [line.partition(" ")[0] + " 3" for line in lines]
    if random.random() < 0.15:
        lines = [lines[i] for i in range(49)]
    data = ("version: 1\nn_points: 68\n{\n" + "\n".join(lines) + "\n}\n").encode()
    written(folder / "face.png", pictures()[".png"])
    return written(folder / "face.pts", damaged(data, random) if random.random() < 0.4 else data)
