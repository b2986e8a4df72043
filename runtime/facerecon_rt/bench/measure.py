"""Options -> a report: opens the model and the input, runs the scenario, and adds accuracy and environment."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..addresses import is_live, public_name
from ..annotated import annotated_photographs, photograph_figures
from ..commands.arguments import idle_gpu_options, idle_sentences
from ..environment import machine, sensors, usable_cores
from ..errors import FaceReconError, SourceError, UsageError
from ..faces.pipeline import DETECT_EVERY
from ..faces.reconstruct import Reconstructor
from ..providers.choice import Provider
from ..providers.nvidia import AS_USUAL, GpuOptions
from ..sources.files import Source, open_source
from ..types import Frame
from .fidelity import difference, face_crops
from .figures import LEAST_FOR_P99, doubts, stage_summary, summary
from .report import JUDGED_BY, SCHEMA, Report, verdict_of
from .scenarios import Ended, Samples, Show, camera, offline, paced, streamed

log = logging.getLogger("facerecon_rt")

Scenario = Literal["single-stream", "multi-stream", "offline", "camera"]
SCENARIOS: tuple[Scenario, ...] = ("single-stream", "multi-stream", "offline", "camera")
MOST_BYTES = 512 * 2**20
"""Maximum bytes of frames held in memory. Only the beginning of a longer video is measured."""
USUAL_FPS = 30.0
SOME_LIVE_FRAMES = 8
"""Number of camera frames to reconstruct before the run, to see whether there is a face and how far the file is from
float32."""


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """Options of a benchmark."""

    models: tuple[str, ...]
    input: str
    scenario: Scenario = "single-stream"
    provider: Provider = "auto"
    precision: str | None = None
    threads: int = 1
    detector: str | None = None
    detect_every: int = DETECT_EVERY
    count: int = LEAST_FOR_P99
    """Number of queries to measure; batches for `offline`."""
    warm_up: int = 50
    streams: int = 4
    batches: tuple[int, ...] = (1, 2, 4, 8)
    fps: float | None = None
    """Frame rate of a file in the scenario `camera`; None for the file's own, or 30."""
    budget_ms: float | None = None
    photographs: Path | None = None
    """Folder of annotated photographs for the accuracy of the same files."""
    command: str = ""
    gpu: GpuOptions = AS_USUAL

    def check(self) -> None:
        """Check the options. Raises UsageError for a combination that cannot be measured."""
        if self.budget_ms is not None and self.scenario not in JUDGED_BY:
            raise UsageError(f"--budget-ms applies to {', '.join(JUDGED_BY)}; {self.scenario} has no deadline")
        if self.budget_ms is not None and JUDGED_BY[self.scenario] == "p99" and self.count < LEAST_FOR_P99:
            raise UsageError(
                f"--budget-ms applies to the p99 of {self.scenario}, which needs --count {LEAST_FOR_P99} or more"
            )
        if is_live(self.input) and self.scenario != "camera":
            raise UsageError(
                f"{public_name(self.input)} sends frames at its own rate; measure it with --scenario camera"
            )

    def without_effect(self) -> list[str]:
        """Return sentences about options that are given and do nothing in this scenario."""
        usual = {field.name: field.default for field in fields(self)}
        offline, live = self.scenario == "offline", is_live(self.input)
        return idle_sentences(
            (option, purpose)
            for option, name, works, purpose in (
                ("--streams", "streams", self.scenario == "multi-stream", "--scenario multi-stream"),
                ("--batch", "batches", offline, "--scenario offline"),
                ("--fps", "fps", self.scenario == "camera" and not live, "--scenario camera with a file"),
                ("--det-every", "detect_every", not offline, "scenarios that follow faces"),
            )
            if getattr(self, name) != usual[name] and not works
        )


