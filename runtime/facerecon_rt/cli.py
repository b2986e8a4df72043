"""The command `facerecon-rt`: the public API as a command line. A caller of the package can do everything it does."""

from __future__ import annotations

import logging
import math
import os
import signal
import sys
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from .addresses import public_name, scheme_of
from .commands.arguments import idle_gpu_options
from .commands.combinations import check_options, options_without_effect, outputs_of
from .commands.default_model import models_or_default
from .commands.faster import faster_on_cpu
from .commands.log import log_to_stderr
from .commands.options import DEFAULT_OUTPUT, Options, parse_options
from .commands.outputs import (
    Written,
    changed_at,
    check_inputs_stay,
    is_drawn,
    is_folder_output,
    is_place,
    name_of,
)
from .commands.progress import Progress
from .commands.shell import run_command
from .errors import SourceError, UsageError
from .faces.calibrate import Calibration, read_calibration
from .faces.image_set import reconstruct_set_from_sources
from .faces.pipeline import Pipeline, SceneSink
from .faces.reconstruct import DETECTOR_NAME, Reconstructor, largest
from .faces.shapes import ImageSet
from .head import mesh_form
from .interrupts import Unfinished, importing
from .memory import given_back_regularly
from .networks.basis import basis_path
from .paths import is_file, resolved
from .shipped import model_path, shipped_models
from .sinks.files import open_sink
from .sinks.hide import is_cover
from .sinks.local_socket import is_socket
from .sinks.looks import Look
from .sinks.meshes import MESH_SUFFIXES, check_mesh_format, files_beside, write_mesh
from .sinks.mqtt_address import is_mqtt, may_cover
from .sinks.outputs import Rotation, check_writable, source_path, write_whole
from .sinks.parts import parts_of
from .sinks.sink import Sink
from .sinks.systemd import ServiceNotifier
from .sinks.threaded import ThreadedSink
from .sinks.video_writer import CODECS
from .sources.files import read_image
from .sources.inputs import Inputs, limited
from .start import ended, leave
from .template import load_template
from .types import Frame, Scene

log = logging.getLogger("facerecon_rt")

PICTURES_OF_A_SET = 4
"""Number of pictures of a set that a texture takes of each of seven directions."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the console script. Returns the exit code, as `facerecon-rt --help` lists them: 0 done, 1 a problem or over
    the budget, 2 usage, 3 model refused, 4 provider missing, 5 source, 130 interrupted."""
    if sys.stderr is None:
        # The parent process has closed standard error, so nobody reads the messages.
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
    given = list(sys.argv[1:] if arguments is None else arguments)
    program, run = "facerecon-rt", _reconstruct
    if given and given[0] in COMMANDS:
        program, run = f"facerecon-rt {given[0]}", COMMANDS[given[0]]
        given = given[1:]
    elif given and not given[0].startswith("-"):
        known = ", ".join(COMMANDS)
        print(
            f"facerecon-rt: unknown command {given[0]!r}; choose from {known}, or give inputs with --input",
            file=sys.stderr,
        )
        return UsageError.exit_code
    log_to_stderr(quiet=False)
    before: dict[signal.Signals, Any] = {}

    def command() -> int:
        # Systemd, Docker and a closed terminal end a program with these signals: outputs are completed as on Ctrl-C.
        for number in _ending_signals():
            before[number] = signal.signal(number, signal.default_int_handler)
        return run(given)

    try:
        return leave(run_command(program, command, on_interrupt=_say_interrupted))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
        ended()


def _say_interrupted() -> None:
    log.warning("interrupted; files written so far are complete")


def _ending_signals() -> list[signal.Signals]:
    """Return the signals that end the program. SIGHUP is left alone where nohup ignores it."""
    ending = (signal.SIGTERM, signal.SIGHUP)
    return [number for number in ending if signal.getsignal(number) is not signal.SIG_IGN]


def _reconstruct(arguments: Sequence[str]) -> int:
    options = parse_options(arguments)
    log_to_stderr(quiet=options.quiet, once=options.set)
    check_options(options)
    (_run_set if options.set else _run)(options)
    return 0


def _bench(arguments: Sequence[str]) -> int:
    with importing():
        from .bench.cli import main as bench

    return bench(arguments)


def _archive(arguments: Sequence[str]) -> int:
    with importing():
        from .archive.cli import main as archive

    return archive(arguments)


def _doctor(arguments: Sequence[str]) -> int:
    with importing():
        from .commands.doctor import main as doctor

    return doctor(arguments)


