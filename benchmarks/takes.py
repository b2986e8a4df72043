"""A GLB of the sample clip in other programs: the Khronos validator, three.js in Chromium, and Blender.

    npm install --prefix JS gltf-validator three puppeteer-core && python -m venv BPY && BPY/bin/pip install bpy
    python benchmarks/takes.py --npm JS --blender BPY/bin/python    # minutes; writes results/takes.md and takes*.jpg
    python benchmarks/takes.py --time     # some minutes on a quiet machine; writes results/takes_time.md

The take is written twice: with `--mesh face`, and with `--mesh head`. The pictures of three.js show the clip's camera
(`--fov`), first with the take's own materials, then with colours for the directions of the surfaces. The latter are
compared with the runtime's renderer on the same mesh. Both have the neutral face of the last frame.

With `--time`, a minute of video at 30 frames per second becomes records, and a take. Each run is a process of its own.
Its time is that of the whole command, and its memory is its peak.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
from commands import command_of
from facerecon_rt import Frame, Pipeline, Reconstructor, load_template, open_sink, open_source, read_image
from facerecon_rt.head import MESH_FORMS, Form, mesh_form
from facerecon_rt.pose import VIEWER_FROM_FRAME
from facerecon_rt.providers.onnx_file import named_by_hash
from facerecon_rt.sinks.shade import light, render_mesh, vertex_normals
from facerecon_rt.types import Face, Floats

HERE = Path(__file__).parent
ROOT = HERE.parent
RESULTS = HERE / "results"
CLIP = ROOT / "tests" / "data" / "talking_head.mp4"
FOV = 40.0
"""Horizontal field of view in degrees that the clip is given. It was rendered without perspective."""
SHOWN = (26, 72, 108)
"""Frames of the clip that are compared: an open mouth, a smile, shut eyes."""
MOST_IN_MOUTH = 100
"""Largest brightness of 255 in an open mouth in three.js. Skin there has 200 and more."""
FPS = 30
MOST_TIMES, MOST_GROWTH_MB = 1.2, 30
"""Limits of `--time`: the time of a take relative to records, and the growth of its memory over three quarters of a
minute."""
MEASURED = """
import json, resource, subprocess, sys, time
started = time.monotonic()
status = subprocess.call(sys.argv[1:])
print(json.dumps([status, time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss]))
"""
VERTICES = (0, 1000, 2000, 3000, 4000, 4400, 4900, 5400, 5881)
"""Vertices that are compared with Blender's, as far as a mesh has them. The last four lie behind the face."""


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """A frame of the clip that is compared, and the mesh that a take must have there."""

    frame: Frame
    """The frame."""
    camera_from_head: Floats
    """(3, 4) camera of the face, in mm."""
    vertices: Floats
    """(K, 3) mm, head frame: the neutral face of the last frame with the expression of this frame."""


def make_take(model: Path, output: Path, form: Form) -> list[Shown]:
    """Write the take of the clip, and return the frames `SHOWN`."""
    kept: list[tuple[Frame, Face]] = []
    with Reconstructor(model) as reconstructor, open_source(CLIP) as source:
        names = reconstructor.contract.blendshapes
        mesh = "face" if form.template is form.face else "head"
        with open_sink(str(output), blendshapes=names, basis=reconstructor.basis, mesh=mesh) as sink:
            for scene in Pipeline(reconstructor, lens=FOV).run(source, [sink]):
                last = scene.faces[0].shape
                if scene.frame.index in SHOWN:
                    kept.append((scene.frame, scene.faces[0]))
    found = []
    for frame, face in kept:
        assert face.camera_from_head is not None
        moved = form.moved(face.vertices - face.shape)
        found.append(Shown(frame, face.camera_from_head, form.neutral(last) + moved))
    return found


def in_picture(shown: Shown, points: np.ndarray) -> np.ndarray:
    """Return places (N, 3) in the frame, pixels and depth in mm, of points (N, 3) mm, head frame."""
    camera = shown.camera_from_head.astype(np.float64)
    seen = points @ camera[:3, :3].T + camera[:3, 3]
    width, height = shown.frame.size
    focal = width / 2 / np.tan(np.radians(FOV) / 2)
    return np.column_stack([focal * seen[:, :2] / seen[:, 2:] + [(width - 1) / 2, (height - 1) / 2], seen[:, 2]])