def measure(options: BenchOptions, show: Show) -> tuple[Report, Ended | None]:
    """Run the benchmark. Returns the report, and what ended it early: Ctrl-C, or an error such as a lost camera. The
    report then holds what was measured.

    Raises UsageError, SourceError, ModelRefused, ProviderMissing or KeyboardInterrupt before the first sample.
    """
    options.check()
    if options.photographs is not None:
        next(annotated_photographs(options.photographs))  # an empty folder is better reported before the run
    live = is_live(options.input)
    described, before = machine(), sensors()
    frames = [] if live else frames_in_memory(options.input)
    started = time.perf_counter()
    with Reconstructor(
        list(options.models),
        detector=options.detector,
        provider=options.provider,
        precision=options.precision,
        threads=options.threads,
        gpu=options.gpu,
        mirror=False,  # frames are not mirrored, so accuracy and latency are of the same work
    ) as reconstructor:
        load_ms = 1000 * (time.perf_counter() - started)
        for line in idle_gpu_options(reconstructor, options.gpu):
            log.warning("%s", line)
        seen = some_of(options.input, SOME_LIVE_FRAMES) if live else frames
        crops = face_crops(reconstructor, seen)
        runs = run_scenario(options, reconstructor, frames, crops, show)
        first = runs[0][1]
        ends = [samples.ended for _, samples in runs if samples.ended is not None]
        if not first.milliseconds:
            raise ends[0] if ends else SourceError(f"{public_name(options.input)} ended during the warm-up")
        warnings = [f"fewer samples than requested: {_reason(end)}" for end in ends]
        after, accuracy, ended = _after(options, reconstructor, crops)
        if ended is not None:
            warnings.append(f"the accuracy was not measured: {_reason(ended)}")
            ends.append(ended)
        latency = summary(first.milliseconds)
        report = {
            "schema": SCHEMA,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "command": options.command,
            "scenario": options.scenario,
            "model": _model(reconstructor, options),
            "input": {
                "name": public_name(options.input),
                "size": list(seen[0].size),
                "frames": len(frames) or None,
                "streams": options.streams if options.scenario == "multi-stream" else 1,
                "fps": None if live or options.scenario != "camera" else _fps(options, frames),
            },
            "warm_up": _warm_up(load_ms, first.warm_up_ms),
            "latency_ms": latency,
            "read_ms": summary(first.read_ms) if first.read_ms else None,
            "stages_ms": stage_summary(first.stages_ms),
            "per_query": _per_query(options.scenario, first),
            "batches": [_batch(batch, of) for batch, of in runs] if options.scenario == "offline" else [],
            "accuracy": accuracy,
            "environment": {"machine": described, "before": before, "after": after},
            "warnings": [
                *warnings,
                *_shortened(frames),
                *doubts(first.milliseconds, float((before.get("load average") or "0").split()[0]), usable_cores()),
            ],
            "verdict": verdict_of(options.scenario, latency, options.budget_ms),
            "samples_ms": [round(value, 4) for value in first.milliseconds],
        }
        return report, next(iter(ends), None)


def run_scenario(
    options: BenchOptions,
    reconstructor: Reconstructor,
    frames: Sequence[Frame],
    crops: NDArray[np.uint8],
    show: Show,
) -> list[tuple[int, Samples]]:
    """Run the scenario. Returns pairs of batch size and samples; only `offline` has several batch sizes."""
    count, warm_up, every = options.count, options.warm_up, options.detect_every
    if options.scenario == "offline":
        runs: list[tuple[int, Samples]] = []
        for batch in options.batches:
            samples = offline(reconstructor.network, crops, batch, count, warm_up, show)
            if samples.milliseconds or not runs:
                runs.append((batch, samples))
            if samples.ended is not None:
                break
        return runs
    if options.scenario == "camera" and is_live(options.input):
        live: Source
        with open_source(options.input, retries=0) as live:
            return [(1, camera(reconstructor, live, count, warm_up, every, show))]
    if options.scenario == "camera":
        return [(1, camera(reconstructor, paced(frames, _fps(options, frames)), count, warm_up, every, show))]
    streams = options.streams if options.scenario == "multi-stream" else 1
    return [(1, streamed(reconstructor, frames, streams, count, warm_up, every, show))]


