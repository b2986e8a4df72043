"""Photograph files -> faces, inside Triton: its Python backend asks the detector and the FaceModel beside it.

`facerecon-export triton --photographs` copies this file as model.py. It needs facerecon-rt in the server's Python,
which brings numpy and OpenCV. ONNX Runtime is Triton's own. One request gets one response: the seven crops per face and
the network's answers stay on the server.

The input is picture (K,), the bytes of K files in JPEG, PNG and so on. The output record (K,) holds one JSON record per
photograph, as the runtime writes them. The other outputs have a row for each of the F faces, in the records' order:
photograph (F,), the index of its photograph; shape and vertices (F, V, 3) mm; expression (F, 53); frame_from_head (F,
3, 4); landmarks (F, 68, 3); confidence (F,); and, for a FaceModel with gaze, gaze (F, 2, 3). They are those of
`types.Face`.
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
from facerecon_rt.faces.detector_contract import DETECTOR_KEY, DetectorContract
from facerecon_rt.faces.pipeline import scene_of
from facerecon_rt.faces.reconstruct import Reconstructor
from facerecon_rt.faces.served import SHA256_KEY, ServedDetector, ServedNetwork
from facerecon_rt.sinks.record import record_from_scene
from facerecon_rt.sources.files import decode_image
from facerecon_rt.types import Face, Floats, Frame
from numpy.typing import NDArray


class TritonPythonModel:
    """The model class that Triton's Python backend looks for by this name."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Read the configuration. The networks may not be loaded yet, so the first photograph opens them."""
        entries = json.loads(args["model_config"])["parameters"]
        self._parameters = {key: entry["string_value"] for key, entry in entries.items()}
        self._reconstructor: Reconstructor | None = None

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Return one response per request. A request that fails gets an error message and does not affect the
        others."""
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
                scene = scene_of(reconstructor, frame, faces, ())
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
    """Send one request to another model of this server and return its outputs.

    Raises ProviderMissing if that model does not answer.
    """
    response = pb_utils.InferenceRequest(
        model_name=model,
        requested_output_names=list(names),
        inputs=[pb_utils.Tensor("image", np.ascontiguousarray(images))],
        preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU),
    ).exec()
    if response.has_error():
        raise ProviderMissing(f"{model}: {response.error().message()}; make sure that the server has loaded the model")
    return {tensor.name(): tensor.as_numpy() for tensor in response.output_tensors()}


def arrays_of(found: Sequence[Sequence[Face]], contract: ModelContract) -> dict[str, NDArray[Any]]:
    """Return one array per output, with a row for each face of all photographs."""
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
