"""Shipped model and data -> accuracy.md, accuracy.json and a sheet of reconstructed shapes, all through the runtime.

    python benchmarks/accuracy.py --data DATA --prepared runs/prepared

Photographs are read from detected boxes, as a user's would be, in three crops per face and their mirror images. Jitter,
the clip and the videos are tracked. The sheet shows meshes only, and no photograph is copied.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from commands import command_of
from facerecon_rt import Face, Frame, Pipeline, Reconstructor, euler_from_camera, open_source, read_image
from facerecon_rt.annotated import annotated_photographs, photograph_figures
from facerecon_rt.data_folder import default_data
from facerecon_rt.faces.reconstruct import largest
from facerecon_rt.faces.shapes import set_from_faces
from facerecon_rt.faces.streams import SMOOTH
from facerecon_rt.pose import rmse_mm
from facerecon_rt.types import Floats, Image
from facerecon_training.consistency import SET_SIZES, auc, pair_figures
from facerecon_training.evaluate import people_figures, read_people
from facerecon_training.fused_sets import fused_set_figures, fused_sets
from facerecon_training.prepare import draw_clay
from facerecon_training.rendered.eyes import BLINK, hand_labelled
from facerecon_training.rendered.head_pose import pointing_photographs, pose_figures
from tqdm import tqdm

RESULTS = Path(__file__).with_name("results")
Figures = dict[str, float]
COLUMNS = {
    "frames, photographs, pictures, people": "their number",
    "found, found_percent": "frames or photographs in which the face was found",
    "landmarks_px": "mean error of the inner 51 landmarks in pixels",
    "nme_inner51, nme_68": "inter-ocular NME, mean landmark error in percent of the distance of the outer eye corners",
    "nme_68_bbox": "the same over the root of the area of the true landmarks' box",
    "failures_inner51_over_10": "photographs with an nme_inner51 above 10 %, in percent",
    "euler_deg": "mean error of pitch, yaw and roll in degrees",
    "jitter_percent, jitter_percent_median": "standard deviation over time, in percent of the eye distance",
    "lag_ms": "shift in time at which the predicted yaw fits the true yaw best; only differences to `off` count",
    "closed, open": "photographs with closed and open eyes",
    "mean_weight_closed, mean_weight_open": "their mean eyeBlink weights, 0 to 1; auc: of this weight",
    "pan_deg, tilt_deg": "mean error around the median offset, in degrees",
    "auc_of_pairs": "AUC of the distance of two photographs' neutral shapes for one person against two; whitened: in "
    "principal components of equal variance",
    "same_person_mm, two_people_mm": "RMSE after rigid alignment of shapes of five photographs each; ratio: of both",
    "spread_mm": "mean distance of the photographs' shapes to their average",
    "frames_with_a_face, faces_per_frame, tracks": "frames with a face, faces per frame, and track numbers",
    "rotation_deg, rotation_deg_near": "mean error of the rotation in degrees, of all pictures and of those with yaw "
    "within 30 and pitch within 25 degrees",
    "gaze_deg, correlation, correlation_tenth_worst": "mean error of the gaze in degrees, and correlation of the "
    "blendshape weights with the truth, mean of 53 and the tenth worst, of the same pictures",
    "rmse_mm_1, _2, _5, _10, _of_mean_face": "root mean square error after a similarity of the neutral shape, of one "
    "picture, of sets and of the mean face",
    "longest_track_percent": "frames with the track that was seen most, in percent",
}
"""Columns of the tables and their definitions."""
OF_PEOPLE = ("rotation_deg_near", "rotation_deg", "gaze_deg", "correlation", "correlation_tenth_worst")
"""Figures of `evaluate.people_figures` that are in the report."""
COUNTS = ("frames", "found", "photographs", "pictures", "people", "closed", "open", "frames_with_a_face", "tracks")
"""Columns of whole numbers."""


def head_pose(reconstructor: Reconstructor, folder: Path) -> dict[str, Figures]:
    """Return errors of pan and tilt on Pointing'04 within +-60 degrees, as in `pose_figures`.

    The rows are all people, and the people whose photographs no training may read.
    """
    wanted = [p for p in pointing_photographs(folder) if max(abs(p.tilt), abs(p.pan)) <= 60]
    looked: dict[str, list[tuple[int, int, float, float]]] = {"all": [], "people not trained on": []}
    for photograph in tqdm(wanted, desc=folder.name):
        found = reconstructor.faces(read_image(photograph.path))
        if found:
            pitch, yaw, _ = euler_from_camera(found[0].frame_from_head)
            for name, rows in looked.items():
                if name == "all" or not photograph.for_training:
                    rows.append((photograph.tilt, photograph.pan, pitch, yaw))
    counts = {"all": len(wanted), "people not trained on": sum(not p.for_training for p in wanted)}
    return {
        name: {
            "photographs": counts[name],
            "found_percent": 100 * len(rows) / counts[name],
            **pose_figures(np.array(rows)[:, 2:], np.array(rows)[:, :2]),
        }
        for name, rows in looked.items()
        if rows
    }


def identities(reconstructor: Reconstructor, folder: Path) -> Figures:
    """Return figures of shapes from ten photographs each of several people, as RMSE in mm after rigid alignment.

    The shape from photographs 1-5 is compared with the shape from photographs 6-10, of one person and of two people.
    """
    average, basis = reconstructor.average_of_sets()
    halves: list[tuple[Floats, Floats]] = []
    spreads, shapes, people = [], [], []
    for number, person in enumerate(tqdm(sorted(p for p in folder.iterdir() if p.is_dir()), desc=folder.name)):
        faces = [largest(reconstructor.faces(read_image(path))) for path in sorted(person.glob("*.jpg"))]
        shapes += [face.shape for face in faces if face is not None]
        people += [number for face in faces if face is not None]
        together = [set_from_faces(part, average, basis) for part in (faces[:5], faces[5:], faces)]
        halves.append((together[0].shape, together[1].shape))
        spreads.append(float(together[2].spread_mm.mean()))
    same = [rmse_mm(first, second) for first, second in halves]
    other = [rmse_mm(a[i], b[j]) for a, b in combinations(halves, 2) for i in (0, 1) for j in (0, 1)]
    pairs = pair_figures(np.stack(shapes), np.array(people))
    return {
        "people": len(halves),
        "auc_of_pairs": pairs["auc"],
        "auc_of_pairs_whitened": pairs["auc_whitened"],
        "same_person_mm": float(np.mean(same)),
        "two_people_mm": float(np.mean(other)),
        "ratio": float(np.mean(other) / np.mean(same)),
        "spread_mm": float(np.mean(spreads)),
    }


def rendered_people(reconstructor: Reconstructor, packed: Path) -> dict[str, Figures]:
    """Return errors on held-out rendered people that `facerecon-train prepare` made, read at the places of their
    landmarks, as photographs and as frames of a video.

    Shapes of sets are fused by precision, and stand only where the model has a basis file.
    """
    rows = {}
    for name, as_photographs in (("as photographs", True), ("as frames of videos", False)):
        seen = read_people(reconstructor, packed, as_photographs=as_photographs)
        figures = people_figures(seen)
        rows[name] = {"pictures": float(len(seen.cameras)), **{column: figures[column] for column in OF_PEOPLE}}
        _, basis = reconstructor.average_of_sets()
        if basis is not None:
            sets = fused_set_figures(fused_sets(seen.output, seen, basis), seen)
            rows[name] |= {f"rmse_mm_{size}": sets[str(size)]["rmse_mm"] for size in SET_SIZES}
            rows[name]["rmse_mm_of_mean_face"] = sets["mean face"]["rmse_mm"]
    return rows


def blink(reconstructor: Reconstructor, faces: Path) -> Figures:
    """Return the AUC of the mean eyeBlink weight for closed against open eyes, on photographs labelled by hand."""
    weights: dict[str, list[float]] = {"closed": [], "open": []}
    for kind, found in weights.items():
        for name in tqdm(hand_labelled()[kind], desc=f"eyes {kind}"):
            face = largest(reconstructor.faces(read_image(faces / f"{name}.jpg")))
            if face is not None:
                found.append(float(face.expression[list(BLINK)].mean()))
    closed, wide = (np.array(values) for values in weights.values())
    return {
        "closed": len(closed),
        "open": len(wide),
        "mean_weight_closed": float(closed.mean()),
        "mean_weight_open": float(wide.mean()),
        "auc": auc(closed, wide),
    }


def jitter(
    reconstructor: Reconstructor, folder: Path, photographs: int = 20, frames: int = 30, smooth: str = "off"
) -> Figures:
    """Return the standard deviation of landmarks over time, in percent of the eye distance.

    Still photographs are shown as tracked videos with sensor noise (normal, 4 of 255 levels).
    """
    random = np.random.default_rng(0)
    spreads = []
    for photograph in tqdm(list(annotated_photographs(folder))[:photographs], desc="jitter"):
        image = read_image(photograph.path)
        eyes = float(np.linalg.norm(photograph.landmarks[36] - photograph.landmarks[45]))
        pipeline, points = Pipeline(reconstructor, smooth=smooth), []
        for index in range(frames + 5):
            noisy = np.clip(image + random.normal(0, 4, image.shape), 0, 255).astype(np.uint8)
            faces = pipeline.process(Frame(noisy, photograph.path.name, index, index / 30, still=False, fps=30)).faces
            # The crop settles in the first frames.
            if index >= 5 and faces:
                points.append(faces[0].landmarks[:, :2])
        spreads.append(100 * float(np.std(points, axis=0).mean()) / eyes)
    return {
        "photographs": len(spreads),
        "frames": frames,
        "jitter_percent": float(np.mean(spreads)),
        "jitter_percent_median": float(np.median(spreads)),
    }


def lag(reconstructor: Reconstructor, clip: Path, smooth: str) -> Figures:
    """Return the lag and the landmark error on the repository's rendered clip, at 25 frames per second.

    The lag in milliseconds is the delay at which the predicted yaw fits the true yaw best. The error is that of the
    inner 51 points in percent of the eye distance, including lag.
    """
    truth = json.loads(clip.with_suffix(".json").read_text())["frames"]
    seen, true, errors, times = [], [], [], []
    with open_source(clip) as source:
        for scene, frame in zip(Pipeline(reconstructor, smooth=smooth).run(source), truth, strict=True):
            (face, *_), points = scene.faces, np.array(frame["landmarks"])
            seen.append(euler_from_camera(face.frame_from_head)[1])
            true.append(euler_from_camera(frame["frame_from_head"])[1])
            times.append(scene.frame.time_s)
            error = np.linalg.norm(face.landmarks[17:, :2] - points[17:], axis=1).mean()
            errors.append(100 * error / np.linalg.norm(points[36] - points[45]))
    delays = np.arange(-0.1, 0.4, 0.002)
    # The network's yaw is a little too small throughout, so the fit allows a factor and an offset.
    fits = [float(np.corrcoef(seen, np.interp(np.array(times) - delay, times, true))[0, 1]) for delay in delays]
    return {"lag_ms": 1000 * float(delays[int(np.argmax(fits))]), "nme_inner51": float(np.mean(errors))}


def videos(reconstructor: Reconstructor, folder: Path) -> dict[str, Figures]:
    """Return, per video, the frames, the frames with a face, the tracks, and the longest track's share of the video."""
    figures = {}
    for path in sorted(folder.glob("*.mp4")):
        lengths: dict[int, int] = {}
        frames = with_face = faces = 0
        with open_source(path) as source:
            for scene in Pipeline(reconstructor).run(tqdm(source, desc=path.name)):
                frames += 1
                with_face += bool(scene.faces)
                faces += len(scene.faces)
                for face in scene.faces:
                    lengths[face.track or 0] = lengths.get(face.track or 0, 0) + 1
        figures[path.name] = {
            "frames": frames,
            "frames_with_a_face": with_face,
            "faces_per_frame": faces / max(1, frames),
            "tracks": len(lengths),
            "longest_track_percent": 100 * max(lengths.values(), default=0) / max(1, frames),
        }
    return figures