def our_normals(shown: Shown, form: Form) -> np.ndarray:
    """Return the picture (H, W, 3) of the mesh's surface directions: 0.5 + 0.5 normal, axes x right, y up, z near."""
    vertices, triangles = shown.vertices, form.template.triangles
    if form.mouth is not None:
        triangles = np.vstack([triangles, form.mouth.triangles + len(vertices)])
        vertices = np.vstack([vertices, form.mouth.lining(vertices)])
    camera = shown.camera_from_head.astype(np.float64)
    points = vertices @ camera[:3, :3].T + camera[:3, 3]
    placed = in_picture(shown, vertices)
    normals = vertex_normals(points, triangles) @ VIEWER_FROM_FRAME.T
    colours = (0.5 + 0.5 * normals)[:, ::-1]  # BGR
    # The renderer multiplies colours by its light, so they are divided by it first.
    lit = light((vertex_normals(placed, triangles) @ VIEWER_FROM_FRAME.T).astype(np.float32))
    picture, inside = render_mesh(placed, triangles, shown.frame.size, colours / lit)
    return np.where(inside[..., None] > 127, picture, 0)


def brightness_in_the_mouth(shown: Shown, form: Form, picture: np.ndarray) -> int:
    """Return the brightest value of a picture, 0 to 255, within 5 x 5 pixels in the middle between the lips."""
    lips = shown.vertices[form.template.landmarks[[62, 66]]]
    x, y = np.rint(in_picture(shown, lips).mean(0)[:2]).astype(int)
    return int(picture[y - 2 : y + 3, x - 2 : x + 3].max())


def three_pictures(npm: Path, chromium: str, take: Path, seconds: list[float], size: tuple[int, int], to: Path) -> None:
    """Let three.js play the take, and save t0.png, n0.png and so on: its materials, and its surface directions."""
    options = {"npm": str(npm), "chromium": chromium, "take": str(take), "seconds": seconds, "size": size,
               "to": str(to), "fov": FOV}  # fmt: skip
    subprocess.run(["node", HERE / "takes_player.cjs", json.dumps(options)], check=True, timeout=300)


def validate(npm: Path, take: Path) -> dict[str, int]:
    """Return the counts of the Khronos validator's issues."""
    code = (
        "const [folder, file] = process.argv.slice(1); const v = require(folder + '/node_modules/gltf-validator');"
        "v.validateBytes(new Uint8Array(require('fs').readFileSync(file)))"
        ".then(report => console.log(JSON.stringify(report.issues)))"
    )
    done = subprocess.run(
        ["node", "-e", code, npm.resolve(), take], check=True, capture_output=True, text=True, timeout=300
    )
    issues = json.loads(done.stdout)
    return {name: issues[name] for name in ("numErrors", "numWarnings", "numInfos", "numHints")}


def in_blender(python: str, take: Path, frame: Frame, vertices: list[int]) -> dict[str, Any]:
    """Return Blender's reading of the take: names, key counts, and places (K, 3) of vertices in m at a frame."""
    arguments = [str(take), str(frame.index), str(frame.fps), json.dumps(vertices)]
    done = subprocess.run(
        [python, HERE / "takes_in_blender.py", *arguments], capture_output=True, text=True, timeout=300
    )
    if done.returncode:
        raise SystemExit(f"Blender failed: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def make_video(path: Path, seconds: float) -> None:
    """Write a video of the clip at 30 frames per second. It plays forwards and backwards in turn, so that nothing
    jumps."""
    with open_source(CLIP) as source:
        images = [frame.image for frame in source]
    height, width = images[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), FPS, (width, height))
    there_and_back = [*images, *images[-2:0:-1]]
    for index in range(round(seconds * FPS)):
        writer.write(there_and_back[index % len(there_and_back)])
    writer.release()


