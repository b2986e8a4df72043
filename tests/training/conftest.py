"""What tests of training share: a head of the right size that is half a ball, and folders prepared from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from facerecon_rt.contract import BLENDSHAPES
from facerecon_rt.template import load_template
from facerecon_training.photographs import CANVAS_SIZE
from facerecon_training.rendered.morphable import (
    FACE_VERTICES,
    HEAD_VERTICES,
    IDENTITY_MODES,
    PARTS,
    MorphableFace,
    MorphableHead,
)
from facerecon_training.rendered.render import HeadGeometry, camera_for_crop

GRID = 97
"""The face part's 9409 vertices are a square of as many, so that vertex i is in row i // GRID."""
RINGS, SPOKES = 49, 32
"""Of an eyeball, between two poles: 1570 vertices in all."""
EYE_RADIUS, CORNEA_DEG, CORNEA_MM = 15.0, 24.0, 1.8
"""An eyeball of the ball head, and how far from its front its cornea reaches and bulges."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Two threads beside another busy program are many times slower than one."""
    torch_threads, cv2_threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    yield
    torch.set_num_threads(torch_threads)
    cv2.setNumThreads(cv2_threads)


@pytest.fixture(scope="session")
def ball_head() -> MorphableHead:
    """The front half of an ellipsoid as face, with holes in front of two eyeballs that look straight ahead; landmarks
    where ours lie; nothing else worth a triangle.

    Identity mode 0 makes it one per cent wider, jawOpen moves what lies below -40 mm down by 15 mm, the rest is 0.
    """
    mean = np.zeros((HEAD_VERTICES, 3), np.float32)
    x, y = np.meshgrid(np.linspace(-1, 1, GRID), np.linspace(1, -1, GRID))
    # A square mapped to a disc, so that every vertex lies on the ellipsoid.
    u, v = x * np.sqrt(1 - y**2 / 2), y * np.sqrt(1 - x**2 / 2)
    z = np.sqrt(np.clip(1 - u**2 - v**2, 0, None))
    mean[slice(*PARTS["face"])] = np.stack([80 * u, 115 * v - 20, 90 * z - 65], -1).reshape(-1, 3)
    for name, (start, end) in PARTS.items():
        if name == "eyeballs":
            half = (end - start) // 2
            ball, ball_triangles = _eyeball()
            mean[start : start + half] = ball + np.array([30, 0, 0])
            mean[start + half : end] = ball - np.array([30, 0, 0])
            eyes = np.vstack([ball_triangles + start, ball_triangles + start + half])
        elif name != "face":
            mean[start:end] = _ball(end - start, [0, 0, -60])
    corner = (np.arange(GRID - 1)[:, None] * GRID + np.arange(GRID - 1)).ravel()
    below, right, across = corner + GRID, corner + 1, corner + GRID + 1
    shell = np.vstack([np.stack([corner, below, right], 1), np.stack([right, below, across], 1)])
    middle = mean[shell].mean(1)
    hole = (np.abs(middle[:, 0]) - 30) ** 2 / 14**2 + middle[:, 1] ** 2 / 7**2 < 1
    triangles = np.vstack([shell[~hole], eyes]).astype(np.int32)
    face = mean[:FACE_VERTICES]
    positions = load_template().landmark_positions
    landmarks = np.linalg.norm(face[:, None, :2] - positions[:, :2], axis=2).argmin(0).astype(np.int32)
    identity = np.zeros((IDENTITY_MODES, HEAD_VERTICES, 3), np.float32)
    identity[0, :, 0] = 0.01 * mean[:, 0]
    expression = np.zeros((len(BLENDSHAPES), HEAD_VERTICES, 3), np.float32)
    expression[BLENDSHAPES.index("jawOpen"), :, 1] = np.where(mean[:, 1] < -40, -15.0, 0.0)
    return MorphableHead(mean, identity, expression, triangles, landmarks, np.zeros(3, np.float32))


