"""Meshes with textures, fitted to the mean head -> the same on any head: hair, brows, lashes, beards, glasses, hats."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from facerecon_rt.errors import UsageError
from facerecon_rt.types import Floats
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree

from .render import HeadGeometry

KINDS = ("hair", "eyebrows", "eyelashes", "beard", "glasses", "hat")
REACH_MM = {"hair": 18.0, "hat": 30.0, "glasses": 30.0, "eyebrows": 3.0, "beard": 3.0}
"""How smoothly an asset follows the head: distance over which displacements are averaged."""
TEXTURE_SIDE = {"eyebrows": 96, "eyelashes": 128, "beard": 192, "hair": 256, "hat": 256}
"""Pixels at most: finer than a sample of the picture, a texture of single hairs would come out as scattered dots."""
OPACITY = {"eyelashes": 0.55}
"""Of textures that are drawn too dense."""
NEIGHBOURS = {"hair": 24, "hat": 60, "glasses": 60, "eyebrows": 6, "beard": 6}


@dataclass(frozen=True, slots=True, eq=False)
class Asset:
    """One mesh with its texture, bound to the head."""

    name: str
    kind: str
    vertices: Floats
    """(K, 3) mm, head frame, on the mean head."""
    triangles: NDArray[np.int32]
    """(T, 3)"""
    uv: Floats
    """(K, 2) v upwards."""
    texture: Floats
    """(h, w, 4) linear BGR and alpha."""
    colour: Floats
    """(3,) linear BGR: mean of the texture where it is opaque, for recolouring."""
    followers: csr_matrix
    """(K, H) weights: how its vertices follow those of the head."""
    roots: Floats
    """(H,) 0..1: where the head lies right under hair or a hat; 0 of other kinds."""

    def on(self, displacement: Floats) -> Floats:
        """(H, 3) mm by which a head differs from the mean -> (K, 3) this asset on that head."""
        return np.asarray(self.vertices + self.followers @ displacement, np.float32)


def read_assets(folder: Path | None, head: HeadGeometry, origin: Floats) -> dict[str, list[Asset]]:
    """Every asset of a folder by its kind; kinds that are not there are empty, and all of them without a folder.

    `origin` (3,) mm: the head frame's origin in the coordinates of the files. Raises UsageError for files that do not
    hold what they should.
    """
    assets: dict[str, list[Asset]] = {kind: [] for kind in KINDS}
    for path in sorted(folder.glob("*.npz")) if folder is not None else ():
        asset = _read_asset(path, head, origin)
        if asset is not None:
            assets[asset.kind].append(asset)
    return assets


def _read_asset(path: Path, head: HeadGeometry, origin: Floats) -> Asset | None:
    """One file; None where it holds something else."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            if "kind" not in arrays or str(arrays["kind"]) not in KINDS:
                return None
            missing = {"vertices", "triangles", "uv", "texture"} - set(arrays)
            if missing:
                raise UsageError(f"{path} lacks the arrays {sorted(missing)}; take it out of the folder")
            kind, texture_name = str(arrays["kind"]), str(arrays["texture"])
            vertices = arrays["vertices"].astype(np.float32) - origin
            triangles, uv = arrays["triangles"].astype(np.int32), arrays["uv"].astype(np.float32)
            bound = arrays.get("ict_vertex")
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path} is not a readable .npz file ({error}); take it out of the folder") from error
    texture = _coarser(read_texture(path.with_name(texture_name)), TEXTURE_SIDE.get(kind, 4096))
    texture[:, :, 3] *= OPACITY.get(kind, 1.0)
    followers = _exactly(bound, head) if bound is not None else _follow(kind, vertices, head)
    roots = _covered(vertices, head) if kind in ("hair", "hat") else np.zeros(len(head.mean), np.float32)
    return Asset(path.stem, kind, vertices, triangles, uv, texture, _mean_colour(texture), followers, roots)


def read_texture(path: Path) -> Floats:
    """A picture -> (h, w, 4) linear BGR and alpha. Raises UsageError when it cannot be read."""
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None or image.ndim != 3:
        raise UsageError(f"{path} is not a readable texture; put it beside the .npz that names it")
    texture = image.astype(np.float32) / 255
    if texture.shape[2] == 3:
        texture = np.concatenate([texture, np.ones_like(texture[:, :, :1])], 2)
    texture[:, :, :3] **= 2.2
    return np.ascontiguousarray(texture)


