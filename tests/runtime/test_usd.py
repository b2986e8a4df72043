"""USD takes: Pixar's library finds them valid, and its skinning gives the face of every frame."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from facerecon_rt.cli import main
from facerecon_rt.errors import UsageError
from facerecon_rt.faces.pipeline import Pipeline
from facerecon_rt.faces.reconstruct import Reconstructor
from facerecon_rt.head import load_head
from facerecon_rt.networks.basis import Basis
from facerecon_rt.pose import VIEWER_FROM_FRAME
from facerecon_rt.sinks.files import open_sink
from facerecon_rt.sinks.record import arkit_blendshapes
from facerecon_rt.sources.files import open_source
from facerecon_rt.template import load_template
from facerecon_rt.types import Scene

pytest.importorskip("pxr", reason="the extra `usd` is not installed")
from pxr import Gf, Usd, UsdGeom, UsdShade, UsdSkel, UsdValidation

ROOT = Path(__file__).parents[2]
MODEL, VIDEO = ROOT / "models" / "face.onnx", ROOT / "tests" / "data" / "talking_head.mp4"
FRAMES, MIDDLE, FOV = 20, 12, 40.0


@pytest.fixture(scope="module")
def seen() -> tuple[list[Scene], Basis, tuple[str, ...]]:
    """The first frames of the sample clip, the basis of the model, and the names of its blendshapes."""
    with Reconstructor(MODEL) as reconstructor, open_source(VIDEO) as source:
        scenes = []
        for scene in Pipeline(reconstructor, lens=FOV).run(source):
            scenes.append(scene)
            if len(scenes) == FRAMES:
                return scenes, reconstructor.basis(), tuple(reconstructor.contract.blendshapes)
    raise AssertionError


def written(path: Path, scenes: list[Scene], basis: Basis, names: tuple[str, ...], **options: Any) -> Any:
    """Return the stage of the take of these scenes."""
    with open_sink(str(path), blendshapes=names, basis=lambda: basis, **options) as sink:
        for scene in scenes:
            sink.write(scene)
    return Usd.Stage.Open(str(path))


def test_skinning_by_pixar_gives_the_face_of_a_frame(tmp_path: Path, seen: Any) -> None:
    scenes, basis, names = seen
    stage = written(tmp_path / "take.usdc", scenes, basis, names)
    assert UsdGeom.GetStageMetersPerUnit(stage) == 1
    assert UsdGeom.GetStageUpAxis(stage) == "Y"
    animation = UsdSkel.Animation(stage.GetPrimAtPath("/take/track1/animation"))
    times = animation.GetBlendShapeWeightsAttr().GetTimeSamples()
    assert len(times) == FRAMES
    rate = stage.GetTimeCodesPerSecond()
    np.testing.assert_allclose(np.array(times) / rate, [scene.frame.time_s for scene in scenes], atol=1e-4)
    expected = arkit_blendshapes(scenes[MIDDLE].faces[0].expression, names)
    assert list(animation.GetBlendShapesAttr().Get()) == list(expected)
    at = times[MIDDLE]
    weights = animation.GetBlendShapeWeightsAttr().Get(at)
    np.testing.assert_allclose(weights, list(expected.values()), atol=1e-6)

    root = UsdSkel.Root(stage.GetPrimAtPath("/take/track1"))
    assert UsdSkel.BakeSkinning(root, Gf.Interval(at, at))
    mesh = UsdGeom.Mesh(stage.GetPrimAtPath("/take/track1/face"))
    placed = UsdGeom.Xformable(mesh).ComputeLocalToWorldTransform(at)
    found = np.array([placed.Transform(Gf.Vec3d(*map(float, point))) for point in mesh.GetPointsAttr().Get(at)])
    face, last = scenes[MIDDLE].faces[0], scenes[-1].faces[0].shape
    camera = face.camera_from_head.astype(np.float64)
    vertices = last + face.vertices - face.shape
    places = (vertices @ camera[:3, :3].T + camera[:3, 3]) @ VIEWER_FROM_FRAME.T
    assert np.abs(1000 * found - places).max() < 0.1


@pytest.mark.parametrize(("suffix", "mesh", "vertices"), [("usdc", "head", 5882), ("usda", "face", 4032)])
def test_pixars_validators_find_nothing(tmp_path: Path, seen: Any, suffix: str, mesh: str, vertices: int) -> None:
    """The take has a second track that begins later and ends earlier. It is hidden meanwhile."""
    scenes, basis, names = seen
    both = [
        replace(scene, faces=(face, replace(face, track=2))) if 5 <= index < 9 else scene
        for index, scene in enumerate(scenes[:12])
        for face in scene.faces
    ]
    stage = written(tmp_path / f"take.{suffix}", both, basis, names, mesh=mesh)
    validators = UsdValidation.ValidationRegistry().GetOrLoadAllValidators()
    errors = UsdValidation.ValidationContext(validators).Validate(stage)
    assert [error.GetMessage() for error in errors] == []
    second = UsdGeom.Imageable(stage.GetPrimAtPath("/take/track2"))
    rate = stage.GetTimeCodesPerSecond()
    shown = [second.ComputeVisibility(scene.frame.time_s * rate) for scene in both]
    assert shown == ["invisible"] * 5 + ["inherited"] * 4 + ["invisible"] * 3
    assert len(UsdGeom.Mesh(stage.GetPrimAtPath("/take/track1/face")).GetPointsAttr().Get()) == vertices


def test_the_mouth_of_a_head_is_skinned_with_the_lips(tmp_path: Path, seen: Any) -> None:
    """Its first vertices lie on the lips in the newest frame."""
    scenes, basis, names = seen
    stage = written(tmp_path / "take.usdc", scenes[:2], basis, names, mesh="head")
    mouth = load_head(load_template()).mouth
    assert mouth is not None
    at = scenes[1].frame.time_s * stage.GetTimeCodesPerSecond()
    assert UsdSkel.BakeSkinning(UsdSkel.Root(stage.GetPrimAtPath("/take/track1")), Gf.Interval(at, at))
    face, lining = (
        np.array(UsdGeom.Mesh(stage.GetPrimAtPath(f"/take/track1/{part}")).GetPointsAttr().Get(at))
        for part in ("face", "mouth")
    )
    # A blend shape leaves out motions below a micrometre.
    np.testing.assert_allclose(1000 * lining[: len(mouth.ring)], 1000 * face[mouth.ring], atol=1e-4)
    np.testing.assert_allclose(1000 * lining, mouth.lining(1000 * face), atol=0.1)
    binding = UsdShade.MaterialBindingAPI(stage.GetPrimAtPath("/take/track1/mouth")).GetDirectBinding()
    assert binding.GetMaterialPath() == "/take/materials/mouth"


def test_a_photograph_has_its_expression(tmp_path: Path, seen: Any) -> None:
    scenes, basis, names = seen
    face = scenes[MIDDLE].faces[0]
    photograph = replace(scenes[MIDDLE], frame=replace(scenes[MIDDLE].frame, still=True), faces=(face,))
    stage = written(tmp_path / "photo.usda", [photograph], basis, names)
    animation = UsdSkel.Animation(stage.GetPrimAtPath("/take/face/animation"))
    weights = animation.GetBlendShapeWeightsAttr().Get(Usd.TimeCode.EarliestTime())
    np.testing.assert_allclose(weights, list(arkit_blendshapes(face.expression, names).values()), atol=1e-6)


def test_without_usd_core_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pxr", None)
    arguments = ["--model", str(MODEL), "--input", str(VIDEO), "--output", str(tmp_path / "take.usdc")]
    assert main(arguments) == UsageError.exit_code
    assert "facerecon-rt[usd]" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
