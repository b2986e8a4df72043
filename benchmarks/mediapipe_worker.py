"""MediaPipe's worker of latency.py. It runs in its own environment: pip install mediapipe==0.10.14 "numpy<2".

    mediapipe_worker.py FRAMES.npy [--detecting] [--task face_landmarker.task]

Without a task file it runs FaceMesh, which the package contains and which gives points alone. With a task file it runs
Face Landmarker in VIDEO mode with blendshapes and the pose matrix, which are the outputs of our frames.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import cv2
import mediapipe
import numpy as np

FRAME_MS = 33
"""Interval in ms between the time stamps that Face Landmarker gets. It needs increasing times, but measures nothing
with them."""


def face_mesh(detecting: bool) -> Callable[[Any], bool]:
    """Return a function that takes an RGB picture, and returns whether FaceMesh found a face."""
    mesh = mediapipe.solutions.face_mesh.FaceMesh(static_image_mode=detecting, max_num_faces=1, refine_landmarks=False)
    return lambda image: bool(mesh.process(image).multi_face_landmarks)


def face_landmarker(task: str, detecting: bool) -> Callable[[Any], bool]:
    """Return a function that takes an RGB picture, and returns whether Face Landmarker, with blendshapes and matrix,
    found a face."""
    vision = mediapipe.tasks.vision
    options = vision.FaceLandmarkerOptions(
        base_options=mediapipe.tasks.BaseOptions(model_asset_path=task),
        running_mode=vision.RunningMode.IMAGE if detecting else vision.RunningMode.VIDEO,
        num_faces=1,
        output_face_blendshapes=True,
        output_facial_transformation_matrixes=True,
    )
    landmarker = vision.FaceLandmarker.create_from_options(options)
    times = iter(range(0, 1 << 40, FRAME_MS))

    def look(image: Any) -> bool:
        picture = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=image)
        found = landmarker.detect(picture) if detecting else landmarker.detect_for_video(picture, next(times))
        return bool(found.face_blendshapes)

    return look


parser = argparse.ArgumentParser()
parser.add_argument("frames")
parser.add_argument("--detecting", action="store_true")
parser.add_argument("--task")
options = parser.parse_args()
cv2.setNumThreads(1)
frames = np.load(options.frames, mmap_mode="r")
started = time.perf_counter()
look = face_landmarker(options.task, options.detecting) if options.task else face_mesh(options.detecting)
load_ms = 1000 * (time.perf_counter() - started)
index = 0
for line in sys.stdin:
    milliseconds, cpu, found = [], [], 0
    for _ in range(int(line)):
        image = np.array(frames[index % len(frames)])
        index += 1
        wall, busy = time.perf_counter(), time.process_time()
        found += look(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
        milliseconds.append(1000 * (time.perf_counter() - wall))
        cpu.append(1000 * (time.process_time() - busy))
    print(
        json.dumps({"ms": milliseconds, "cpu_ms": cpu, "stages_ms": [], "found": found, "load_ms": load_ms}), flush=True
    )
