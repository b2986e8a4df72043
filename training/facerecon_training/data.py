"""Packed photographs and rendered people -> training batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from facerecon_rt.align import Square, compose, square_from_camera
from facerecon_rt.contract import BLENDSHAPES
from facerecon_rt.errors import UsageError
from facerecon_rt.networks.mirror import blendshape_mirror
from facerecon_rt.template import load_template
from facerecon_rt.types import Floats, Image
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset

from .arrays import read_arrays, readable
from .augment import AugmentConfig, bad_square, blinked, crop_from_canvas, degrade, flipped, jittered_square
from .conventions import annotated_offsets
from .photographs import camera_from_landmarks
from .prepare import SETS_SUFFIX, read_face
from .rendered.backgrounds import Invented, Pictures, random_patch, read_backgrounds
from .rendered.expressions import EYE_LOOK
from .rendered.eyes import BLINK
from .rendered.morphable import MorphableFace
from .weak_labels import gaze_from_eye_look

BLENDSHAPE_MIRROR = np.asarray(blendshape_mirror(BLENDSHAPES))
LIDS = [i for i, name in enumerate(BLENDSHAPES) if name.startswith(("eyeSquint", "eyeWide", "cheekSquint"))]
"""Blendshapes whose machine-made labels come from open eyes and mean nothing under drawn lids."""
LOOKED_SHARE = 0.5
"""Probability that a photograph is drawn from those of its folder that have labels given by looking, if there are any.
Otherwise it is drawn from all of them."""
IRIS_SEEN = 0.35
"""The eyeBlink weight from which on a tracker guesses where the iris is, in the middle of the lids."""


@dataclass(frozen=True, slots=True)
class Folder:
    """Settings of a packed folder of photographs in training."""

    name: str
    share: float
    """Share of the photographs in a batch."""
    weight: float
    """Weight of its landmarks in the loss."""
    sets: bool = False
    """Whether photographs with the same file name up to the last underscore show one person.

    Pairs of these photographs must agree in their features.
    """
    machine_made: bool = False
    """Whether a machine made the landmarks.

    If training uses the running average of its weights, landmarks that disagree with the average lose their weight.
    """


# Only youtube-train and expressive hold image sets. In helen-train and afw the number after the underscore counts the
# faces of a photograph, and lfpw-train has names such as image_0001.
FOLDERS: tuple[Folder, ...] = (
    Folder("helen-train", 0.2, 1.0),
    Folder("afw", 0.1, 1.0),
    Folder("lfpw-train", 0.2, 1.0),
    Folder("aaf-train", 0.17, 0.7, machine_made=True),
    Folder("youtube-train", 0.08, 0.4, sets=True, machine_made=True),
    Folder("expressive", 0.25, 0.25, sets=True, machine_made=True),
    Folder("head_pose", 0.1, 0.5, machine_made=True),
)


def usual_folder(name: str) -> Folder:
    """Return the settings of a folder that `FOLDERS` names, or those of carefully annotated photographs. A folder whose
    name ends in -sets holds image sets."""
    named = {folder.name: folder for folder in FOLDERS}
    return named.get(name, Folder(name, 0.25, 1.0, sets=name.endswith(SETS_SUFFIX)))


def folders_in(packed: Path, chosen: Sequence[Folder] = ()) -> list[Folder]:
    """Return the packed folders of photographs that exist: first the folders named in FOLDERS, then others in name
    order.

    `chosen` replaces the shares and weights of folders by name. Raises UsageError if one of them does not exist.
    """
    by_name = {folder.name: folder for folder in FOLDERS}
    for path in sorted(packed.glob("*")):
        by_name.setdefault(path.name, usual_folder(path.name))
    there = {name: folder for name, folder in by_name.items() if (packed / name / "labels.npz").is_file()}
    for folder in chosen:
        if folder.name not in there:
            names = ", ".join(there) or "none"
            raise UsageError(
                f"--folder {folder.name}: there are no such packed photographs in {packed}; choose from {names}"
            )
        there[folder.name] = replace(there[folder.name], share=folder.share, weight=folder.weight)
    return [folder for folder in there.values() if folder.share > 0]


@dataclass(frozen=True, slots=True)
class BatchConfig:
    """Composition of a batch. Pairs come first, and the two pictures of a pair are neighbours."""

    rendered_pairs: int = 16
    """Pairs of two views of a rendered person."""
    person_pairs: int = 7
    """Pairs of two photographs of a person, from folders with image sets."""
    photograph_pairs: int = 0
    """Pairs of two augmentations of a photograph."""
    photographs: int = 14
    head_poses: int = 3
    """Photographs whose head direction is nominally known. Without them, other photographs take their place."""
    backgrounds: int = 3
    """Crops without a face, or crops that miss the face."""

    @property
    def pairs(self) -> int:
        """Number of pairs of one person."""
        return self.rendered_pairs + self.person_pairs + self.photograph_pairs

    @property
    def size(self) -> int:
        """Number of pictures in a batch."""
        return 2 * self.pairs + self.photographs + self.head_poses + self.backgrounds


CLEAN_BATCH = BatchConfig(
    rendered_pairs=24, person_pairs=0, photograph_pairs=0, photographs=6, head_poses=6, backgrounds=4
)
"""Composition of a batch of a clean model. The few people of Pointing'04 must not outweigh the rendered people."""


