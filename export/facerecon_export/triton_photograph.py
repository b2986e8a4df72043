"""Photographs' files -> faces, inside Triton: its Python backend asks the detector and the FaceModel beside it.

`facerecon-export triton --photographs` copies this file as model.py. The server's Python needs facerecon-rt for it,
which brings numpy and OpenCV; ONNX Runtime is Triton's own. One request, one answer: the three crops per face and what
the network says about each stay on the server.

Input: picture (K,) the bytes of K JPEG, PNG, ... files. Outputs: record (K,) one JSON record per photograph, as the
runtime writes them; and of all F faces, in the records' order: photograph (F,) which one it is in, shape and vertices
(F, V, 3) mm, expression (F, 53), frame_from_head (F, 3, 4), landmarks (F, 68, 3), confidence (F,), and, of a FaceModel
that tells it, gaze (F, 2, 3), as `types.Face` has them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # Triton's own
from facerecon_rt.contract import CONTRACT_KEY, ModelContract
from facerecon_rt.errors import FaceReconError, ProviderMissing
from facerecon_rt.faces.detect import DETECTOR_KEY, DetectorContract
from facerecon_rt.faces.pipeline import scene_of
from facerecon_rt.faces.reconstruct import Reconstructor
from facerecon_rt.faces.served import SHA256_KEY, ServedDetector, ServedNetwork
from facerecon_rt.sinks.record import record_from_scene
from facerecon_rt.sources.files import decode_image
from facerecon_rt.types import Face, Floats, Frame
from numpy.typing import NDArray


class TritonPythonModel:
    """What Triton's Python backend looks for, by this name."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Read the configuration. The networks may not be loaded yet: the first photograph finds out."""
        entries = json.loads(args["model_config"])["parameters"]
        self._parameters = {key: entry["string_value"] for key, entry in entries.items()}
        self._reconstructor: Reconstructor | None = None

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """One response per request; one that cannot be answered says why, and leaves the others alone."""
        return [self._response(request) for request in requests]

    def _response(self, request: Any) -> Any:
        arrived = time.monotonic()
        try:
            files = pb_utils.get_input_tensor_by_name(request, "picture").as_numpy().ravel()
            images = [decode_image(data, f"picture {index}") for index, data in enumerate(files)]
            reconstructor = self._opened()
            found = reconstructor.reconstruct(images)
            records = []
            for index, (image, faces) in enumerate(zip(images, found, strict=True)):
                frame = Frame(image, f"picture {index}", captured_at=arrived)
                scene = scene_of(reconstructor, frame, faces)
                records.append(json.dumps(record_from_scene(scene, reconstructor.contract.blendshapes)))
        except FaceReconError as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error)))
        arrays = arrays_of(found, reconstructor.contract)
        tensors = [pb_utils.Tensor(name, array) for name, array in arrays.items()]
        tensors.append(pb_utils.Tensor("record", np.array([record.encode() for record in records], np.object_)))
        return pb_utils.InferenceResponse(output_tensors=tensors)

    def _opened(self) -> Reconstructor:
        if self._reconstructor is None:
            given = self._parameters
            face, detector = given["face"], given["detector"]
            network = ServedNetwork(
                partial(infer, face),
                ModelContract.from_json(given[CONTRACT_KEY]),
                where=face,
                sha256=given[SHA256_KEY],
                provider="triton",
            )
            contract = DetectorContract.from_json(given[DETECTOR_KEY])
            found = ServedDetector(partial(infer, detector), contract, where=detector)
            self._reconstructor = Reconstructor(network, detector=found)
        return self._reconstructor


def infer(model: str, names: Sequence[str], images: NDArray[np.uint8]) -> dict[str, Floats]:
    """One request to another model of this server."""
    response = pb_utils.InferenceRequest(
        model_name=model,
        requested_output_names=list(names),
        inputs=[pb_utils.Tensor("image", np.ascontiguousarray(images))],
        preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU),
    ).exec()
    if response.has_error():
        raise ProviderMissing(f"{model}: {response.error().message()}; see that the server has loaded it")
    return {tensor.name(): tensor.as_numpy() for tensor in response.output_tensors()}


def arrays_of(found: Sequence[Sequence[Face]], contract: ModelContract) -> dict[str, NDArray[Any]]:
    """The faces of each photograph -> one array per output, a row for each face."""
    faces = [face for of_one in found for face in of_one]
    mesh = (contract.vertex_count, 3)
    dims: dict[str, tuple[int, ...]] = {
        "shape": mesh,
        "vertices": mesh,
        "expression": (len(contract.blendshapes),),
        "frame_from_head": (3, 4),
        "landmarks": (68, 3),
        "confidence": (),
    }
    if "gaze" in contract.outputs:
        dims["gaze"] = (2, 3)
    arrays: dict[str, NDArray[Any]] = {
        name: np.array([getattr(face, name) for face in faces], np.float32).reshape(len(faces), *size)
        for name, size in dims.items()
    }
    arrays["photograph"] = np.array([i for i, of_one in enumerate(found) for _ in of_one], np.int32)
    return arrays
