"""The MediaPipe side of latency.py; runs in an environment of its own: pip install mediapipe==0.10.14 "numpy<2"."""

import json
import sys
import time

import cv2
import mediapipe
import numpy as np

cv2.setNumThreads(1)
frames = np.load(sys.argv[1], mmap_mode="r")
started = time.perf_counter()
mesh = mediapipe.solutions.face_mesh.FaceMesh(
    static_image_mode="--detecting" in sys.argv, max_num_faces=1, refine_landmarks=False
)
load_ms = 1000 * (time.perf_counter() - started)
index = 0
for line in sys.stdin:
    milliseconds, cpu, found = [], [], 0
    for _ in range(int(line)):
        image = np.array(frames[index % len(frames)])
        index += 1
        wall, busy = time.perf_counter(), time.process_time()
        result = mesh.process(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
        milliseconds.append(1000 * (time.perf_counter() - wall))
        cpu.append(1000 * (time.process_time() - busy))
        found += bool(result.multi_face_landmarks)
    print(
        json.dumps({"ms": milliseconds, "cpu_ms": cpu, "stages_ms": [], "found": found, "load_ms": load_ms}), flush=True
    )
