"""Measured process of footprint.py, for the package in its Python. It needs numpy and that package alone.

    python footprint_worker.py import facerecon_rt
    python footprint_worker.py run facerecon_rt FRAMES COUNT WIDTH HEIGHT [--model FILE --precision P]

Frames are raw BGR bytes, which are read one by one, because a mapped file would count as memory.
"""

import argparse
import importlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np


def status_mb(name: str) -> float:
    """Return VmRSS or VmHWM of this process in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def facerecon(model: str, precision: str) -> Callable[[np.ndarray, int], bool]:
    """Return a function that takes a frame and its number, and returns whether it found a face. It reads at most one
    face on one thread, as latency.py does."""
    from facerecon_rt import Pipeline, Reconstructor
    from facerecon_rt.types import Frame

    pipeline = Pipeline(Reconstructor(model, provider="cpu", threads=1, precision=precision), max_faces=1)
    return lambda image, index: bool(pipeline.process(Frame(image, "clip", index, still=False)).faces)


def mediapipe() -> Callable[[np.ndarray, int], bool]:
    """Return a function like that of `facerecon` that uses MediaPipe."""
    import cv2
    import mediapipe

    mesh = mediapipe.solutions.face_mesh.FaceMesh(max_num_faces=1, refine_landmarks=False)
    return lambda image, index: bool(mesh.process(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)).multi_face_landmarks)


def main() -> None:
    """Print one JSON line per measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("import", "run"))
    parser.add_argument("package", choices=("facerecon_rt", "mediapipe"))
    parser.add_argument("frames", nargs="?", type=Path)
    parser.add_argument("count", nargs="?", type=int)
    parser.add_argument("width", nargs="?", type=int)
    parser.add_argument("height", nargs="?", type=int)
    parser.add_argument("--model")
    parser.add_argument("--precision")
    options = parser.parse_args()
    if options.what == "import":
        wall, cpu = time.perf_counter(), time.process_time()
        importlib.import_module(options.package)
        print(json.dumps({"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}))
        return
    size = options.width * options.height * 3
    there = options.frames.stat().st_size // size
    see = mediapipe() if options.package == "mediapipe" else facerecon(options.model, options.precision)
    found = 0
    for index in range(options.count):
        image = np.fromfile(options.frames, np.uint8, size, offset=index % there * size)
        found += see(image.reshape(options.height, options.width, 3), index)
        if index == 0:
            print(json.dumps({"cpu_s": time.process_time()}), flush=True)
    print(json.dumps({"found": found, "resident_mb": status_mb("VmRSS"), "peak_mb": status_mb("VmHWM")}), flush=True)
    os._exit(0)  # the time that a package takes to clean up is not measured


if __name__ == "__main__":
    main()
