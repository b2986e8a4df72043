"""Face model -> a short video of a moving, talking head, with the truth of every frame: our sample input.

Everything in it is generated, including skin and background, so it may be used for any purpose.
"""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
from facerecon_rt.contract import BLENDSHAPES
from facerecon_rt.errors import UsageError
from facerecon_rt.types import Floats
from tqdm import tqdm

from .render import HeadGeometry, camera_for_crop, irradiance, rasterise, sh_basis, viewer_normals
from .skin import random_skin, skin_map

SIZE = 512
FPS = 25.0
FRAMES = 150
FACE_SIDE = 270.0
"""Number of pixels that align.CROP_SIDE_MM spans."""


def pose_at(t: float) -> tuple[float, float, float]:
    """Return (pitch, yaw, roll) in degrees, at `t` seconds, of a head that looks around."""
    turn = 2 * np.pi * t
    return 7.0 * np.sin(turn / 2.9 + 1.0), 38.0 * np.sin(turn / 6.0), 8.0 * np.sin(turn / 3.7)


def expression_at(t: float) -> Floats:
    """Return the weights (53,), at `t` seconds, of a face that talks, smiles and blinks."""
    turn = 2 * np.pi * t
    syllable = max(0.0, np.sin(turn * 2.1)) * (0.6 + 0.4 * np.sin(turn * 0.37))
    smile = max(0.0, np.sin(turn / 5.0 + 3.6)) * 0.8
    blink = max(0.0, 1.0 - abs((t % 1.7) - 0.9) / 0.12)
    weights = {
        "jawOpen": 0.55 * syllable,
        "mouthFunnel": 0.5 * max(0.0, np.sin(turn * 1.3 + 1.0)) * syllable,
        "mouthPucker": 0.4 * max(0.0, np.sin(turn * 0.9)) * (1 - smile),
        "mouthSmile_L": smile,
        "mouthSmile_R": smile,
        "eyeBlink_L": blink,
        "eyeBlink_R": blink,
        "browInnerUp_L": 0.5 * max(0.0, np.sin(turn / 2.3)),
        "browInnerUp_R": 0.5 * max(0.0, np.sin(turn / 2.3)),
    }
    return np.array([weights.get(name, 0.0) for name in BLENDSHAPES], np.float32)


def room(random: np.random.Generator) -> Floats:
    """Return a background (SIZE, SIZE, 3) in linear colours: a wall out of focus."""
    blobs = cv2.GaussianBlur(random.uniform(0, 1, (SIZE, SIZE, 3)).astype(np.float32), (0, 0), 60)
    blobs = (blobs - blobs.mean()) / blobs.std()
    slope = np.linspace(1.2, 0.7, SIZE, dtype=np.float32)[:, None, None]
    return np.asarray(np.clip(np.array([0.30, 0.25, 0.20]) * slope * (1 + 0.12 * blobs), 0.01, 1), np.float32)


def make_clip(head: HeadGeometry, path: Path, seed: int = 3) -> None:
    """Write the video and `<stem>.json` with frame_from_head, expression and 68 landmarks of each frame.

    Raises UsageError if the video cannot be written.
    """
    random = np.random.default_rng(seed)
    identity = random.normal(0, 0.9, 100).astype(np.float32)
    albedo = random_skin(head, skin_map(head), random)
    background = room(random)
    neutral = head.neutral(identity)
    light = 2.4 * sh_basis(np.array([[0.6, 0.5, 0.62]]))[0, :, None] * np.ones(3)
    light[0] += 1.6
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), FPS, (SIZE, SIZE))
    if not writer.isOpened():
        raise UsageError(f"cannot write {path}; choose a .mp4 in a folder that exists")
    truth = []
    for frame in tqdm(range(FRAMES), desc="rendering the sample clip", unit="frame"):
        t = frame / FPS
        expression = expression_at(t)
        camera = camera_for_crop(*pose_at(t), SIZE, FACE_SIDE)
        camera[:2, 3] += [30 * np.sin(t), 8 * np.sin(2.3 * t)]
        vertices = head.expressed(neutral, expression)
        facing = viewer_normals(head.normals(vertices), camera)
        colours = np.clip(albedo * np.maximum(irradiance(light, facing), 0.05), 0, 1).astype(np.float32)
        picture = rasterise(vertices, head.triangles, colours, camera, background)
        developed = 255 * np.clip(picture, 0, 1) ** (1 / 2.2) + random.normal(0, 2, picture.shape)
        writer.write(developed.clip(0, 255).astype(np.uint8))
        landmarks = vertices[head.landmarks] @ camera[:, :3].T + camera[:, 3]
        truth.append(
            {
                "frame_from_head": camera.round(5).tolist(),
                "expression": {BLENDSHAPES[i]: round(float(expression[i]), 3) for i in np.flatnonzero(expression)},
                "landmarks": landmarks[:, :2].round(1).tolist(),
            }
        )
    writer.release()
    path.with_suffix(".json").write_text(json.dumps({"frames": truth}, separators=(",", ":")) + "\n")