def _build(arguments: Sequence[str]) -> int:
    with importing():
        from .commands.build import main as build

    return build(arguments)


def _mesh(arguments: Sequence[str]) -> int:
    with importing():
        from .commands.mesh import main as mesh

    return mesh(arguments)


def _models(arguments: Sequence[str]) -> int:
    with importing():
        from .commands.models import main as models

    return models(arguments)


COMMANDS = {
    "archive": _archive,
    "bench": _bench,
    "build": _build,
    "doctor": _doctor,
    "mesh": _mesh,
    "models": _models,
}


def _run(options: Options) -> None:
    inputs = _inputs(options)
    outputs: list[ThreadedSink] = []
    with _unfinished_named(outputs), ExitStack() as stack:
        if inputs.reloadable:
            stack.enter_context(_reloaded_on_hangup(inputs))
        if inputs.live_sources:
            stack.enter_context(given_back_regularly())
        targets = _targets(options)
        wrote = Written(targets)
        _check_run(options, inputs, targets)
        _check_cameras(inputs, targets)
        reconstructor = stack.enter_context(_reconstructor(options))
        # Outputs are opened first, so that an output that cannot be written is reported before any work.
        for target in targets:
            sink = ThreadedSink(_sink(target, reconstructor, options), name_of(target))
            outputs.append(stack.enter_context(sink))
        sinks: list[SceneSink] = [*outputs]
        if options.serve:
            sinks.append(stack.enter_context(_web(options, reconstructor, inputs, outputs)))
        sinks.append(stack.enter_context(ServiceNotifier()))
        calibration = _calibration(options, reconstructor)
        if calibration is not None and options.save_calibration is not None:
            place = Path(options.save_calibration)
            check_writable(place)
            learnt = calibration
            stack.callback(lambda: _save_calibration(learnt, place))
        pipeline = Pipeline(
            reconstructor,
            detect_every=options.det_every,
            max_faces=options.max_faces,
            lens=options.lens,
            smooth=options.smooth,
            budget_ms=options.budget_ms,
            calibration=calibration,
            attention=options.zone if options.attention else None,
        )
        _say_choice(reconstructor, options)
        progress = Progress(quiet=options.quiet or "-" in targets, draws=any(map(is_drawn, targets)))
        try:
            groups = stack.enter_context(closing(limited(inputs.groups(), options.frames)))
            # It is closed before the sinks, so that they get the ends of running events.
            for scene in stack.enter_context(closing(pipeline.run_together(groups, sinks, inputs.take_lost))):
                progress.show(scene)
        finally:
            progress.finish()
    wrote.say()
    inputs.check()


def _run_set(options: Options) -> None:
    inputs = _inputs(options)
    targets = _targets(options)
    wrote = Written(targets)
    meshes = [Path(target) for target in targets if Path(target).suffix.lower() in MESH_SUFFIXES]
    meshes += [Path(target) / "set.obj" for target in targets if is_folder_output(target)]
    others = [target for target in targets if Path(target).suffix.lower() not in MESH_SUFFIXES]
    _check_run(options, inputs, targets)
    _check_set(inputs, others)
    sinks: list[ThreadedSink] = []
    with _unfinished_named(sinks), ExitStack() as stack:
        reconstructor = stack.enter_context(_reconstructor(options))
        for target in others:
            sink = ThreadedSink(_sink(target, reconstructor, options, meshes=False), name_of(target))
            sinks.append(stack.enter_context(sink))
        for mesh in meshes:
            check_mesh_format(mesh)
            check_writable(mesh)
        _say_choice(reconstructor, options)
        progress = Progress(quiet=options.quiet or "-" in targets)
        look = None if options.texture is None else Look(options.texture, each=PICTURES_OF_A_SET)
        inside: set[Path] = set()

        def show(scene: Scene) -> None:
            progress.show(scene)
            inside.add(source_path(scene.frame.source))
            if look is not None:
                for face in scene.faces:
                    look.add(face, scene.frame)

        def frames() -> Generator[Frame, None, None]:
            with closing(limited(inputs.groups(), options.frames)) as groups:
                for group in groups:
                    yield from group

        try:
            image_set, scenes = reconstruct_set_from_sources(reconstructor, frames, options.average, show, options.lens)
        finally:
            progress.finish()
        if image_set is not None:
            form = mesh_form(options.mesh, load_template())
            texture = None if look is None else look.texture(form.face)
            vertices = form.neutral(image_set.shape)
            parts = parts_of(form, vertices, image_set.shape, None, eyes=options.eyes)
            for mesh in meshes:
                if look is not None and not inside.isdisjoint(map(resolved, files_beside(mesh))):
                    raise UsageError(f"the texture of {mesh} would overwrite an input; choose another name")
                write_mesh(mesh, vertices, form.template, options.unit, texture, parts)
        for scene in scenes if sinks else ():
            for sink in sinks:
                sink.write(scene)
    if image_set is not None:
        _say_set(image_set)
    wrote.say()
    inputs.check()
    if image_set is None:
        raise SourceError(
            "no face was found in the whole set, so there is no shape; check that the photographs show a face"
        )


