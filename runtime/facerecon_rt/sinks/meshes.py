"""Vertices -> a mesh file (OBJ, PLY or GLB) with texture coordinates and normals."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unicodedata import category

import numpy as np
from numpy.typing import ArrayLike

from ..errors import UsageError, one_line
from ..interrupts import importing
from ..template import FaceTemplate
from ..types import Floats, Image
from .coloured import ColouredMesh
from .gltf import import_pygltflib, static_glb
from .outputs import cannot_write, write_whole
from .parts import COLOURS
from .shade import CLAY, vertex_normals
from .texture import as_png, vertex_colours

MESH_SUFFIXES = (".obj", ".ply", ".glb")
UNIT_SUFFIXES = (".obj", ".ply")
"""Suffixes of formats that know no unit. glTF is in metres."""
MATERIAL = "mtllib"


UNITS = {"mm": ("millimetres", 1.0, 4), "cm": ("centimetres", 0.1, 5), "m": ("metres", 0.001, 7)}
"""Units of OBJ and PLY files: name, size of a millimetre, and decimals in OBJ, which are a tenth of a micrometre."""


def write_mesh(
    path: str | Path,
    vertices: ArrayLike,
    template: FaceTemplate,
    unit: str = "mm",
    texture: Image | None = None,
    parts: ColouredMesh | None = None,
    about: str = "",
) -> None:
    """Write vertices (V, 3) in mm, head frame, with the template's triangles and texture coordinates.

    .obj and .ply have the `unit` mm, cm or m, and state it in a comment; .glb is in metres, the unit of glTF. All keep
    the head frame: +x the subject's left, +y up, +z out of the face. The file appears only when it is complete.

    `texture`: colour map (S, S, 3) of `texture.colour_map`. .glb contains it, .obj names `x.mtl` and `x_texture.png`
    that are written beside `x.obj`, and .ply has the colours of its vertices. `parts`: eyeballs and the lining of the
    mouth, whose vertices and triangles come behind those of the mesh; .obj then has materials in `x.mtl`. `about`: who
    is shown, for a comment in .obj and .ply.

    Raises UsageError for another suffix, when the disk refuses, and when trimesh (.ply) or pygltflib (.glb) is missing.
    """
    path = Path(path)
    check_mesh_format(path)
    points = np.asarray(vertices, np.float32)
    suffix = path.suffix.lower()
    if suffix == ".glb":
        write_whole(path, static_glb(points, template, texture, parts))
    elif suffix == ".ply":
        write_whole(path, _ply(points, template, unit, texture, parts, about))
    else:
        material, picture = files_beside(path)
        if texture is not None:
            write_whole(picture, as_png(texture))
        plain = texture is None and parts is None
        if not plain:
            write_whole(material, _mtl(None if texture is None else picture.name, parts))
        write_whole(path, _obj(points, template, unit, None if plain else material.name, parts, about))


def files_beside(path: Path) -> tuple[Path, Path]:
    """Return the paths of the material and of the colour map of an OBJ file."""
    return path.with_suffix(".mtl"), path.with_name(f"{path.stem}_texture.png")


def move_mesh(old: Path, new: Path) -> None:
    """Rename an OBJ file that `write_mesh` wrote, with its material and its colour map. Raises UsageError."""
    try:
        data = old.read_bytes()
        before, after = (_encoded(f"{MATERIAL} {files_beside(path)[0].name}\n") for path in (old, new))
        if before in data:
            (old_material, old_picture), (material, picture) = files_beside(old), files_beside(new)
            names = _encoded(old_picture.name), _encoded(picture.name)
            if names[0] in (said := old_material.read_bytes()):
                old_picture.replace(picture)
            write_whole(material, said.replace(*names))
            write_whole(new, data.replace(before, after, 1))
            old_material.unlink()
            old.unlink()
        else:
            old.replace(new)
    except OSError as error:
        raise cannot_write(new, error) from error


def check_mesh_format(path: Path) -> None:
    """Raise UsageError when the suffix is not one of a mesh, or needs a library that is missing, and for a line feed or
    another control character in the name, which files that name each other cannot hold."""
    if any(category(sign) == "Cc" for sign in path.name):
        raise UsageError(f"cannot write a mesh to {one_line(str(path))}: its name has a control character; rename it")
    suffix = path.suffix.lower()
    if suffix not in MESH_SUFFIXES:
        raise UsageError(f"cannot write a mesh to {path}; use one of the suffixes {', '.join(MESH_SUFFIXES)}")
    if suffix == ".glb":
        import_pygltflib()
    elif suffix == ".ply":
        _import_trimesh()


def _mtl(picture: str | None, parts: ColouredMesh | None) -> bytes:
    """Encode the materials of an OBJ file: the face with a colour map, or of clay, and those of the parts."""
    colours = {"face": CLAY[::-1] if picture is None else (1.0, 1.0, 1.0)}
    colours |= {} if parts is None else {name: COLOURS[name] for name in parts.materials}
    lines = []
    for name, (red, green, blue) in colours.items():
        colour = f"{red:.3f} {green:.3f} {blue:.3f}"
        lines += [f"newmtl {name}", f"Ka {colour}", f"Kd {colour}", "Ks 0 0 0", "illum 1"]
        if name == "face" and picture is not None:
            lines.append(f"map_Kd {picture}")
    return _encoded("\n".join(lines) + "\n")


def _obj(
    points: Floats,
    template: FaceTemplate,
    unit: str,
    material: str | None = None,
    parts: ColouredMesh | None = None,
    about: str = "",
) -> bytes:
    """Encode a mesh as OBJ. The format needs no library, and trimesh's OBJ refers to a material file that does not
    exist."""
    _, scale, decimals = UNITS[unit]
    lines = [f"# {line}" for line in _comments(unit, about)]
    if material is not None:
        lines.append(f"{MATERIAL} {material}")
    normals = vertex_normals(points, template.triangles)
    everything = points.astype(np.float64)
    if parts is not None:
        everything = np.vstack([everything, parts.vertices])
        normals = np.vstack([normals, vertex_normals(parts.vertices, parts.triangles)])
    lines += [f"v {x:.{decimals}f} {y:.{decimals}f} {z:.{decimals}f}" for x, y, z in (everything * scale).tolist()]
    lines += [f"vt {u:.6f} {v:.6f}" for u, v in template.uv.tolist()]
    lines += [f"vn {x:.4f} {y:.4f} {z:.4f}" for x, y, z in normals.tolist()]
    if material is not None:
        lines.append("usemtl face")
    lines += ["f " + " ".join(f"{i}/{i}/{i}" for i in triangle) for triangle in (template.triangles + 1).tolist()]
    for name, part in {} if parts is None else parts.materials.items():
        lines.append(f"usemtl {name}")
        lines += ["f " + " ".join(f"{i}//{i}" for i in triangle) for triangle in (part + 1 + len(points)).tolist()]
    return _encoded("\n".join(lines) + "\n")


def _encoded(text: str) -> bytes:
    """Encode a text in UTF-8. Names of files need not be UTF-8; their bytes stay."""
    return text.encode("utf-8", "surrogateescape")


def _ply(
    points: Floats,
    template: FaceTemplate,
    unit: str,
    texture: Image | None = None,
    parts: ColouredMesh | None = None,
    about: str = "",
) -> bytes:
    trimesh = _import_trimesh()
    triangles, normals = template.triangles, vertex_normals(points, template.triangles)
    if parts is not None:
        normals = np.vstack([normals, vertex_normals(parts.vertices, parts.triangles)])
        triangles = np.vstack([triangles, parts.triangles + np.int32(len(points))])
    visual = trimesh.visual.TextureVisuals(uv=template.uv)
    if texture is not None or parts is not None:
        colours = np.tile(np.array(CLAY) * 255, (len(points), 1))
        if texture is not None:
            colours = vertex_colours(texture, template)
        if parts is not None:
            points, colours = np.vstack([points, parts.vertices]), np.vstack([colours, parts.colours * 255])
        visual = trimesh.visual.ColorVisuals(vertex_colors=np.rint(colours[:, ::-1]).astype(np.uint8))
    mesh = trimesh.Trimesh(
        points * UNITS[unit][1],
        triangles,
        vertex_normals=normals,
        visual=visual,
        # Keep the order of the template's vertices.
        process=False,
    )
    data: bytes = mesh.export(file_type="ply", vertex_normal=True)
    magic, end, rest = data.partition(b"\n")
    kind, _, rest = rest.partition(b"\n")
    comments = "".join(f"comment {line}\n" for line in _comments(unit, about))
    return magic + end + kind + end + comments.encode("ascii", "backslashreplace") + rest


def _comments(unit: str, about: str) -> list[str]:
    axes = f"facerecon-rt: {UNITS[unit][0]}; +x the subject's left, +y up, +z out of the face"
    return [axes, one_line(about)] if about else [axes]


def _import_trimesh() -> Any:
    try:
        with importing():
            import trimesh
    except ImportError as error:
        raise UsageError("PLY files need trimesh: pip install 'facerecon-rt[mesh]'; OBJ files do not") from error
    return trimesh
