"""Neutral faces, expression basis and keys -> one GLB file with morph targets and an animation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import UsageError
from ..head import Form
from ..interrupts import importing
from ..mouth import Mouth
from ..networks.basis import Basis
from ..template import FaceTemplate, Indices
from ..types import Floats, Image
from .coloured import ColouredMesh
from .eyes import EYE_COLOURS, EYE_RADIUS_MM, eye_centre, eyeball
from .parts import COLOURS, MOUTH, MOUTH_COLOUR, MOUTH_ROUGHNESS
from .record import apple_name
from .shade import CLAY, vertex_normals
from .take import METRES_PER_MM, TrackKeys
from .texture import as_png

ROUGHNESS = 0.6
PART_ROUGHNESS = dict.fromkeys(EYE_COLOURS, 0.2) | {MOUTH: MOUTH_ROUGHNESS}
NEUTRAL_TARGETS = ("tongueOut",)
"""Apple's blendshapes that the model lacks. Their targets move nothing."""
ONE_HOUR_S = 3600.0
FLOAT, USHORT, UINT = 5126, 5123, 5125


def import_pygltflib() -> Any:
    """Return the module pygltflib. Raises UsageError where it is not installed."""
    try:
        with importing():
            import pygltflib
    except ImportError as error:
        raise UsageError("GLB files need pygltflib: pip install 'facerecon-rt[gltf]'; OBJ files do not") from error
    return pygltflib


def static_glb(
    vertices: Floats, template: FaceTemplate, texture: Image | None = None, parts: ColouredMesh | None = None
) -> bytes:
    """Encode one mesh (V, 3) in mm, head frame, without morph targets, as the bytes of a GLB file in metres.

    `texture`: colour map (S, S, 3) of `texture.colour_map`; None for clay. `parts`: parts with their own materials.
    """
    writer = _Writer(template)
    mesh = writer.add_face(vertices, "face", texture=texture)
    if parts is not None:
        writer.add_parts(mesh, parts)
    writer.add_node(name="face", mesh=mesh)
    return writer.to_bytes()


def face_glb(
    shape: Floats,
    weights: Mapping[str, float],
    basis: Basis,
    blendshapes: Sequence[str],
    form: Form,
    texture: Image | None = None,
) -> bytes:
    """Encode the face of a photograph as the bytes of a GLB file.

    `shape`: (V, 3) mm, the neutral face. `weights`: Apple's weights by name, which the mesh has by default. `form`: the
    face alone, or the whole head. `texture`: colour map (S, S, 3); None for clay.
    """
    writer = _Writer(form.template, form.mouth)
    writer.add_targets(form.neutral(basis.mean), form.moved(basis.expression), blendshapes, tuple(weights))
    mesh = writer.add_face(form.neutral(shape), "face", list(weights.values()), texture)
    face = writer.add_node(name="face", mesh=mesh)
    writer.add_eyes(face, shape)
    return writer.to_bytes()


