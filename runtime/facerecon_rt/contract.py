"""What a FaceModel takes and gives -> one JSON value that travels inside the ONNX file. Standard library only."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields

from .errors import ModelRefused

CONTRACT_KEY = "facerecon.contract"
CONTRACT_VERSION = 1
PRECISIONS = ("fp32", "fp16", "int8")
OUTPUTS = ("shape", "vertices", "expression", "crop_from_head", "landmarks", "confidence")
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
    pixels and relative depth; landmarks (N, 68, 3) crop pixels; confidence (N,) 0..1. Head frame: +x the subject's
    left, +y up, +z out of the face, origin midway between the eyeballs of the mean face.
    """

    input_size: int
    vertex_count: int
    template_sha256: str
    """Of the face template whose triangles, UVs and landmarks the vertices follow."""
    backbone: str
    precision: str = "fp32"
    blendshapes: tuple[str, ...] = BLENDSHAPES
    outputs: tuple[str, ...] = OUTPUTS
    terms: str = ""
    """What the weights may be used for."""
    weights_sha256: str = ""
    """Of the .safetensors file the graph was exported from."""
    version: int = CONTRACT_VERSION

    def to_json(self) -> str:
        """The value of `CONTRACT_KEY` in the ONNX file's metadata_props."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> ModelContract:
        """Read what `to_json` wrote. Raises ModelRefused on another version or a field that makes no sense."""
        try:
            value = json.loads(text)
        except json.JSONDecodeError as error:
            raise ModelRefused(f"its {CONTRACT_KEY} is not JSON ({error}); export the model again") from error
        if not isinstance(value, dict) or "version" not in value:
            raise ModelRefused(f"its {CONTRACT_KEY} has no version; export the model again")
        if value["version"] != CONTRACT_VERSION:
            raise ModelRefused(
                f"its contract version is {value['version']}, this runtime reads {CONTRACT_VERSION}; "
                "export the model again with this release, or use the release it was made with"
            )
        known = {f.name for f in fields(cls)}
        try:
            contract = cls(**{key: tuple(v) if isinstance(v, list) else v for key, v in value.items() if key in known})
        except TypeError as error:
            raise ModelRefused(f"its {CONTRACT_KEY} lacks a field ({error}); export the model again") from error
        contract.check()
        return contract

    def check(self) -> None:
        """Raises ModelRefused where a field makes no sense."""
        if not (isinstance(self.input_size, int) and 32 <= self.input_size <= 1024):
            raise ModelRefused(f"contract: input_size {self.input_size!r} is not an integer from 32 to 1024")
        if not (isinstance(self.vertex_count, int) and self.vertex_count >= 68):
            raise ModelRefused(f"contract: vertex_count {self.vertex_count!r} is not an integer of at least 68")
        if self.precision not in PRECISIONS:
            raise ModelRefused(f"contract: precision {self.precision!r} is not one of {', '.join(PRECISIONS)}")
        if self.outputs != OUTPUTS:
            raise ModelRefused(f"contract: outputs {self.outputs} are not {OUTPUTS}")
        if len(set(self.blendshapes)) != len(self.blendshapes) or not self.blendshapes:
            raise ModelRefused("contract: blendshape names are missing or repeated")