def _coarser(texture: Floats, side: int) -> Floats:
    """(h, w, 4) -> at most `side` pixels along each side; colours weighed by how opaque they are."""
    if max(texture.shape[:2]) <= side:
        return texture
    alpha = texture[:, :, 3:]
    whole = np.concatenate([texture[:, :, :3] * alpha, alpha], 2)
    small = cv2.resize(whole, (side, side), interpolation=cv2.INTER_AREA)
    small[:, :, :3] /= np.maximum(small[:, :, 3:], 1e-4)
    return np.ascontiguousarray(small, np.float32)


def _mean_colour(texture: Floats) -> Floats:
    opaque = texture[:, :, 3:]
    return np.asarray((texture[:, :, :3] * opaque).sum((0, 1)) / max(float(opaque.sum()), 1e-6), np.float32)


def _covered(vertices: Floats, head: HeadGeometry) -> Floats:
    """(K, 3) mm -> (H,) 1 where the shell of the head has some of them within 6 mm, 0 from 10 mm on; nowhere on the
    face proper."""
    distance = cKDTree(vertices).query(head.mean)[0]
    covered = np.clip((10.0 - distance) / 4.0, 0, 1)
    _, y, z = head.mean.T
    covered *= np.clip((y - 58.0 + 0.75 * np.maximum(10.0 - z, 0)) / 8.0, 0, 1)
    outside = np.zeros(len(head.mean))
    outside[np.concatenate([head.parts["face"], head.parts["head"]])] = 1
    return np.asarray(covered * outside * (np.abs(head.mean[:, 0]) < 74), np.float32)


def _exactly(vertices: NDArray[np.integer], head: HeadGeometry) -> csr_matrix:
    rows = np.arange(len(vertices))
    return csr_matrix((np.ones(len(rows), np.float32), (rows, vertices)), (len(rows), len(head.mean)))


def _follow(kind: str, vertices: Floats, head: HeadGeometry) -> csr_matrix:
    """Weights of the head vertices around each vertex; lashes follow the edge of the lid they grow from."""
    if kind == "eyelashes":
        candidates = lid_edges(head)
        middle = np.median(head.mean[candidates, 1])
        upper = candidates[head.mean[candidates, 1] > middle]
        lower = candidates[head.mean[candidates, 1] <= middle]
        nearest = np.where(
            vertices[:, 1] > middle,
            upper[cKDTree(head.mean[upper]).query(vertices)[1]],
            lower[cKDTree(head.mean[lower]).query(vertices)[1]],
        )
        return _exactly(nearest, head)
    shell = np.concatenate([head.parts["face"], head.parts["head"]])
    distance, chosen = cKDTree(head.mean[shell]).query(vertices, NEIGHBOURS[kind])
    weights = np.exp(-0.5 * ((distance - distance[:, :1]) / REACH_MM[kind]) ** 2)
    weights /= weights.sum(1, keepdims=True)
    rows = np.repeat(np.arange(len(vertices)), NEIGHBOURS[kind])
    size = (len(vertices), len(head.mean))
    return csr_matrix((weights.ravel().astype(np.float32), (rows, shell[chosen.ravel()])), size)


def lid_edges(head: HeadGeometry) -> NDArray[np.int64]:
    """Vertices of the face part around the two eye openings: the edges of the lids."""
    landmarks = head.mean[head.landmarks[36:48]]
    face = head.parts["face"]
    distance = cKDTree(landmarks).query(head.mean[face])[0]
    # Between the landmarks of a lid lie a few more vertices of its edge; all are within a few mm.
    return face[distance < 3.5]


def grown_normals(vertices: Floats, normals: Floats, flatness: float) -> Floats:
    """(K, 3) mm and normals (K, 3) of hair cards -> normals that mostly follow the head's roundness, as hair does."""
    middle = np.array([0.0, 20.0, -10.0], np.float32)
    outwards = vertices - middle
    outwards /= np.linalg.norm(outwards, axis=1, keepdims=True) + 1e-6
    mixed = flatness * outwards + (1 - flatness) * normals * np.sign((normals * outwards).sum(1, keepdims=True) + 1e-6)
    return np.asarray(mixed / (np.linalg.norm(mixed, axis=1, keepdims=True) + 1e-6), np.float32)