def take_glb(
    tracks: Mapping[str, TrackKeys],
    basis: Basis,
    blendshapes: Sequence[str],
    form: Form,
    textures: Mapping[str, Image | None] | None = None,
) -> bytes:
    """Encode the tracks of one source, by name, as the bytes of a GLB file with one node per track and an animation.

    The node of a track has the neutral face of its newest frame. All share Apple's 52 morph targets. Times are seconds
    of the source; a take that begins after more than an hour begins at 0, and `extras` have its `begins_s`. `form`: the
    face alone, or the whole head. `textures`: colour maps (S, S, 3) of tracks by name; the others are clay.
    """
    writer = _Writer(form.template, form.mouth)
    first = min(float(keys.times[0]) for keys in tracks.values())
    last = max(float(keys.times[-1]) for keys in tracks.values())
    # float32, which glTF has for times, has steps of a quarter of a millisecond after an hour.
    begins = float(math.floor(first)) if first > ONE_HOUR_S else 0.0
    names = next(iter(tracks.values())).names
    writer.add_targets(form.neutral(basis.mean), form.moved(basis.expression), blendshapes, names)
    for name, keys in tracks.items():
        shape, texture = form.neutral(keys.shape), (textures or {}).get(name)
        mesh = writer.add_face(shape, name, [0.0] * len(keys.names), texture)
        head = writer.add_node(
            name=name, mesh=mesh, rotation=xyzw(keys.rotations[:1])[0].tolist(), translation=keys.places[0].tolist()
        )
        eyes = writer.add_eyes(head, keys.shape)
        times = writer.add_times(keys.times - begins)
        writer.animate(head, "weights", times, keys.weights.reshape(-1), "SCALAR")
        writer.animate(head, "rotation", times, xyzw(keys.rotations), "VEC4")
        writer.animate(head, "translation", times, keys.places, "VEC3")
        for side, eye in enumerate(eyes):
            writer.animate(eye, "rotation", times, eye_rotations(keys.eyes[:, side]), "VEC4")
        steps = _presence(float(keys.times[0]), float(keys.times[-1]), first, last)
        if steps:
            seen = np.repeat(np.array(list(steps.values()), np.float32)[:, None], 3, 1)
            writer.animate(head, "scale", writer.add_times(np.array(list(steps)) - begins), seen, "VEC3", "STEP")
    metric = all(keys.metric for keys in tracks.values())
    writer.say(
        begins_s=begins,
        distance="metres from the camera, at the origin, which looks along -z" if metric else
        "unknown lens: every head is 0.6 m away; x and y are metres at that distance from the picture's centre",
        eyes="gaze" if all(keys.gazes for keys in tracks.values()) else "eyeLook weights",
    )  # fmt: skip
    return writer.to_bytes()


def _presence(begin: float, end: float, first: float, last: float) -> dict[float, float]:
    """Return the keys of the scale that shows a track's head from `begin` to `end`, by time in seconds. A take lasts
    from `first` to `last`. A track that is present throughout needs no keys."""
    steps: dict[float, float] = {}
    if begin > first:
        steps[first] = 0.0
    if end < last:
        steps[begin], steps[end + 0.001] = 1.0, 0.0
    elif steps:
        steps[begin] = 1.0
    return steps


def morph_targets(
    mean: Floats, expression: Floats, triangles: Indices, blendshapes: Sequence[str], names: Sequence[str]
) -> Iterator[tuple[str, Floats, Floats]]:
    """Yield Apple's `names`, each with the motion (V, 3) of its morph target in mm and the change of the normals (V,
    3). A blendshape that Apple does not split moves both sides.

    `mean`: (V, 3) mm, the mean mesh at rest. `expression`: (B, V, 3) mm in the order of `blendshapes`. `triangles`: (T,
    3). The change of the normals is that of the mean face, so that all tracks share it.
    """
    flat = vertex_normals(mean, triangles)
    moves = {name: np.zeros_like(mean) for name in names}
    for name, move in zip(blendshapes, expression, strict=True):
        moves[apple_name(name)] += move
    for name in names:
        yield name, moves[name], vertex_normals(mean + moves[name], triangles) - flat


