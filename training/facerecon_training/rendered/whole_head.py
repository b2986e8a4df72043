"""Morphable head and face template -> the rest of the head: ears, neck and skull, and how they follow the face.

The rest is cut out of ICT-FaceKit behind the face's border, reduced, and shares the border's vertices with the face.
Its shape is the mean of what the morphable model expects of a head with this face.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from facerecon_rt.errors import UsageError
from facerecon_rt.head import MODE_STEP_MM, SHARE_STEPS, UV_STEPS
from facerecon_rt.types import Floats
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags
from scipy.sparse.linalg import splu
from scipy.spatial import cKDTree

from .decimate import decimate
from .morphable import FACE_VERTICES, PARTS, MorphableHead, carried
from .remesh import border_vertices, embedded, longest_border, mean_value_weights

Doubles = NDArray[np.float64]
Indices = NDArray[np.int32]
Arrays = Mapping[str, NDArray[Any]]

HALF_VERTICES = 1000
"""Vertices of one half of the rest with the midline and the face's border."""
NECK_PLANE_MM = -228.0
"""The neck ends where y + z is below this, in mm in the head frame: from the throat up to the nape."""
FACE_SCALE = 0.7
"""Size of the face in a colour map of the whole head, relative to its size in a colour map of the face."""
MAP_RADIUS = 0.49
"""Half the size of the whole head in a colour map whose size is 1."""
SAMPLES = 400
"""Number of the face's vertices from which the rest of the head is predicted."""
MODES = 40
"""Number of directions in which the rest of the head follows the face."""
NOISE_MM = 3.0
"""Standard deviation in mm of each coordinate of a sampled vertex.

With less, the rest of the head would follow small errors of the face. Heads of networks' faces are
predicted about as well with 1 as with 10 mm.
"""
SMOOTHNESS = 30.0
"""Weight of smooth motion against the morphable model's own motion, in mm squared."""


@dataclass(frozen=True, slots=True, eq=False)
class Rest:
    """The head without the face. Its E vertices are counted from V, behind the face's."""

    source_vertices: Indices
    """(E, 3) vertices of the morphable head."""
    source_weights: Doubles
    """(E, 3) with rows of sum 1."""
    triangles: Indices
    """(T, 3) over the vertices of the face and the rest."""
    symmetry: Indices
    """(E,) the vertex mirrored left to right."""
    border: Indices
    """(B,) the face's vertices at its border to the rest."""


def build_head(head: MorphableHead, rest: Rest, template: Arrays, template_sha256: str) -> dict[str, NDArray[Any]]:
    """Return the arrays of head.npz, which `facerecon_rt.head` describes.

    `rest`: that of `cut_rest` with the same head and template. `template`: the arrays of template.npz, whose SHA-256
    comes last.
    """
    face = [carried(array, template["source_vertices"], template["source_weights"]) for array in _arrays(head)]
    behind = [carried(array, rest.source_vertices, rest.source_weights) for array in _arrays(head)]
    whole = [np.concatenate(both, axis=-2).astype(np.float64) for both in zip(face, behind, strict=True)]
    mean, identity, expression = whole
    count = len(template["uv"])
    followers = np.concatenate([rest.border, np.arange(count, len(mean))])
    sampled = spread_samples(mean[:count], SAMPLES)
    read, modes = expected_rest(identity, sampled, followers)
    uv = lay_out(mean, rest, template["uv"].astype(np.float64))
    follow = motion_shares(mean, expression, rest)
    return {
        "template_sha256": np.array(template_sha256),
        "triangles": rest.triangles.astype(np.uint16),
        "symmetry": rest.symmetry.astype(np.uint16),
        "uv": np.rint(uv * UV_STEPS).astype(np.uint16),
        "face_scale": np.array(FACE_SCALE, np.float32),
        "border": rest.border.astype(np.uint16),
        "sampled": sampled.astype(np.uint16),
        "sampled_mean": mean[sampled].astype(np.float32),
        "read": read.astype(np.float16),
        "mean": mean[followers].astype(np.float32),
        "modes": np.rint(modes / MODE_STEP_MM).astype(np.int16),
        "follow": np.rint(follow * SHARE_STEPS).astype(np.int16),
    }


def save_head(arrays: Arrays, path: Path) -> None:
    """Write head.npz."""
    np.savez_compressed(path, allow_pickle=False, **arrays)


def _arrays(head: MorphableHead) -> tuple[Floats, Floats, Floats]:
    return head.mean, head.identity, head.expression


