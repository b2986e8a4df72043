"""Vertices -> a mesh file (OBJ, PLY or GLB) with texture coordinates and normals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..errors import UsageError
from ..interrupts import importing
from ..template import FaceTemplate
from ..types import Floats
from .outputs import write_whole
from .shade import CLAY, vertex_normals

MESH_SUFFIXES = (".obj", ".ply", ".glb")
METRES_PER_MM = 0.001


def write_mesh(path: str | Path, vertices: ArrayLike, template: FaceTemplate) -> None:
    """Write vertices (V, 3) in mm, head frame, with the template's triangles and texture coordinates.

    .obj and .ply keep millimetres; .glb is in metres, the unit of glTF. All keep the head frame: +x the subject's left,
    +y up, +z out of the face. The file appears only when it is complete.

    Raises UsageError for another suffix, when the disk refuses, and for .ply and .glb when trimesh is missing.
    """
    path = Path(path)
    check_mesh_format(path)
    points = np.asarray(vertices, np.float32)
    encode = _obj if path.suffix.lower() == ".obj" else _with_trimesh
    write_whole(path, encode(points, template, path.suffix.lower().lstrip(".")))


def check_mesh_format(path: Path) -> None:
    """Raise UsageError when the suffix is not one of a mesh, or needs trimesh, which is missing."""
    suffix = path.suffix.lower()
    if suffix not in MESH_SUFFIXES:
        raise UsageError(f"cannot write a mesh to {path}; use one of the suffixes {', '.join(MESH_SUFFIXES)}")
    if suffix != ".obj":
        _import_trimesh()


def _obj(points: Floats, template: FaceTemplate, _format: str) -> bytes:
    """Encode a mesh as OBJ. The format needs no library, and trimesh's OBJ refers to a material file that does not
    exist."""
    lines = ["# facerecon-rt: millimetres; +x the subject's left, +y up, +z out of the face"]
    lines += [f"v {x:.4f} {y:.4f} {z:.4f}" for x, y, z in points.tolist()]
    lines += [f"vt {u:.6f} {v:.6f}" for u, v in template.uv.tolist()]
    lines += [f"vn {x:.4f} {y:.4f} {z:.4f}" for x, y, z in vertex_normals(points, template.triangles).tolist()]
    lines += ["f " + " ".join(f"{i}/{i}/{i}" for i in triangle) for triangle in (template.triangles + 1).tolist()]
    return ("\n".join(lines) + "\n").encode()


def _with_trimesh(points: Floats, template: FaceTemplate, file_format: str) -> bytes:
    trimesh = _import_trimesh()
    material = trimesh.visual.material.PBRMaterial(
        baseColorFactor=[*(round(255 * channel) for channel in reversed(CLAY)), 255],
        metallicFactor=0.0,
        roughnessFactor=0.7,
    )
    mesh = trimesh.Trimesh(
        points * (METRES_PER_MM if file_format == "glb" else 1.0),
        template.triangles,
        vertex_normals=vertex_normals(points, template.triangles),
        visual=trimesh.visual.TextureVisuals(uv=template.uv, material=material),
        # Keep the order of the template's vertices.
        process=False,
    )
    options = {"include_normals": True} if file_format == "glb" else {"vertex_normal": True}
    data: bytes = mesh.export(file_type=file_format, **options)
    return data


def _import_trimesh() -> Any:
    try:
        with importing():
            import trimesh
    except ImportError as error:
        raise UsageError(
            "PLY and GLB files need trimesh: pip install 'facerecon-rt[mesh]'; OBJ files do not"
        ) from error
    return trimesh