def run_once(model: Path, video: Path, outputs: list[Path]) -> tuple[float, float]:
    """Return the seconds and the peak memory in MB of the command with these outputs."""
    command = [sys.executable, "-m", "facerecon_rt.cli", "--provider", "cpu", "--quiet"]
    command += ["--model", str(model), "--input", str(video)]
    for output in outputs:
        command += ["--output", str(output)]
    # A process starts with the peak memory of its parent, which is therefore small.
    done = subprocess.run([sys.executable, "-c", MEASURED, *command], check=True, stdout=subprocess.PIPE, text=True)
    status, seconds, kilobytes = json.loads(done.stdout)
    if status:
        raise SystemExit("the command failed; its error is above")
    return seconds, kilobytes / 1024


def take_times(model: Path, seconds: float, repeats: int, command: str) -> tuple[str, bool]:
    """Return the table of times and memory, and whether a take takes too long or its memory grows."""
    times: dict[str, list[float]] = {"records": [], "take": []}
    memory: dict[str, list[float]] = {"records": [], "take": [], "short take": []}
    with TemporaryDirectory() as folder:
        video, short = Path(folder) / "minute.mp4", Path(folder) / "short.mp4"
        make_video(video, seconds)
        make_video(short, seconds / 4)
        records, take = Path(folder) / "records.jsonl", Path(folder) / "take.glb"
        run_once(model, short, [records])  # the files are in memory afterwards
        # They take turns, so that a machine that slows down slows down both.
        for _ in range(repeats):
            for name, output in (("records", records), ("take", take)):
                spent, peak = run_once(model, video, [output])
                times[name].append(spent)
                memory[name].append(peak)
            memory["short take"].append(run_once(model, short, [take])[1])
        run_once(model, video, [take])
        size = take.stat().st_size / 1e6
    ratio = float(np.median(times["take"]) / np.median(times["records"]))
    growth = float(np.median(memory["take"]) - np.median(memory["short take"]))
    lines = [
        "# A take beside records alone",
        "",
        f"The clip as a video of {seconds:g} s at {FPS} frames per second, {repeats} runs of the whole command each, "
        f"medians. Command: `{command}`.",
        "",
        f"Model {named_by_hash(model)}.",
        "",
        "| figure | records | take |",
        "|---|---|---|",
        f"| seconds | {np.median(times['records']):.2f} | {np.median(times['take']):.2f} |",
        f"| peak memory in MB | {np.median(memory['records']):.0f} | {np.median(memory['take']):.0f} |",
        "",
        f"The take needs {ratio:.2f} times the time of records (limit {MOST_TIMES}), and has {size:.1f} MB. Its memory "
        f"grows by {growth:.0f} MB from a quarter of the video to the whole (limit {MOST_GROWTH_MB} MB).",
    ]
    return "\n".join(lines) + "\n", ratio > MOST_TIMES or growth > MOST_GROWTH_MB


def main() -> int:
    """Run the comparisons, or the measurement of time. Returns the exit code: 1 where a program disagrees, or a take
    takes too long."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "face.onnx")
    parser.add_argument("--npm", type=Path, help="folder with node_modules of gltf-validator, three and puppeteer-core")
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("--blender", metavar="PYTHON", help="Python with bpy")
    parser.add_argument("--time", action="store_true", help="measure time and memory instead")
    parser.add_argument("--seconds", type=float, default=60.0, help="with --time: length of the video [%(default)g]")
    parser.add_argument("--repeats", type=int, default=3, help="with --time: runs of each kind [%(default)s]")
    options = parser.parse_args()
    if options.time:
        text, failed = take_times(options.model, options.seconds, options.repeats, command_of(parser, options))
        (RESULTS / "takes_time.md").write_text(text)
        print(text)
        return int(failed)
    lines = [
        "# A take in other programs",
        "",
        f"The clip is `tests/data/talking_head.mp4` with `--fov {FOV:g}`. Command: `{command_of(parser, options)}`.",
        "",
        f"Model {named_by_hash(options.model)}.",
        "",
        "| check | `--mesh face` | `--mesh head` |",
        "|---|---|---|",
    ]
    columns, failed = [], False
    for name in MESH_FORMS:
        form = mesh_form(name, load_template())
        with TemporaryDirectory() as folder:
            take = Path(folder) / "take.glb"
            shown = make_take(options.model, take, form)
            rows = {"size of the file, 150 frames": f"{take.stat().st_size / 1e6:.1f} MB"}
            checks: list[tuple[Rows, bool]] = []
            if options.npm:
                checks.append(check_validator(options.npm, take))
                checks.append(check_three(options.npm, options.chromium, take, shown, form, Path(folder)))
            if options.blender:
                checks.append(check_blender(options.blender, take, shown[1]))
        for more, wrong in checks:
            rows |= more
            failed |= wrong
        columns.append(rows)
    lines += [f"| {check} | {' | '.join(rows[check] for rows in columns)} |" for check in columns[0]]
    text = "\n".join(lines) + "\n"
    (RESULTS / "takes.md").write_text(text)
    print(text)
    return int(failed)


Rows = dict[str, str]
"""Results by check."""


def check_validator(npm: Path, take: Path) -> tuple[Rows, bool]:
    """Return the validator's results, and whether it found an error or a warning."""
    issues = validate(npm, take)
    rows = {"gltf-validator: errors, warnings": f"{issues['numErrors']}, {issues['numWarnings']}"}
    return rows, issues["numErrors"] + issues["numWarnings"] > 0


