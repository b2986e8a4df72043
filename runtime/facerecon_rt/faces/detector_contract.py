"""What a detector file says of itself, checked against its tensors."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields

from ..contract import PRECISIONS, TARGETS
from ..errors import ModelRefused
from ..providers.onnx_file import FLOAT, UINT8, OnnxFile

DETECTOR_KEY = "facerecon.detector"
"""Key in the ONNX file's metadata_props of the JSON value of a DetectorContract."""
DETECTOR_VERSION = 2
BOX_CHANNELS = {1: 3, 2: 5}
"""Channels of the output `box` by contract version. Files of version 1 do not predict the roll of a head."""
DETECTOR_KIND = "centre"
STRIDE = 8
"""Number of input pixels per cell of the network's outputs."""
MULTIPLE = 32
"""Divisor of the input's sides, because the network halves its input five times."""
SIDE_UNIT = 32.0
"""Side of a face in pixels at which the network's logarithm of the side is 0."""


@dataclass(frozen=True, slots=True)
class DetectorContract:
    """Description of a detector file of this project.

    Input `image`: (N, H, W, 3) uint8 BGR, H and W multiples of 32. Outputs, float32, with h = H / 8, w = W / 8:

    - `score`: (N, h, w), 0 to 1.
    - `box`: (N, 5, h, w). The first two channels are the offset from the cell's centre to the face's centre, x and y,
      in sides of the face. The third is the logarithm of the side in units of SIDE_UNIT pixels. The last two are cosine
      and sine of the head's roll, clockwise in the picture, times a positive factor.

    Files of version 1 lack the last two channels, so that every head counts as upright.
    """

    score: float
    """Default minimum score of a face, chosen on training photographs."""
    terms: str = ""
    """Terms of use of the weights."""
    weights_sha256: str = ""
    """SHA-256 of the .safetensors file that the graph was exported from."""
    precision: str = "fp32"
    target: str = ""
    """Target of a quantised file, as in ModelContract."""
    kind: str = DETECTOR_KIND
    version: int = DETECTOR_VERSION
    sure: float = 0.0
    """Score below which a detection is doubtful, so that the FaceModel must be more confident of it than of others."""

    def to_json(self) -> str:
        """Return the value of `DETECTOR_KEY` for the ONNX file's metadata_props."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> DetectorContract:
        """Read the value that `to_json` wrote. Raises ModelRefused for anything else."""
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ModelRefused(f"its {DETECTOR_KEY} is not JSON ({error}); export the detector again") from error
        known_version = isinstance(value, dict) and value.get("version") in tuple(BOX_CHANNELS)
        if not known_version or value.get("kind") != DETECTOR_KIND:
            raise ModelRefused(
                f"its {DETECTOR_KEY} is not version 1 to {DETECTOR_VERSION} of kind {DETECTOR_KIND!r}; export the "
                "detector again with this release, or use the release it was made with"
            )
        known = {f.name for f in fields(cls)}
        try:
            contract = cls(**{key: v for key, v in value.items() if key in known})
        except TypeError as error:
            raise ModelRefused(f"its {DETECTOR_KEY} lacks a field ({error}); export the detector again") from error
        for name in ("terms", "weights_sha256", "precision", "target"):
            text = getattr(contract, name)
            if not isinstance(text, str) or not text.isprintable():
                raise ModelRefused(f"its {DETECTOR_KEY} has a {name} that is not a text of one line; export it again")
        for name, known_values in (("precision", PRECISIONS), ("target", TARGETS)):
            if (value := getattr(contract, name)) not in known_values:
                allowed = ", ".join(filter(None, known_values))
                raise ModelRefused(
                    f"its {DETECTOR_KEY} has {name} {value:.40}, not one of {allowed}; export the detector again"
                )
        if not (isinstance(contract.score, float) and 0 < contract.score < 1):
            raise ModelRefused(
                f"its {DETECTOR_KEY} has score {contract.score!r:.40}, not between 0 and 1; export it again"
            )
        if not (isinstance(contract.sure, float) and 0 <= contract.sure < 1):
            raise ModelRefused(
                f"its {DETECTOR_KEY} has sure {contract.sure!r:.40}, not from 0 to below 1; export it again"
            )
        return contract


def read_detector_contract(model: OnnxFile) -> DetectorContract:
    """Return the file's contract, after checking that the file's tensors match it. Raises ModelRefused."""
    text = model.metadata.get(DETECTOR_KEY)
    if text is None:
        raise ModelRefused(
            f"{model.path}: not a face detector of this project (no {DETECTOR_KEY} in its metadata); "
            "use models/face_detector.onnx"
        )
    try:
        contract = DetectorContract.from_json(text)
    except ModelRefused as error:
        raise ModelRefused(f"{model.path}: {error}") from error
    tensors = [(t.name, t.elem_type, len(t.dims or ())) for t in (*model.inputs, *model.outputs)]
    named = tensors == [("image", UINT8, 4), ("score", FLOAT, 3), ("box", FLOAT, 4)]
    if not named or (model.outputs[1].dims or ())[1:2] != (BOX_CHANNELS[contract.version],):
        names = ", ".join(f"{t.name} {t.dims}" for t in (*model.inputs, *model.outputs))[:200]
        raise ModelRefused(f"{model.path}: its tensors ({names}) do not match its contract; export it again")
    return contract