class Batch(NamedTuple):
    """Crops and their labels. N = BatchConfig.size."""

    image: Tensor
    """Crops (N, 3, S, S) uint8 BGR."""
    landmarks: Tensor
    """Landmarks (N, 68, 2), crop pixels; 0 where the weight is 0."""
    landmark_weights: Tensor
    """Weights of the landmarks, (N, 68)."""
    rendered: Tensor
    """Whether the face is rendered, (N,) bool, so that identity, expression, gaze and camera are known."""
    identity: Tensor
    """Identity code (N, 100), in standard deviations."""
    expression: Tensor
    """Blendshape weights (N, 53) of rendered faces, and of photographs with weak labels."""
    expression_weights: Tensor
    """Trust in each blendshape weight, (N, 53); 0 where it is not known."""
    gaze: Tensor
    """Yaw and pitch of both eyes of rendered faces, and of photographs with weak labels, (N, 2, 2) radians."""
    gaze_weights: Tensor
    """Weights of the gaze of each eye, (N, 2); 0 where it is not known."""
    eyes: Tensor
    """Outer corner, inner corner and iris of the left and the right eye, (N, 2, 3, 2) crop pixels."""
    eyes_weights: Tensor
    """Weights of the eyes' points, (N, 2); 0 where they are not known."""
    crop_from_head: Tensor
    """Scaled-orthographic camera (N, 3, 4) of rendered faces."""
    is_face: Tensor
    """Whether the crop shows a face, (N,): 1 or 0."""
    machine_made: Tensor
    """Whether a machine made the landmarks, (N,) bool."""
    direction: Tensor
    """Direction out of the face, (N, 3): crop x, y and depth away from the viewer; 0 where it is not known."""
    blink: Tensor
    """eyeBlink weights of the left and the right eye of photographs, (N, 2)."""
    blink_weights: Tensor
    """Weights of `blink`, (N, 2); 0 where it is not known."""
    person: Tensor
    """Number of the photographed person, (N,) int64; -1 where it is not known, as outside of folders with image
    sets."""


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """A folder that photographs.pack_photographs or people.pack_people wrote."""

    images: NDArray[np.uint8]
    labels: dict[str, NDArray[Any]]
    people: list[NDArray[np.int64]]
    """Indices of the pictures of each person with at least two pictures."""

    @classmethod
    def read(cls, folder: Path) -> Packed:
        """Read a folder, with its images memory-mapped. Raises UsageError if it does not exist or is damaged."""
        if not (folder / "labels.npz").is_file():
            raise UsageError(f"{folder} holds no packed pictures; run `facerecon-train prepare` first")
        labels = read_arrays(folder / "labels.npz")
        with readable(folder / "labels.npz"):
            order = np.argsort(labels["person"], kind="stable")
            groups = np.split(order, np.flatnonzero(np.diff(labels["person"][order])) + 1)
        with readable(folder / "images.npy"):
            images = np.lib.format.open_memmap(folder / "images.npy", "r")
            if len(images) != len(order):
                raise ValueError(f"it has {len(images)} pictures, but there are labels for {len(order)}")
        return cls(images, labels, [group for group in groups if len(group) > 1])