def check_three(
    npm: Path, chromium: str, take: Path, shown: list[Shown], form: Form, folder: Path
) -> tuple[Rows, bool]:
    """Return the results of three.js, and whether its pictures differ too much. Writes takes.jpg or takes_head.jpg."""
    seconds = [each.frame.time_s for each in shown]
    three_pictures(npm.resolve(), chromium, take, seconds, shown[0].frame.size, folder)
    rows, pictures, failed = {}, [], False
    for number, each in enumerate(shown):
        ours, theirs = our_normals(each, form), read_image(f"{folder}/n{number}.png")
        both = (ours.max(2) > 0) & (theirs.max(2) > 0)
        either = (ours.max(2) > 0) | (theirs.max(2) > 0)
        difference = float(np.abs(ours.astype(float) - theirs)[both].mean())
        overlap = both.sum() / either.sum()
        failed |= bool(difference > 4 or overlap < 0.98)
        rows[f"three.js, frame {each.frame.index}: mean difference of surface directions, overlap of outlines"] = (
            f"{difference:.2f} of 255, {100 * overlap:.1f} %"
        )
        lit = read_image(f"{folder}/t{number}.png")
        if each.frame.index == SHOWN[0]:
            bright = brightness_in_the_mouth(each, form, lit)
            failed |= bright > MOST_IN_MOUTH
            rows[f"three.js, frame {each.frame.index}: brightest in the middle of the open mouth"] = f"{bright} of 255"
        row = [each.frame.image, lit, theirs, ours]
        pictures.append(np.hstack([cv2.resize(picture, (256, 256), interpolation=cv2.INTER_AREA) for picture in row]))
    name = "takes.jpg" if form.template is form.face else "takes_head.jpg"
    cv2.imwrite(str(RESULTS / name), np.vstack(pictures), [cv2.IMWRITE_JPEG_QUALITY, 85])
    return rows, failed


def check_blender(python: str, take: Path, shown: Shown) -> tuple[Rows, bool]:
    """Return Blender's results, and whether its take differs from the runtime's mesh."""
    vertices = [index for index in VERTICES if index < len(shown.vertices)]
    found = in_blender(python, take, shown.frame, vertices)
    distance = 1000 * np.linalg.norm(np.array(found["places"]) - world_places(shown)[vertices], axis=1).max()
    rows = {
        f"Blender {found['version']}: Apple's shape keys, animation keys of each, nodes": (
            f"{found['shape_keys']}, {found['keys']}, {', '.join(map(str, found['nodes']))}"
        ),
        f"Blender: largest distance of vertices to the runtime's, frame {shown.frame.index}": (
            f"{distance:.3f} mm ({len(vertices)} vertices)"
        ),
    }
    return rows, bool(distance > 0.1 or found["names"] != sorted(found["names"]) or found["shape_keys"] != 52)


def world_places(shown: Shown) -> np.ndarray:
    """Return the places (K, 3) of the vertices in metres, glTF's world axes."""
    camera = shown.camera_from_head.astype(np.float64)
    points = shown.vertices @ camera[:3, :3].T + camera[:3, 3]
    return points @ VIEWER_FROM_FRAME.T / 1000


if __name__ == "__main__":
    sys.exit(main())