def _eyeball() -> tuple[np.ndarray, np.ndarray]:
    """(1570, 3) mm, poles along z, and triangles: a sphere with a cornea around its front pole."""
    polar = (np.arange(RINGS) + 1) / (RINGS + 1) * np.pi
    around = np.arange(SPOKES) / SPOKES * 2 * np.pi
    rings = np.stack(
        [np.outer(np.sin(polar), np.cos(around)), np.outer(np.sin(polar), np.sin(around)),
         np.outer(np.cos(polar), np.ones(SPOKES))], -1,
    ).reshape(-1, 3)  # fmt: skip
    points = np.vstack([rings, [[0, 0, 1], [0, 0, -1]]])
    from_front = np.degrees(np.arccos(np.clip(points[:, 2], -1, 1)))
    points *= (EYE_RADIUS + CORNEA_MM * np.clip(1 - (from_front / CORNEA_DEG) ** 2, 0, None))[:, None]
    here = np.arange(SPOKES)
    left = np.roll(here, -1)
    triangles = [np.stack([np.full(SPOKES, len(rings)), here, left], 1)]
    for ring in range(RINGS - 1):
        first, second = ring * SPOKES, (ring + 1) * SPOKES
        triangles += [np.stack([here + first, here + second, left + first], 1)]
        triangles += [np.stack([left + first, here + second, left + second], 1)]
    last = (RINGS - 1) * SPOKES
    triangles += [np.stack([here + last, np.full(SPOKES, len(rings) + 1), left + last], 1)]
    return points.astype(np.float32), np.vstack(triangles)


def _ball(count: int, centre: list[float]) -> np.ndarray:
    turn = np.random.default_rng(0).normal(size=(count, 3))
    points: np.ndarray = (12 * turn / np.linalg.norm(turn, axis=1, keepdims=True) + centre).astype(np.float32)
    return points


@pytest.fixture(scope="session")
def ball_geometry(ball_head: MorphableHead) -> HeadGeometry:
    """What of `ball_head` is rendered."""
    return HeadGeometry(ball_head)