class _Writer:
    """A GLB file that grows. Every add_ method returns the index of the part that it added."""

    def __init__(self, template: FaceTemplate, mouth: Mouth | None = None) -> None:
        """Begin a file of meshes of a template. `mouth`: the lining that each mesh with morph targets gets."""
        self._lib = lib = import_pygltflib()
        self._template = template
        self._mouth = mouth
        self._data = bytearray()
        self._file = lib.GLTF2(asset=lib.Asset(version="2.0", generator="facerecon-rt"))
        self._file.scenes = [lib.Scene(nodes=[])]
        self._file.scene = 0
        # Both are the same for all faces.
        self._triangles = self._add_indices(template.triangles, template.vertex_count)
        self._uv = self._add(np.stack([template.uv[:, 0], 1 - template.uv[:, 1]], 1), "VEC2")
        self._names: list[str] = []
        self._targets: list[Any] | None = None
        self._mouth_targets: list[Any] | None = None
        self._mouth_look: tuple[int, int] | None = None
        """Indices and material of the mouth's lining."""
        if mouth is not None:
            corners = self._add_indices(mouth.triangles, len(mouth.offsets))
            self._mouth_look = corners, self._add_material(MOUTH, MOUTH_COLOUR, MOUTH_ROUGHNESS)
        self._eye: int | None = None
        self._clay_material: int | None = None

    @property
    def _clay(self) -> int:
        """The material of faces without colours, added once it is used."""
        if self._clay_material is None:
            self._clay_material = self._add_material("clay", (CLAY[2], CLAY[1], CLAY[0]), ROUGHNESS)
        return self._clay_material

    def add_face(
        self,
        shape: Floats,
        name: str,
        weights: list[float] | None = None,
        texture: Image | None = None,
    ) -> int:
        """Add the mesh of a neutral face (V, 3) mm with the morph targets and the mouth, if there are any, default
        weights and colours."""
        lib = self._lib
        material = self._clay if texture is None else self._add_skin(name, texture)
        attributes = self._add_surface(shape, self._template.triangles)
        attributes.TEXCOORD_0 = self._uv
        primitives = [
            lib.Primitive(attributes=attributes, indices=self._triangles, material=material, targets=self._targets)
        ]
        if self._mouth is not None and self._mouth_look is not None:
            lining = self._add_surface(self._mouth.lining(shape), self._mouth.triangles)
            corners, dark = self._mouth_look
            primitives.append(
                lib.Primitive(attributes=lining, indices=corners, material=dark, targets=self._mouth_targets)
            )
        mesh = lib.Mesh(name=name, primitives=primitives)
        if self._targets is not None:
            mesh.weights = weights
            mesh.extras = {"targetNames": self._names}
        self._file.meshes.append(mesh)
        return len(self._file.meshes) - 1

    def add_parts(self, mesh: int, parts: ColouredMesh) -> None:
        """Add parts with materials of their own to a mesh without morph targets."""
        attributes = self._add_surface(parts.vertices, parts.triangles)
        for name, triangles in parts.materials.items():
            corners = self._add_indices(triangles, len(parts.vertices))
            material = self._add_material(name, COLOURS[name], PART_ROUGHNESS[name])
            primitive = self._lib.Primitive(attributes=attributes, indices=corners, material=material)
            self._file.meshes[mesh].primitives.append(primitive)

    def add_targets(self, mean: Floats, expression: Floats, blendshapes: Sequence[str], names: Sequence[str]) -> None:
        """Add the morph targets of `morph_targets`, which all faces share."""
        self._names = list(names)
        self._targets = self._add_moves(mean, expression, self._template.triangles, blendshapes, names)
        if self._mouth is not None:
            lining, moves = self._mouth.lining(mean), self._mouth.moved(expression)
            self._mouth_targets = self._add_moves(lining, moves, self._mouth.triangles, blendshapes, names)

    def _add_moves(
        self, mean: Floats, expression: Floats, triangles: Indices, blendshapes: Sequence[str], names: Sequence[str]
    ) -> list[Any]:
        targets = []
        for name, move, turned in morph_targets(mean, expression, triangles, blendshapes, names):
            position = self._add(move * np.float32(METRES_PER_MM), "VEC3", bounds=True)
            normal = position if name in NEUTRAL_TARGETS else self._add(turned, "VEC3")
            targets.append(self._lib.Attributes(POSITION=position, NORMAL=normal))
        return targets

    def _add_surface(self, points: Floats, triangles: Indices) -> Any:
        """Add places (V, 3) in mm and their normals, and return them as attributes."""
        return self._lib.Attributes(
            POSITION=self._add(points * np.float32(METRES_PER_MM), "VEC3", bounds=True),
            NORMAL=self._add(vertex_normals(points, triangles), "VEC3"),
        )

    def add_eyes(self, head: int, shape: Floats) -> list[int]:
        """Add the eyes of a neutral face (V, 3) mm as children of its node: left, right."""
        if self._eye is None:
            self._eye = self._add_eye_mesh()
        centres = [eye_centre(shape, self._template, side) * np.float32(METRES_PER_MM) for side in (0, 1)]
        return [
            self.add_node(head, name=f"{side} eye", mesh=self._eye, translation=centre.tolist())
            for side, centre in zip(("left", "right"), centres, strict=True)
        ]

    def add_node(self, parent: int | None = None, **content: Any) -> int:
        """Add a node to the scene, or to its parent."""
        self._file.nodes.append(self._lib.Node(**content))
        index = len(self._file.nodes) - 1
        siblings = self._file.scenes[0].nodes if parent is None else self._file.nodes[parent].children
        siblings.append(index)
        return index

    def add_times(self, seconds: ArrayLike) -> int:
        """Add the times (K,) of keys, in seconds."""
        return self._add(np.asarray(seconds, np.float32), "SCALAR", bounds=True, of_mesh=False)

    def animate(self, node: int, path: str, times: int, values: Floats, kind: str, how: str = "LINEAR") -> None:
        """Add a channel to the animation: values at times."""
        lib = self._lib
        if not self._file.animations:
            self._file.animations.append(lib.Animation(name="take", samplers=[], channels=[]))
        animation = self._file.animations[0]
        output = self._add(values, kind, of_mesh=False)
        animation.samplers.append(lib.AnimationSampler(input=times, output=output, interpolation=how))
        target = lib.AnimationChannelTarget(node=node, path=path)
        animation.channels.append(lib.AnimationChannel(sampler=len(animation.samplers) - 1, target=target))

    def say(self, **facts: object) -> None:
        """Write facts into the scene's extras."""
        self._file.scenes[0].extras = facts

    def to_bytes(self) -> bytes:
        """Return the file."""
        self._file.buffers = [self._lib.Buffer(byteLength=len(self._data))]
        self._file.set_binary_blob(bytes(self._data))
        return b"".join(self._file.save_to_bytes())

    def _add_eye_mesh(self) -> int:
        lib = self._lib
        points, triangles = eyeball()
        attributes = lib.Attributes(
            POSITION=self._add(points * np.float32(EYE_RADIUS_MM * METRES_PER_MM), "VEC3", bounds=True),
            NORMAL=self._add(points, "VEC3"),
            TEXCOORD_0=self._add(points[:, :2] * [0.5, -0.5] + 0.5, "VEC2"),
        )
        primitives = [
            lib.Primitive(
                attributes=attributes,
                indices=self._add_indices(triangles[part], len(points)),
                material=self._add_material(part, EYE_COLOURS[part], PART_ROUGHNESS[part]),
            )
            for part in EYE_COLOURS
        ]
        self._file.meshes.append(lib.Mesh(name="eye", primitives=primitives))
        return len(self._file.meshes) - 1

    def _add_skin(self, name: str, texture: Image) -> int:
        """Add a material with a colour map. Readers take its values for sRGB, which they are."""
        lib = self._lib
        if not self._file.samplers:
            self._file.samplers.append(
                lib.Sampler(
                    magFilter=lib.LINEAR,
                    minFilter=lib.LINEAR_MIPMAP_LINEAR,
                    wrapS=lib.CLAMP_TO_EDGE,
                    wrapT=lib.CLAMP_TO_EDGE,
                )
            )
        view = self._add_view(as_png(texture), None)
        self._file.images.append(lib.Image(name=name, mimeType="image/png", bufferView=view))
        self._file.textures.append(lib.Texture(source=len(self._file.images) - 1, sampler=0))
        colours = lib.TextureInfo(index=len(self._file.textures) - 1)
        return self._add_material(f"skin of {name}", (1.0, 1.0, 1.0), ROUGHNESS, colours)

    def _add_material(
        self, name: str, srgb: tuple[float, float, float], roughness: float, texture: Any | None = None
    ) -> int:
        lib = self._lib
        colour = lib.PbrMetallicRoughness(
            baseColorFactor=[*(linear(channel) for channel in srgb), 1.0],
            baseColorTexture=texture,
            metallicFactor=0.0,
            roughnessFactor=roughness,
        )
        self._file.materials.append(
            lib.Material(name=name, pbrMetallicRoughness=colour, doubleSided=True, alphaMode=None, alphaCutoff=None)
        )
        return len(self._file.materials) - 1

    def _add_indices(self, indices: NDArray[Any], count: int) -> int:
        small = count < 2**16
        flat = np.ascontiguousarray(indices, np.uint16 if small else np.uint32)
        view = self._add_view(flat.tobytes(), self._lib.ELEMENT_ARRAY_BUFFER)
        return self._add_accessor(view, USHORT if small else UINT, flat.size, "SCALAR")

    def _add(self, values: ArrayLike, kind: str, *, bounds: bool = False, of_mesh: bool = True) -> int:
        array = np.ascontiguousarray(values, np.float32)
        # -0 would differ from the bounds' 0.
        array = array + np.float32(0)
        view = self._add_view(array.tobytes(), self._lib.ARRAY_BUFFER if of_mesh else None)
        limits: dict[str, Any] = {}
        if bounds:
            rows = array.reshape(len(array), -1)
            limits = {"min": rows.min(0).tolist(), "max": rows.max(0).tolist()}
        return self._add_accessor(view, FLOAT, len(array), kind, **limits)

    def _add_view(self, data: bytes, target: int | None) -> int:
        self._data += b"\0" * (-len(self._data) % 4)
        offset = len(self._data)
        self._data += data
        self._file.bufferViews.append(
            self._lib.BufferView(buffer=0, byteOffset=offset, byteLength=len(data), target=target)
        )
        return len(self._file.bufferViews) - 1

    def _add_accessor(self, view: int, component: int, count: int, kind: str, **limits: Any) -> int:
        self._file.accessors.append(
            self._lib.Accessor(bufferView=view, componentType=component, count=count, type=kind, **limits)
        )
        return len(self._file.accessors) - 1


