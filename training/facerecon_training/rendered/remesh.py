"""Morphable head -> our face template: about 4000 vertices, left-right symmetric, denser at eyes, nose and lips."""

from __future__ import annotations

from pathlib import Path

import fast_simplification
import numpy as np
from facerecon_rt.align import CROP_CENTRE_MM
from facerecon_rt.template import IBUG_MIRROR
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.linalg import spsolve
from scipy.spatial import cKDTree

from .morphable import FACE_VERTICES, Indices, MorphableHead

HALF_VERTICES = 2050
"""Vertices of one half with the midline, which give about 4000 in all."""
JAW_CANDIDATES = 12

Doubles = NDArray[np.float64]


def build_template(head: MorphableHead) -> dict[str, NDArray[np.generic]]:
    """Return the arrays of template.npz: those of FaceTemplate, source_vertices (V, 3) and source_weights (V, 3)."""
    mean = head.mean.astype(np.float64)
    face = head.triangles[(head.triangles < FACE_VERTICES).all(1)]
    mirror = cKDTree(mean[:FACE_VERTICES]).query(mean[:FACE_VERTICES] * [-1, 1, 1])[1]
    landmarks = _symmetric_landmarks(head.landmarks, mirror)

    half_vertices, half_sources, half_weights, half_triangles = _decimate_left_half(mean, face, mirror, landmarks)
    vertices, sources, weights, triangles, symmetry = _mirror(
        half_vertices, half_sources, half_weights, half_triangles, mirror
    )
    exact = {int(s[0]): v for v, (s, w) in enumerate(zip(sources, weights, strict=True)) if w[0] == 1.0}
    landmark_vertices = np.array([exact[int(i)] for i in landmarks], np.int32)
    return {
        "triangles": triangles.astype(np.int32),
        "uv": unwrap(vertices, triangles).astype(np.float32),
        "landmarks": landmark_vertices,
        "landmark_positions": vertices[landmark_vertices].astype(np.float32),
        "symmetry": symmetry.astype(np.int32),
        "jaw_candidates": jaw_candidates(vertices, landmark_vertices),
        "source_vertices": sources.astype(np.int32),
        "source_weights": weights.astype(np.float32),
    }


def save_template(arrays: dict[str, NDArray[np.generic]], path: Path) -> None:
    """Write template.npz."""
    np.savez_compressed(path, allow_pickle=False, **arrays)


def _symmetric_landmarks(landmarks: Indices, mirror: Indices) -> Indices:
    """Make the landmarks symmetric. The subject's left decides where ICT-FaceKit's pairs are not mirror images."""
    symmetric = landmarks.copy()
    for right in filter(_is_right, range(68)):
        symmetric[right] = mirror[landmarks[IBUG_MIRROR[right]]]
    return symmetric


def _is_right(landmark: int) -> bool:
    """Return whether this landmark is on the subject's right, which is the picture's left."""
    groups = (range(8), range(17, 22), range(31, 33), range(36, 42), range(48, 51), range(58, 62), (67,))
    return any(landmark in group for group in groups)


def _decimate_left_half(
    mean: Doubles, face: Indices, mirror: Indices, landmarks: Indices
) -> tuple[Doubles, Indices, Doubles, Indices]:
    """Return vertices, source_vertices, source_weights and triangles of the subject's left half (x >= 0).

    The half is reduced by quadric edge collapse (Garland and Heckbert 1997) with fast-simplification. Every vertex is
    then put back on the original surface, on the triangles that collapsed into it. Lips and lids that touch therefore
    never mix.
    """
    half = face[mean[face].mean(1)[:, 0] > 0]
    used = np.unique(half)
    local = np.full(len(mean), -1)
    local[used] = np.arange(len(used))
    reduction = 1.0 - HALF_VERTICES / len(used)
    points, faces, collapses = fast_simplification.simplify(
        mean[used].astype(np.float32), local[half].astype(np.int32), reduction, return_collapses=True
    )
    points, faces, owner = fast_simplification.replay_simplification(
        mean[used].astype(np.float32), local[half].astype(np.int32), collapses
    )
    border = border_vertices(half)
    midline = {v for v in used if mirror[v] == v}
    kept = {int(i) for i in landmarks} | {int(mirror[i]) for i in landmarks}
    sources = np.zeros((len(points), 3), np.int32)
    weights = np.zeros((len(points), 3))
    for vertex, point in enumerate(points.astype(np.float64)):
        owned = used[owner == vertex]
        fixed = (
            [i for i in owned if i in kept] or [i for i in owned if i in midline] or [i for i in owned if i in border]
        )
        if fixed:
            nearest = min(fixed, key=lambda i: float(np.linalg.norm(mean[i] - point)))
            sources[vertex], weights[vertex] = nearest, (1.0, 0.0, 0.0)
        else:
            around = half[np.isin(half, owned).any(1)]
            sources[vertex], weights[vertex] = _closest_on_triangles(point, around, mean)
    vertices = (mean[sources] * weights[..., None]).sum(1)
    return vertices, sources, weights, faces.astype(np.int32)