@contextmanager
def _unfinished_named(outputs: Sequence[ThreadedSink]) -> Iterator[None]:
    """Name the outputs that an interruption of the block leaves unfinished."""
    try:
        yield
    except KeyboardInterrupt as error:
        if names := [output.name for output in outputs if output.unfinished]:
            raise Unfinished(names) from error
        raise


def _check_set(inputs: Inputs, others: Sequence[str]) -> None:
    """Raise UsageError where outputs other than meshes cannot show an image set."""
    if any(map(is_mqtt, others)):
        raise UsageError(
            "an MQTT broker gets the state of cameras and videos, and --set has none; leave one of them out"
        )
    if any(map(is_socket, others)):
        raise UsageError(
            "a Unix socket gives the newest record of cameras and videos, and --set averages photographs; write "
            "records to a .jsonl file, or leave out --set"
        )
    if inputs.live_sources and others:
        name = inputs.live_sources[0].name
        raise UsageError(
            f"{name} cannot be read twice, as --set must for pictures and records; give a mesh as the only output, or "
            "record a video first"
        )


def _say_set(image_set: ImageSet) -> None:
    used = sum(face is not None for face in image_set.faces)
    of_error = image_set.error_mm
    error = "" if of_error is None else f", expected error {math.sqrt((of_error**2).mean()):.1f} mm"
    log.info(
        "%d of %d photographs, spread %.2f mm on average, %.2f mm at most%s",
        used, len(image_set.faces), image_set.spread_mm.mean(), image_set.spread_mm.max(), error,
    )  # fmt: skip


def _calibration(options: Options, reconstructor: Reconstructor) -> Calibration | None:
    """Return the calibration of `--calibrate`: of seconds, of a file of calibrations, or of a photograph's largest
    face."""
    names, given = reconstructor.contract.blendshapes, options.calibrate
    if given is None or isinstance(given, float):
        return None if given is None else Calibration(names, seconds=given)
    if Path(given).suffix.lower() == ".json":
        return read_calibration(given, names)
    image = read_image(given)
    face = largest(reconstructor.faces(image), (image.shape[1], image.shape[0]))
    if face is None:
        raise SourceError(f"no face was found in {given}; calibrate with a photograph that shows the neutral face")
    return Calibration(names, everyone=face.expression)


def _save_calibration(calibration: Calibration, place: Path) -> None:
    """Write what was learnt, and say so. An earlier file stays where nobody was seen."""
    if calibration.learnt:
        write_whole(place, calibration.to_json().encode())
        log.info("wrote %s; give it to --calibrate in later runs of these people", place)
    else:
        log.warning("no face of a video or camera was seen, so no calibration is written to %s", place)


def _inputs(options: Options) -> Inputs:
    return Inputs(options.input, options.live, options.retries, options.max_delay_s)


def _check_run(options: Options, inputs: Inputs, targets: Sequence[str]) -> None:
    """Check that nothing that is read would be overwritten, and log options that do nothing. Raises UsageError."""
    files = inputs.files()
    _check_inputs_stay(files, targets, options)
    for line in options_without_effect(options, inputs, files):
        log.warning("%s", line)


@contextmanager
def _reloaded_on_hangup(inputs: Inputs) -> Iterator[None]:
    """Reload sources.yaml on SIGHUP, as services do. A thread does the work, because the signal may come anywhere."""
    before = signal.signal(signal.SIGHUP, lambda *_: threading.Thread(target=inputs.reload, name="reload").start())
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before or signal.SIG_DFL)


def _check_inputs_stay(files: Sequence[Path], targets: Sequence[str], options: Options) -> None:
    """Check that nothing that is read would be overwritten. Raises UsageError."""
    read = list(files)
    if isinstance(options.calibrate, str):
        read.append(Path(options.calibrate))
    written = list(targets)
    if (learnt := options.save_calibration) is not None:
        if resolved(learnt) in map(resolved, filter(is_place, targets)):
            raise UsageError(f"--save-calibration {learnt} is an output, too; give it a name of its own")
        written.append(learnt)
    check_inputs_stay(read, written)
    # A folder's own files have other names than models.
    check_inputs_stay(_model_files(options), [target for target in written if not is_folder_output(target)])


