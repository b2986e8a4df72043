"""Faces that are hard to read, each for one reason -> how many are found, and how many are read.

    python benchmarks/hard_faces.py --data DATA          # ten minutes; writes results/hard_faces.md

40 photographs of DATA/faces/lfpw-test are each placed in a grey picture: rolled, small, close, dark, blurred, half
hidden, half outside. A face counts as read if the mean error of its inner 49 landmarks is less than a tenth of the
distance between the outer corners of the eyes. Backgrounds are the photographs that a training run of the detector
keeps aside (--cache names its folder). Every face in them is false.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from commands import command_of
from facerecon_rt import Reconstructor, read_image
from facerecon_rt.annotated import annotated_photographs
from facerecon_rt.faces.detect import open_detector
from facerecon_rt.providers.onnx_file import named_by_hash

RESULTS = Path(__file__).with_name("results")
INNER = [point for point in range(17, 68) if point not in (60, 64)]
READ = 0.10
COUNT = 40
COLUMNS = (
    "A picture counts as *found* if any face is found in it. It counts as *read* if the inner 49 landmarks of a face "
    "are off by less than a tenth of the distance of the outer eye corners on average. One picture is 2.5 %."
)
"""Definitions of the columns, for the reader of the results."""
Size = tuple[int, int]
"""Width and height, pixels."""


def placed(
    image: np.ndarray,
    points: np.ndarray,
    side: float,
    size: Size = (640, 480),
    roll: float = 0.0,
    at: Size | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Place a photograph with landmarks (68, 2) in a grey picture. Returns the picture and the landmarks in it.

    The face is `side` pixels large and lies in the middle, or around `at`. It is turned clockwise by `roll` degrees.
    """
    scale = side / np.ptp(points, axis=0).max()
    middle = points.mean(0)
    if scale < 1:
        image = cv2.GaussianBlur(image, (0, 0), 0.45 / scale)  # a lens and a sensor blur a small face in the same way
    matrix = cv2.getRotationMatrix2D(middle.tolist(), -roll, scale)
    matrix[:, 2] += np.array(at or (size[0] / 2, size[1] / 2)) - middle
    picture = cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR, borderValue=(110, 110, 110))
    return picture, points @ matrix[:, :2].T + matrix[:, 2]


def hard(image: np.ndarray, points: np.ndarray, seed: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield each hard condition of a photograph with landmarks (68, 2): its name, the picture, and the landmarks in
    it."""
    plain, at = placed(image, points, 170)
    yield "as it is, 170 pixels", plain, at
    for roll in range(30, 181, 30):
        yield f"rolled by {roll} degrees", *placed(image, points, 170, (560, 560), roll)
    for side in (20, 30, 40, 60):
        yield f"{side} pixels", *placed(image, points, side)
    yield "1300 pixels of 1600 x 1600", *placed(image, points, 1300, (1600, 1600))
    yield "1000 pixels of 1920 x 1200", *placed(image, points, 1000, (1920, 1200))
    level = plain.astype(np.float32) / 255
    yield "dark, gamma 6", (255 * level**6).astype(np.uint8), at
    noise = np.random.default_rng(seed).normal(0, 6, plain.shape)
    yield "dark, with noise", np.clip(255 * 0.12 * level + noise, 0, 255).astype(np.uint8), at
    yield "blurred, sigma 8", cv2.GaussianBlur(plain, (0, 0), 8), at
    yield "moved by 41 pixels", cv2.blur(plain, (41, 1)), at
    masked = plain.copy()
    mask = np.concatenate([at[1:16], at[[28]]]).astype(np.int32)
    yield "mask", cv2.fillPoly(masked, [mask], (200, 180, 150)), at
    walled = plain.copy()
    walled[:, : int(at[27:31, 0].mean())] = (90, 120, 90)
    yield "half hidden", walled, at
    yield "half outside", *placed(image, points, 200, (320, 480), at=(0, 240))
    yield "top outside", *placed(image, points, 300, (640, 480), at=(320, 20))


def error(reconstructor: Reconstructor, picture: np.ndarray, points: np.ndarray) -> float:
    """Return the error of the face nearest to the landmarks (68, 2), in distances between the outer eye corners;
    infinite without a face."""
    eyes = np.linalg.norm(points[36] - points[45])
    off = [
        np.linalg.norm(face.landmarks[INNER, :2] - points[INNER], axis=1).mean() / eyes
        for face in reconstructor.faces(picture)
    ]
    return float(min(off, default=np.inf))


def backgrounds(data: Path, cache: Path) -> list[np.ndarray]:
    """Return the photographs without faces that training keeps aside. `cache`: the folder of a training run."""
    from facerecon_training.detector.data import build_cache
    from facerecon_training.detector.measure import held_out_backgrounds

    return list(held_out_backgrounds(build_cache(data, cache)))


def main() -> None:
    """Measure, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument(
        "--models", type=Path, nargs="+", default=[Path(f"models/face{x}.onnx") for x in ("", ".int8-cpu")]
    )
    parser.add_argument("--detector", type=Path, default=Path("models/face_detector.onnx"))
    parser.add_argument(
        "--cache", type=Path, metavar="RUN/cache", help="cache of a training run of the detector [none]"
    )
    arguments = parser.parse_args()
    photographs = list(annotated_photographs(arguments.data / "faces" / "lfpw-test"))
    chosen = [photographs[index * len(photographs) // COUNT] for index in range(COUNT)]
    columns: dict[str, dict[str, list[float]]] = {}
    notes = []
    for model in arguments.models:
        detector = open_detector(arguments.detector)
        with Reconstructor(model, detector=detector, provider="cpu") as reconstructor:
            rows = columns.setdefault(model.name, {})
            for number, photograph in enumerate(chosen):
                for condition, picture, points in hard(read_image(photograph.path), photograph.landmarks, number):
                    rows.setdefault(condition, []).append(error(reconstructor, picture, points))
            if arguments.cache:
                pictures = backgrounds(arguments.data, arguments.cache)
                false = [face.confidence for picture in pictures for face in reconstructor.faces(picture)]
                found = sum(len(detector.detect(picture)) for picture in pictures)
                notes.append(f"{model.name}: {found} detections and {len(false)} faces in {len(pictures)} backgrounds.")
    lines = ["# Hard faces", "", f"`{command_of(parser, arguments)}`, {COUNT} pictures each.", ""]
    lines += [
        f"Models {named_by_hash(*arguments.models)}, detector {named_by_hash(arguments.detector)}.",
        "",
        COLUMNS,
        "",
    ]
    lines.append("| picture | " + " | ".join(f"{name}: found, % | read, %" for name in columns) + " |")
    lines.append("|---|" + "---|---|" * len(columns))
    for condition in next(iter(columns.values())):
        cells = []
        for rows in columns.values():
            off = np.array(rows[condition])
            cells.append(f"{100 * np.isfinite(off).mean():.1f} | {100 * (off < READ).mean():.1f}")
        lines.append(f"| {condition} | " + " | ".join(cells) + " |")
    text = "\n".join([*lines, *(["", *notes] if notes else [])]) + "\n"
    (RESULTS / "hard_faces.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