def frames_in_memory(uri: str) -> list[Frame]:
    """Return the frames of a file, up to `MOST_BYTES`, as frames of a video. Raises SourceError as sources do."""
    frames, held = [], 0
    with open_source(uri) as source:
        for frame in source:
            frames.append(frame)
            held += frame.image.nbytes
            if held > MOST_BYTES:
                break
    if len({frame.size for frame in frames}) > 1:
        raise SourceError(
            f"{public_name(uri)} contains pictures of several sizes; give pictures of one size, because latency "
            "depends on it"
        )
    return [
        Frame(frame.image, frame.source, index, frame.time_s, still=False, fps=frame.fps)
        for index, frame in enumerate(frames)
    ]


def _shortened(frames: Sequence[Frame]) -> list[str]:
    if sum(frame.image.nbytes for frame in frames) <= MOST_BYTES:
        return []
    return [f"only the first {len(frames)} frames of the input were used, which fill {MOST_BYTES >> 20} MB of memory"]


def some_of(uri: str, count: int) -> list[Frame]:
    """Return the first `count` frames of a live source."""
    frames: list[Frame] = []
    with open_source(uri, retries=0) as source:
        for frame in source:
            frames.append(frame)
            if len(frames) == count:
                break
    return frames


def _fps(options: BenchOptions, frames: Sequence[Frame]) -> float:
    return options.fps or frames[0].fps or USUAL_FPS


def _warm_up(load_ms: float, milliseconds: Sequence[float]) -> dict[str, float]:
    found = {"load_ms": load_ms, "queries": float(len(milliseconds))}
    if milliseconds:
        found["first_ms"] = milliseconds[0]
    if milliseconds[1:]:
        found["rest_p50_ms"] = float(np.median(milliseconds[1:]))
    return found


def _per_query(scenario: Scenario, samples: Samples) -> dict[str, float]:
    queries = len(samples.milliseconds)
    found = {
        "faces": samples.faces / queries,
        "cpu_ms": 1000 * samples.cpu_s / queries,
        "queries_per_s": queries / samples.wall_s if samples.wall_s else 0.0,
    }
    if scenario == "camera":
        found["dropped_percent"] = 100 * samples.dropped / (samples.dropped + queries)
    return found


def _batch(batch: int, samples: Samples) -> dict[str, object]:
    latency = summary(samples.milliseconds)
    return {"batch": batch, "latency_ms": latency, "crops_per_s": 1000 * batch / float(np.mean(samples.milliseconds))}


def _after(
    options: BenchOptions, reconstructor: Reconstructor, crops: NDArray[np.uint8]
) -> tuple[dict[str, str], dict[str, object], Ended | None]:
    """Return the sensors and the accuracy after the run, and what ended their measurement early."""
    after: dict[str, str] = {}
    found: dict[str, object] = {"fidelity": None, "fidelity_note": "", "photographs": None, "folder": None}
    if options.photographs is not None:
        found["folder"] = options.photographs.name
    try:
        after = sensors()
        found["fidelity"], found["fidelity_note"] = difference(reconstructor.network, options.models, crops)
        if options.photographs is not None:
            found["photographs"], _ = photograph_figures(reconstructor, annotated_photographs(options.photographs))
    except (KeyboardInterrupt, FaceReconError) as end:
        found["fidelity_note"] = found["fidelity_note"] or f"not measured: {_reason(end)}"
        return after, found, end
    return after, found, None


def _reason(end: Ended) -> str:
    return "interrupted" if isinstance(end, KeyboardInterrupt) else str(end)


def _model(reconstructor: Reconstructor, options: BenchOptions) -> dict[str, object]:
    network = reconstructor.network
    return {
        "files": [
            {
                "name": session.path.name,
                "sha256": session.sha256,
                "precision": session.contract.precision,
                "backbone": session.contract.backbone,
                "terms": session.contract.terms,
            }
            for session in reconstructor.sessions
        ],
        "provider": network.provider,
        "choice": reconstructor.choice,
        "threads": options.threads,
        "detector": Path(options.detector).name if options.detector else "beside the model",
        "detect_every": options.detect_every,
        "outputs": ", ".join(reconstructor.contract.outputs),
    }
