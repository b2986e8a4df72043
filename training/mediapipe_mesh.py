"""Photographs or rendered people -> mesh points of MediaPipe FaceMesh, in the format of DATA/pseudo/*.npz.

It runs in its own environment: pip install mediapipe==0.10.14 "numpy<2". The package contains the network, which is
published under the Apache License 2.0, so that its answers may teach a model for any purpose.

    mediapipe_mesh.py DATA/head_pose DATA/pseudo/head_pose.npz             # the photographs of a folder
    mediapipe_mesh.py runs/clean/people/held-out/images.npy mesh.npz       # rendered people, for conventions.py
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import mediapipe
import numpy as np

IBUG = [
    162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389,
    71, 63, 105, 66, 107, 336, 296, 334, 293, 301, 168, 197, 5, 4, 75, 97, 2, 326, 305,
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87,
]  # fmt: skip
"""Mesh point of each of the 68 iBUG points."""
IBUG_MIRROR = [
    *range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1), 45, 44, 43, 42, 47, 46, 39, 38, 37, 36,
    41, 40, *range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), 67, 66, 65,
]  # fmt: skip
IRISES = [468, 473]
"""Mesh points of the centres of the right and the left iris."""


def pictures(source: Path) -> Iterator[tuple[str, Any]]:
    """Yield name and BGR picture of every .jpg of a folder, or number and picture of an .npy file."""
    if source.suffix == ".npy":
        for row, image in enumerate(np.load(source, mmap_mode="r")):
            yield str(row), np.ascontiguousarray(image)
    else:
        for path in sorted(source.glob("*.jpg")):
            yield path.name, cv2.imread(str(path))


def mesh_points(mesh: Any, image: Any) -> Any:
    """Return mesh points (478, 3), pixels from the centre of the first pixel, or None without a face.

    The iBUG points and the irises are the average of those of the picture and of its mirror image, because FaceMesh
    treats left and right differently. All others are those of the picture.
    """
    height, width = image.shape[:2]
    seen = []
    for step in (1, -1):
        found = mesh.process(np.ascontiguousarray(image[:, ::step, ::-1])).multi_face_landmarks
        if not found:
            return None
        seen.append(np.array([(p.x * width - 0.5, p.y * height - 0.5, p.z * width) for p in found[0].landmark]))
    points, mirrored = seen
    mirrored[:, 0] = width - 1 - mirrored[:, 0]
    for rows, twins in ((IBUG, [IBUG[k] for k in IBUG_MIRROR]), (IRISES, IRISES[::-1])):
        points[rows] = (points[rows] + mirrored[twins]) / 2
    return points


def main() -> None:
    """Write the mesh points of every picture in which FaceMesh finds a face."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder of .jpg files, or an .npy file of pictures (N, H, W, 3)")
    parser.add_argument("out", type=Path, help=".npz file to write")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    mesh = mediapipe.solutions.face_mesh.FaceMesh(static_image_mode=True, refine_landmarks=True)
    names, points, count = [], [], 0
    for name, image in pictures(options.source):
        count += 1
        found = mesh_points(mesh, image)
        if found is not None:
            names.append(name)
            points.append(found)
    mesh_478 = np.array(points, np.float32).reshape(-1, 478, 3)
    np.savez(
        options.out,
        files=np.array(names),
        landmarks478=mesh_478,
        points68=mesh_478[:, IBUG, :2],
        blendshape_names=np.array([], str),
        blendshapes=np.zeros((len(names), 0), np.float16),
    )
    print(f"{options.out}: {len(names)} of {count} pictures")


if __name__ == "__main__":
    main()