def cut_rest(head: MorphableHead, template: Arrays) -> Rest:
    """Cut the rest of the head out of the morphable head, reduce it, and join it to the template's border.

    Raises UsageError where the template's border is not on that of the morphable head's face.
    """
    mean = head.mean.astype(np.float64)
    last = PARTS["head"][1]
    behind = head.triangles[(head.triangles < last).all(1) & ~(head.triangles < FACE_VERTICES).all(1)]
    mirror = np.arange(len(mean))
    mirror[:last] = cKDTree(mean[:last]).query(mean[:last] * [-1, 1, 1])[1]
    half = behind[mean[behind].mean(1)[:, 0] > 0]
    half, pairs, shares = _above_neck(mean, half)
    points = mean[pairs[:, 0]] * (1 - shares[:, None]) + mean[pairs[:, 1]] * shares[:, None]
    middle = (mirror[pairs[:, 0]] == pairs[:, 0]) & (mirror[pairs[:, 1]] == pairs[:, 1])

    exact = {int(s[0]): v for v, s in enumerate(template["source_vertices"]) if template["source_weights"][v, 0] == 1}
    loop = longest_border(template["triangles"])
    template_vertex = {s: v for s, v in exact.items() if v in set(loop)}
    border = border_vertices(half)
    ends = {v for v in border if v >= len(mean) and middle[v]}
    kept = set(template_vertex) | ends
    between = {v for v in border if v < FACE_VERTICES} - kept
    triangles = decimate(points, half, HALF_VERTICES, kept, between)
    if len(template_vertex) < len(loop) or between & set(np.unique(triangles).tolist()):
        raise UsageError("the rest of the head does not fit the face template's border; build the template again")

    own = np.setdiff1d(triangles, list(template_vertex))
    other = own[~middle[own]]
    count = len(template["uv"])
    number = np.full(len(points), -1)
    number[own] = count + np.arange(len(own))
    twin = number.copy()
    twin[other] = count + len(own) + np.arange(len(other))
    for source, vertex in template_vertex.items():
        number[source], twin[source] = vertex, int(template["symmetry"][vertex])
    twins = np.concatenate([twin[own], number[other]])
    sides = [(pairs[own], shares[own]), (mirror[pairs[other]], shares[other])]
    both = np.vstack([side for side, _ in sides])
    share = np.concatenate([side for _, side in sides])
    return Rest(
        np.stack([both[:, 0], both[:, 1], both[:, 1]], 1).astype(np.int32),
        np.stack([1 - share, share, np.zeros_like(share)], 1),
        np.vstack([number[triangles], twin[triangles][:, ::-1]]).astype(np.int32),
        twins.astype(np.int32),
        np.array(loop, np.int32),
    )


def _above_neck(mean: Doubles, triangles: Indices) -> tuple[Indices, Indices, Doubles]:
    """Cut triangles (T, 3) of the head (H, 3) off at the neck's plane.

    Returns the triangles above it, and for each vertex two vertices (N, 2) of the head and the share (N,) of the
    second. The first H are those of the head; the others lie on the plane.
    """
    height = mean[:, 1] + mean[:, 2] - NECK_PLANE_MM
    pairs = [[v, v] for v in range(len(mean))]
    shares = [0.0] * len(mean)
    made: dict[tuple[int, int], int] = {}

    def cut(a: int, b: int) -> int:
        key = (min(a, b), max(a, b))
        if key not in made:
            made[key] = len(pairs)
            pairs.append(list(key))
            shares.append(float(height[key[0]] / (height[key[0]] - height[key[1]])))
        return made[key]

    kept = []
    for corners in triangles.tolist():
        above = [height[v] > 0 for v in corners]
        if all(above):
            kept.append(corners)
        elif any(above):
            # Begin with the corner that is alone on its side.
            alone = above.index(True) if sum(above) == 1 else above.index(False)
            a, b, c = corners[alone:] + corners[:alone]
            ab, ac = cut(a, b), cut(a, c)
            kept += [[a, ab, ac]] if above[alone] else [[ab, b, c], [ab, c, ac]]
    return np.array(kept, np.int32), np.array(pairs, np.int32), np.array(shares)


def spread_samples(points: Doubles, count: int) -> Indices:
    """Return `count` of the points (V, 3), each as far as possible from those before it."""
    chosen = [int(points[:, 2].argmax())]
    away = np.linalg.norm(points - points[chosen[0]], axis=1)
    while len(chosen) < count:
        chosen.append(int(away.argmax()))
        away = np.minimum(away, np.linalg.norm(points - points[chosen[-1]], axis=1))
    return np.array(sorted(chosen), np.int32)


def expected_rest(identity: Doubles, sampled: Indices, followers: Indices) -> tuple[Doubles, Doubles]:
    """Return how the followers' places are predicted from the sampled vertices of the face.

    `identity`: (100, V + E, 3) mm per standard deviation. `sampled`: (S,). `followers`: (F,). Returns `read` (3 S, M)
    and `modes` (M, F, 3) mm. `read` turns the sampled vertices' offsets from the mean into M numbers, which have the
    variance 1 over people.

    It is the mean of the posterior of a Gaussian head, whose face is seen with noise. That is ridge regression on
    infinitely many random heads.
    """
    seen = identity[:, sampled].reshape(len(identity), -1)
    hidden = identity[:, followers].reshape(len(identity), -1)
    gram = seen @ seen.T
    gain = np.linalg.inv(gram + NOISE_MM**2 * np.eye(len(gram)))
    # The numbers' covariance is that of the posterior's mean over random faces. Its root makes them comparable.
    covariance = gain @ gram
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    inverse = (vectors / np.sqrt(np.maximum(values, 1e-9))) @ vectors.T
    effect = root @ hidden
    _, main = np.linalg.eigh(effect @ effect.T)
    main = main[:, ::-1][:, :MODES]
    return seen.T @ gain @ inverse @ main, (main.T @ effect).reshape(-1, len(followers), 3)