def people_squares(people: Packed, face: MorphableFace) -> list[Square]:
    """Return the square of the crop of each rendered picture, canvas pixels, from its landmarks as in photographs.

    The landmarks lie where annotators would put them, so that photographs and rendered faces are cut out alike.

    The true camera is not used for two reasons. It would reveal the head's size, which no photograph does. It would
    also leave heads askew that turn and nod, which the runtime's second look turns upright.
    """
    landmarks = load_template().landmarks
    points = (
        face.mean[landmarks]
        + np.tensordot(people.labels["identity"], face.identity[:, landmarks], 1)
        + np.tensordot(people.labels["expression"], face.expression[:, landmarks], 1)
        + annotated_offsets()
    )
    cameras = people.labels["canvas_from_head"]
    seen = np.einsum("pij,pkj->pki", cameras[:, :2, :3], points) + cameras[:, None, :2, 3]
    return [square_from_camera(camera_from_landmarks(one)) for one in seen.astype(np.float32)]


class Batches(IterableDataset[Batch]):
    """Endless batches. The i-th batch depends on (seed, i) alone, so that a resumed run continues where it stopped.

    Where photographs of several people are too few, pairs are two augmentations of one photograph. Without any
    photographs, all faces are rendered. Without backgrounds, generated pictures take their place.
    """

    def __init__(
        self,
        prepared: Path,
        backgrounds: Path | None,
        batch: BatchConfig,
        augment: AugmentConfig,
        size: int,
        seed: int,
        start: int,
        folders: Sequence[Folder] = (),
    ) -> None:
        """Open the prepared data. `folders` is the argument `chosen` of `folders_in`."""
        super().__init__()
        self.batch, self.augment, self.size, self.seed, self.start = batch, augment, size, seed, start
        self.gently = augment.gently()
        self.people = Packed.read(prepared / "people" / "train")
        self.people_squares = people_squares(self.people, read_face(prepared))
        self.folders = folders_in(prepared / "photographs", folders)
        self.photographs = [Packed.read(prepared / "photographs" / f.name) for f in self.folders]
        self.looked = []
        for folder, packed in zip(self.folders, self.photographs, strict=True):
            with readable(prepared / "photographs" / folder.name / "labels.npz"):
                self.looked.append(np.flatnonzero((packed.labels["trust"] > 1).any(1)))
        shares = np.array([folder.share for folder in self.folders])
        self.shares = shares / shares.sum() if len(shares) else shares
        self.photographed_people = [
            (i, group) for i, f in enumerate(self.folders) if f.sets for group in self.photographs[i].people
        ]
        directed = prepared / "head_pose"
        self.head_poses = Packed.read(directed) if (directed / "labels.npz").is_file() else None
        pictures = read_backgrounds(sorted(backgrounds.glob("*.jpg"))) if backgrounds else []
        self.backgrounds: Pictures = pictures or Invented(seed)

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches from step `start` on."""
        cv2.setNumThreads(1)
        step = self.start
        while True:
            random = np.random.default_rng((self.seed, step))
            cv2.setRNGSeed(step)
            yield self._batch(random)
            step += 1

    def _batch(self, random: np.random.Generator) -> Batch:
        n, config = self.batch.size, self.batch
        out = Batch(
            torch.empty(n, self.size, self.size, 3, dtype=torch.uint8),
            torch.zeros(n, 68, 2),
            torch.zeros(n, 68),
            torch.zeros(n, dtype=torch.bool),
            torch.zeros(n, 100),
            torch.zeros(n, 53),
            torch.zeros(n, 53),
            torch.zeros(n, 2, 2),
            torch.zeros(n, 2),
            torch.zeros(n, 2, 3, 2),
            torch.zeros(n, 2),
            torch.zeros(n, 3, 4),
            torch.ones(n),
            torch.zeros(n, dtype=torch.bool),
            torch.zeros(n, 3),
            torch.zeros(n, 2),
            torch.zeros(n, 2),
            torch.full((n,), -1, dtype=torch.int64),
        )
        rendered_pairs, person_pairs, photograph_pairs = self._pairs()
        row = 0
        for _ in range(rendered_pairs):
            views = self.people.people[random.integers(len(self.people.people))]
            for index in random.choice(views, 2, replace=False):
                self._rendered(out, row, int(index), random)
                row += 1
        everybody = self.photographed_people
        for person in random.choice(len(everybody), person_pairs, replace=False) if person_pairs else ():
            which, group = everybody[person]
            for index in random.choice(group, 2, replace=False):
                self._photograph(out, row, which, int(index), random)
                out.person[row] = int(person)
                row += 1
        head_poses = config.head_poses if self.head_poses is not None else 0
        singles = config.photographs + config.head_poses - head_poses
        photographs = singles if self.folders else 0
        for copies in [2] * photograph_pairs + [1] * photographs:
            which = int(random.choice(len(self.folders), p=self.shares))
            looked = self.looked[which] if random.random() < LOOKED_SHARE else self.looked[which][:0]
            index = int(random.choice(looked if len(looked) else len(self.photographs[which].images)))
            for _ in range(copies):
                self._photograph(out, row, which, index, random)
                row += 1
        for _ in range(head_poses):
            self._head_pose(out, row, random)
            row += 1
        for _ in range(singles - photographs):
            self._rendered(out, row, int(random.integers(len(self.people.images))), random)
            row += 1
        for _ in range(config.backgrounds):
            self._background(out, row, random)
            row += 1
        return out._replace(image=out.image.permute(0, 3, 1, 2))

    def _pairs(self) -> tuple[int, int, int]:
        """Return the numbers of pairs that the prepared data allow: rendered, photographs of a person, one photograph.

        No person appears in two pairs.
        """
        config = self.batch
        if not self.folders:
            return config.pairs, 0, 0
        of_people = min(config.person_pairs, len(self.photographed_people))
        return config.rendered_pairs, of_people, config.photograph_pairs + config.person_pairs - of_people

    def _rendered(self, out: Batch, row: int, index: int, random: np.random.Generator) -> None:
        labels = self.people.labels
        canvas = np.ascontiguousarray(self.people.images[index])
        augment = self._strength(random)
        square = jittered_square(augment, random, self.people_squares[index])
        crop, crop_from_canvas_ = crop_from_canvas(canvas, square, self.size)
        out.image[row] = torch.from_numpy(degrade(crop, augment, self._patch(random), random))
        out.rendered[row] = True
        out.identity[row] = torch.from_numpy(labels["identity"][index])
        out.expression[row] = torch.from_numpy(labels["expression"][index])
        out.expression_weights[row] = 1.0
        out.gaze[row] = torch.from_numpy(np.radians(labels["gaze_deg"][index]))
        # A closed eye shows its gaze by little more than the bulge of the cornea.
        out.gaze_weights[row] = 1 - 0.9 * out.expression[row][list(BLINK)]
        out.crop_from_head[row] = torch.from_numpy(compose(crop_from_canvas_, labels["canvas_from_head"][index]))

    def _photograph(self, out: Batch, row: int, which: int, index: int, random: np.random.Generator) -> None:
        packed = self.photographs[which]
        canvas = np.ascontiguousarray(packed.images[index])
        landmarks: Floats = packed.labels["landmarks"][index].astype(np.float32)
        scores: Floats = packed.labels["blendshapes"][index]
        trust: Floats = packed.labels["trust"][index]
        eyes: Floats = packed.labels["eyes"][index]
        augment = self._strength(random)
        if random.random() < augment.flip:
            canvas, landmarks = flipped(canvas, landmarks)
            scores, trust = scores[BLENDSHAPE_MIRROR], trust[BLENDSHAPE_MIRROR]
            eyes = eyes[::-1] * [-1, 1] + [canvas.shape[1] - 1, 0]
        canvas, landmarks, blink, blink_known, drawn = blinked(canvas, landmarks, augment, random)
        crop, matrix = crop_from_canvas(canvas, jittered_square(augment, random), self.size)
        out.image[row] = torch.from_numpy(degrade(crop, augment, self._patch(random), random))
        moved = landmarks @ matrix[:2, :2].T + matrix[:2, 3]
        known = np.isfinite(moved[:, 0])
        out.landmarks[row] = torch.from_numpy(np.where(known[:, None], moved, 0).astype(np.float32))
        # Drawn lids are at known positions, whatever the machine's landmarks say.
        out.machine_made[row] = self.folders[which].machine_made and not drawn
        out.landmark_weights[row] = torch.from_numpy(known.astype(np.float32) * self.folders[which].weight)
        weak = np.isfinite(scores)
        scores = np.where(weak, scores, 0).astype(np.float32)
        if drawn:
            scores[list(BLINK)] = np.maximum(scores[list(BLINK)], blink)
            weak[LIDS] = False
        out.expression[row] = torch.from_numpy(scores)
        out.expression_weights[row] = torch.from_numpy(trust * weak)
        if not drawn and weak[list(EYE_LOOK[0])].all():
            out.gaze[row] = torch.from_numpy(gaze_from_eye_look(scores))
            out.gaze_weights[row] = 1.0
        seen = np.isfinite(eyes).all((1, 2)) & (scores[list(BLINK)] < IRIS_SEEN)
        out.eyes[row] = torch.from_numpy(
            np.where(seen[:, None, None], eyes @ matrix[:2, :2].T + matrix[:2, 3], 0).astype(np.float32)
        )
        out.eyes_weights[row] = torch.from_numpy(seen.astype(np.float32))
        out.blink[row] = torch.from_numpy(blink)
        out.blink_weights[row] = torch.from_numpy(blink_known.astype(np.float32) * self.folders[which].weight)

    def _head_pose(self, out: Batch, row: int, random: np.random.Generator) -> None:
        assert self.head_poses is not None
        index = int(random.integers(len(self.head_poses.images)))
        canvas = np.ascontiguousarray(self.head_poses.images[index])
        direction: Floats = self.head_poses.labels["direction"][index].astype(np.float32)
        augment = self._strength(random)
        if random.random() < augment.flip:
            canvas, direction = np.ascontiguousarray(canvas[:, ::-1]), direction * np.array([-1, 1, 1], np.float32)
        crop, matrix = crop_from_canvas(canvas, jittered_square(augment, random), self.size)
        out.image[row] = torch.from_numpy(degrade(crop, augment, self._patch(random), random))
        turned = matrix[:2, :2] @ direction[:2] / np.sqrt(np.linalg.det(matrix[:2, :2]))
        out.direction[row] = torch.from_numpy(np.append(turned, direction[2]).astype(np.float32))

    def _background(self, out: Batch, row: int, random: np.random.Generator) -> None:
        """Add a crop without a face, or with equal probability a crop that misses its face."""
        if random.random() < 0.5:
            patch = cv2.resize(self._patch(random), (self.size, self.size), interpolation=cv2.INTER_AREA)
            crop = np.asarray(patch, np.uint8)
        else:
            sources = [self.people, *self.photographs]
            images = sources[random.integers(len(sources))].images
            canvas = np.ascontiguousarray(images[random.integers(len(images))])
            crop, _ = crop_from_canvas(canvas, bad_square(random), self.size)
        out.image[row] = torch.from_numpy(degrade(crop, self._strength(random), self._patch(random), random))
        out.is_face[row] = 0.0

    def _strength(self, random: np.random.Generator) -> AugmentConfig:
        """Draw how strongly the next crop is augmented."""
        return self.gently if random.random() < self.augment.gentle else self.augment

    def _patch(self, random: np.random.Generator) -> Image:
        return random_patch(self.backgrounds, random, 0.15, 0.9)
