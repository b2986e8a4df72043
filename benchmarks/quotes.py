"""results/ -> figures that pages quote, each as the text around it. `pages.py` rewrites them.

A quote is the text of a page with {} for every number that comes from a result. Numbers of other sources are part of
the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facerecon_rt.errors import UsageError

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
ACCURACY, CARD, CLEAN, README, SPEED = (
    "benchmarks/docs/accuracy.md",
    "models/README.md",
    "models/face.clean.md",
    "README.md",
    "benchmarks/docs/speed.md",
)
NUMBER = r"(–|\d+(?:\.\d+)?)"
FEWEST = 6
"""Number of pictures with an expression below which its AUC is not quoted."""


@dataclass(frozen=True, slots=True)
class Quote:
    """Figures on a page."""

    page: str
    """Path of the page from the repository's root."""
    text: str
    """Text with {} for every figure. Any white space stands for a space."""
    figures: tuple[str, ...]

    def written(self, page: str) -> str:
        """Return the text of the page with these figures.

        Raises UsageError if the quote does not stand on the page once.
        """
        words = (r"\s+".join(map(re.escape, part.split(" "))) for part in self.text.split("{}"))
        found = list(re.finditer(NUMBER.join(words), page))
        if len(found) != 1:
            raise UsageError(
                f"{self.page} has {len(found)} places like {self.text!r}; change the page or the quote in "
                "benchmarks/quotes.py, so that there is one"
            )
        for group in range(len(self.figures), 0, -1):
            page = page[: found[0].start(group)] + self.figures[group - 1] + page[found[0].end(group) :]
        return page


def quotes() -> list[Quote]:
    """Return all quotes, with the figures of the results."""
    parts = _landmarks, _through_the_runtime, _evaluated, _expression, _clean, _hard_faces, _tracks, _texture, _speed
    return [one for part in parts for one in part()]


def read(name: str) -> Any:
    """Return the content of a .json file of the results."""
    return json.loads((RESULTS / name).read_text())


