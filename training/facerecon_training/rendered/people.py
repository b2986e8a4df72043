"""Seed -> people with several views each: the rendered half of the training data."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from multiprocessing import get_context
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from facerecon_rt.errors import UsageError
from facerecon_rt.sinks.outputs import make_folder
from facerecon_rt.types import Floats, Image
from numpy.typing import NDArray
from tqdm import tqdm

from ..arrays import new_pictures, read_arrays, save_arrays
from ..photographs import CANVAS_MARGIN, CANVAS_SIZE
from .assets import Asset, grown_normals, read_assets, read_texture
from .backgrounds import random_patch, read_backgrounds
from .expressions import Expression, random_expression
from .eyeballs import EYE_PIXELS, IRIS_PIXELS, turned
from .raster import Light, Material, Surface, openness, paint
from .render import (
    HeadGeometry,
    RenderedFace,
    camera_for_crop,
    irradiance_terms,
    mesh_normals,
    radiance_from_panorama,
    sphere_directions,
    turn_light,
)
from .skin import Complexion, FaceColours, SkinMap, mix, random_complexion, skin_map
from .wrinkles import Wrinkles, texture_coordinates

VIEWS_PER_PERSON = 4
PART = 100
"""Number of people after which an interrupted rendering continues."""
HELD_OUT_VIEWS = 10
"""Views of each held-out person, enough for sets of ten."""
SKIN = Material(gloss=0.03, shininess=14.0, softness=0.3, grain=0.05)
EYE = Material(gloss=0.05, shininess=300.0)
TOOTH = Material(gloss=0.05, shininess=60.0)
WET = Material(gloss=0.05, shininess=40.0)
HAIR = Material(gloss=0.0, softness=0.4)
CLOTH = Material(gloss=0.0, grain=0.08)
HATTED, BESPECTACLED = 0.05, 0.15
"""Shares of people with a hat and with glasses."""
RARE, RARE_SHARE = ("hair_bob02", "hair_braid01", "hair_short03", "glasses_sun_aviator", "glasses_sun_wayfarer"), 0.2
"""Hair that hangs over an eye, and dark glasses, with the probability of wearing them relative to others."""


def read_panoramas(folder: Path) -> list[np.ndarray]:
    """Return spherical-harmonics light (9, 3) of every .hdr panorama in a folder.

    Raises UsageError if there is none, or if a file is not a panorama.
    """
    files = sorted(folder.glob("*.hdr"))
    if not files:
        raise UsageError(f"{folder} holds no .hdr panorama; put equirectangular Radiance files there")
    lights = []
    for file in files:
        panorama = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        if panorama is None or panorama.ndim != 3:
            raise UsageError(f"{file} is not a readable Radiance .hdr picture; remove it from the folder")
        lights.append(radiance_from_panorama(panorama.astype(np.float32)))
    return lights


def random_identity(random: np.random.Generator) -> Floats:
    """Return a random identity (100,), standard normal, cut at 2.5. One face in three is more distinct than usual."""
    spread = 1.25 if random.random() < 0.33 else 1.0
    return np.clip(random.normal(0, spread, 100), -2.5, 2.5).astype(np.float32)


def random_angles(random: np.random.Generator) -> tuple[float, float, float]:
    """Return random (pitch, yaw, roll) in degrees.

    Five in six are typical of cameras. The others come from anywhere, with yaw to +-90 and pitch to +-60.
    """
    if random.random() < 0.84:
        yaw, pitch = random.normal(0, 24), random.normal(0, 11)
    else:
        yaw, pitch = random.uniform(-90, 90), random.normal(0, 24)
    return float(np.clip(pitch, -60, 60)), float(np.clip(yaw, -90, 90)), float(random.normal(0, 6))


@dataclass(frozen=True, slots=True, eq=False)
class Dressing:
    """Skin, hair and clothes of a person, the same in every view."""

    albedo: Floats
    """Albedo (H, 3), linear BGR: skin, and scalp under hair."""
    assets: list[tuple[Asset, Floats, Floats]]
    """Assets, each with its vertices (K, 3) on this neutral head, and its tint (3,)."""
    iris: Floats
    """Texture of the eyes (256, 256, 4), linear BGR and alpha."""
    cloth: Floats
    """Colour (3,) of the clothes, linear BGR."""
    wrinkles: Wrinkles


class PeopleRenderer:
    """Renderer of people. It holds the head, the light, the backgrounds, the assets, and colours of photographed faces.

    Without backgrounds, generated pictures stand behind the faces. Without assets, people are bald.
    """

    def __init__(
        self,
        head: HeadGeometry,
        panoramas: Sequence[np.ndarray],
        backgrounds: Sequence[Path],
        assets: Path | None = None,
        face_colours: FaceColours | None = None,
    ) -> None:
        self.head = head
        self.where: SkinMap = skin_map(head)
        self.panoramas = panoramas
        self.backgrounds = read_backgrounds(backgrounds)
        self.assets = read_assets(assets, head, head.origin)
        eyes = sorted((assets / "eyes").glob("*.jpg")) if assets is not None else []
        self.irises = {file.stem: read_texture(file) for file in eyes}
        self.face_colours = face_colours
        """Colours of photographed faces; None for wholly generated skin."""
        normals = head.normals(head.mean)
        self.openness = openness(head.mean, normals, head.triangles, sphere_directions(60))
        inside = np.concatenate([head.parts[part] for part in ("gums", "teeth", "mouth_socket")])
        # The mouth opens, so parts behind the lips see a little of the sky, and less the further back they are.
        depth = head.mean[head.landmarks[62], 2] - head.mean[inside, 2]
        self.openness[inside] = np.clip(0.75 - depth / 45.0, 0.05, 0.7)
        self.shoulders = shoulders(head)
        self.skin_uv = texture_coordinates(head.mean)

    def person(self, random: np.random.Generator, views: int = VIEWS_PER_PERSON) -> list[RenderedFace]:
        """Render several views of one person: skin and hair stay; expression, pose, light and background vary."""
        identity = random_identity(random)
        neutral = self.head.neutral(identity)
        complexion = random_complexion(self.head, self.where, random, self.face_colours)
        dressing = self._dress(random, neutral, complexion)
        return [self._view(random, identity, neutral, dressing) for _ in range(views)]

    def _dress(self, random: np.random.Generator, neutral: Floats, complexion: Complexion) -> Dressing:
        displacement = neutral - self.head.mean
        chosen: list[tuple[Asset, Floats]] = []

        def wear(kind: str, tint: Floats | None) -> None:
            if self.assets[kind]:
                weights = np.array([RARE_SHARE if one.name in RARE else 1.0 for one in self.assets[kind]])
                asset = self.assets[kind][random.choice(len(weights), p=weights / weights.sum())]
                chosen.append((asset, np.ones(3, np.float32) if tint is None else tint / (asset.colour + 0.02)))

        hatted = random.random() < HATTED
        if hatted:
            wear("hat", random.uniform(0.02, 0.6, 3).astype(np.float32))
        elif not complexion.bald:
            wear("hair", complexion.hair)
        # Under hair the scalp is as dark as the hair. A bald scalp is more or less shaved.
        roots = chosen[0][0].roots if chosen else self.where.scalp * random.uniform(0, 0.5)
        albedo = mix(complexion.albedo, complexion.hair * 0.7, roots)
        wear("eyebrows", complexion.hair * random.uniform(0.5, 1.0))
        if random.random() < 0.5:
            wear("eyelashes", np.full(3, random.uniform(0.005, 0.04), np.float32))
        if random.random() < BESPECTACLED:
            wear("glasses", None)
        if complexion.bearded:
            wear("beard", complexion.hair)
        iris = np.full((2, 2, 4), 0.3, np.float32)
        if self.irises:
            brown = random.random() < 0.66
            names = [name for name in self.irises if name.startswith("brown") == brown]
            iris = self.irises[names[random.integers(len(names))] if names else next(iter(self.irises))]
            iris = tinted_eye(iris, random.uniform(0.35, 1.2) * random.normal(1, 0.06, 3), random.uniform(0.95, 1.3))
        return Dressing(
            albedo,
            [(asset, asset.on(displacement), np.asarray(tint, np.float32)) for asset, tint in chosen],
            iris,
            (random.uniform(0.01, 0.6) * random.uniform(0.3, 1, 3)).astype(np.float32),
            Wrinkles(self.head.mean[self.head.landmarks], random),
        )

    def _view(self, random: np.random.Generator, identity: Floats, neutral: Floats, dressing: Dressing) -> RenderedFace:
        pitch, yaw, roll = random_angles(random)
        expression = random_expression(random, facing=(-yaw, -pitch))
        camera = camera_for_crop(pitch, yaw, roll, CANVAS_SIZE, CANVAS_SIZE / CANVAS_MARGIN)
        surfaces = self._surfaces(neutral, dressing, expression)
        picture, covered = paint(surfaces, self._light(random), camera, CANVAS_SIZE, int(random.integers(1 << 30)))
        background = (self._background(random) / np.float32(255)) ** 2.2
        picture += background * (1 - covered[:, :, None])
        image = (255.0 * np.clip(picture, 0, 1) ** (1 / 2.2)).astype(np.uint8)
        return RenderedFace(image, identity, expression.weights, expression.gaze_deg, camera)

    def _surfaces(self, neutral: Floats, dressing: Dressing, expression: Expression) -> list[Surface]:
        vertices = self.head.expressed(neutral, expression.weights)
        return [
            *self._skin_and_mouth(vertices, dressing, expression),
            *self._eyes(vertices, dressing, expression),
            *self._assets(vertices - neutral, dressing),
            self._body(dressing),
        ]

    def _skin_and_mouth(self, vertices: Floats, dressing: Dressing, expression: Expression) -> list[Surface]:
        head = self.head
        normals = head.normals(vertices)
        skin = Surface(
            vertices,
            normals,
            head.triangles_of(("face", "head", "eye_socket")),
            dressing.albedo,
            self.openness,
            SKIN,
            self.skin_uv,
            dressing.wrinkles.texture(expression.weights),
        )
        inside = [
            Surface(vertices, normals, head.triangles_of(parts), dressing.albedo, self.openness, material)
            for parts, material in ((("gums", "mouth_socket"), WET), (("teeth",), TOOTH))
        ]
        return [skin, *inside]

    def _eyes(self, vertices: Floats, dressing: Dressing, expression: Expression) -> list[Surface]:
        head, surfaces = self.head, []
        for eyeball, triangles, gaze in zip(head.eyeballs, head.eyeball_triangles, expression.gaze_deg, strict=True):
            points = turned(eyeball, vertices, gaze)
            surfaces.append(
                Surface(
                    points,
                    mesh_normals(points, triangles),
                    triangles,
                    np.ones((len(points), 3), np.float32),
                    self.openness[eyeball.vertices] * 0.5 + 0.5,
                    EYE,
                    eyeball.uv,
                    dressing.iris,
                )
            )
        return surfaces

    def _assets(self, moved: Floats, dressing: Dressing) -> list[Surface]:
        """Return hair, brows, lashes, beard, glasses and hat on a head whose expression moves it by (H, 3) mm."""
        surfaces = []
        for asset, points, tint in dressing.assets:
            if asset.kind in ("eyebrows", "eyelashes", "beard"):
                points = points + np.asarray(asset.followers @ moved, np.float32)
            normals = mesh_normals(points, asset.triangles)
            material = HAIR
            if asset.kind in ("hair", "beard", "eyebrows"):
                normals = grown_normals(points, normals, 0.75)
            elif asset.kind == "glasses":
                material = EYE
            surfaces.append(
                Surface(
                    points,
                    normals,
                    asset.triangles,
                    np.tile(tint, (len(points), 1)),
                    np.full(len(points), 0.85, np.float32),
                    material,
                    asset.uv,
                    asset.texture,
                    two_sided=True,
                )
            )
        return surfaces

    def _body(self, dressing: Dressing) -> Surface:
        body, triangles = self.shoulders
        return Surface(
            body,
            mesh_normals(body, triangles),
            triangles,
            np.tile(dressing.cloth, (len(body), 1)),
            np.full(len(body), 0.8, np.float32),
            CLOTH,
            two_sided=True,
        )

    def _light(self, random: np.random.Generator) -> Light:
        sky = self.panoramas[int(random.integers(len(self.panoramas)))]
        angle = random.uniform(0, 2 * np.pi)
        turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
        sky = turn_light(sky, turn)
        grey = sky.mean(1, keepdims=True)
        sky = grey + random.uniform(0.2, 1.0) * (sky - grey)
        sky[1:] *= random.uniform(0.5, 1.2)
        # A lamp, a window or the sun shines from the front or above more often than from below or behind.
        lamp = random.normal(size=3) + np.array([0, 0.7, 0.9])
        lamp /= np.linalg.norm(lamp)
        strength = random.choice([0.0, random.uniform(0.1, 0.5), random.uniform(0.5, 2.0)], p=[0.15, 0.45, 0.4])
        colour = strength * random.uniform(0.85, 1.1, 3)
        exposure = np.exp(random.normal(0.05, 0.3)) / (sky[0].mean() * 0.282095 + 0.6 * strength)
        return Light(irradiance_terms(sky) * exposure, lamp, colour * exposure)

    def _background(self, random: np.random.Generator) -> Image:
        patch = random_patch(self.backgrounds, random, 0.3, 1.0)
        patch = np.asarray(cv2.resize(patch, (CANVAS_SIZE, CANVAS_SIZE), interpolation=cv2.INTER_AREA), np.uint8)
        return np.asarray(cv2.GaussianBlur(patch, (0, 0), random.uniform(0.3, 3.0)), np.uint8)


def tinted_eye(texture: Floats, iris: NDArray[np.floating], white: float) -> Floats:
    """Tint a frontal eye (h, w, 4): multiply its iris by a colour (3,) BGR, and its white by a number."""
    height, width = texture.shape[:2]
    y, x = np.mgrid[:height, :width]
    radius = np.hypot(x / width - 0.5, y / height - 0.5) * EYE_PIXELS / IRIS_PIXELS
    share = np.clip((1.05 - radius) / 0.1, 0, 1)[:, :, None]
    coloured = texture.copy()
    coloured[:, :, :3] *= share * iris + (1 - share) * white
    return np.asarray(coloured, np.float32)


def shoulders(head: HeadGeometry) -> tuple[Floats, NDArray[np.int32]]:
    """Return neck and shoulders in a shirt under the mean head: vertices (K, 3) mm and triangles (T, 3)."""
    bottom = float(head.mean[np.concatenate([head.parts["face"], head.parts["head"]]), 1].min())
    rings = ((8, 62, 62, -12), (-4, 74, 70, -14), (-18, 120, 84, -20), (-45, 190, 95, -25), (-200, 225, 110, -30))
    around = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    points = [
        np.stack([width * np.cos(around), np.full(40, bottom + up), back + depth * np.sin(around)], 1)
        for up, width, depth, back in rings
    ]
    triangles = []
    for ring in range(len(rings) - 1):
        for i in range(40):
            a, b = ring * 40 + i, ring * 40 + (i + 1) % 40
            triangles += [(a, b, a + 40), (b, b + 40, a + 40)]
    return np.concatenate(points).astype(np.float32), np.array(triangles, np.int32)


_renderers: list[PeopleRenderer] = []
"""Renderer of a worker process, inherited from its parent by the fork.