def border_vertices(triangles: Indices) -> set[int]:
    """Return the vertex indices at all borders."""
    edges = np.sort(np.vstack([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]), axis=1)
    unique, count = np.unique(edges, axis=0, return_counts=True)
    return set(unique[count == 1].ravel().tolist())


def _closest_on_triangles(point: Doubles, triangles: Indices, vertices: Doubles) -> tuple[Indices, Doubles]:
    """Return vertex indices and barycentric weights of the point of these triangles that is nearest to `point`.

    The point is found by clipping. The projection's negative weights are set to zero and the others scaled to sum 1,
    which stays on the triangle. The triangle with the smallest distance is used.
    """
    a, b, c = vertices[triangles].transpose(1, 0, 2)
    ab, ac, ap = b - a, c - a, point - a
    d00, d01, d11 = (ab * ab).sum(1), (ab * ac).sum(1), (ac * ac).sum(1)
    d20, d21 = (ap * ab).sum(1), (ap * ac).sum(1)
    determinant = np.maximum(d00 * d11 - d01 * d01, 1e-12)
    v, w = (d11 * d20 - d01 * d21) / determinant, (d00 * d21 - d01 * d20) / determinant
    bary = np.clip(np.stack([1 - v - w, v, w], 1), 0, None)
    bary /= bary.sum(1, keepdims=True)
    distance = np.linalg.norm((vertices[triangles] * bary[..., None]).sum(1) - point, axis=1)
    best = int(distance.argmin())
    return triangles[best], bary[best]


def _mirror(
    vertices: Doubles, sources: Indices, weights: Doubles, triangles: Indices, mirror: Indices
) -> tuple[Doubles, Indices, Doubles, Indices, Indices]:
    """Join the left half and its mirror image at the midline: vertices, sources, weights, triangles, symmetry."""
    on_midline = (weights[:, 0] == 1.0) & (mirror[sources[:, 0]] == sources[:, 0])
    count = len(vertices)
    twin = np.where(on_midline, np.arange(count), 0)
    twin[~on_midline] = count + np.arange((~on_midline).sum())
    all_vertices = np.vstack([vertices, vertices[~on_midline] * [-1, 1, 1]])
    all_sources = np.vstack([sources, mirror[sources[~on_midline]]])
    all_weights = np.vstack([weights, weights[~on_midline]])
    all_triangles = np.vstack([triangles, twin[triangles][:, ::-1]])
    symmetry = np.concatenate([twin, np.flatnonzero(~on_midline)])
    return all_vertices, all_sources, all_weights, all_triangles, symmetry