def lay_out(mean: Doubles, rest: Rest, face_uv: Doubles) -> Doubles:
    """Return the rest's texture coordinates (E, 2): a ring around the face, which is scaled about the map's centre.

    The left half is first laid on a rectangle: the angle about the face, and the way from the face's border to the
    neck's end. Nothing overlaps there (Tutte 1963). The rectangle is then bent around the face.
    """
    first = len(face_uv)
    half = rest.triangles[mean[rest.triangles].mean(1)[:, 0] > 0]
    face, one, neck, other = _sides(half, first, border_vertices(rest.triangles))
    u, v = FACE_SCALE * (face_uv[face] - 0.5).T
    flat = np.zeros((len(mean), 2))
    flat[face, 0] = np.arctan2(np.abs(u), v)
    begin, end = flat[face[-1], 0], flat[face[0], 0]
    flat[one] = np.stack([np.full(len(one), begin), _along(mean[one])], 1)
    flat[neck] = np.stack([begin + (end - begin) * _along(mean[neck]), np.ones(len(neck))], 1)
    flat[other] = np.stack([np.full(len(other), end), 1 - _along(mean[other])], 1)
    sides = np.unique(np.concatenate([face, one, neck, other]))
    flat = embedded(mean_value_weights(mean, half), sides, flat[sides])

    own = np.arange(first, len(mean))
    on_left = np.isin(own, half)
    angle, way = flat[np.where(on_left, own, rest.symmetry)].T
    order = np.argsort(flat[face, 0])
    near = np.interp(angle, flat[face, 0][order], np.hypot(u, v)[order])
    sine, cosine = np.sin(angle), np.cos(angle)
    far = MAP_RADIUS * (sine**4 + cosine**4) ** -0.25  # a rounded square
    radius = near + (far - near) * way
    side = np.where(on_left, 1.0, -1.0) * np.sign(face_uv[face[len(face) // 2], 0] - 0.5)
    return 0.5 + np.stack([side * radius * sine, radius * cosine], 1)


def _sides(half: Indices, first: int, borders: set[int]) -> tuple[list[int], list[int], list[int], list[int]]:
    """Return the four sides of a half of the rest, in order: the face's border, the middle, the neck's end, the middle.

    The middles include their ends, which they share with the other sides.
    """
    loop = longest_border(half)
    kinds = [0 if v < first else 2 if v in borders else 1 for v in loop]
    begin = next(i for i in range(len(loop)) if kinds[i] == 0 != kinds[i - 1])
    loop, kinds = loop[begin:] + loop[:begin], kinds[begin:] + kinds[:begin]
    to_neck, from_neck = kinds.index(2), len(kinds) - kinds[::-1].index(2)
    face = kinds.index(1)
    return loop[:face], loop[face - 1 : to_neck + 1], loop[to_neck:from_neck], [*loop[from_neck - 1 :], loop[0]]


def _along(line: Doubles) -> Doubles:
    """Return the way along a line (K, 3), from 0 to 1."""
    way = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    return np.asarray(way / way[-1])


def motion_shares(mean: Doubles, expression: Doubles, rest: Rest) -> Doubles:
    """Return the share (E, B) with which each vertex of the rest follows the motion of each vertex of the border.

    The shares fit the morphable model's own blendshapes (53, V + E, 3) mm where these move the border, and are as
    smooth as the mesh allows. At the border they are 1 for the vertex itself, so that nothing opens.
    """
    first = len(mean) - len(rest.symmetry)
    weight = mean_value_weights(mean, rest.triangles)
    weight = (weight + weight.T) / 2
    laplacian = csr_matrix(diags(np.asarray(weight.sum(1)).ravel()) - weight) * SMOOTHNESS
    inner = laplacian[first:, first:]
    drive = expression[:, rest.border].transpose(1, 0, 2).reshape(len(rest.border), -1)
    motion = expression[:, first:].transpose(1, 0, 2).reshape(len(rest.symmetry), -1)
    values, vectors = np.linalg.eigh(drive @ drive.T)
    wanted = motion @ drive.T @ vectors - laplacian[first:][:, rest.border] @ vectors
    solved = [
        splu((inner + diags(np.full(inner.shape[0], max(float(value), 0.0)))).tocsc()).solve(column)
        for value, column in zip(values, wanted.T, strict=True)
    ]
    return np.asarray(np.stack(solved, 1) @ vectors.T)