Sending the head's 100 megabytes with each person would take more time than rendering.
"""


def _drawn_person(seed: int, views: int, person: int) -> list[RenderedFace]:
    cv2.setNumThreads(1)
    return _renderers[-1].person(np.random.default_rng((seed, person)), views)


def render_processes() -> Pool:
    """Return processes that inherit `_renderers` by the fork. Only their parent ends them, also on Ctrl-C."""
    return get_context("fork").Pool(os.cpu_count(), _leave_signals)


def _leave_signals() -> None:
    """Ignore Ctrl-C, which a terminal sends to all processes, and end on SIGTERM at once.

    With the handlers of their parent, processes would print tracebacks, or wait for ever.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def pack_people(renderer: PeopleRenderer, count: int, seed: int, target: Path, views: int = VIEWS_PER_PERSON) -> None:
    """Write `count` rendered people with several views each. The same call continues after an interruption.

    `target/images.npy` is (N, CANVAS_SIZE, CANVAS_SIZE, 3) uint8. `target/labels.npz` holds identity, expression,
    gaze_deg, canvas_from_head and person for each picture. `target/part.npz` holds the labels so far.
    """
    make_folder(target)
    pictures, part = target / "images.npy", target / "part.npz"
    shape = count * views, CANVAS_SIZE, CANVAS_SIZE, 3
    done, labels = 0, dict[str, Any]()
    if part.is_file() and pictures.is_file():
        labels = read_arrays(part)
        done = len(labels["identity"]) // views
        images = np.lib.format.open_memmap(pictures, "r+")
        if images.shape != shape:
            done, labels = 0, {}
    if not done:
        images = new_pictures(pictures, shape)
    _renderers.append(renderer)
    # Each person depends on its own seed alone, whichever process renders it.
    with render_processes() as pool:
        drawn = pool.imap(partial(_drawn_person, seed, views), range(done, count), chunksize=4)
        with tqdm(total=count, initial=done, desc="rendering people", unit="person") as progress:
            while done < count:
                faces: list[RenderedFace] = []
                for person in islice(drawn, min(PART, count - done)):
                    faces += person
                    progress.update()
                images[done * views : done * views + len(faces)] = [face.image for face in faces]
                new = labels_of(faces)
                labels = {name: np.concatenate([labels[name], new[name]]) for name in new} if labels else new
                done += len(faces) // views
                images.flush()
                save_arrays(part, **labels)
    _renderers.pop()
    save_arrays(target / "labels.npz", **labels, person=np.repeat(np.arange(count, dtype=np.int32), views))
    part.unlink()


def labels_of(faces: Sequence[RenderedFace]) -> dict[str, Any]:
    """Return the labels of rendered faces by name."""
    return {
        "identity": np.stack([face.identity for face in faces]),
        "expression": np.stack([face.expression for face in faces]),
        "gaze_deg": np.stack([face.gaze_deg for face in faces]),
        "canvas_from_head": np.stack([face.image_from_head for face in faces]),
    }
