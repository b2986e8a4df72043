"""Videos with a cut to another person at the same place -> whether a new track with its own shape begins, and only
then.

    python benchmarks/cuts.py --data DATA          # five minutes; writes results/cuts.md

The benchmark uses every ordered pair of the four talking heads of DATA/videos and the ten people of DATA/identities.
The people of DATA/identities are photographs that move a little, with sensor noise. The second person is placed so that
the two boxes agree. Either the whole picture changes, or the head alone is pasted over the first person. No track may
begin when the light on a person changes, or when a hand covers part of the face. Nor may a track begin within the
videos of the talking heads, also with frames left out.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, permutations
from pathlib import Path

import cv2
import numpy as np
from commands import command_of
from facerecon_rt import Frame, Pipeline, Reconstructor, Scene, open_source, read_image
from facerecon_rt.faces.reconstruct import largest
from facerecon_rt.providers.onnx_file import named_by_hash

RESULTS = Path(__file__).with_name("results")
COLUMNS = (
    "*whole*: the whole picture changes. *head*: the head alone does. *shape error*: RMS distance of the shape of the "
    "track after the cut from the shape without the first person."
)
"""Definitions of the columns, for the reader of the results."""
BEFORE, AFTER, FPS = 30, 6, 25.0
NOISE = 2.0
"""Standard deviation of the sensor noise in grey levels."""
THINNED = (1, 2, 3)
"""Intervals of the frames that are used of the talking heads."""


@dataclass(frozen=True)
class Person:
    """A short video of a person, with the box of the face in each frame."""

    name: str
    frames: list[np.ndarray]
    boxes: list[np.ndarray]


def talking_head(path: Path, reconstructor: Reconstructor) -> Person:
    """Return the first frames of a video."""
    with open_source(path) as source:
        return person(path.stem, [frame.image for frame in islice(source, BEFORE)], reconstructor)


def photographed(folder: Path, reconstructor: Reconstructor) -> Person:
    """Return a short video of the first photograph, as if held in a hand."""
    random = np.random.default_rng(0)
    image = read_image(min(folder.glob("*.jpg")))
    height, width = image.shape[:2]
    frames = []
    for index in range(BEFORE):
        angle, zoom = 1.5 * np.sin(index / 7), 1 + 0.01 * np.sin(index / 5)
        moved = cv2.getRotationMatrix2D((width / 2, height / 2), angle, zoom)
        moved[:, 2] += 2 * np.sin(index / 4), 1.5 * np.cos(index / 6)
        held = cv2.warpAffine(image, moved, (width, height), borderMode=cv2.BORDER_REPLICATE)
        frames.append(np.clip(held + random.normal(0, NOISE, held.shape), 0, 255).astype(np.uint8))
    return person(folder.name, frames, reconstructor)


def person(name: str, frames: list[np.ndarray], reconstructor: Reconstructor) -> Person:
    """Return a Person with the box of each frame."""
    boxes = [scene.faces[0].box for scene in Pipeline(reconstructor).run(as_video(frames)) if scene.faces]
    assert len(boxes) == len(frames), f"{name} is not seen all the time"
    return Person(name, frames, boxes)


def as_video(pictures: Sequence[np.ndarray]) -> Iterator[Frame]:
    """Yield pictures as the frames of one video."""
    for index, image in enumerate(pictures):
        yield Frame(image, "cut", index, index / FPS, still=False)


def placed(image: np.ndarray, box: np.ndarray, at: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Move and scale a picture so that `box` lies on `at`."""
    scale = (at[2] - at[0]) / (box[2] - box[0])
    matrix = np.array([[scale, 0, at[0] - scale * box[0]], [0, scale, at[1] - scale * box[1]]])
    shrink = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return cv2.warpAffine(image, matrix, size, flags=shrink, borderMode=cv2.BORDER_REPLICATE)


