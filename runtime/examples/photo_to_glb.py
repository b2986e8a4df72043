"""Photograph -> a coloured 3D model of its largest face: .glb for Blender, three.js, game engines, phones.

    pip install '.[cpu,mesh]'
    python runtime/examples/photo_to_glb.py photo.jpg face.glb

Millimetres become metres, which is glTF's unit; +x is the subject's left, +y up, +z out of the face. Skin that the
photograph does not show takes the colour of the same place on the face's other side.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import trimesh
from facerecon_rt import Face, FaceReconError, Reconstructor, SourceError, UsageError, load_template, read_image
from facerecon_rt.commands.arguments import Parser
from facerecon_rt.faces.reconstruct import largest
from facerecon_rt.sinks.draw import vertices_in_frame
from facerecon_rt.sinks.gltf import ROUGHNESS, import_pygltflib
from facerecon_rt.sinks.outputs import check_writable, write_whole
from facerecon_rt.sinks.shade import vertex_normals
from facerecon_rt.sinks.take import METRES_PER_MM
from facerecon_rt.types import Floats, Image

SEEN = 0.5
"""Cosine between a vertex's normal and the viewer, from which the photograph shows its colour."""


def vertex_colours(image: Image, face: Face) -> Floats:
    """Return the colours (V, 3) RGB 0..1 of a face's vertices in a photograph (H, W, 3) uint8 BGR. They are in linear
    light, as glTF requires for vertex colours."""
    template = load_template()
    vertices = vertices_in_frame(face)
    facing = -vertex_normals(vertices, template.triangles)[:, 2]
    sampled = cv2.remap(image, vertices[:, 0], vertices[:, 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    # The weight falls gradually where the surface turns away, so that no seam shows.
    here = np.clip(facing / SEEN, 0.02, 1.0)[:, None]
    there = here[template.symmetry]
    colours = sampled.reshape(-1, 3)[:, ::-1].astype(np.float32) / 255
    colours = (here * colours + (1 - here) * there * colours[template.symmetry]) / (here + (1 - here) * there)
    return np.asarray(np.where(colours > 0.04045, ((colours + 0.055) / 1.055) ** 2.4, colours / 12.92), np.float32)


def skin_material(glb: bytes) -> bytes:
    """Give the mesh of a GLB file a non-metallic material, because glTF's default is metallic. The vertices keep their
    colours."""
    lib = import_pygltflib()
    file = lib.GLTF2.load_from_bytes(glb)
    look = lib.PbrMetallicRoughness(metallicFactor=0.0, roughnessFactor=ROUGHNESS)
    file.materials = [lib.Material(pbrMetallicRoughness=look, doubleSided=True, alphaMode=None, alphaCutoff=None)]
    for mesh in file.meshes:
        for primitive in mesh.primitives:
            primitive.material = 0
    return b"".join(file.save_to_bytes())


def main() -> int:
    """Run the command. Returns the exit code: 0, or that of the error."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photograph", type=Path)
    parser.add_argument("output", type=Path, help="a .glb file")
    parser.add_argument("--model", default="models/face.onnx", metavar="FILE")
    options = parser.parse_args()
    try:
        if options.output.suffix.lower() != ".glb":
            raise UsageError(f"{options.output} does not end in .glb; give such a name")
        check_writable(options.output)
        image = read_image(options.photograph)
        with Reconstructor(options.model) as reconstructor:
            face = largest(reconstructor.faces(image), (image.shape[1], image.shape[0]))
        if face is None:
            raise SourceError(f"no face was found in {options.photograph}; give a photograph that shows one")
        triangles = load_template().triangles
        mesh: Any = trimesh.Trimesh(
            face.vertices * METRES_PER_MM,
            triangles,
            vertex_normals=vertex_normals(face.vertices, triangles),
            vertex_colors=vertex_colours(image, face),
            # Keep every vertex where the template has it.
            process=False,
        )
        write_whole(options.output, skin_material(mesh.export(file_type="glb", include_normals=True)))
        print(f"wrote {options.output}")
    except FaceReconError as error:
        print(f"photo_to_glb: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
