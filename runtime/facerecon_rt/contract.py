"""Inputs and outputs of a FaceModel -> one JSON value that travels inside the ONNX file. Standard library only."""

from __future__ import annotations

import json
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

from .errors import ModelRefused

CONTRACT_KEY = "facerecon.contract"
CONTRACT_VERSION = 2
VERSIONS = (1, 2)
"""Contract versions that this release reads. Files of version 1 have no gaze and no variance of the shape."""
PRECISIONS = ("fp32", "fp16", "int8")
TARGETS = ("", "cpu", "tensorrt")
OUTPUTS_1 = ("shape", "vertices", "expression", "crop_from_head", "landmarks", "confidence")
OUTPUTS = (*OUTPUTS_1, "gaze", "identity", "identity_variance")
DISAGREEMENT = "disagreement"
"""An additional output of files that hold several networks.

It is (N, 4) float32, the mean distance of the members to their average: shape mm, vertices mm, landmarks crop pixels,
rotation degrees.
"""
SET_OUTPUTS_1 = (
    "shape", "spread_mm", "weights", "vertices", "expression", "crop_from_head", "landmarks", "confidence",
)  # fmt: skip
SET_OUTPUTS = (*SET_OUTPUTS_1, "gaze")
"""Outputs of files that average the N photographs of one person.

These are the shape (1, V, 3) and its spread (1, V) mm, the weights (N,) of the photographs, and the other outputs for
each photograph, with that shape.
"""
ENSEMBLE_OUTPUTS_1 = (*OUTPUTS_1, DISAGREEMENT)
ENSEMBLE_OUTPUTS = (*OUTPUTS_1, "gaze", DISAGREEMENT)
"""Outputs of files that hold several networks. They lack the identity code, because codes of different networks have no
average."""
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
    """Description of a FaceModel file: everything that a program must know to run it.

    Input `image`: (N, S, S, 3) uint8 BGR, N dynamic; the graph normalises it. Outputs, float32, in the order of
    `OUTPUTS`:

    - shape: (N, V, 3) mm.
    - vertices: (N, V, 3) mm.
    - expression: (N, 53), 0 to 1.
    - crop_from_head: (N, 3, 4), crop pixels and relative depth.
    - landmarks: (N, 68, 3) crop pixels, where annotators put them, with jaw points on the visible contour.
    - confidence: (N,), 0 to 1.
    - gaze: (N, 2, 3), unit vectors of the left and the right eye, head frame.
    - identity: (N, K), the code from which the shape is decoded.
    - identity_variance: (N, K), the variance of the code's error.

    Head frame: +x the subject's left, +y up, +z out of the face, origin midway between the eyeballs of the mean face.
    Files of version 1 lack the last three outputs.
    """

    input_size: int
    vertex_count: int
    template_sha256: str
    """SHA-256 of the face template whose triangles, UVs and landmarks the vertices follow."""
    backbone: str
    precision: str = "fp32"
    target: str = ""
    """Target of a quantised file, `cpu` or `tensorrt`; "" where it makes no difference."""
    blendshapes: tuple[str, ...] = BLENDSHAPES
    outputs: tuple[str, ...] = OUTPUTS
    terms: str = ""
    """Terms of use of the weights."""
    weights_sha256: str = ""
    """SHA-256 of the .safetensors file that the graph was exported from."""
    batch: int = 0
    """Number of crops per batch; 0 for any number."""
    code_size: int = 0
    """K, the length of the identity code; 0 in files of version 1."""
    set_size: int = 0
    """Number of photographs of one person that a file with `SET_OUTPUTS` averages; 0 in all other files."""
    annotation_asymmetry: tuple[float, ...] = ()
    """Asymmetry of annotations, (68 * 2,) crop pixels, x and y of each landmark; () for none.

    It is half of how much further right and down annotators put a landmark than they would in a mirrored picture, and
    is part of `landmarks`. Averaging a crop with its mirror image cancels it, so it must be added again.
    """
    golden: tuple[float, ...] = ()
    """Outputs of the weights, in int8 of the file itself, for `golden.golden_crop`, (68 * 5,); () in files that cannot
    be tested with it.

    Each landmark has x and y in crop pixels, and x, y and z of its vertex in mm.
    """
    version: int = CONTRACT_VERSION

    def to_json(self) -> str:
        """Return the value of `CONTRACT_KEY` for the ONNX file's metadata_props."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> ModelContract:
        """Read the value that `to_json` wrote. Raises ModelRefused for another version or an invalid field."""
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            # JSONDecodeError is a ValueError, and a number of ten thousand digits raises ValueError too.
            raise ModelRefused(f"its {CONTRACT_KEY} is not JSON ({error}); export the model again") from error
        if not isinstance(value, dict) or "version" not in value:
            raise ModelRefused(f"its {CONTRACT_KEY} has no version; export the model again")
        if type(value["version"]) is int and value["version"] not in VERSIONS:
            # The version is checked before missing fields, since another version may lack them.
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
        """Check every field. Raises a one-line ModelRefused for a wrong type or an invalid value."""
        # A bool is an int in Python, but not a valid number here.
        for name in ("version", "input_size", "vertex_count", "batch", "set_size", "code_size"):
            if type(getattr(self, name)) is not int:
                raise ModelRefused(f"contract: {name} is not an integer; export the model again")
        for name in ("template_sha256", "backbone", "precision", "target", "terms", "weights_sha256"):
            _check_text(name, getattr(self, name))
        for name in ("blendshapes", "outputs"):
            names = getattr(self, name)
            if not isinstance(names, tuple):
                raise ModelRefused(f"contract: {name} is not a list of names; export the model again")
            for each in names:
                _check_text(name, each)
        for name in ("annotation_asymmetry", "golden"):
            numbers = getattr(self, name)
            # The numbers are compared, not converted, because an integer may be too large for a float. NaN fails the
            # comparison.
            if not isinstance(numbers, tuple) or not all(type(x) in (int, float) and abs(x) < 1e9 for x in numbers):
                raise ModelRefused(f"contract: {name} is not a list of numbers; export the model again")
        if self.version not in VERSIONS:
            raise _other_version(self.version)
        for name, columns in (("annotation_asymmetry", 2), ("golden", GOLDEN_COLUMNS)):
            count = len(getattr(self, name))
            if count not in (0, 68 * columns):
                raise ModelRefused(f"contract: {name} has {count} numbers, not {68 * columns}; export the model again")
        if not 32 <= self.input_size <= 1024:
            raise ModelRefused(f"contract: input_size {self.input_size} is not in 32..1024; export the model again")
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
        f"its contract version is {version}, but this runtime reads {' and '.join(map(str, VERSIONS))}; "
        "export the model again with this release, or use the release it was made with"
    )


def _check_text(name: str, value: object) -> None:
    """Check that a text is printable and on one line, because it may appear in messages and records."""
    if not isinstance(value, str) or not value.isprintable():
        raise ModelRefused(f"contract: {name} is not a text of one line; export the model again")
