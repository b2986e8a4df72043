"""Photographs -> one labelled cache for the face detector: pictures, face boxes, and regions to ignore."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from facerecon_rt import align
from facerecon_rt.annotated import annotated_photographs
from facerecon_rt.errors import UsageError
from facerecon_rt.faces.yunet import YunetDetector
from facerecon_rt.sinks.outputs import make_folder, write_whole
from facerecon_rt.sources.files import read_image
from facerecon_rt.types import Detection, Floats, Image
from numpy.typing import NDArray
from tqdm import tqdm

from ..arrays import read_arrays, readable, save_arrays
from ..photographs import camera_from_landmarks
from ..rendered.backgrounds import background_files
from ..rendered.head_pose import pointing_photographs

CACHE_VERSION = 2
ANNOTATED = ("helen-train", "afw", "lfpw-train", "aaf-train", "youtube-train")
TIGHT = ("aaf-train", "youtube-train")
"""Data sets whose photographs end close to the face."""
YUNET = "detector/face_detection_yunet_2023mar.onnx"
LABEL = 5
"""Number of values that describe a face: see LabelledImage."""
NATIVE = 4096
"""Detector input size for YuNet. Larger pictures would be reduced to it, but no picture of these data sets is
larger."""

CERTAIN, DOUBTFUL = 0.8, 0.3
"""Scores of YuNet. From the first on a detection is a face, from the second on a region to ignore."""
BACKGROUND_SCORE = 0.5
"""Score of a face from which on a background is left out, because it shows people."""
TIGHT_MARGIN = 60
"""Width in pixels of the black margin around a tight photograph, which lets YuNet see the whole face."""
VALIDATION_EVERY = {"photographs": 20, "backgrounds": 5}
"""Intervals of the held-out pictures: photographs to choose the threshold, backgrounds to count false positives."""


@dataclass(frozen=True, slots=True, eq=False)
class LabelledImage:
    """A picture with the labels of its faces."""

    image: Image
    faces: Floats
    """Labels (K, 5): centre x, centre y and side in pixels; 1 for a face, 0 for a region to ignore; roll in radians,
    clockwise."""
    group: str
    """Name of the data set, "head_pose" or "backgrounds"."""
    held_out: bool


def label_from_landmarks(landmarks: Floats) -> list[float]:
    """Return the label of a face with landmarks (68, 2), some of them NaN, by the same camera that places training
    crops."""
    square = align.square_from_camera(camera_from_landmarks(landmarks))
    return label_from_detection(Detection(align.box_from_square(square), 1.0, square.roll), True)


def label_from_detection(detection: Detection, known: bool) -> list[float]:
    """Return the label of a detection: centre x, centre y, side, known, roll."""
    x1, y1, x2, y2 = (float(v) for v in detection.box)
    return [(x1 + x2) / 2, (y1 + y2) / 2, max(x2 - x1, y2 - y1), float(known), detection.roll]


def same_face(a: list[float], b: list[float], distance: float = 0.5, factor: float = 1.8) -> bool:
    """Return whether two labels mean one face: centres within `distance` sides of `b`, sides within `factor`."""
    near = math.hypot(a[0] - b[0], a[1] - b[1]) <= distance * b[2]
    return near and 1 / factor <= a[2] / b[2] <= factor


def label_photograph(own: list[float], found: list[Detection], noisy: bool) -> list[list[float]] | None:
    """Return the labels of the annotated face and of other faces that YuNet sees.

    The result is None if a noisy annotation contradicts YuNet.
    """
    labels = [own]
    for detection in found:
        other = label_from_detection(detection, detection.score >= CERTAIN)
        if same_face(other, own):
            if noisy and other[3] and not same_face(other, own, 0.2, 1.3):
                return None
            continue
        if noisy and other[3] and math.hypot(other[0] - own[0], other[1] - own[1]) < 0.5 * own[2]:
            return None
        labels.append(other)
    return labels


def detect_padded(detector: YunetDetector, image: Image, margin: int) -> list[Detection]:
    """Run YuNet on the image within a black margin, and return boxes in pixels of the image itself."""
    padded = np.asarray(cv2.copyMakeBorder(image, margin, margin, margin, margin, cv2.BORDER_CONSTANT), np.uint8)
    return [replace(d, box=d.box - margin) for d in detector.detect(padded)]


def check_pictures(data: Path) -> None:
    """Raise UsageError or SourceError if YuNet's file or a kind of pictures does not exist."""
    if not (data / YUNET).is_file():
        raise UsageError(f"there is no {YUNET} under {data}; give the data folder with --data or FACERECON_DATA")
    for group in ANNOTATED:
        next(annotated_photographs(data / "faces" / group))
    if next(pointing_photographs(data / "head_pose"), None) is None:
        raise UsageError(f"{data / 'head_pose'} holds no photographs of Pointing'04 (see training/README.md)")
    background_files(data / "backgrounds")