def unwrap(vertices: Doubles, triangles: Indices) -> Doubles:
    """Return texture coordinates (V, 2), 0..1, of a mesh: a disc with mean value coordinates inside (Floater 2003).

    The outer border lies on an ellipse of the face's proportions. Positive weights keep the orientation of every
    triangle (Tutte 1963). Nothing overlaps therefore, not even at nostrils and lips.
    """
    outer = longest_border(triangles)
    # The border starts at the top of the midline, so that the layout is as symmetric as the mesh.
    top = max(range(len(outer)), key=lambda i: vertices[outer[i], 1] - 10 * abs(vertices[outer[i], 0]))
    outer = outer[top:] + outer[:top]
    lengths = np.linalg.norm(vertices[np.roll(outer, -1)] - vertices[outer], axis=1)
    angle = 2 * np.pi * np.concatenate([[0], np.cumsum(lengths)[:-1]]) / lengths.sum()
    direction = np.sign(vertices[outer[len(outer) // 4], 0])
    ellipse = np.stack([0.5 + 0.42 * direction * np.sin(angle), 0.5 + 0.49 * np.cos(angle)], 1)

    return embedded(mean_value_weights(vertices, triangles), np.array(outer), ellipse)


def mean_value_weights(vertices: Doubles, triangles: Indices) -> csr_matrix:
    """Return the weights (V, V) of the neighbours of each vertex (V, 3), positive, and not symmetric."""
    rows, columns, values = [], [], []
    for corner in range(3):
        i, j, k = triangles[:, corner], triangles[:, (corner + 1) % 3], triangles[:, (corner + 2) % 3]
        to_j, to_k = vertices[j] - vertices[i], vertices[k] - vertices[i]
        nj, nk = np.linalg.norm(to_j, axis=1), np.linalg.norm(to_k, axis=1)
        tangent = np.tan(np.arccos(np.clip((to_j * to_k).sum(1) / np.maximum(nj * nk, 1e-12), -1, 1)) / 2)
        rows += [i, i]
        columns += [j, k]
        values += [tangent / np.maximum(nj, 1e-9), tangent / np.maximum(nk, 1e-9)]
    count = len(vertices)
    return coo_matrix(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(count, count)
    ).tocsr()


def embedded(weight: csr_matrix, fixed: NDArray[np.integer], uv_fixed: Doubles) -> Doubles:
    """Return texture coordinates (V, 2) where each vertex is the weighted mean of its neighbours, but for those in
    `fixed` (F,), which have `uv_fixed` (F, 2). Vertices without neighbours have 0."""
    total = np.asarray(weight.sum(1)).ravel()
    inner = np.setdiff1d(np.flatnonzero(total), fixed)
    system = (
        coo_matrix((total[inner], (np.arange(len(inner)), np.arange(len(inner))))).tocsr() - weight[inner][:, inner]
    )
    uv = np.zeros((len(total), 2))
    uv[fixed] = uv_fixed
    uv[inner] = spsolve(system.tocsc(), weight[inner][:, fixed] @ uv_fixed)
    return uv


def longest_border(triangles: Indices) -> list[int]:
    """Return the vertex indices around the longest border loop."""
    directed = {(int(a), int(b)) for t in triangles for a, b in ((t[0], t[1]), (t[1], t[2]), (t[2], t[0]))}
    following = {a: b for a, b in directed if (b, a) not in directed}
    loops = []
    while following:
        start, current = following.popitem()
        loop = [start]
        while current != start:
            loop.append(current)
            current = following.pop(current)
        loops.append(loop)
    return max(loops, key=len)


def jaw_candidates(vertices: Doubles, landmarks: Indices) -> Indices:
    """Return (17, JAW_CANDIDATES) vertices from each jaw point across the cheek towards the nose, back to front.

    Photographs are annotated along the visible contour. When the head turns, the contour leaves the jaw bone and moves
    along such a line (Zhu et al., High-fidelity pose and expression normalization, CVPR 2015).
    """
    centre = np.array(CROP_CENTRE_MM[:2])
    rows = np.zeros((17, JAW_CANDIDATES), np.int32)
    for point in range(17):
        jaw = vertices[landmarks[point]]
        length = float(np.linalg.norm(jaw[:2] - centre))
        outward = (jaw[:2] - centre) / length
        across = np.array([-outward[1], outward[0]])
        along = (vertices[:, :2] - centre) @ outward
        aside = np.abs((vertices[:, :2] - centre) @ across)
        line = np.flatnonzero((aside < 4.0) & (along > length - 32.0) & (vertices[:, 2] > jaw[2] - 25.0))
        line = line[np.argsort(vertices[line, 2])]
        picked = line[np.round(np.linspace(0, len(line) - 1, JAW_CANDIDATES - 1)).astype(int)]
        rows[point] = np.append(picked, landmarks[point])
    return rows
