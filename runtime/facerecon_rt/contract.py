"""What a FaceModel takes and gives -> one JSON value that travels inside the ONNX file. Standard library only."""

from __future__ import annotations

import json
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

from .errors import ModelRefused

CONTRACT_KEY = "facerecon.contract"
CONTRACT_VERSION = 2
VERSIONS = (1, 2)
"""Contracts that this release reads. Files of version 1 say nothing about gaze and about how sure a shape is."""
PRECISIONS = ("fp32", "fp16", "int8")
TARGETS = ("", "cpu", "tensorrt")
OUTPUTS_1 = ("shape", "vertices", "expression", "crop_from_head", "landmarks", "confidence")
OUTPUTS = (*OUTPUTS_1, "gaze", "identity", "identity_variance")
DISAGREEMENT = "disagreement"
"""One more output, of files that hold several networks: (N, 4) float32, mean distance of the members to their average:
shape mm, vertices mm, landmarks crop pixels, rotation degrees."""
SET_OUTPUTS_1 = (
    "shape", "spread_mm", "weights", "vertices", "expression", "crop_from_head", "landmarks", "confidence",
)  # fmt: skip
SET_OUTPUTS = (*SET_OUTPUTS_1, "gaze")
"""Of files that average the N photographs of one person: shape (1, V, 3) and its spread (1, V) mm, the weights (N,) of
the photographs, and the others for each photograph, with that shape."""
ENSEMBLE_OUTPUTS_1 = (*OUTPUTS_1, DISAGREEMENT)
ENSEMBLE_OUTPUTS = (*OUTPUTS_1, "gaze", DISAGREEMENT)
"""Of files that hold several networks: codes of different networks have no average."""
GOLDEN_COLUMNS = 5
BLENDSHAPES: tuple[str, ...] = (
    "browDown_L", "browDown_R", "browInnerUp_L", "browInnerUp_R", "browOuterUp_L", "browOuterUp_R", "cheekPuff_L",
    "cheekPuff_R", "cheekSquint_L", "cheekSquint_R", "eyeBlink_L", "eyeBlink_R", "eyeLookDown_L", "eyeLookDown_R",
    "eyeLookIn_L", "eyeLookIn_R", "eyeLookOut_L", "eyeLookOut_R", "eyeLookUp_L", "eyeLookUp_R", "eyeSquint_L",
    "eyeSquint_R", "eyeWide_L", "eyeWide_R", "jawForward", "jawLeft", "jawOpen", "jawRight", "mouthClose",
    "mouthDimple_L", "mouthDimple_R", "mouthFrown_L", "mouthFrown_R", "mouthFunnel", "mouthLeft", "mouthLowerDown_L",
    "mouthLowerDown_R", "mouthPress_L", "mouthPress_R", "mouthPucker", "mouthRight", "mouthRollLower",
    "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthSmile_L", "mouthSmile_R", "mouthStretch_L",
    "mouthStretch_R", "mouthUpperUp_L", "mouthUpperUp_R", "noseSneer_L", "noseSneer_R",
)  # fmt: skip
"""The 53 expression weights, ICT-FaceKit's names: Apple's 52 with brows and cheeks split left and right, no tongue."""


