"""Seed -> people with several views each: the rendered half of the training data."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from facerecon_rt.contract import BLENDSHAPES
from facerecon_rt.errors import UsageError
from facerecon_rt.mirror import blendshape_mirror
from facerecon_rt.types import Floats, Image
from tqdm import tqdm

from .accessories import add_accessories
from .backgrounds import random_patch, read_backgrounds
from .eyes import BLINK
from .photographs import CANVAS_MARGIN, CANVAS_SIZE
from .render import (
    HeadGeometry,
    RenderedFace,
    camera_for_crop,
    radiance_from_panorama,
    rasterise,
    sh_basis,
    shade,
    turn_light,
    viewer_normals,
)
from .skin import SkinMap, add_hair_and_eyes, hair_volume, random_skin, skin_map

VIEWS_PER_PERSON = 4
HELD_OUT_VIEWS = 10
"""Of people not trained on: enough for sets of ten."""
_INDEX = {name: i for i, name in enumerate(BLENDSHAPES)}
_LIDS = [i for name, i in _INDEX.items() if name.startswith(("eyeSquint", "eyeWide", "eyeLookDown", "eyeLookUp"))]


def read_panoramas(folder: Path) -> list[np.ndarray]:
    """Every .hdr of a folder -> spherical-harmonics light (9, 3) each.

    Raises UsageError when there is none, or one is no panorama.
    """
    files = sorted(folder.glob("*.hdr"))
    if not files:
        raise UsageError(f"{folder} holds no .hdr panorama; any equirectangular Radiance files will do")
    lights = []
    for file in files:
        panorama = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        if panorama is None or panorama.ndim != 3:
            raise UsageError(f"{file} is not a readable Radiance .hdr picture; take it out of the folder")
        lights.append(radiance_from_panorama(panorama.astype(np.float32)))
    return lights


def random_identity(random: np.random.Generator) -> Floats:
    """(100,) standard normal, kept within 2.5 standard deviations; one face in three is more than usually distinct."""
    spread = 1.25 if random.random() < 0.33 else 1.0
    return np.clip(random.normal(0, spread, 100), -2.5, 2.5).astype(np.float32)


def random_expression(random: np.random.Generator) -> Floats:
    """(53,) 0..1: a few random blendshapes, mostly the same on both sides, and the common ones (jaw, blink, smile,
    gaze) on top. One face in five has its eyes closed, as far as lids go: what photographs show too rarely to learn."""
    weights = np.zeros(len(BLENDSHAPES), np.float32)
    kind = random.random()
    if kind < 0.1:
        return weights
    if kind < 0.55:  # a few, strong
        count = random.integers(1, 8)
        chosen = random.choice(len(weights), count, replace=False)
        weights[chosen] = random.beta(1.0, 1.5, count)
    else:  # many, mild
        chosen = random.random(len(weights)) < random.uniform(0.1, 0.4)
        weights[chosen] = random.beta(1.0, 3.0, int(chosen.sum()))
    if random.random() < 0.45:
        weights[_INDEX["jawOpen"]] = random.beta(1.0, 2.2)
    lids = random.random()
    if lids < 0.35:
        weights[_LIDS] = 0.0  # nothing else lowers or raises them
        weights[list(BLINK)] = random.uniform(0.85, 1.0) if lids < 0.22 else random.uniform(0, 1)
    if random.random() < 0.35:
        weights[[_INDEX["mouthSmile_L"], _INDEX["mouthSmile_R"]]] = random.uniform(0, 1)
    if random.random() < 0.75:
        weights = np.maximum(weights, weights[blendshape_mirror(BLENDSHAPES)])
        for sideways in ("jawLeft", "jawRight", "mouthLeft", "mouthRight"):  # mirrored, a face would go both ways
            weights[_INDEX[sideways]] = 0.0
    for gaze, opposite in (("eyeLookUp", "eyeLookDown"), ("eyeLookIn", "eyeLookOut")):
        for side in ("_L", "_R"):
            if weights[_INDEX[gaze + side]] > 0:
                weights[_INDEX[opposite + side]] = 0.0
    # A mouth cannot close further than the jaw is open.
    weights[_INDEX["mouthClose"]] = min(weights[_INDEX["mouthClose"]], weights[_INDEX["jawOpen"]])
    return weights


def random_angles(random: np.random.Generator) -> tuple[float, float, float]:
    """(pitch, yaw, roll) degrees: mostly towards the camera, yaw to +-90, pitch to +-65."""
    yaw = random.normal(0, 28) if random.random() < 0.6 else random.uniform(-90, 90)
    pitch = random.normal(0, 14) if random.random() < 0.6 else random.uniform(-65, 65)
    return float(np.clip(pitch, -65, 65)), float(np.clip(yaw, -90, 90)), float(random.normal(0, 6))


class PeopleRenderer:
    """Draws people. Holds the head, the light, the backgrounds and faces' own colours, if any.

    Without backgrounds, invented pictures stand behind the faces.
    """

    def __init__(
        self,
        head: HeadGeometry,
        panoramas: Sequence[np.ndarray],
        backgrounds: Sequence[Path],
        face_colours: Floats | None = None,
    ) -> None:
        self.head = head
        self.where: SkinMap = skin_map(head)
        self.panoramas = panoramas
        self.backgrounds = read_backgrounds(backgrounds)
        self.face_colours = face_colours
        """(P, F, 3) albedo of photographed faces; None or none of them: wholly invented skin."""

    def person(self, random: np.random.Generator, views: int = VIEWS_PER_PERSON) -> list[RenderedFace]:
        """One person, several views: other expression, pose, light and background each, same skin and hair."""
        identity = random_identity(random)
        neutral = self.head.neutral(identity)
        albedo = self._albedo(random)
        lift = hair_volume(self.head, self.where, random)
        return [self._view(random, identity, neutral, albedo, lift) for _ in range(views)]

    def _albedo(self, random: np.random.Generator) -> Floats:
        if self.face_colours is None or not len(self.face_colours) or random.random() < 0.3:
            return random_skin(self.head, self.where, random)
        # A photographed face's own colours, sometimes half another's, its tone shifted.
        colours = self.face_colours[random.integers(len(self.face_colours))].astype(np.float32)
        if random.random() < 0.3:
            other = self.face_colours[random.integers(len(self.face_colours))].astype(np.float32)
            colours = colours + random.uniform(0, 0.5) * (other * colours.mean(0) / other.mean(0) - colours)
        colours = colours * random.normal(1, 0.08, 3) * np.exp(random.normal(0, 0.2))
        invented = random_skin(self.head, self.where, random)
        face = self.head.parts["face"]
        hair = np.median(invented[self.where.scalp > 0.9], axis=0)
        neck = np.median(colours, axis=0)
        albedo = np.tile(neck.astype(np.float32), (len(invented), 1))
        # Outside the narrow face a photograph shows hair and background, not skin.
        edge = np.clip((self.head.mean[face, 2] + 35) / 25, 0, 1)[:, None]
        albedo[face] = np.clip(neck + (colours - neck) * edge, 0.005, 1.2)
        return add_hair_and_eyes(albedo, self.head, self.where, random, hair)

    def _view(
        self, random: np.random.Generator, identity: Floats, neutral: Floats, albedo: Floats, lift: Floats
    ) -> RenderedFace:
        expression = random_expression(random)
        vertices = self.head.expressed(neutral, expression)
        side = CANVAS_SIZE / CANVAS_MARGIN
        camera = camera_for_crop(*random_angles(random), CANVAS_SIZE, side)
        normals = self.head.normals(vertices)
        shell = vertices + normals * lift[:, None]
        facing = viewer_normals(normals, camera)
        light = self._light(random)
        highlight = random.normal(size=3) + np.array([0, 0.5, 1.0])
        gloss = random.choice([0.0, random.uniform(0, 0.25)])
        colour = shade(albedo, facing, light, highlight / np.linalg.norm(highlight), gloss, random.uniform(8, 40))
        background = (self._background(random) / np.float32(255)) ** 2.2
        picture = rasterise(shell, self.head.triangles, np.clip(colour, 0, 1), camera, background)
        image = (255.0 * np.clip(picture, 0, 1) ** (1 / 2.2)).astype(np.uint8)
        image = add_accessories(image, camera, vertices[self.head.landmarks], random)
        return RenderedFace(image, identity, expression, camera)

    def _light(self, random: np.random.Generator) -> np.ndarray:
        light = self.panoramas[random.integers(len(self.panoramas))]
        angle = random.uniform(0, 2 * np.pi)
        turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
        light = turn_light(light, turn)
        grey = light.mean(1, keepdims=True)
        light = grey + random.uniform(0.2, 1.0) * (light - grey)
        contrast = random.uniform(0.5, 1.3)
        light[1:] *= contrast
        # A lamp or window: one more direction, from anywhere in front or above.
        lamp = random.normal(size=3) + np.array([0, 0.4, 0.6])
        lamp_light = sh_basis((lamp / np.linalg.norm(lamp))[None])[0, :, None] * random.uniform(0.8, 1.2, 3)
        light = light + random.choice([0.0, random.uniform(0, 3.0)]) * lamp_light
        return np.asarray(light / (light[0].mean() * 0.282095) * np.exp(random.normal(-0.1, 0.35)))

    def _background(self, random: np.random.Generator) -> Image:
        patch = random_patch(self.backgrounds, random, 0.3, 1.0)
        patch = np.asarray(cv2.resize(patch, (CANVAS_SIZE, CANVAS_SIZE), interpolation=cv2.INTER_AREA), np.uint8)
        return np.asarray(cv2.GaussianBlur(patch, (0, 0), random.uniform(0.3, 3.0)), np.uint8)


def _drawn_person(renderer: PeopleRenderer, seed: int, views: int, person: int) -> list[RenderedFace]:
    cv2.setNumThreads(1)
    return renderer.person(np.random.default_rng((seed, person)), views)


def pack_people(renderer: PeopleRenderer, count: int, seed: int, target: Path, views: int = VIEWS_PER_PERSON) -> None:
    """Write `count` rendered people with several views each: `target/images.npy` (N, 192, 192, 3) uint8 and
    `target/labels.npz` with identity, expression, canvas_from_head and person per picture."""
    target.mkdir(parents=True, exist_ok=True)
    total = count * views
    images = np.lib.format.open_memmap(target / "images.npy", "w+", np.uint8, (total, CANVAS_SIZE, CANVAS_SIZE, 3))
    faces: list[RenderedFace] = []
    # Each person depends on its own seed alone, whichever process draws it.
    with get_context("fork").Pool(os.cpu_count()) as pool:
        drawn = pool.imap(partial(_drawn_person, renderer, seed, views), range(count), chunksize=4)
        for person in tqdm(drawn, total=count, desc="rendering people", unit="person"):
            for view in person:
                images[len(faces)] = view.image
                faces.append(replace(view, image=images[len(faces)]))
    images.flush()
    np.savez(
        target / "labels.npz",
        identity=np.stack([face.identity for face in faces]),
        expression=np.stack([face.expression for face in faces]),
        canvas_from_head=np.stack([face.image_from_head for face in faces]),
        person=np.repeat(np.arange(count, dtype=np.int32), views),
    )