def label_images(data: Path) -> Iterator[LabelledImage]:
    """Yield all pictures that the detector learns from, in a fixed order.

    Raises UsageError or SourceError, before any labelling, for data that do not exist.
    """
    check_pictures(data)
    yunet = YunetDetector(data / YUNET, size=NATIVE, score=DOUBTFUL)
    for group in ANNOTATED:
        for number, photograph in enumerate(annotated_photographs(data / "faces" / group)):
            image = read_image(photograph.path)
            own = label_from_landmarks(photograph.landmarks)
            found = detect_padded(yunet, image, TIGHT_MARGIN) if group in TIGHT else yunet.detect(image)
            labels = label_photograph(own, found, noisy=group in TIGHT)
            if labels is not None:
                held_out = number % VALIDATION_EVERY["photographs"] == 0
                yield LabelledImage(image, np.array(labels, np.float32), group, held_out)
    yield from label_pointing(data / "head_pose", yunet)
    number = 0
    for path in background_files(data / "backgrounds"):
        image = read_image(path)
        # YuNet also sees the picture at twice its size. Faces too small for YuNet would teach that faces are
        # background.
        twice = np.asarray(cv2.resize(image, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR), np.uint8)
        found = yunet.detect(image) + [replace(d, box=d.box * np.float32(0.5)) for d in yunet.detect(twice)]
        if any(d.score > BACKGROUND_SCORE for d in found):
            continue
        labels = [label_from_detection(d, False) for d in found]
        held_out = number % VALIDATION_EVERY["backgrounds"] == 0
        yield LabelledImage(image, np.array(labels, np.float32).reshape(-1, LABEL), "backgrounds", held_out)
        number += 1


def label_pointing(folder: Path, yunet: YunetDetector) -> Iterator[LabelledImage]:
    """Yield Pointing'04's photographs in which YuNet is certain of a face.

    Inspection showed that the labels are right up to pan +-90, but not where only hair is seen.
    """
    for photograph in pointing_photographs(folder):
        if not photograph.for_training:
            continue
        image = read_image(photograph.path)
        found = yunet.detect(image)
        if found and found[0].score >= CERTAIN:
            labels = [label_from_detection(found[0], True)]
            yield LabelledImage(image, np.array(labels, np.float32), "head_pose", False)


@dataclass(frozen=True, slots=True, eq=False)
class DetectorCache:
    """All labelled pictures in one file, which is mapped and not loaded."""

    pixels: NDArray[np.uint8]
    """Pixels (total,) of all pictures, row by row, BGR."""
    offsets: NDArray[np.int64]
    """Start of each picture in `pixels`, (N,)."""
    sizes: NDArray[np.int32]
    """Height and width of each picture, (N, 2)."""
    groups: NDArray[np.str_]
    """Data set of each picture, (N,)."""
    held_out: NDArray[np.bool_]
    """Whether each picture is held out, (N,)."""
    faces: list[Floats]
    """Labels of each picture, N arrays of (K, 5), as in LabelledImage."""

    def image(self, index: int) -> Image:
        """Return a picture (H, W, 3) uint8 BGR. It is a view that must not be written to."""
        height, width = (int(v) for v in self.sizes[index])
        start = int(self.offsets[index])
        return self.pixels[start : start + height * width * 3].reshape(height, width, 3)


def build_cache(data: Path, folder: Path) -> DetectorCache:
    """Label everything once and write `folder`/pixels.bin and labels.npz, or open existing files.

    Raises UsageError for files of another version and for damaged files.
    """
    labels_path = folder / "labels.npz"
    if not labels_path.is_file():
        make_folder(folder)
        offsets, sizes, groups, held_out, counts, faces = [], [], [], [], [], []
        with (folder / "pixels.bin").open("wb") as pixels:
            for item in tqdm(label_images(data), desc="label", unit="image", mininterval=5):
                offsets.append(pixels.tell())
                sizes.append(item.image.shape[:2])
                groups.append(item.group)
                held_out.append(item.held_out)
                counts.append(len(item.faces))
                faces.append(item.faces)
                pixels.write(np.ascontiguousarray(item.image).tobytes())
        # The labels come last and in one step, so that a killed build leaves none.
        save_arrays(
            labels_path,
            offsets=np.array(offsets, np.int64),
            sizes=np.array(sizes, np.int32),
            groups=np.array(groups),
            held_out=np.array(held_out),
            counts=np.array(counts),
            faces=np.concatenate(faces),
            version=CACHE_VERSION,
        )
        summary = {g: int((np.array(groups) == g).sum()) for g in dict.fromkeys(groups)}
        write_whole(folder / "summary.json", json.dumps({"images": summary}, indent=1).encode())
    remedy = "remove the folder and run the command again"
    with readable(folder, remedy):
        arrays = read_arrays(labels_path, remedy)
        if "version" not in arrays or int(arrays["version"]) != CACHE_VERSION:
            raise UsageError(f"{folder} was labelled by another version; {remedy}")
        cache = DetectorCache(
            pixels=np.memmap(folder / "pixels.bin", np.uint8, mode="r"),
            offsets=arrays["offsets"],
            sizes=arrays["sizes"],
            groups=arrays["groups"],
            held_out=arrays["held_out"],
            faces=np.split(arrays["faces"], np.cumsum(arrays["counts"])[:-1]),
        )
        expected = 3 * int(cache.sizes.astype(np.int64).prod(1).sum())
        if len(cache.pixels) != expected:
            raise ValueError(f"pixels.bin has {len(cache.pixels)} bytes instead of {expected}")
    return cache