@dataclass(frozen=True, slots=True)
class ModelContract:
    """Everything a consumer must know about a FaceModel file, in one value.

    Input `image`: (N, S, S, 3) uint8 BGR, N dynamic; normalisation is inside the graph. Outputs, float32, in the order
    of `OUTPUTS`: shape (N, V, 3) mm; vertices (N, V, 3) mm; expression (N, 53) 0..1; crop_from_head (N, 3, 4), crop
    pixels and relative depth; landmarks (N, 68, 3) crop pixels, where annotators put them: jaw points on the visible
    contour; confidence (N,) 0..1; gaze (N, 2, 3), unit vectors of the left and the right eye, head frame; identity
    (N, K), the code that the shape is decoded from, and identity_variance (N, K), of its error. Head frame: +x the
    subject's left, +y up, +z out of the face, origin midway between the eyeballs of the mean face. Files of version 1
    lack the last three.
    """

    input_size: int
    vertex_count: int
    template_sha256: str
    """Of the face template whose triangles, UVs and landmarks the vertices follow."""
    backbone: str
    precision: str = "fp32"
    target: str = ""
    """What a quantised file was made for, `cpu` or `tensorrt`; "" where it makes no difference."""
    blendshapes: tuple[str, ...] = BLENDSHAPES
    outputs: tuple[str, ...] = OUTPUTS
    terms: str = ""
    """What the weights may be used for."""
    weights_sha256: str = ""
    """Of the .safetensors file the graph was exported from."""
    batch: int = 0
    """Crops the file takes at a time; 0 means any number."""
    code_size: int = 0
    """K, the length of the identity code; 0 in files of version 1."""
    set_size: int = 0
    """Photographs of one person that a file with `SET_OUTPUTS` averages; 0 in all other files."""
    annotation_asymmetry: tuple[float, ...] = ()
    """(68 * 2,) crop pixels, x and y of each landmark: how much further right and down annotators put it than they
    would in a mirror, halved, which is part of `landmarks`. Whoever averages a crop with its mirror image loses it and
    adds it again; () means none."""
    golden: tuple[float, ...] = ()
    """(68 * 5,) what the weights say about `golden.golden_crop`: of each landmark x and y in crop pixels, and x, y and
    z of its vertex in mm. () in files that cannot be tested so."""
    version: int = CONTRACT_VERSION

    def to_json(self) -> str:
        """The value of `CONTRACT_KEY` in the ONNX file's metadata_props."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> ModelContract:
        """Read what `to_json` wrote. Raises ModelRefused on another version or a field that makes no sense."""
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            # JSONDecodeError is a ValueError, and so is what a number of ten thousand digits raises.
            raise ModelRefused(f"its {CONTRACT_KEY} is not JSON ({error}); export the model again") from error
        if not isinstance(value, dict) or "version" not in value:
            raise ModelRefused(f"its {CONTRACT_KEY} has no version; export the model again")
        if type(value["version"]) is int and value["version"] not in VERSIONS:
            # Said before a field is missed that another version may well do without.
            raise _other_version(value["version"])
        if value["version"] == 1:
            value = {"outputs": list(SET_OUTPUTS_1 if value.get("set_size") else OUTPUTS_1), **value}
        known = {f.name for f in fields(cls)}
        given: dict[str, Any] = {
            key: tuple(v) if isinstance(v, list) else v for key, v in value.items() if key in known
        }
        missing = sorted({f.name for f in fields(cls) if f.default is MISSING} - set(given))
        if missing:
            raise ModelRefused(f"its {CONTRACT_KEY} lacks {', '.join(missing)}; export the model again")
        contract = cls(**given)
        contract.check()
        return contract

    def check(self) -> None:
        """Raises ModelRefused, in one line, where a field is not of its type or makes no sense."""
        # A bool is an int to Python, and no number here.
        for name in ("version", "input_size", "vertex_count", "batch", "set_size", "code_size"):
            if type(getattr(self, name)) is not int:
                raise ModelRefused(f"contract: {name} is no integer; export the model again")
        for name in ("template_sha256", "backbone", "precision", "target", "terms", "weights_sha256"):
            _check_text(name, getattr(self, name))
        for name in ("blendshapes", "outputs"):
            names = getattr(self, name)
            if not isinstance(names, tuple):
                raise ModelRefused(f"contract: {name} is no list of names; export the model again")
            for each in names:
                _check_text(name, each)
        for name in ("annotation_asymmetry", "golden"):
            numbers = getattr(self, name)
            # Compared, not converted: an integer may be too large for a float. NaN is no number either.
            if not isinstance(numbers, tuple) or not all(type(x) in (int, float) and abs(x) < 1e9 for x in numbers):
                raise ModelRefused(f"contract: {name} is no list of numbers; export the model again")
        if self.version not in VERSIONS:
            raise _other_version(self.version)
        for name, columns in (("annotation_asymmetry", 2), ("golden", GOLDEN_COLUMNS)):
            count = len(getattr(self, name))
            if count not in (0, 68 * columns):
                raise ModelRefused(f"contract: {name} has {count} numbers, not {68 * columns}; export the model again")
        if not 32 <= self.input_size <= 1024:
            raise ModelRefused(f"contract: input_size {self.input_size} is not in 32..1024; export it again")
        if self.vertex_count < 68:
            raise ModelRefused(f"contract: vertex_count {self.vertex_count} is less than 68; export the model again")
        if self.precision not in PRECISIONS:
            raise ModelRefused(f"contract: precision {self.precision!r} is not one of {', '.join(PRECISIONS)}")
        if self.target not in TARGETS:
            raise ModelRefused(f"contract: target {self.target!r} is not one of {', '.join(filter(None, TARGETS))}")
        if self.batch < 0 or self.set_size < 0 or self.code_size < 0:
            raise ModelRefused("contract: batch, set_size or code_size is negative; export the model again")
        known = _known_outputs(self.version, in_sets=self.set_size > 0)
        if self.outputs not in known:
            raise ModelRefused(f"contract: outputs {self.outputs} are not {known[0]}; export the model again")
        if not self.blendshapes or len(set(self.blendshapes)) != len(self.blendshapes):
            raise ModelRefused("contract: blendshape names are missing or repeated; export the model again")
        if "identity" in self.outputs and not self.code_size:
            raise ModelRefused("contract: code_size is missing; export the model again")


def _known_outputs(version: int, *, in_sets: bool) -> tuple[tuple[str, ...], ...]:
    if version == 1:
        return (SET_OUTPUTS_1,) if in_sets else (OUTPUTS_1, ENSEMBLE_OUTPUTS_1)
    return (SET_OUTPUTS,) if in_sets else (OUTPUTS, ENSEMBLE_OUTPUTS)


def _other_version(version: int) -> ModelRefused:
    return ModelRefused(
        f"its contract version is {version}, this runtime reads {' and '.join(map(str, VERSIONS))}; "
        "export the model again with this release, or use the release it was made with"
    )


def _check_text(name: str, value: object) -> None:
    """Texts end up in messages and records: printable, on one line."""
    if not isinstance(value, str) or not value.isprintable():
        raise ModelRefused(f"contract: {name} is no text of one line; export the model again")
