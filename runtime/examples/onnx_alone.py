"""A photograph and a face box -> 68 landmarks, from the ONNX file alone, without this package.

    pip install numpy opencv-python-headless onnxruntime
    python onnx_alone.py face.onnx photo.jpg X1 Y1 X2 Y2 [LOOKS]

The box is that of any face detector, in pixels. The first look finds the head, and the second (LOOKS is 2 by default)
reads the crop that the network was trained on. The script prints the confidence, then x and y of each landmark in
pixels.
"""

from __future__ import annotations

import math
import sys
from typing import Any

import cv2
import numpy as np
import onnxruntime

Square = tuple[float, float, float, float]
CENTRE_MM = np.array([0.0, -30.0, 0.0])  # this point of the head is in the middle of the crop
CROP_MM, BOX_MM = 190.0, 140.0  # sides of the crop and of a face box, at the face


def square_from_box(x1: float, y1: float, x2: float, y2: float) -> Square:
    """Return the centre, the side and the roll of the crop's square, in pixels and radians."""
    return (x1 + x2) / 2, (y1 + y2) / 2, max(x2 - x1, y2 - y1) * CROP_MM / BOX_MM, 0.0


def square_from_camera(camera: Any) -> Square:
    """Return the square of a head that the network found. `camera`: frame_from_head (3, 4)."""
    x, y, _ = camera[:, :3] @ CENTRE_MM + camera[:, 3]
    scale = abs(np.linalg.det(camera[:, :3])) ** (1 / 3)
    return x, y, CROP_MM * scale, math.atan2(camera[0, 1], -camera[1, 1])


def crop_of(image: Any, square: Square, size: int) -> tuple[Any, Any]:
    """Return the crop (size, size, 3) uint8 BGR and frame_from_crop (3, 4)."""
    x, y, side, roll = square
    scale, middle = side / size, (size - 1) / 2
    c, s = scale * math.cos(roll), scale * math.sin(roll)
    x, y = x - (c - s) * middle, y - (s + c) * middle  # crop pixel (u, v) is frame pixel (cu - sv + x, su + cv + y)
    frame_from_crop = np.array([[c, -s, 0, x], [s, c, 0, y], [0, 0, scale, 0]])
    for _ in range(round(math.log2(max(scale, 1)))):  # a finer picture would alias
        height, width = image.shape[:2]
        image = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        image = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        c, s, x, y = c / 2, s / 2, (x - 0.5) / 2, (y - 0.5) / 2
    inverse = np.array([[c, -s, x], [s, c, y]])
    return cv2.warpAffine(image, inverse, (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP), frame_from_crop


def look(session: Any, image: Any, square: Square) -> tuple[float, Any, Any]:
    """Return the confidence, frame_from_head (3, 4) and the landmarks (68, 3) in the frame, for one square."""
    crop, frame_from_crop = crop_of(image, square, session.get_inputs()[0].shape[1])
    names = ["confidence", "crop_from_head", "landmarks"]
    confidence, camera, landmarks = (array[0] for array in session.run(names, {"image": crop[None]}))
    linear, shift = frame_from_crop[:, :3], frame_from_crop[:, 3]
    frame_from_head = linear @ camera
    frame_from_head[:, 3] += shift
    return confidence, frame_from_head, landmarks @ linear.T + shift


def main(model: str, photograph: str, *numbers: str) -> None:
    """Print the network's answer about the face in the box."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    image = cv2.imread(photograph)  # BGR, as the network takes it
    square = square_from_box(*map(float, numbers[:4]))
    for _ in range(int(numbers[4]) if len(numbers) > 4 else 2):
        confidence, camera, landmarks = look(session, image, square)
        square = square_from_camera(camera)
    print(f"{confidence:.4f}")
    for x, y, _ in landmarks:
        print(f"{x:.3f} {y:.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