def _model_files(options: Options) -> list[Path]:
    """Return the model files that a run may read, their decoders, and the detectors, as far as they exist. What may not
    be read is reported when it is opened."""
    named = [Path(model_path(name)) for name in options.model] or list(shipped_models())
    models = [path for path in named if is_file(path)]
    detectors = [model.with_name(DETECTOR_NAME) for model in models]
    given = [] if options.detector is None else [Path(options.detector)]
    return [path for path in (*models, *map(basis_path, models), *detectors, *given) if is_file(path)]


def _check_cameras(inputs: Inputs, targets: Sequence[str]) -> None:
    """Check that each video and each avatar gets the frames of one camera. Raises UsageError."""
    if len(inputs.live_sources) < 2 and not inputs.reloadable:
        return
    for target in targets:
        if Path(target).suffix.lower() in CODECS:
            raise UsageError(
                f"{target} is one video, but the inputs are or may become several cameras; give a folder, as in out/"
            )
        if scheme_of(target) == "vmc":
            raise UsageError(
                f"{target} is one avatar, but the inputs are or may become several cameras; give one camera, or "
                "livelink://, which names each"
            )


def _say_choice(reconstructor: Reconstructor, options: Options) -> None:
    log.info("%s", reconstructor.choice)
    for line in idle_gpu_options(reconstructor, options.gpu, warm=options.warm_while_building):
        log.warning("%s", line)
    if reconstructor.network.provider == "cpu" and options.precision is None and len(options.model) == 1:
        model = Path(options.model[0])
        if reconstructor.contract.precision == "fp32" and (line := faster_on_cpu(model)):
            log.info("%s", line)


def _targets(options: Options) -> list[str]:
    targets = outputs_of(options)
    for target in targets:
        if targets.count(target) > 1:
            raise UsageError(f"the output {public_name(target)} is given twice; give each output once")
    if targets == [DEFAULT_OUTPUT] and not options.output and changed_at(DEFAULT_OUTPUT):
        log.warning("%s replaces files of the same names from an earlier run; --output names another", DEFAULT_OUTPUT)
    return targets


def _reconstructor(options: Options) -> Reconstructor:
    return Reconstructor(
        models_or_default(options.model, options.provider, options.precision),
        detector=options.detector,
        provider=options.provider,
        precision=options.precision,
        threads=options.threads,
        detector_size=options.det_size,
        min_confidence=options.min_confidence,
        mirror=options.mirror,
        hints=_faces_are_covered(options),
        gpu=options.gpu,
        warm_while_building=options.warm_while_building,
    )


def _faces_are_covered(options: Options) -> bool:
    """Return whether an output may cover faces, for which the detector reports doubtful places too."""
    pictures = options.pictures
    return is_cover(options.style) or any(may_cover(one, options.style, pictures=pictures) for one in options.output)


def _sink(target: str, reconstructor: Reconstructor, options: Options, *, meshes: bool = True) -> Sink:
    names, arkit = reconstructor.contract.blendshapes, options.blendshapes == "arkit"
    rotation = None if options.rotate is None else Rotation(options.rotate, options.keep)
    return open_sink(
        target,
        blendshapes=names,
        arkit=arkit,
        style=options.style,
        margin=options.cover_margin,
        meshes=meshes,
        pictures=options.pictures,
        rotation=rotation,
        basis=reconstructor.basis,
        unit=options.unit,
        texture=options.texture,
        eyes=options.eyes,
        mesh=options.mesh,
    )


@contextmanager
def _web(
    options: Options, reconstructor: Reconstructor, inputs: Inputs, outputs: Sequence[ThreadedSink]
) -> Iterator[SceneSink]:
    try:
        with importing():
            from .web.server import WebServer
            from .web.state import State
    except ModuleNotFoundError as error:
        raise UsageError(f"--serve needs {error.name}: pip install 'facerecon-rt[web]'") from error
    state = State(
        reconstructor.contract.blendshapes, inputs.statuses, lambda: {output.name: output.dropped for output in outputs}
    )
    style = options.style if is_cover(options.style) else "wireframe"
    margin, pictures = options.cover_margin, options.pictures
    with WebServer(state, options.serve or "", style=style, margin=margin, pictures=pictures) as server:
        log.info("%s", server.url)
        yield state


if __name__ == "__main__":
    sys.exit(main())
