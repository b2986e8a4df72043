"""Two talking heads that cross, or meet and turn back -> whether each keeps its track number.

    python benchmarks/crossing.py --data DATA          # five minutes; writes results/crossing.md

The benchmark uses every ordered pair of the four heads in DATA/videos. They are cut out and pasted so that the second
passes in front of the first: slowly, at walking pace and fast; of equal size, larger and smaller. Numbers are compared
while the heads are apart.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from itertools import islice, permutations, product
from pathlib import Path

import cv2
import numpy as np
from commands import command_of
from facerecon_rt import Frame, Pipeline, Reconstructor, open_source
from facerecon_rt.faces.reconstruct import largest
from facerecon_rt.providers.onnx_file import named_by_hash

RESULTS = Path(__file__).with_name("results")
FRAMES, FPS = 120, 25.0
WIDTH, HEIGHT, SIDE = 960, 480, 220
SPEEDS = (4, 8, 14)
"""Speed of each head in pixels per frame. A head is about 160 pixels wide."""
SIZES = ((1.0, 0), (1.25, 20), (0.8, -15))
"""Relative size of the head in front, and the number of pixels by which it is lower."""
NAMES = {False: "cross", True: "meet and turn back"}
APART = 160
CLOSEST = 40
"""Smallest distance in pixels between two heads that meet and turn back."""


def head_of(path: Path, reconstructor: Reconstructor) -> list[np.ndarray]:
    """Return squares around the head of a talking-head video, all at the place of its first frame."""
    with open_source(path) as source:
        frames = [frame.image for frame in islice(source, FRAMES)]
    face = largest(reconstructor.faces(frames[0]))
    assert face is not None, f"no face in {path}"
    left, top, right, bottom = face.box
    radius = int(0.75 * (right - left))
    x, y = int((left + right) / 2), int((top + bottom) / 2)
    padded = (cv2.copyMakeBorder(image, radius, radius, radius, radius, cv2.BORDER_REPLICATE) for image in frames)
    return [image[y : y + 2 * radius, x : x + 2 * radius] for image in padded]


def paste(canvas: np.ndarray, head: np.ndarray, x: float, y: float, side: int) -> None:
    """Draw an oval of the head, `side` pixels in size, centred at (x, y)."""
    half = side // 2
    mask = np.zeros((side, side), np.float32)
    cv2.ellipse(mask, (half, half), (int(0.36 * side), int(0.46 * side)), 0, 0, 360, 1, -1)
    soft = cv2.GaussianBlur(mask, (0, 0), side / 60)[..., None]
    top, left = round(y) - half, round(x) - half
    there = canvas[top : top + side, left : left + side]
    there[:] = (there * (1 - soft) + cv2.resize(head, (side, side)) * soft).astype(np.uint8)


def places(speed: float, turn_back: bool) -> Iterator[tuple[float, float]]:
    """Yield the horizontal places of the head behind and the head in front, frame by frame."""
    middle, margin = WIDTH / 2, 150
    for index in range(FRAMES):
        way = (index - FRAMES / 2) * speed
        behind, front = (-abs(way) - CLOSEST / 2, abs(way) + CLOSEST / 2) if turn_back else (way, -way)
        yield (
            float(np.clip(middle + behind, margin, WIDTH - margin)),
            float(np.clip(middle + front, margin, WIDTH - margin)),
        )


def outcome(
    reconstructor: Reconstructor, heads: tuple[list[np.ndarray], list[np.ndarray]], speed: float, size: float,
    lower: int, turn_back: bool,
) -> str:  # fmt: skip
    """Return `kept`, `swapped` or `renumbered`."""
    noise = np.random.default_rng(0).integers(60, 160, (HEIGHT, WIDTH, 3), np.uint8)
    background = np.asarray(cv2.GaussianBlur(noise, (0, 0), 3), np.uint8)
    pipeline = Pipeline(reconstructor)
    numbers: dict[tuple[int, bool], Counter[int | None]] = {key: Counter() for key in product((0, 1), (False, True))}
    for index, (behind, front) in enumerate(places(speed, turn_back)):
        image = background.copy()
        paste(image, heads[0][index % len(heads[0])], behind, HEIGHT / 2, SIDE)
        paste(image, heads[1][index % len(heads[1])], front, HEIGHT / 2 + lower, int(SIDE * size))
        scene = pipeline.process(Frame(image, "crossing", index, index / FPS, still=False))
        if abs(behind - front) > APART:
            for face in scene.faces:
                x = float(face.box[0] + face.box[2]) / 2
                numbers[int(abs(x - front) < abs(x - behind)), index > FRAMES / 2][face.track] += 1
    most = {key: count.most_common(1)[0][0] if count else None for key, count in numbers.items()}
    assert None not in most.values(), "a head was never seen apart"
    before, after = [(most[0, half], most[1, half]) for half in (False, True)]
    return "kept" if before == after else "swapped" if before == after[::-1] else "renumbered"


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="data folder")
    parser.add_argument("--model", type=Path, default=Path("models/face.onnx"), help="model file [%(default)s]")
    arguments = parser.parse_args()
    outcomes: dict[bool, Counter[str]] = {False: Counter(), True: Counter()}
    failed = []
    with Reconstructor(arguments.model) as reconstructor:
        paths = sorted((arguments.data / "videos").glob("head_*.mp4"))
        heads = {path.stem: head_of(path, reconstructor) for path in paths}
        for behind, front in permutations(heads, 2):
            for speed, (size, lower), turn_back in product(SPEEDS, SIZES, (False, True)):
                found = outcome(reconstructor, (heads[behind], heads[front]), speed, size, lower, turn_back)
                outcomes[turn_back][found] += 1
                if found != "kept":
                    failed.append(f"| {behind} | {front} | {size} | {speed} | {NAMES[turn_back]} | {found} |")
            print(
                f"{behind}, {front}: {len(failed)} of {sum(map(Counter.total, outcomes.values()))} failed", flush=True
            )
    command = f"`{command_of(parser, arguments)}`"
    lines = ["# Two heads that cross", "", f"{command}, model {named_by_hash(arguments.model)}.", ""]
    lines += ["| | cases | both keep their numbers | swapped | renumbered |", "|---|---|---|---|---|"]
    for turn_back, counts in outcomes.items():
        kept, swapped, renumbered = counts["kept"], counts["swapped"], counts["renumbered"]
        lines.append(f"| {NAMES[turn_back]} | {counts.total()} | {kept} | {swapped} | {renumbered} |")
    if failed:
        lines += [
            "",
            "| behind | in front | size of the one in front | pixels per frame | | outcome |",
            "|---" * 6 + "|",
            *failed,
        ]
    text = "\n".join(lines) + "\n"
    (RESULTS / "crossing.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
