"""Neutral faces, expression basis and keys -> one USD file: UsdSkel heads with blend shapes and their animation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ..errors import UsageError
from ..head import Form
from ..interrupts import importing
from ..networks.basis import Basis
from ..template import FaceTemplate, Indices
from ..types import Floats
from .eyes import EYE_COLOURS, EYE_RADIUS_MM, eye_centre, eyeball
from .gltf import PART_ROUGHNESS, ROUGHNESS, eye_rotations, linear, morph_targets, xyzw
from .parts import MOUTH, MOUTH_COLOUR
from .shade import CLAY, vertex_normals
from .take import METRES_PER_MM, TrackKeys

USD_SUFFIXES = (".usdc", ".usda")
STILL_M = 1e-6
"""Motion in metres, or change of a normal, below which a blend shape leaves a vertex out."""


def import_pxr() -> Any:
    """Return the module pxr with the parts that a take needs. Raises UsageError where it is not installed."""
    try:
        with importing():
            import pxr
            from pxr import Gf, Sdf, Usd, UsdGeom, UsdShade, UsdSkel, Vt  # noqa: F401
    except ImportError as error:
        raise UsageError("USD files need usd-core: pip install 'facerecon-rt[usd]'; .glb files do not") from error
    return pxr


def take_usd(
    tracks: Mapping[str, TrackKeys], basis: Basis, blendshapes: Sequence[str], form: Form, suffix: str
) -> bytes:
    """Encode the tracks of one source, by name, as the bytes of a USD file in metres, with y up.

    Every track is a SkelRoot with its head's place and rotation, and has the same parts as in `gltf.take_glb`. One time
    code is a frame, at the source's frame rate. `suffix`: .usdc, which is binary, or .usda, which is text.
    """
    stage = _Stage(form, suffix, _frame_rate(tracks))
    names = next(iter(tracks.values())).names
    shapes = stage.add_shapes(form.neutral(basis.mean), form.moved(basis.expression), blendshapes, names)
    ends = [float(time) for keys in tracks.values() for time in keys.times[[0, -1]]]
    for name, keys in tracks.items():
        stage.add_track(name, keys, shapes, min(ends), max(ends))
    return stage.to_bytes(min(ends), max(ends))


def _frame_rate(tracks: Mapping[str, TrackKeys]) -> float:
    """Return the usual number of frames per second; 30 where no track has two keys."""
    steps = np.concatenate([np.diff(keys.times) for keys in tracks.values()])
    return round(1 / float(np.median(steps)), 3) if len(steps) else 30.0


class _Stage:
    """A USD stage that grows."""

    def __init__(self, form: Form, suffix: str, rate: float) -> None:
        self._pxr = pxr = import_pxr()
        self._form, self._suffix, self._rate = form, suffix, rate
        self._stage = pxr.Usd.Stage.CreateInMemory()
        pxr.UsdGeom.SetStageUpAxis(self._stage, pxr.UsdGeom.Tokens.y)
        pxr.UsdGeom.SetStageMetersPerUnit(self._stage, 1.0)
        self._stage.SetDefaultPrim(pxr.UsdGeom.Xform.Define(self._stage, "/take").GetPrim())
        pxr.UsdGeom.Scope.Define(self._stage, "/take/materials")
        self._clay = self._add_material("clay", (CLAY[2], CLAY[1], CLAY[0]), ROUGHNESS)
        self._eyes = {
            part: self._add_material(part, colour, PART_ROUGHNESS[part]) for part, colour in EYE_COLOURS.items()
        }
        if form.mouth is not None:
            self._dark = self._add_material(MOUTH, MOUTH_COLOUR, PART_ROUGHNESS[MOUTH])

    def add_shapes(
        self, mean: Floats, expression: Floats, blendshapes: Sequence[str], names: Sequence[str]
    ) -> dict[str, dict[str, Any]]:
        """Add the blend shapes of Apple's `names`, which all tracks share. Returns the paths by name of "face" and
        "mouth". The arguments are those of `gltf.morph_targets`."""
        shapes = {
            "face": self._add_shapes(
                "shapes", morph_targets(mean, expression, self._form.template.triangles, blendshapes, names)
            )
        }
        if (mouth := self._form.mouth) is not None:
            moves = morph_targets(mouth.lining(mean), mouth.moved(expression), mouth.triangles, blendshapes, names)
            shapes["mouth"] = self._add_shapes("mouth_shapes", moves)
        return shapes

    def _add_shapes(self, scope: str, targets: Iterable[tuple[str, Floats, Floats]]) -> dict[str, Any]:
        """Add blend shapes (name, motion in mm, change of normals) to a scope. Returns their paths by name."""
        skel, vt = self._pxr.UsdSkel, self._pxr.Vt
        self._pxr.UsdGeom.Scope.Define(self._stage, f"/take/{scope}")
        paths = {}
        for name, move, turned in targets:
            shape = skel.BlendShape.Define(self._stage, f"/take/{scope}/{name}")
            metres = move * np.float32(METRES_PER_MM)
            moved = np.flatnonzero((np.abs(metres) > STILL_M).any(1) | (np.abs(turned) > STILL_M).any(1))
            shape.CreateOffsetsAttr(vt.Vec3fArray.FromNumpy(metres[moved]))
            shape.CreateNormalOffsetsAttr(vt.Vec3fArray.FromNumpy(turned[moved]))
            shape.CreatePointIndicesAttr(vt.IntArray.FromNumpy(moved.astype(np.int32)))
            paths[name] = shape.GetPath()
        return paths

    def add_track(
        self, name: str, keys: TrackKeys, shapes: Mapping[str, Mapping[str, Any]], first: float, last: float
    ) -> None:
        """Add the head of a track. `first`, `last`: seconds between which the take shows heads."""
        pxr, stage = self._pxr, self._stage
        codes = (keys.times * self._rate).tolist()
        root = pxr.UsdSkel.Root.Define(stage, f"/take/{name}")
        self._place(root, codes, keys.places, xyzw(keys.rotations))
        begin, end = float(keys.times[0]), float(keys.times[-1])
        for code, seen in ((first, begin <= first), (begin, True), (end + 0.001, end >= last)):
            root.CreateVisibilityAttr().Set("inherited" if seen else "invisible", code * self._rate)

        skeleton = pxr.UsdSkel.Skeleton.Define(stage, f"/take/{name}/skeleton")
        still = pxr.Vt.Matrix4dArray(1, pxr.Gf.Matrix4d(1))
        skeleton.CreateJointsAttr(["head"])
        skeleton.CreateBindTransformsAttr(still)
        skeleton.CreateRestTransformsAttr(still)
        animation = pxr.UsdSkel.Animation.Define(stage, f"/take/{name}/animation")
        animation.CreateBlendShapesAttr(list(shapes["face"]))
        weights = animation.CreateBlendShapeWeightsAttr()
        for code, row in zip(codes, keys.weights, strict=True):
            weights.Set(pxr.Vt.FloatArray.FromNumpy(row), code)
        pxr.UsdSkel.BindingAPI.Apply(skeleton.GetPrim()).CreateAnimationSourceRel().SetTargets([animation.GetPath()])

        neutral, template = self._form.neutral(keys.shape), self._form.template
        mesh = self._add_mesh(f"/take/{name}/face", neutral, template.triangles)
        self._add_coordinates(mesh, template)
        self._bind(mesh, neutral, template.triangles, skeleton, shapes["face"], self._clay)
        if (mouth := self._form.mouth) is not None:
            lining = mouth.lining(neutral)
            mesh = self._add_mesh(f"/take/{name}/mouth", lining, mouth.triangles)
            self._bind(mesh, lining, mouth.triangles, skeleton, shapes["mouth"], self._dark)

        points, parts = eyeball()
        for side, part in enumerate(("left_eye", "right_eye")):
            eye = self._add_mesh(f"/take/{name}/{part}", points * EYE_RADIUS_MM, np.vstack(list(parts.values())))
            centre = eye_centre(keys.shape, template, side) * np.float32(METRES_PER_MM)
            self._place(eye, codes, np.tile(centre, (len(codes), 1)), eye_rotations(keys.eyes[:, side]))
            begins = 0
            for material, triangles in parts.items():
                faces = list(range(begins, begins + len(triangles)))
                subset = pxr.UsdShade.MaterialBindingAPI.Apply(eye.GetPrim()).CreateMaterialBindSubset(material, faces)
                pxr.UsdShade.MaterialBindingAPI.Apply(subset.GetPrim()).Bind(self._eyes[material])
                begins += len(triangles)

    def to_bytes(self, first: float, last: float) -> bytes:
        """Return the file, whose time codes span seconds from `first` to `last`."""
        self._stage.SetTimeCodesPerSecond(self._rate)
        self._stage.SetFramesPerSecond(self._rate)
        self._stage.SetStartTimeCode(first * self._rate)
        self._stage.SetEndTimeCode(last * self._rate)
        with TemporaryDirectory() as folder:  # USD writes to names only
            path = Path(folder) / f"take{self._suffix}"
            self._stage.GetRootLayer().Export(str(path))
            return path.read_bytes()

    def _place(self, prim: Any, codes: list[float], places: Floats, turns: Floats) -> None:
        """Animate a prim: places (K, 3) in metres, and rotations (K, 4) as x, y, z, w."""
        gf = self._pxr.Gf
        translate, orient = prim.AddTranslateOp(), prim.AddOrientOp()
        for code, place, (x, y, z, w) in zip(codes, places.tolist(), turns.tolist(), strict=True):
            translate.Set(gf.Vec3d(place), code)
            orient.Set(gf.Quatf(w, x, y, z), code)

    def _add_mesh(self, path: str, points_mm: Floats, triangles: Any) -> Any:
        pxr = self._pxr
        points = np.ascontiguousarray(points_mm * np.float32(METRES_PER_MM), np.float32)
        mesh = pxr.UsdGeom.Mesh.Define(self._stage, path)
        mesh.CreatePointsAttr(pxr.Vt.Vec3fArray.FromNumpy(points))
        mesh.CreateExtentAttr(pxr.Vt.Vec3fArray.FromNumpy(np.stack([points.min(0), points.max(0)])))
        mesh.CreateFaceVertexCountsAttr([3] * len(triangles))
        mesh.CreateFaceVertexIndicesAttr(pxr.Vt.IntArray.FromNumpy(triangles.astype(np.int32).ravel()))
        mesh.CreateSubdivisionSchemeAttr("none")
        return mesh

    def _bind(
        self, mesh: Any, points: Floats, triangles: Indices, skeleton: Any, shapes: Mapping[str, Any], material: Any
    ) -> None:
        """Give a mesh normals, a material, and blend shapes that the skeleton's animation moves."""
        pxr = self._pxr
        mesh.CreateNormalsAttr(pxr.Vt.Vec3fArray.FromNumpy(vertex_normals(points, triangles)))
        mesh.SetNormalsInterpolation("vertex")
        binding = pxr.UsdSkel.BindingAPI.Apply(mesh.GetPrim())
        binding.CreateSkeletonRel().SetTargets([skeleton.GetPath()])
        binding.CreateJointIndicesPrimvar(True, 1).Set([0])
        binding.CreateJointWeightsPrimvar(True, 1).Set([1.0])
        binding.CreateBlendShapesAttr(list(shapes))
        binding.CreateBlendShapeTargetsRel().SetTargets(list(shapes.values()))
        pxr.UsdShade.MaterialBindingAPI.Apply(mesh.GetPrim()).Bind(material)

    def _add_coordinates(self, mesh: Any, template: FaceTemplate) -> None:
        kind = self._pxr.Sdf.ValueTypeNames.TexCoord2fArray
        primvar = self._pxr.UsdGeom.PrimvarsAPI(mesh).CreatePrimvar("st", kind, "vertex")
        primvar.Set(self._pxr.Vt.Vec2fArray.FromNumpy(np.ascontiguousarray(template.uv, np.float32)))

    def _add_material(self, name: str, srgb: tuple[float, float, float], roughness: float) -> Any:
        pxr, kinds = self._pxr, self._pxr.Sdf.ValueTypeNames
        material = pxr.UsdShade.Material.Define(self._stage, f"/take/materials/{name}")
        shader = pxr.UsdShade.Shader.Define(self._stage, f"/take/materials/{name}/surface")
        shader.CreateIdAttr("UsdPreviewSurface")
        shader.CreateInput("diffuseColor", kinds.Color3f).Set(pxr.Gf.Vec3f(*(linear(channel) for channel in srgb)))
        shader.CreateInput("roughness", kinds.Float).Set(roughness)
        shader.CreateInput("metallic", kinds.Float).Set(0.0)
        surface = shader.CreateOutput("surface", kinds.Token)
        material.CreateSurfaceOutput().ConnectToSource(surface)
        return material
