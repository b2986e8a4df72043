"""Photographs, videos, cameras -> faces, with the networks on a model server that speaks the KServe v2 protocol.

This machine detects faces and cuts crops with the runtime's own code. Only the crops and the network's answers travel.
With a detector on the server (--detector NAME) this machine needs no ONNX Runtime. The client is made for Triton, whose
repository `facerecon-export triton` writes. Other servers do not pass on the file's contract and need --contract.

    pip install '.[opencv]' 'tritonclient[grpc,http]'
    cd runtime/examples
    python kserve_client.py --url grpc://localhost:8001 --model face --detector face_detector --input photo.jpg
    python kserve_client.py --model face --detector ../../models/face_detector.onnx --input photo.jpg --output face.obj
    python kserve_client.py --model face_photograph --on-server --input photo.jpg
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from facerecon_rt import Detector, FaceReconError, Pipeline, Reconstructor, open_detector, open_sink, open_source
from facerecon_rt.contract import CONTRACT_KEY, ModelContract
from facerecon_rt.errors import ProviderMissing, SourceError, UsageError
from facerecon_rt.faces.detector_contract import DETECTOR_KEY, DetectorContract
from facerecon_rt.faces.served import SHA256_KEY, ServedDetector, ServedNetwork
from facerecon_rt.networks.session import read_contract
from facerecon_rt.providers.onnx_file import read_onnx
from numpy.typing import NDArray

TYPES = {np.dtype(np.uint8): "UINT8", np.dtype(np.object_): "BYTES"}
"""Type of the input, as the protocol names it."""


class Server:
    """A connection to a server, over HTTP with binary tensors or over gRPC. A context manager."""

    def __init__(self, url: str, *, timeout_s: float = 30.0) -> None:
        """Connect to a server.

        `url`: http://host:8000, https://…, grpc://host:8001 or grpcs://…. `timeout_s`: maximum time in seconds for one
        answer. Raises UsageError for another address or where tritonclient is missing.
        """
        scheme, _, host = url.rstrip("/").partition("://")
        if scheme not in ("http", "https", "grpc", "grpcs") or not host:
            raise UsageError(f"{url} is not the address of a server; give http://host:8000 or grpc://host:8001")
        kind, secure = scheme.removesuffix("s"), scheme.endswith("s")
        try:
            self._client = importlib.import_module(f"tritonclient.{kind}")
            self._refusals = importlib.import_module("tritonclient.utils").InferenceServerException
        except (ImportError, RuntimeError) as error:  # RuntimeError: tritonclient is installed without this protocol
            raise UsageError(f"{url} needs tritonclient; pip install 'tritonclient[{kind}]'") from error
        self.url = url
        self._grpc = kind == "grpc"
        self._wait = {"client_timeout": timeout_s} if self._grpc else {}
        options = {} if self._grpc else {"connection_timeout": timeout_s, "network_timeout": timeout_s}
        self._connection = self._client.InferenceServerClient(host, ssl=secure, **options)

    def infer(self, model: str, names: Sequence[str], given: NDArray[Any], *, name: str = "image") -> dict[str, Any]:
        """Return the outputs `names` of a model for one input. Raises ProviderMissing where the server does not
        answer."""
        tensor = self._client.InferInput(name, list(given.shape), TYPES[given.dtype])
        tensor.set_data_from_numpy(np.ascontiguousarray(given))
        wanted = [self._client.InferRequestedOutput(each) for each in names]
        with self._refused(model):
            answer = self._connection.infer(model, [tensor], outputs=wanted, **self._wait)
        return {each: answer.as_numpy(each) for each in names}

    def parameters(self, model: str) -> dict[str, str]:
        """Return the model's parameters, an extension of Triton's. Raises ProviderMissing where the server does not
        give them."""
        with self._refused(model, ", or give the file by --contract"):
            if self._grpc:
                found = self._connection.get_model_config(model, as_json=True, **self._wait)["config"]
            else:
                found = self._connection.get_model_config(model)
        return {key: entry["string_value"] for key, entry in found.get("parameters", {}).items()}

    @contextmanager
    def _refused(self, model: str, or_else: str = "") -> Iterator[None]:
        try:
            yield
        except (self._refusals, OSError) as error:
            message = f"{self.url}, {model}: {' '.join(str(error).split())}"
            raise ProviderMissing(f"{message}; check the model's name and the server's log{or_else}") from error

    def __enter__(self) -> Server:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._connection.close()


def served_network(server: Server, model: str, file: Path | None = None) -> ServedNetwork:
    """Return a FaceModel of the server, whose answer to the golden crop is checked.

    `file`: the served file, for a server that does not give its contract. Raises the errors of `Server.parameters` and
    `ServedNetwork`, and UsageError where the server has no contract.
    """
    where = f"{server.url}, {model}"
    if file is not None:
        onnx = read_onnx(file)
        contract, sha256 = read_contract(onnx), onnx.sha256
    else:
        parameters = server.parameters(model)
        contract = _parameter(parameters, CONTRACT_KEY, where, ModelContract.from_json)
        sha256 = parameters.get(SHA256_KEY, "")
    return ServedNetwork(partial(server.infer, model), contract, where=where, sha256=sha256, provider="kserve")


def detector_of(server: Server, name: str) -> Detector:
    """Open a detector file on this machine for a name that ends in .onnx, else return the server's model of that
    name."""
    if Path(name).suffix == ".onnx":
        return open_detector(name)
    where = f"{server.url}, {name}"
    contract = _parameter(server.parameters(name), DETECTOR_KEY, where, DetectorContract.from_json)
    return ServedDetector(partial(server.infer, name), contract, where=where)


def _parameter(parameters: Mapping[str, str], key: str, where: str, read: Callable[[str], Any]) -> Any:
    if key not in parameters:
        raise UsageError(f"{where}: the server gives no {key}; write its configuration with facerecon-export triton")
    return read(parameters[key])


def records_from_server(server: Server, model: str, paths: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """Yield the record of each photograph from the model that `facerecon-export triton --photographs` made. Files are
    sent unchanged. Raises SourceError for an unreadable file."""
    for path in paths:
        try:
            picture = np.array([path.read_bytes()], np.object_)
        except OSError as error:
            raise SourceError(f"cannot read {path}: {error.strerror}") from error
        (record,) = server.infer(model, ["record"], picture, name="picture")["record"]
        yield {**json.loads(record), "source": str(path)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the client. Returns the exit code. Errors are one line on standard error."""
    options = _parser().parse_args(arguments)
    try:
        with Server(options.url, timeout_s=options.timeout) as server:
            if options.on_server:
                for record in records_from_server(server, options.model, [Path(name) for name in options.input]):
                    print(json.dumps(record), flush=True)
            else:
                _run(server, options)
    except FaceReconError as error:
        print(f"kserve_client: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


def _run(server: Server, options: argparse.Namespace) -> None:
    network = served_network(server, options.model, options.contract)
    detector = detector_of(server, options.detector)
    with (
        Reconstructor(network, detector=detector, mirror=not options.no_mirror) as reconstructor,
        open_sink(options.output, blendshapes=network.contract.blendshapes) as sink,
    ):
        pipeline = Pipeline(reconstructor)
        for uri in options.input:
            with open_source(uri) as source:
                for _ in pipeline.run(source, [sink]):
                    pass


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://localhost:8000", help="http(s)://… or grpc(s)://… [%(default)s]")
    parser.add_argument("--model", default="face", help="name of the FaceModel on the server [%(default)s]")
    parser.add_argument(
        "--detector",
        default="face_detector",
        metavar="NAME|FILE.onnx",
        help="name of the server's detector, or a file to run on this machine [%(default)s]",
    )
    parser.add_argument(
        "--contract", type=Path, metavar="FILE.onnx", help="the served file, for servers other than Triton"
    )
    parser.add_argument(
        "--input", nargs="+", required=True, help="inputs as for facerecon-rt: photographs, folders, cam0"
    )
    parser.add_argument(
        "--output", default="-", help="output as for facerecon-rt: .jsonl, .obj, .mp4 [records on stdout]"
    )
    parser.add_argument("--on-server", action="store_true", help="send files to a model made by --photographs instead")
    parser.add_argument(
        "--no-mirror",
        action="store_true",
        help="read each face in one crop, not in three and their mirror images: faster, and less exact",
    )
    parser.add_argument(
        "--timeout", type=float, default=30.0, metavar="S", help="maximum time for one answer, in seconds [%(default)s]"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