@pytest.fixture(scope="session")
def ball_face(ball_head: MorphableHead) -> MorphableFace:
    """A smooth face on our template's vertices, exact at the landmarks; 20 modes and jawOpen move it smoothly."""
    template = load_template()
    u, v = template.uv.T.astype(np.float64)
    powers = np.stack([np.ones_like(u), u, v, u * u, u * v, v * v], 1)
    weights, *_ = np.linalg.lstsq(powers[template.landmarks], template.landmark_positions, rcond=None)
    mean = (powers @ weights).astype(np.float32)
    mean[template.landmarks] = template.landmark_positions
    identity = np.zeros((IDENTITY_MODES, len(mean), 3), np.float32)
    for mode in range(20):
        wave = np.cos((mode // 3 + 1) * (u if mode % 2 else v) * 2)
        identity[mode, :, mode % 3] = 2.0 / (1 + mode // 3) * wave
    expression = np.zeros((len(BLENDSHAPES), len(mean), 3), np.float32)
    expression[BLENDSHAPES.index("jawOpen"), :, 1] = -15 * np.clip((0.4 - v) / 0.4, 0, 1)
    eyes = np.array([[[0, 2, -9], [0, 0, 13.7]]] * 2, np.float32)
    return MorphableFace(mean, identity, expression, eyes)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory, ball_face: MorphableFace) -> Path:
    """What `prepare` leaves: 12 rendered people of two views, 4 held out, 6 photographs, every other one with weak
    labels; faces drawn as shaded dots."""
    folder = tmp_path_factory.mktemp("prepared")
    np.savez(
        folder / "face.npz",
        mean=ball_face.mean,
        identity=ball_face.identity,
        expression=ball_face.expression,
        eyes=ball_face.eyes,
        template_sha256=load_template().sha256,
    )
    random = np.random.default_rng(0)
    for name, people in (("train", 12), ("held-out", 4)):
        faces = [draw_face(ball_face, random, person) for person in range(people) for _ in range(2)]
        target = folder / "people" / name
        target.mkdir(parents=True)
        np.save(target / "images.npy", np.stack([face["image"] for face in faces]))
        np.savez(
            target / "labels.npz",
            identity=np.stack([face["identity"] for face in faces]),
            expression=np.stack([face["expression"] for face in faces]),
            gaze_deg=np.stack([face["gaze_deg"] for face in faces]),
            canvas_from_head=np.stack([face["camera"] for face in faces]),
            person=np.repeat(np.arange(people, dtype=np.int32), 2),
        )
    photographs = [draw_face(ball_face, random, 100 + i) for i in range(6)]
    target = folder / "photographs" / "youtube-train"
    target.mkdir(parents=True)
    np.save(target / "images.npy", np.stack([face["image"] for face in photographs]))
    landmarks = np.stack([face["landmarks"] for face in photographs])
    # A tracker that says of every other one how far the jaw is open, and where its irises are.
    blendshapes = np.full((6, len(BLENDSHAPES)), np.nan, np.float32)
    jaw = BLENDSHAPES.index("jawOpen")
    blendshapes[::2, jaw] = [face["expression"][jaw] for face in photographs[::2]]
    corners = landmarks[:, [[45, 42], [36, 39]]]
    eyes = np.concatenate([corners, corners.mean(2, keepdims=True)], 2)
    eyes[1::2] = np.nan
    person = np.arange(6, dtype=np.int32) // 2
    trust = np.ones(blendshapes.shape, np.float32)
    np.savez(target / "labels.npz", landmarks=landmarks, person=person, blendshapes=blendshapes, trust=trust, eyes=eyes)
    return folder


def draw_face(face: MorphableFace, random: np.random.Generator, person: int) -> dict[str, np.ndarray]:
    """A canvas with the vertices of a random face as dots, brighter where they are near; and its labels."""
    identity = np.random.default_rng(person).normal(size=IDENTITY_MODES).astype(np.float32)
    expression = np.zeros(len(BLENDSHAPES), np.float32)
    expression[BLENDSHAPES.index("jawOpen")] = random.uniform()
    pitch, yaw, roll = random.normal(0, 8, 3)
    camera = camera_for_crop(pitch, yaw, roll, CANVAS_SIZE, CANVAS_SIZE / 1.4)
    vertices = face.mean + np.tensordot(identity, face.identity, 1) + np.tensordot(expression, face.expression, 1)
    points = vertices @ camera[:, :3].T + camera[:, 3]
    image = np.full((CANVAS_SIZE, CANVAS_SIZE, 3), random.integers(0, 60, 3), np.uint8)
    for x, y, depth in points[np.argsort(-points[:, 2])]:
        level = float(np.clip(140 - 1.5 * depth, 30, 255))
        cv2.circle(image, (round(float(x)), round(float(y))), 2, (level, level, level), -1)
    landmarks = points[load_template().landmarks, :2].astype(np.float32)
    gaze_deg = random.uniform(-25, 25, (2, 2)).astype(np.float32)
    return {
        "image": image,
        "identity": identity,
        "expression": expression,
        "gaze_deg": gaze_deg,
        "camera": camera,
        "landmarks": landmarks,
    }


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with two backgrounds and two panoramas made up on the spot, and no photograph."""
    folder = tmp_path / "data"
    for name in ("backgrounds", "lighting", "faces"):
        (folder / name).mkdir(parents=True)
    random = np.random.default_rng(0)
    for i in range(2):
        cv2.imwrite(str(folder / "backgrounds" / f"{i}.jpg"), random.integers(0, 256, (80, 100, 3), np.uint8))
        cv2.imwrite(str(folder / "lighting" / f"{i}.hdr"), random.uniform(0.2, 2, (8, 16, 3)).astype(np.float32))
    return folder
