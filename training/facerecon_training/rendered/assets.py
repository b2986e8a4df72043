"""Meshes with textures on the mean head -> the same assets on any head: hair, brows, lashes, beards, glasses, hats."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from facerecon_rt.errors import DAMAGED_ARRAYS, UsageError
from facerecon_rt.types import Floats
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree

from .render import HeadGeometry

KINDS = ("hair", "eyebrows", "eyelashes", "beard", "glasses", "hat")
REACH_MM = {"hair": 18.0, "hat": 30.0, "glasses": 30.0, "eyebrows": 3.0, "beard": 3.0}
"""Distance over which displacements of the head are averaged for an asset, in mm. Larger values follow more
smoothly."""
TEXTURE_SIDE = {"eyebrows": 96, "eyelashes": 128, "beard": 192, "hair": 256, "hat": 256}
"""Maximum side of a texture in pixels. With a texture finer than a sample of the picture, hairs would become scattered
dots."""
OPACITY = {"eyelashes": 0.55}
"""Opacity of textures that are drawn too dense."""
NEIGHBOURS = {"hair": 24, "hat": 60, "glasses": 60, "eyebrows": 6, "beard": 6}


@dataclass(frozen=True, slots=True, eq=False)
class Asset:
    """A mesh with its texture, bound to the head."""

    name: str
    kind: str
    vertices: Floats
    """Vertices (K, 3) mm, head frame, on the mean head."""
    triangles: NDArray[np.int32]
    """Triangles (T, 3)."""
    uv: Floats
    """Texture coordinates (K, 2), v upwards."""
    texture: Floats
    """Texture (h, w, 4), linear BGR and alpha."""
    colour: Floats
    """Mean colour (3,) of the opaque texture, linear BGR, for recolouring."""
    followers: csr_matrix
    """Weights (K, H) by which its vertices follow those of the head."""
    roots: Floats
    """Mask (H,), 0..1, of the head directly under hair or a hat; 0 for other kinds."""

    def on(self, displacement: Floats) -> Floats:
        """Return the asset's vertices (K, 3) on a head that differs from the mean by `displacement` (H, 3) mm."""
        return np.asarray(self.vertices + self.followers @ displacement, np.float32)


def read_assets(folder: Path | None, head: HeadGeometry, origin: Floats) -> dict[str, list[Asset]]:
    """Return every asset of a folder by its kind. Missing kinds are empty, and all kinds without a folder.

    `origin` (3,) mm is the head frame's origin in the coordinates of the files. Raises UsageError for files that lack
    arrays or cannot be read.
    """
    assets: dict[str, list[Asset]] = {kind: [] for kind in KINDS}
    for path in sorted(folder.glob("*.npz")) if folder is not None else ():
        asset = _read_asset(path, head, origin)
        if asset is not None:
            assets[asset.kind].append(asset)
    return assets


def _read_asset(path: Path, head: HeadGeometry, origin: Floats) -> Asset | None:
    """Read one file, or return None if it holds something else."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            if "kind" not in arrays or str(arrays["kind"]) not in KINDS:
                return None
            missing = {"vertices", "triangles", "uv", "texture"} - set(arrays)
            if missing:
                raise UsageError(f"{path} lacks the arrays {sorted(missing)}; remove it from the folder")
            kind, texture_name = str(arrays["kind"]), str(arrays["texture"])
            vertices = arrays["vertices"].astype(np.float32) - origin
            triangles, uv = arrays["triangles"].astype(np.int32), arrays["uv"].astype(np.float32)
            bound = arrays.get("ict_vertex")
    except DAMAGED_ARRAYS as error:
        raise UsageError(f"{path} is not a readable .npz file ({error}); remove it from the folder") from error
    texture = _coarser(read_texture(path.with_name(texture_name)), TEXTURE_SIDE.get(kind, 4096))
    texture[:, :, 3] *= OPACITY.get(kind, 1.0)
    followers = _exactly(bound, head) if bound is not None else _follow(kind, vertices, head)
    roots = _covered(vertices, head) if kind in ("hair", "hat") else np.zeros(len(head.mean), np.float32)
    return Asset(path.stem, kind, vertices, triangles, uv, texture, _mean_colour(texture), followers, roots)


def read_texture(path: Path) -> Floats:
    """Read a picture as (h, w, 4) linear BGR and alpha. Raises UsageError if it cannot be read."""
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None or image.ndim != 3:
        raise UsageError(f"{path} is not a readable texture; put it beside the .npz that names it")
    texture = image.astype(np.float32) / 255
    if texture.shape[2] == 3:
        texture = np.concatenate([texture, np.ones_like(texture[:, :, :1])], 2)
    texture[:, :, :3] **= 2.2
    return np.ascontiguousarray(texture)


def _coarser(texture: Floats, side: int) -> Floats:
    """Reduce a texture (h, w, 4) to at most `side` pixels along each side, with colours weighed by opacity."""
    if max(texture.shape[:2]) <= side:
        return texture
    alpha = texture[:, :, 3:]
    whole = np.concatenate([texture[:, :, :3] * alpha, alpha], 2)
    small = np.asarray(cv2.resize(whole, (side, side), interpolation=cv2.INTER_AREA), np.float32)
    small[:, :, :3] /= np.maximum(small[:, :, 3:], 1e-4)
    return np.ascontiguousarray(small, np.float32)


def _mean_colour(texture: Floats) -> Floats:
    opaque = texture[:, :, 3:]
    return np.asarray((texture[:, :, :3] * opaque).sum((0, 1)) / max(float(opaque.sum()), 1e-6), np.float32)


def _covered(vertices: Floats, head: HeadGeometry) -> Floats:
    """Return where the head is covered, (H,): 1 if the shell has one of `vertices` (K, 3) mm within 6 mm, 0 from 10 mm
    on.

    The face itself is never covered.
    """
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
    """Return the weights of the head vertices around each vertex. Lashes follow the edge of their lid."""
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
    """Return the face part's vertices around the two eye openings: the edges of the lids."""
    landmarks = head.mean[head.landmarks[36:48]]
    face = head.parts["face"]
    distance = cKDTree(landmarks).query(head.mean[face])[0]
    # A few more vertices of a lid's edge lie between its landmarks, all within a few mm.
    edges: NDArray[np.int64] = face[distance < 3.5]
    return edges


def grown_normals(vertices: Floats, normals: Floats, flatness: float) -> Floats:
    """Return normals of hair cards that mostly follow the head's roundness, as hair does.

    `vertices` and `normals` are (K, 3), in mm.
    """
    middle = np.array([0.0, 20.0, -10.0], np.float32)
    outwards = vertices - middle
    outwards /= np.linalg.norm(outwards, axis=1, keepdims=True) + 1e-6
    mixed = flatness * outwards + (1 - flatness) * normals * np.sign((normals * outwards).sum(1, keepdims=True) + 1e-6)
    return np.asarray(mixed / (np.linalg.norm(mixed, axis=1, keepdims=True) + 1e-6), np.float32)