def sample_clip(reconstructor: Reconstructor, clip: Path) -> Figures:
    """Return errors on the repository's rendered clip, whose geometry is known.

    They are the error of the inner 51 points in pixels and eye distances, and the error of the angles in degrees. The
    jaw is left out, because its truth is fixed vertices and not the visible contour.
    """
    truth = json.loads(clip.with_suffix(".json").read_text())["frames"]
    pixels, eyes, degrees = [], [], []
    with open_source(clip) as source:
        for scene, true in zip(Pipeline(reconstructor).run(source), truth, strict=True):
            points = np.array(true["landmarks"])
            for face in scene.faces[:1]:
                error = float(np.linalg.norm(face.landmarks[17:, :2] - points[17:], axis=1).mean())
                pixels.append(error)
                eyes.append(100 * error / float(np.linalg.norm(points[36] - points[45])))
                angles = np.subtract(
                    euler_from_camera(face.frame_from_head), euler_from_camera(true["frame_from_head"])
                )
                degrees.append(np.abs(angles).mean())
    return {
        "frames": len(truth),
        "found": len(pixels),
        "landmarks_px": float(np.mean(pixels)),
        "nme_inner51": float(np.mean(eyes)),
        "euler_deg": float(np.mean(degrees)),
    }


def shape_sheet(faces: list[Face], count: int = 40, size: int = 140) -> Image:
    """Draw the neutral shapes of `count` photographs, each from the front and from the side."""
    cells = [
        np.hstack([draw_clay(face.shape, size, yaw=yaw) for yaw in (0.0, 55.0)])
        for face in faces[:: max(1, len(faces) // count)][:count]
    ]
    empty = np.full_like(cells[0], 255)
    cells += [empty] * (-len(cells) % 5)
    return np.vstack([np.hstack(cells[i : i + 5]) for i in range(0, len(cells), 5)])


def markdown(report: Mapping[str, Any]) -> str:
    """Return the report as Markdown tables."""
    lines = ["# Accuracy", "", f"`{report['command']}`, {report['machine']}", ""]
    lines += [f"Model `{report['model']}`, detector `{report['detector']}`.", ""]
    for title, figures in report["figures"].items():
        lines += [f"## {title}", ""]
        rows = figures if all(isinstance(value, dict) for value in figures.values()) else {"": figures}
        names = list(next(iter(rows.values())))
        lines += ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
        for row, values in rows.items():
            cells = (f"{values[name]:.{0 if name in COUNTS else 2}f}" for name in names)
            lines.append(f"| {row} | {' | '.join(cells)} |")
        lines.append("")
    lines += ["## Columns", "", *(f"- `{names}`: {meaning}" for names, meaning in COLUMNS.items()), ""]
    return "\n".join(lines)


def photographs(reconstructor: Reconstructor, folder: Path, clip: Path, out: Path) -> dict[str, object]:
    """Return the sections about a folder of annotated photographs, and write shapes.jpg to `out`.

    They are the error of landmarks, the jitter, and jitter and lag (on `clip`) of each strength of smoothing.
    """
    mirrored, faces = photograph_figures(reconstructor, tqdm(list(annotated_photographs(folder))))
    reconstructor.mirror = False
    plain, _ = photograph_figures(reconstructor, tqdm(list(annotated_photographs(folder))))
    reconstructor.mirror = True
    cv2.imwrite(str(out / "shapes.jpg"), shape_sheet(faces))
    return {
        "Landmarks from detected boxes": {
            f"{folder.name}, each face in three crops and their mirror images": mirrored,
            f"{folder.name}, without, as frames of videos": plain,
        },
        "Jitter of still photographs under sensor noise": {folder.name: jitter(reconstructor, folder)},
        "Smoothing (--smooth)": {
            name: {
                **lag(reconstructor, clip, name),
                "jitter_percent": jitter(reconstructor, folder, smooth=name)["jitter_percent"],
            }
            for name in SMOOTH
        },
    }


def main() -> None:
    """Measure everything for which there are data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", help="model file; several make an ensemble [models/face.onnx]")
    parser.add_argument(
        "--detector", type=Path, default=Path("models/face_detector.onnx"), help="face detector [%(default)s]"
    )
    parser.add_argument("--data", type=Path, default=default_data(), help="data folder [$FACERECON_DATA]")
    parser.add_argument(
        "--prepared", type=Path, help="folder of `facerecon-train prepare`, with its held-out rendered people [none]"
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results [benchmarks/results]")
    options = parser.parse_args()
    if options.data is None or not options.data.is_dir():
        parser.error(
            "there is no data folder; give --data or set FACERECON_DATA (training/README.md describes the layout)"
        )
    if options.prepared is not None and not (options.prepared / "people" / "held-out").is_dir():
        parser.error(f"{options.prepared} holds no people/held-out; make it with facerecon-train prepare")
    options.out.mkdir(parents=True, exist_ok=True)
    models = options.model or ["models/face.onnx"]
    figures: dict[str, object] = {}
    with Reconstructor(models, detector=options.detector, provider="cpu") as reconstructor:
        clip = Path("tests/data/talking_head.mp4")
        figures["Rendered sample clip"] = {clip.name: sample_clip(reconstructor, clip)}
        benchmark = options.data / "faces" / "lfpw-test"
        if benchmark.is_dir():
            figures |= photographs(reconstructor, benchmark, clip, options.out)
            if (options.data / "faces" / "youtube-test").is_dir():
                figures["Blink"] = {"photographs labelled by hand": blink(reconstructor, options.data / "faces")}
        if options.prepared is not None:
            figures["Rendered people"] = rendered_people(reconstructor, options.prepared / "people" / "held-out")
        if (options.data / "head_pose").is_dir():
            figures["Head pose (Pointing'04, within 60 degrees)"] = head_pose(reconstructor, options.data / "head_pose")
        if (options.data / "identities").is_dir():
            figures["Image sets"] = {"identities": identities(reconstructor, options.data / "identities")}
        if (options.data / "videos").is_dir():
            figures["Tracking"] = videos(reconstructor, options.data / "videos")
        report: dict[str, object] = {
            "command": command_of(parser, options),
            "machine": f"Python {platform.python_version()}, {platform.machine()}, CPU provider",
            "model": reconstructor.network.sha256[:16],
            "detector": options.detector.name,
            "figures": figures,
        }
    (options.out / "accuracy.json").write_text(json.dumps(report, indent=1) + "\n")
    (options.out / "accuracy.md").write_text(markdown(report) + "\n")
    print(markdown(report))


if __name__ == "__main__":
    main()
