"""Videos with labelled blinks and speech -> how many `--attention` finds, how exactly in time, and what it reports
wrongly.

    python benchmarks/attention.py --data DATA     # two minutes; writes results/attention.md

Two sources give the true blinks: the rendered clip in tests/data, whose lids are known in every frame, and the talking
heads of DATA/videos, whose blinks were labelled by eye (attention_labels.json). Each video is also watched with frames
left out. Speech is labelled by eye too, as the seconds in which lips talk. No video of DATA shows a yawn, so every yawn
is wrong.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from commands import command_of
from facerecon_rt import Pipeline, Reconstructor, open_source
from facerecon_rt.faces.attention import CLOSES
from facerecon_rt.faces.zones import Zone
from facerecon_rt.providers.onnx_file import named_by_hash
from facerecon_rt.types import Event

HERE = Path(__file__).parent
RESULTS = HERE / "results"
CLIP = HERE.parent / "tests" / "data" / "talking_head.mp4"
CLIP_BLINKS_S = (0.9, 2.6, 4.3)
"""Times at which the clip's eyes are shut (`facerecon_training.rendered.clip.expression_at`)."""
CLIP_HALF_S = 0.12
"""Time in which the clip's lids close, and open again, linearly."""
NEAR_S = 0.15
"""Maximum time between the middles of a blink and of its label."""
EVERY = (1, 2, 3)
COLUMNS = (
    "1/n: every n-th frame is used. *found*: labelled blinks that were found. *wrong*: found blinks that were not "
    "labelled. *timing error*: mean difference of the middles of found and labelled blinks. "
    "*mean duration*: of all found blinks."
)
"""Definitions of the columns, for the reader of the results."""
"""Intervals of the frames that are used."""


@dataclass(frozen=True)
class Seen:
    """Results of one video."""

    middles_s: list[float]
    durations_s: list[float]
    others: list[str]
    """Kinds of the other events that began."""
    speech_s: list[tuple[float, float]]
    """Begin and end of each stretch of speech."""


def watch(path: Path, reconstructor: Reconstructor, every: int) -> Seen:
    """Return the blinks and other events of the largest face of a video, of which every n-th frame is used."""
    pipeline = Pipeline(reconstructor, max_faces=1, attention=[Zone("ahead", (-20, 20))])
    events: list[Event] = []
    last_s = 0.0
    with open_source(path) as source:
        for scene in pipeline.run(islice(source, 0, None, every)):
            events.extend(scene.events)
            last_s = scene.frame.time_s
    blinks = [event for event in events if event.kind == "blink"]
    others = [event.kind for event in events if event.phase == "begin" and event.kind not in ("zone", "off_zone")]
    return Seen(
        [(event.began_s + event.time_s) / 2 for event in blinks],
        [event.time_s - event.began_s for event in blinks],
        others,
        stretches([event for event in events if event.kind == "speaking"], last_s),
    )


def stretches(events: list[Event], last_s: float) -> list[tuple[float, float]]:
    """Return begin and end of each stretch of time in seconds. A stretch that has not ended by `last_s` ends there."""
    ended = [(event.began_s, event.time_s) for event in events if event.phase == "end"]
    known = {began for began, _ in ended}
    goes_on = [(event.began_s, last_s) for event in events if event.phase == "begin" and event.began_s not in known]
    return ended + goes_on


def shared_s(one: list[tuple[float, float]], other: list[tuple[float, float]]) -> float:
    """Return the seconds that two lists of stretches share; the stretches of one list do not overlap."""
    return sum(max(0.0, min(b, d) - max(a, c)) for a, b in one for c, d in other)


def speech_row(name: str, seen: Seen, true_s: list[tuple[float, float]]) -> str:
    """Return a row of the table of speech."""
    labelled, found = (sum(end - begin for begin, end in of) for of in (true_s, seen.speech_s))
    shared = shared_s(seen.speech_s, true_s)
    yawns = seen.others.count("yawn")
    return f"| {name} | {labelled:.1f} | {shared:.1f} | {found - shared:.1f} | {yawns} |"


def matched(found_s: list[float], true_s: list[float]) -> list[float]:
    """Return the time in seconds between each true blink and the nearest blink that was found."""
    return [min((abs(one - true) for one in found_s), default=9.0) for true in true_s]


def row(name: str, every: int, seen: Seen, true_s: list[float]) -> tuple[str, int, int, int]:
    """Return a row of the table, and the numbers of labelled, found and wrong blinks."""
    ways = [way for way in matched(seen.middles_s, true_s) if way <= NEAR_S]
    wrong = sum(min((abs(one - true) for true in true_s), default=9.0) > NEAR_S for one in seen.middles_s)
    timing = f"{1000 * np.mean(ways):.0f}" if ways else ""
    lasted = f"{1000 * np.mean(seen.durations_s):.0f}" if seen.durations_s else ""
    others = ", ".join(f"{seen.others.count(kind)} {kind}" for kind in sorted(set(seen.others)))
    line = f"| {name} | 1/{every} | {len(true_s)} | {len(ways)} | {wrong} | {timing} | {lasted} | {others} |"
    return line, len(true_s), len(ways), wrong


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="data folder")
    parser.add_argument(
        "--model", type=Path, default=Path("models/face.int8-cpu.onnx"), help="model file [%(default)s]"
    )
    arguments = parser.parse_args()
    known = json.loads((HERE / "attention_labels.json").read_text())
    labels, speech = known["blinks"], []
    lines = ["# Blinks and other events of `--attention`", ""]
    lines += [f"`{command_of(parser, arguments)}`", ""]
    lines += [f"Model {named_by_hash(arguments.model)}.", "", COLUMNS, ""]
    lines += ["| video | frames used | blinks | found | wrong | timing error, ms | mean duration, ms | other events |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    totals = {every: np.zeros(3, int) for every in EVERY}
    with Reconstructor(arguments.model, provider="cpu") as reconstructor:
        for every in EVERY:
            lines.append(row("rendered clip", every, watch(CLIP, reconstructor, every), list(CLIP_BLINKS_S))[0])
        for name, frames in labels.items():
            path = arguments.data / "videos" / f"{name}.mp4"
            with open_source(path) as source:
                fps = next(iter(source)).fps
            true_s = [(first + last) / 2 / fps for first, last in frames]
            for every in EVERY:
                seen = watch(path, reconstructor, every)
                line, *counts = row(name, every, seen, true_s)
                if every == 1 and name in known["speech"]:
                    speech.append(speech_row(name, seen, [(a / fps, b / fps) for a, b in known["speech"][name]]))
                totals[every] += counts
                lines.append(line)
    for every, (true, found, wrong) in totals.items():
        lines.append(f"| all labelled videos | 1/{every} | {true} | {found} | {wrong} | | | |")
    known_ms = 1000 * 2 * CLIP_HALF_S * CLOSES
    lines += [
        "",
        f"The lids of the rendered clip are less than {CLOSES:.0%} open for {known_ms:.0f} ms. A blink counts as "
        f"found if its middle is within {1000 * NEAR_S:.0f} ms of the labelled one.",
        "",
        "## Speech and yawns",
        "",
        "| video | speech by eye, s | found of it, s | speech that is none, s | yawns that are none |",
        "|---|---|---|---|---|",
        *speech,
        "",
        "Every frame is used. Speech is labelled where lips talk; there is no sound. No video shows a yawn.",
        "",
    ]
    (RESULTS / "attention.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