def linear(srgb: float) -> float:
    """Return the linear light, 0 to 1, of an sRGB channel, 0 to 1. glTF's colour factors are linear."""
    return ((srgb + 0.055) / 1.055) ** 2.4 if srgb > 0.04045 else srgb / 12.92


def xyzw(rotations: Floats) -> Floats:
    """Convert quaternions (K, 4) from w, x, y, z to glTF's x, y, z, w. Each gets the sign that is nearer to the
    previous quaternion."""
    turned = np.roll(rotations, -1, axis=1).astype(np.float64)
    turned /= np.linalg.norm(turned, axis=1, keepdims=True)
    signs = np.where((turned[1:] * turned[:-1]).sum(1) < 0, -1.0, 1.0)
    turned[1:] *= np.cumprod(signs)[:, None]
    return turned.astype(np.float32)


def eye_rotations(angles: Floats) -> Floats:
    """Return rotations (K, 4) as x, y, z, w that turn +z by yaw and pitch (K, 2) in radians."""
    yaw, pitch = angles.astype(np.float64).T / 2
    turn = [-np.cos(yaw) * np.sin(pitch), np.sin(yaw) * np.cos(pitch), np.sin(yaw) * np.sin(pitch)]
    return np.stack([*turn, np.cos(yaw) * np.cos(pitch)], 1).astype(np.float32)
