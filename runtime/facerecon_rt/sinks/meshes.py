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
from .gltf import import_pygltflib, static_glb
from .outputs import write_whole
from .shade import vertex_normals

MESH_SUFFIXES = (".obj", ".ply", ".glb")


UNITS = {"mm": ("millimetres", 1.0, 4), "cm": ("centimetres", 0.1, 5), "m": ("metres", 0.001, 7)}
"""Units of OBJ and PLY files: name, size of a millimetre, and decimals in OBJ, which are a tenth of a micrometre."""


def write_mesh(path: str | Path, vertices: ArrayLike, template: FaceTemplate, unit: str = "mm") -> None:
    """Write vertices (V, 3) in mm, head frame, with the template's triangles and texture coordinates.

    .obj and .ply have the `unit` mm, cm or m, and tell it in a comment; .glb is in metres, the unit of glTF. All keep
    the head frame: +x the subject's left, +y up, +z out of the face. The file appears only when it is complete.

    Raises UsageError for another suffix, when the disk refuses, and when trimesh (.ply) or pygltflib (.glb) is missing.
    """
    path = Path(path)
    check_mesh_format(path)
    points = np.asarray(vertices, np.float32)
    suffix = path.suffix.lower()
    if suffix == ".glb":
        write_whole(path, static_glb(points, template))
    else:
        write_whole(path, (_obj if suffix == ".obj" else _ply)(points, template, unit))


def check_mesh_format(path: Path) -> None:
    """Raise UsageError when the suffix is not one of a mesh, or needs a library that is missing."""
    suffix = path.suffix.lower()
    if suffix not in MESH_SUFFIXES:
        raise UsageError(f"cannot write a mesh to {path}; use one of the suffixes {', '.join(MESH_SUFFIXES)}")
    if suffix == ".glb":
        import_pygltflib()
    elif suffix == ".ply":
        _import_trimesh()


def _obj(points: Floats, template: FaceTemplate, unit: str) -> bytes:
    """Encode a mesh as OBJ. The format needs no library, and trimesh's OBJ refers to a material file that does not
    exist."""
    _, scale, decimals = UNITS[unit]
    lines = [f"# {_about(unit)}"]
    lines += [
        f"v {x:.{decimals}f} {y:.{decimals}f} {z:.{decimals}f}"
        for x, y, z in (points.astype(np.float64) * scale).tolist()
    ]
    lines += [f"vt {u:.6f} {v:.6f}" for u, v in template.uv.tolist()]
    lines += [f"vn {x:.4f} {y:.4f} {z:.4f}" for x, y, z in vertex_normals(points, template.triangles).tolist()]
    lines += ["f " + " ".join(f"{i}/{i}/{i}" for i in triangle) for triangle in (template.triangles + 1).tolist()]
    return ("\n".join(lines) + "\n").encode()


def _ply(points: Floats, template: FaceTemplate, unit: str) -> bytes:
    trimesh = _import_trimesh()
    mesh = trimesh.Trimesh(
        points * UNITS[unit][1],
        template.triangles,
        vertex_normals=vertex_normals(points, template.triangles),
        visual=trimesh.visual.TextureVisuals(uv=template.uv),
        # Keep the order of the template's vertices.
        process=False,
    )
    data: bytes = mesh.export(file_type="ply", vertex_normal=True)
    magic, end, rest = data.partition(b"\n")
    kind, _, rest = rest.partition(b"\n")
    return magic + end + kind + end + f"comment {_about(unit)}\n".encode() + rest


def _about(unit: str) -> str:
    return f"facerecon-rt: {UNITS[unit][0]}; +x the subject's left, +y up, +z out of the face"


def _import_trimesh() -> Any:
    try:
        with importing():
            import trimesh
    except ImportError as error:
        raise UsageError("PLY files need trimesh: pip install 'facerecon-rt[mesh]'; OBJ files do not") from error
    return trimesh