def rows(name: str) -> list[list[str]]:
    """Return the cells of every row of every table of a .md file of the results."""
    lines = [line for line in (RESULTS / name).read_text().splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def quote(page: str, text: str, *figures: str) -> Quote:
    """Return a quote. Raises ValueError unless there is a figure for every {} of the text."""
    if text.count("{}") != len(figures):
        raise ValueError(f"{text!r} has {text.count('{}')} places for {len(figures)} figures")
    return Quote(page, text, figures)


def of(row: dict[str, float], names: str, digits: int) -> list[str]:
    """Return the figures with these names, separated by spaces, rounded to as many digits."""
    return [f"{row[name]:.{digits}f}" for name in names.split()]


def _detected(folder: str = "") -> list[dict[str, float]]:
    """Return landmark errors from detected boxes: of photographs, and of frames of videos."""
    return list(read(f"{folder}accuracy.json")["figures"]["Landmarks from detected boxes"].values())


def _landmarks() -> Iterator[Quote]:
    still, moving = _detected()
    points = {"nme_inner51": "inter-ocular NME, inner 51 points", "nme_68": "inter-ocular NME, 68 points"}
    points["nme_68_bbox"] = "bbox-normalised NME, 68 points"
    for name, text in points.items():
        figures = [f"{row[name]:.2f}" for row in (still, moving)]
        for page in (ACCURACY, CARD):
            yield quote(page, f"| {text} | {{}} % | {{}} % |\n", *figures)


def _through_the_runtime() -> Iterator[Quote]:
    figures = read("accuracy.json")["figures"]
    still, _ = _detected()
    yield quote(ACCURACY, "inner 51 points | {} % | 3.96 %", f"{still['nme_inner51']:.2f}")
    yield quote(ACCURACY, "68 points | {} % | 5.43 %", f"{still['nme_68']:.2f}")
    yield quote(ACCURACY, "68 points | {} % | 3.26 %", f"{still['nme_68_bbox']:.2f}")
    whole, others = figures["Head pose (Pointing'04, within 60 degrees)"].values()
    (people,) = figures["Image sets"].values()
    for page, same in ((ACCURACY, "the same, people"), (CARD, "the same, three people")):
        yield quote(page, "subtracted first | {} / {} degrees |", *of(whole, "pan_deg tilt_deg", 1))
        yield quote(page, f"{same} not trained on | {{}} / {{}} degrees |", *of(others, "pan_deg tilt_deg", 1))
    blink = figures["Blink"]["photographs labelled by hand"]
    yield quote(ACCURACY, "by the `eyeBlink` weight, AUC | {} |", *of(blink, "auc", 2))
    text = "45 photographs labelled by hand | AUC {} (mean eyeBlink {} against {}) |"
    yield quote(CARD, text, *of(blink, "auc mean_weight_closed mean_weight_open", 2))
    yield quote(ACCURACY, "shape alone, AUC | {} |", *of(people, "auc_of_pairs", 2))
    yield quote(CARD, "neutral shape of two photographs | AUC {} |", *of(people, "auc_of_pairs", 2))
    yield quote(ACCURACY, "precision, RMSE after rigid alignment | {} mm |", *of(people, "same_person_mm", 2))
    yield quote(CARD, "(ten people), RMSE after rigid alignment | {} mm |", *of(people, "same_person_mm", 2))
    yield quote(ACCURACY, "two different people, RMSE after rigid alignment | {} mm |", *of(people, "two_people_mm", 2))
    yield quote(CARD, "shapes of two people, RMSE after rigid alignment | {} mm |", *of(people, "two_people_mm", 2))
    (jitter,) = figures["Jitter of still photographs under sensor noise"].values()
    yield quote(CARD, "levels) | {} % of the eye distance |", *of(jitter, "jitter_percent", 2))
    smoothing = figures["Smoothing (--smooth)"]
    yield quote(ACCURACY, "| off | {} | | {} % |", *of(smoothing["off"], "jitter_percent nme_inner51", 2))
    for level in ("low", "high"):
        values, lag = smoothing[level], smoothing[level]["lag_ms"] - smoothing["off"]["lag_ms"]
        shown = (f"{values['jitter_percent']:.2f}", f"{lag:.0f}", f"{values['nme_inner51']:.2f}")
        yield quote(ACCURACY, f"| {level} | {{}} | {{}} ms | {{}} % |", *shown)
    seen, as_frames = figures["Rendered people"].values()
    yield quote(
        ACCURACY,
        "the same people have {}, {} and {} degrees, and their heads are turned {} degrees wrong ({} near the front; "
        "as frames of videos {} and {}).",
        *of(seen, "correlation correlation_tenth_worst", 2),
        *of(seen, "gaze_deg rotation_deg rotation_deg_near", 1),
        *of(as_frames, "rotation_deg rotation_deg_near", 1),
    )
    text = "(`benchmarks/accuracy.py --prepared`): rotation, all / near the front | {} / {} degrees |"
    yield quote(CARD, text, *of(seen, "rotation_deg rotation_deg_near", 1))
    yield quote(CARD, "| the same: gaze | {} degrees |", *of(seen, "gaze_deg", 1))
    text = "| the same: blendshapes, mean correlation of 53 / the tenth worst | {} / {} |"
    yield quote(CARD, text, *of(seen, "correlation correlation_tenth_worst", 2))


def _evaluated() -> Iterator[Quote]:
    report = read("evaluate.json")
    people = report["Rendered people not trained on"]["all"]
    sets = report["Rendered people, by photographs in a set"]
    fused = report["Rendered people, sets fused by precision, after a similarity"]
    one, ten = people["rmse_mm"], sets["10"]["rmse_mm"]
    yield quote(ACCURACY, "sets of ten (`evaluate`) | {} / {} mm |", f"{one:.1f}", f"{ten:.1f}")
    yield quote(ACCURACY, "the mean face (`evaluate`) | {} mm |", *of(people, "rmse_mm_of_mean_face", 1))
    yield quote(
        ACCURACY,
        "over 53 blendshapes is {} on average, and {} for the tenth worst. The gaze is off by {} degrees on average.",
        *of(people, "correlation correlation_tenth_worst", 2),
        *of(people, "gaze_deg", 1),
    )
    expected = report["Rendered people, error that sets expect and error there is"].values()
    for text, name in (("expected error, RMSE in mm after a similarity", "expected_rmse_mm"), ("error", "rmse_mm")):
        yield quote(ACCURACY, f"| {text} |{' {} |' * 5}", *(f"{row[name]:.2f}" for row in expected))
    near = of(people, "rotation_deg rotation_deg_near", 1)
    yield quote(CARD, "yaw 30 and pitch 25 degrees | {} / {} degrees | |", *near)
    mean = fused["mean face"]
    text = "sets of ten, average of shapes | {} / {} mm | {} mm |"
    yield quote(CARD, text, f"{one:.2f}", f"{ten:.2f}", *of(people, "rmse_mm_of_mean_face", 2))
    text = "mean distance after a similarity | {} mm | {} mm |"
    yield quote(CARD, text, *of(people, "shape_mm_aligned shape_mm_aligned_of_mean_face", 2))
    sizes = [fused[size] for size in ("1", "5", "10")]
    errors = [f"{row['rmse_mm']:.2f}" for row in (*sizes, mean)]
    yield quote(CARD, "of ten, fused by precision | {} / {} / {} mm | {} mm |", *errors)
    robust = [f"{row['robust_rmse_mm']:.2f}" for row in sizes[1:]]
    yield quote(CARD, "average of shapes (`--average robust`) | {} / {} mm |", *robust)
    expected = [f"{row['expected_rmse_mm']:.2f}" for row in sizes]
    yield quote(CARD, "one picture / of five / of ten | {} / {} / {} mm |", *expected)
    surface = "surface_median_mm surface_mean_mm surface_std_mm"
    text = "as NoW measures: one picture | {} / {} / {} mm | {} / {} / {} mm |"
    yield quote(CARD, text, *of(sizes[0], surface, 2), *of(mean, surface, 2))
    yield quote(CARD, "sets of ten fused by precision | {} / {} / {} mm |", *of(sizes[2], surface, 2))
    text = "| blendshapes, correlation with the truth: mean of 53 / the tenth worst | {} / {} |"
    yield quote(CARD, text, *of(people, "correlation correlation_tenth_worst", 2))
    yield quote(CARD, "record.md#blendshapes)) | {} |", *of(people, "expression_mae", 3))
    yield quote(CARD, "| gaze | {} degrees |", *of(people, "gaze_deg", 1))
    names = "correlation_jawOpen correlation_mouthSmile_L correlation_eyeBlink_L correlation_browInnerUp_L"
    text = "the correlation is {} for jawOpen, {} for mouthSmile, {} for eyeBlink, {} for a raised inner brow and {} "
    text += "for a pucker."
    yield quote(CARD, text, *of(people, f"{names} correlation_mouthPucker", 2))
    (rest,) = report["Expression at rest (Pointing'04, within 15 degrees)"].values()
    text = "Weights at rest are {} on average, and the largest of a face at rest is {};"
    yield quote(CARD, text, *of(rest, "mean_weight mean_of_largest", 2))
    yield quote(CARD, "the identity coefficients have {} of the prior's spread", *of(people, "shape_spread_ratio", 2))


def _expression() -> Iterator[Quote]:
    result = read("expression.json")
    columns = list(result["auc"].values())
    means = [f"{column['auc']['mean']:.3f}" for column in columns]
    ours, _, theirs = (str(column["auc"]["labels"]) for column in columns)
    yield quote(ACCURACY, "| AUC, mean of {} labels | 0.71 | {} | {} | {} ({} labels) |", ours, *means, theirs)
    shared = [f"{column['auc_shared']['mean']:.3f}" for column in columns]
    yield quote(ACCURACY, f"that have MediaPipe's scores ({theirs} labels) | | {{}} | {{}} | {{}} |", *shared)
    for text, labels in (
        (
            "pucker or funnel; smile; jaw open | – | {}; {}; {} | {}; {}; {} | {}; {}; {} |",
            "puckerOrFunnel smile jawOpen",
        ),
        ("gaze to the left / right | 0.47 / 0.34 | {} / {} | {} / {} | {} / {} |", "gazeLeft gazeRight"),
        ("gaze up / down | 0.66 / 0.97 | {} / {} | {} / {} | {} / {} |", "gazeUp gazeDown"),
        (
            "squint; brow up; brow down | 0.42; 0.67; 0.56 | {}; {}; {} | {}; {}; {} | {}; {}; {} |",
            "squint browUp browDown",
        ),
        (
            "nose wrinkled | 0.77; 0.43; 0.57; 0.74 | {}; {}; {}; {} | {}; {}; {}; {} | {}; {}; {}; {} |",
            "eyesWide mouthPressOrRoll frown noseSneer",
        ),
    ):
        yield quote(ACCURACY, text, *(_auc(column, label) for column in columns for label in labels.split()))
    first = columns[0]
    text = "the mean is {}, and the least is the gaze upwards with {} (fp32)."
    yield quote(ACCURACY, text, *of(first["auc_strangers"], "mean least", 2))
    text = "mean AUC of {} labels {}, the least {} |"
    yield quote(CARD, text, ours, f"{first['auc']['mean']:.3f}", f"{first['auc']['least']:.2f}")
    mesh, noise = result["figures"].values()
    yield quote(ACCURACY, "where MediaPipe's are shut | {} eye distances |", *of(mesh, "lip_gap", 3))
    yield quote(ACCURACY, "where MediaPipe's is open | {} times", *of(mesh, "opening_gain", 2))
    yield quote(CARD, "Mouths open in the mesh {} times as far as in MediaPipe's", *of(mesh, "opening_gain", 2))
    text = "on the {} faces that look ahead: correlation sideways / in height | {} / {} |"
    irises = of(mesh, "iris_x_correlation iris_y_correlation", 2)
    yield quote(ACCURACY, text, *of(mesh, "frontal_faces", 0), *irises)
    gaze = of(mesh, "yaw_correlation pitch_correlation", 2)
    yield quote(ACCURACY, "correlation of yaw / pitch | {} / {} |", *gaze)
    text = "weights have a standard deviation of {} on average and {} at most, and {} % of the calibrated weights are "
    figures = (*of(noise, "deviation largest_deviation", 3), *of(noise, "calibrated_below_noise_percent", 0))
    yield quote("runtime/docs/takes.md", f"{text}below 0.02", *figures)


def _auc(column: dict[str, Any], label: str) -> str:
    row = column["labels"].get(label, {"present": 0})
    return f"{row['auc']:.2f}" if row["present"] >= FEWEST else "–"


def _clean() -> Iterator[Quote]:
    """The card of the clean model: its own figures first, those of `face.onnx` last."""
    clean, research = (_of_card(folder) for folder in ("clean/", ""))
    for (text, own), theirs in zip(clean, (figures for _, figures in research), strict=True):
        yield quote(CLEAN, text, *own, *theirs)
    for text, *both in zip(
        ("photographs: 51 / 68 points", "video frames, in one crop"), _detected(), _detected("clean/"), strict=True
    ):
        figures = [figure for row in both for figure in of(row, "nme_inner51 nme_68", 2)]
        yield quote(README, f"{text} | {{}} / {{}} % | {{}} / {{}} % |", *figures)
    # Those of the photographs that MediaPipe's figure is of.
    columns = [list(read(f"{folder}expression.json")["auc"].values()) for folder in ("", "clean/")]
    means = [f"{column['auc_shared']['mean']:.2f}" for column in (columns[0][0], columns[1][0], columns[0][-1])]
    yield quote(README, "expression, gaze: mean AUC | {} | {} | {} (Face Landmarker) |", *means)
    still, _ = _detected("clean/")
    mean = columns[1][0]["auc"]["mean"]
    text = "`face.clean.onnx`, which may be used for any purpose, has {} % on the inner 51 points, and a mean AUC of {}"
    yield quote(ACCURACY, text, f"{still['nme_inner51']:.2f}", f"{mean:.3f}")


def _of_card(folder: str) -> list[tuple[str, list[str]]]:
    figures, expressions = read(f"{folder}accuracy.json")["figures"], read(f"{folder}expression.json")
    still, moving = _detected(folder)
    column, mesh = next(iter(expressions["auc"].values())), next(iter(expressions["figures"].values()))
    strangers, others = column["auc_strangers"], list(figures["Head pose (Pointing'04, within 60 degrees)"].values())[1]
    (jitter,) = figures["Jitter of still photographs under sensor noise"].values()
    (people,) = figures["Image sets"].values()
    return [
        ("inter-ocular NME | **{} %** | 4.65 % | 5.15 % | {} % |", of(still, "nme_inner51", 2)),
        ("in one crop | **{} %** | 4.91 % | 5.41 % | {} % |", of(moving, "nme_inner51", 2)),
        ("| lfpw-test, 68 points | **{} %** | 6.15 % | 6.68 % | {} % |", of(still, "nme_68", 2)),
        (
            "/ the least | **{}** / {} | 0.886 / **0.70** | 0.724 / 0.26 | {} / {} |",
            [f"{column['auc']['mean']:.3f}", f"{column['auc']['least']:.2f}"],
        ),
        (
            "training | {} / {} | **0.892 / 0.69** | | {} / {} |",
            [f"{strangers['mean']:.3f}", f"{strangers['least']:.2f}"],
        ),
        (
            "left and right eye, AUC | {}, {} | **0.95**, 0.94 | **0.95, 0.95** | {}, {} |",
            [_auc(column, "blinkLeft"), _auc(column, "blinkRight")],
        ),
        (
            "gain of mouth openings | **{}; {}** | **0.007**; 0.52 | | {}; {} |",
            [f"{mesh['lip_gap']:.3f}", f"{mesh['opening_gain']:.2f}"],
        ),
        (
            "correlation sideways / height | **{} / {}** | 0.84 / 0.42 | none | {} / {} |",
            of(mesh, "iris_x_correlation iris_y_correlation", 2),
        ),
        (
            "people not trained on | **{} / {}** degrees | 8.7 / 9.0 degrees | 7.9 / 8.3 degrees | {} / {} degrees |",
            of(others, "pan_deg tilt_deg", 1),
        ),
        ("with sensor noise | **{} %** | **0.18 %** | 0.57 % | {} % |", of(jitter, "jitter_percent", 2)),
        ("neutral shape, AUC | **{}** | 0.69 | 0.63 | {} |", of(people, "auc_of_pairs", 2)),
        ("`crowd_1080p.mp4` | {} | **10** | 16 | {} |", of(figures["Tracking"]["crowd_1080p.mp4"], "tracks", 0)),
    ]


def _hard_faces() -> Iterator[Quote]:
    read_percent = {cells[0]: cells[2].removesuffix(".0") for cells in rows("hard_faces.md") if len(cells) == 5}

    def shown(*kinds: str) -> list[str]:
        return [read_percent[kind] for kind in kinds]

    yield quote(
        CARD,
        "{} % are reconstructed (with an error below 10 %) rolled by 60 degrees, {} % at 20 pixels and {} % at 30 "
        "pixels (`compact`: 97.5, 95 and 95 %), and {} % blurred by a sigma of 8 pixels",
        *shown("rolled by 60 degrees", "20 pixels", "30 pixels", "blurred, sigma 8"),
    )
    yield quote(
        CARD,
        "Faces rolled by 60 degrees are read in {} %, upside down in {} %, of 20 pixels in {} %, masked in {} %, half "
        "hidden in {} %, half outside the picture in {} %, and with the top outside in {} %.",
        *shown("rolled by 60 degrees", "rolled by 180 degrees", "20 pixels", "mask"),
        *shown("half hidden", "half outside", "top outside"),
    )


def _tracks() -> Iterator[Quote]:
    live = "runtime/docs/live.md"
    cases, kept = _sums([cells[1:3] for cells in rows("crossing.md") if cells[1].isdecimal()])
    yield quote(live, "both kept their numbers in {} of {} cases", kept, cases)
    text = "of {} crossings and meetings of two heads, both kept their numbers in {}"
    yield quote(ACCURACY, text, cases, kept)

    cuts = [cells for cells in rows("cuts.md") if len(cells) == 6 and cells[2].isdecimal()]
    found, seen = (_sums([cells[2:4] for cells in cuts if cells[1] == kind]) for kind in ("whole", "head"))
    yield quote(live, "starts a new track in the same frame, in {} of {} cases", *reversed(found))
    yield quote(live, "only {} of {} such cuts begin a track", *reversed(seen))


def _sums(cells: list[list[str]]) -> list[str]:
    """Return the sums of the columns."""
    return [str(sum(map(int, column))) for column in zip(*cells, strict=True)]


def _texture() -> Iterator[Quote]:
    """The table of colours in outputs.md, whose maps have 512 pixels."""
    maps = {cells[0]: cells for cells in rows("texture.md") if cells[2] == "512"}
    for text, name in (
        ("frames of the video", "the track (sample clip)"),
        ("each of them", "photographs of one session (Pointing'04)"),
        ("in other light", "ten photographs of years, in other light (identities)"),
    ):
        yield quote("runtime/docs/outputs.md", f"{text} |{' {} |' * 4}", *maps[name][3:7])


def _disk_and_memory() -> Iterator[Quote]:
    programs = list(read("footprint.json")["medians"].values())
    sizes = [program["site-packages, MB"] for program in programs]
    megabytes = [f"{float(f'{size:.3g}'):.0f}" for size in sizes]  # three digits are known
    yield quote(SPEED, "MB of models) | {} MB | {} MB | {} MB |", *megabytes)
    yield quote(README, "disk space, with models | {} MB | {} MB | {} MB |", megabytes[0], megabytes[1], megabytes[2])
    memory = [f"{program['resident, MB']:.0f}" for program in programs]
    text = "take {} MB of disk, 18 MB of it models. A process that tracks one face holds {} MB of memory with the int8 "
    yield quote("runtime/docs/devices.md", f"{text}file and {{}} MB", megabytes[0], memory[1], memory[0])
    for text, name, unit, digits in (
        ("memory after 1000 frames", "resident, MB", "MB", 0),
        ("import", "import, s", "s", 2),
        ("start of the process to its first result", "start to first result, s", "s", 2),
    ):
        figures = [f"{program[name]:.{digits}f}" for program in programs]
        yield quote(SPEED, f"| {text} | {{}} {unit} | {{}} {unit} | {{}} {unit} |", *figures)


def _speed() -> Iterator[Quote]:
    tracking, detecting = (list(read(f"{name}.json").values()) for name in ("latency", "latency_detecting"))
    for text, programs in (
        ("tracking, p50 / p90 | {} / {} ms | **{}** / {} ms | {} / {} ms |", tracking),
        ("detection in every frame, p50 / p90 | {} / {} ms | {} / {} ms | {} / {} ms |", detecting),
    ):
        yield quote(SPEED, text, *(figure for program in programs for figure in of(program, "p50 p90", 1)))
    times = [f"{program['cpu_ms']:.1f}" for program in tracking]
    yield quote(SPEED, "processor time per frame | {} ms | {} ms | {} ms |", *times)
    yield quote(README, "720p frame, one thread | {} ms", f"{tracking[1]['p50']:.1f}")
    clean = [program["p50"] for program in read("clean/latency.json").values()]
    text = "ms (int8) | {} ms (int8) | {} ms |"
    yield quote(README, text, f"{clean[1]:.1f}", f"{tracking[2]['p50']:.1f}")
    text = "its medians are {} ms in fp32 and {} ms in int8, {} and {} of MediaPipe's."
    figures = (f"{clean[0]:.1f}", f"{clean[1]:.1f}", f"{clean[0] / clean[2]:.2f}", f"{clean[1] / clean[2]:.2f}")
    yield quote(SPEED, text, *figures)
    text = "The int8 median is {} of MediaPipe's, and the fp32 median {}."
    yield quote(SPEED, text, *(f"{tracking[index]['p50'] / tracking[2]['p50']:.2f}" for index in (1, 0)))
    (stages,) = re.findall(r"int8 \(`\w+`\) by stage, median ms: (.+)\.", (RESULTS / "latency.md").read_text())
    medians = dict(stage.split() for stage in stages.split(", "))
    for text, stage in (("network and decoding", "infer"), ("crop", "align"), ("tracking, cuts and doubts", "post")):
        yield quote(SPEED, f"| {text} | {{}} |", medians[stage])
    yield from _disk_and_memory()
    for name, file in read("precisions.json")["files"].items():
        size = f"{(ROOT / 'models' / name).stat().st_size / 1e6:.1f}"
        kind = {"face.fp16.onnx": " (GPUs)", "face.int8.onnx": " (TensorRT)"}.get(name, "")
        if not name.startswith("face."):
            continue
        yield quote(
            SPEED,
            f"| `{name}`{kind} | {{}} | {{}} % | {{}} mm / {{}}° | {{}} |",
            size,
            *of(file, "nme_inner51", 2),
            *of(file, "vertices_mm", 3),
            *of(file, "rotation_deg latency_ratio", 2),
        )
        (row,) = re.findall(rf"^\| `{re.escape(name)}` \| .*\|", (ROOT / CARD).read_text(), re.MULTILINE)
        yield quote(CARD, re.sub(r"[\d.]+ MB \|$", "{} MB |", row), size)
    # It stands in one of these rows, and is therefore rewritten after them.
    share = f"{100 * tracking[1]['p50'] / tracking[0]['p50']:.0f}"
    yield quote(CARD, "for the CPU; {} % of the time per frame", share)