def pasted(head: np.ndarray, over: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Paste an oval of `head` around the box over another picture."""
    middle, side = (box[:2] + box[2:]) / 2, float(box[2] - box[0])
    mask = np.zeros(over.shape[:2], np.float32)
    centre = (int(middle[0]), int(middle[1] - 0.08 * side))
    cv2.ellipse(mask, centre, (int(0.62 * side), int(0.78 * side)), 0, 0, 360, 1, -1)
    soft = cv2.GaussianBlur(mask, (0, 0), side / 40)[..., None]
    return (over * (1 - soft) + head * soft).astype(np.uint8)


def cut(first: Person, second: Person, *, whole: bool) -> list[np.ndarray]:
    """Return the second person's frames at the first person's place."""
    height, width = first.frames[0].shape[:2]
    moved = [placed(image, second.boxes[0], first.boxes[-1], (width, height)) for image in second.frames[:AFTER]]
    return moved if whole else [pasted(image, first.frames[-1], first.boxes[-1]) for image in moved]


@dataclass(frozen=True)
class Outcome:
    """Result of one cut."""

    first: bool
    """Whether a new track begins in the first frame, and the old track ends there."""
    later: bool
    """Whether a new track begins at all."""
    off_mm: float
    """RMS distance in mm of the shape after the cut from the shape without the first person."""


def outcome(reconstructor: Reconstructor, before: Sequence[np.ndarray], after: Sequence[np.ndarray]) -> Outcome:
    """Run the pipeline over a cut and return the result."""
    scenes = list(Pipeline(reconstructor).run(as_video([*before, *after])))[len(before) :]
    alone = list(Pipeline(reconstructor).run(as_video(after)))
    numbers = [{face.track for face in scene.faces} for scene in scenes]
    seen, by_themselves = (largest(found[-1].faces) for found in (scenes, alone))
    off = np.nan
    if seen is not None and by_themselves is not None:
        off = float(np.sqrt(((seen.shape - by_themselves.shape) ** 2).sum(1).mean()))
    first = scenes[0].entered != () and scenes[0].left == (1,)
    return Outcome(first, bool(numbers[-1]) and 1 not in numbers[-1], off)


def lights() -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Return changes of the light on a person from one frame to the next."""

    def brightened(factor: float) -> Callable[[np.ndarray], np.ndarray]:
        return lambda image: np.clip(image * factor, 0, 255).astype(np.uint8)

    def from_the_side(image: np.ndarray) -> np.ndarray:
        across = np.linspace(0.3, 1.6, image.shape[1])[None, :, None]
        return np.clip(image * across, 0, 255).astype(np.uint8)

    return {
        "a third of the light": brightened(1 / 3),
        "1.8 times the light": brightened(1.8),
        "light from the side": from_the_side,
        "warm light": lambda image: np.clip(image * np.array([0.5, 0.8, 1.4]), 0, 255).astype(np.uint8),
    }


def hands() -> dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]]:
    """Return occluders that appear from one frame to the next: functions from picture and box to picture."""

    def hand(x: float, y: float) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        def held(image: np.ndarray, box: np.ndarray) -> np.ndarray:
            side = float(box[2] - box[0])
            mask = np.zeros(image.shape[:2], np.float32)
            centre = (int(box[0] + x * side), int(box[1] + y * side))
            cv2.ellipse(mask, centre, (int(0.24 * side), int(0.36 * side)), 20, 0, 360, 1, -1)
            soft = cv2.GaussianBlur(mask, (0, 0), side / 60)[..., None]
            return (image * (1 - soft) + np.array([95, 120, 190]) * soft).astype(np.uint8)

        return held

    return {"a hand on a cheek": hand(0.2, 0.6), "a hand before the mouth": hand(0.5, 0.8)}


def breaks(scenes: Sequence[Scene], since: int) -> int:
    """Return the number of tracks that begin in frame `since` or later."""
    return sum(len(scene.entered) for scene in scenes[since:])


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="data folder")
    parser.add_argument("--model", type=Path, default=Path("models/face.onnx"), help="model file [%(default)s]")
    arguments = parser.parse_args()
    videos = sorted((arguments.data / "videos").glob("head_*.mp4"))
    with Reconstructor(arguments.model) as reconstructor:
        heads = [talking_head(path, reconstructor) for path in videos]
        people = [photographed(folder, reconstructor) for folder in sorted((arguments.data / "identities").iterdir())]
        lines = ["# Cuts to another person at the same place", ""]
        lines += [f"`{command_of(parser, arguments)}`", ""]
        lines += [f"Model {named_by_hash(arguments.model)}.", "", COLUMNS, ""]
        lines += [
            "| from, to | picture | cuts | new track in the first frame | new track | shape error, mm, mean / largest |"
        ]
        lines.append("|---|---|---|---|---|---|")
        pairs = list(permutations(heads + people, 2))
        kinds = {
            "talking heads": [pair for pair in pairs if pair[0] in heads and pair[1] in heads],
            "photographed people": [pair for pair in pairs if pair[0] in people and pair[1] in people],
            "one and the other": [pair for pair in pairs if (pair[0] in heads) != (pair[1] in heads)],
        }
        for kind, of_kind in kinds.items():
            for whole in (True, False):
                found = [outcome(reconstructor, a.frames, cut(a, b, whole=whole)) for a, b in of_kind]
                off = np.array([one.off_mm for one in found])
                lines.append(
                    f"| {kind} | {'whole' if whole else 'head'} | {len(found)} | {sum(one.first for one in found)} | "
                    f"{sum(one.later for one in found)} | {np.nanmean(off):.2f} / {np.nanmax(off):.2f} |"
                )
        lines += ["", "| no cut | cases | new tracks |", "|---|---|---|"]

        def changed(one: Person, now: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> int:
            after = [now(image, box) for image, box in zip(one.frames[-AFTER:], one.boxes[-AFTER:], strict=True)]
            return breaks(list(Pipeline(reconstructor).run(as_video([*one.frames[:-AFTER], *after]))), BEFORE - AFTER)

        suddenly = {name: (lambda image, box, lit=lit: lit(image)) for name, lit in lights().items()} | hands()
        for name, now in suddenly.items():
            lines.append(
                f"| {name}, suddenly | {len(heads + people)} | {sum(changed(one, now) for one in heads + people)} |"
            )
        for every in THINNED:
            count = 0
            for path in videos:
                with open_source(path) as source:
                    count += breaks(list(Pipeline(reconstructor).run(islice(source, 0, None, every))), 1)
            lines.append(f"| talking heads, every frame of {every} | {len(videos)} | {count} |")
    text = "\n".join(lines) + "\n"
    (RESULTS / "cuts.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
