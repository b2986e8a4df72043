"""Archives on Ray beside the plain loop: photographs per second, cost of Ray per photograph, scaling with actors.

    FACERECON_DATA=… python benchmarks/archive.py            # ten minutes; writes results/archive.md and .json

The plain loop is what `facerecon-rt --input FOLDER --output records.jsonl` does: one process, pictures decoded ahead in
a thread, one photograph after the other, and shapes not kept. The archive processes eight photographs at a time and
keeps shapes. "parts without Ray" does the same in one process. The methods take turns, so that other load on the
machine affects all of them. The archive's rates exclude Ray's start, which is given separately; in a long run it is
negligible.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ray
from commands import command_of
from facerecon_rt import Pipeline, Reconstructor, open_sink, open_source
from facerecon_rt.archive.operators import ReconstructPart, read_part, write_rows
from facerecon_rt.archive.plan import list_inputs, open_plan
from facerecon_rt.archive.recipe import Recipe, Workers
from facerecon_rt.archive.run import archive, started
from facerecon_rt.data_folder import data_folder
from facerecon_rt.environment import machine
from facerecon_rt.errors import UsageError
from facerecon_rt.providers.onnx_file import read_onnx
from facerecon_rt.sources.prefetch import prefetched
from facerecon_rt.values import positive

RESULTS = Path(__file__).with_name("results")
MODEL = Path("models/face.onnx").absolute()
SETS = ("lfpw-test", "afw", "helen-train", "lfpw-train")
ACTORS = (1, 2)
MANY = 10**8


def plain_loop(photographs: Path, out: Path) -> float:
    """Return the seconds of the plain loop, without loading the model."""
    with Reconstructor(MODEL, provider="cpu") as reconstructor:
        begun = time.perf_counter()
        with (
            open_source(photographs) as source,
            open_sink(str(out), blendshapes=reconstructor.contract.blendshapes) as sink,
        ):
            for _ in Pipeline(reconstructor).run(prefetched(source), [sink]):
                pass
        return time.perf_counter() - begun


def without_ray(photographs: Path, out: Path, part_size: int) -> float:
    """Return the seconds of the actors' and tasks' work, one after the other in this process."""
    recipe, workers = Recipe((str(MODEL),)), Workers(provider="cpu")
    plan = open_plan(out, list_inputs([str(photographs)]), part_size, recipe)
    reconstruct = ReconstructPart(recipe, recipe.identity(), workers)
    begun = time.perf_counter()
    for part in range(len(plan.sizes)):
        for inputs in read_part(plan.folder, part, plan.secret_of(part), recipe.most_bytes):
            write_rows(reconstruct(inputs), folder=plan.folder)
    return time.perf_counter() - begun


def on_ray(photographs: Path, out: Path, actors: int, part_size: int) -> tuple[float, float]:
    """Return the seconds until the first part exists, and the seconds of the others, scaled to all parts."""
    recipe = Recipe((str(MODEL),))
    plan = open_plan(out, list_inputs([str(photographs)]), part_size, recipe)
    begun = time.time()
    archive(plan, recipe, Workers(least=actors, most=actors, provider="cpu"), quiet=True)
    written = sorted(path.stat().st_mtime for path in out.glob("part-*.parquet"))
    # The first part of each actor: from then on all actors run.
    later = len(written) - actors
    return written[actors - 1] - begun, (written[-1] - written[actors - 1]) / later * len(written)


def pictures() -> list[Path]:
    """Return the photographs of the data folder."""
    data = data_folder(None) / "faces"
    return [path for name in SETS for path in sorted((data / name).iterdir()) if path.suffix in (".jpg", ".png")]


def measure(folder: Path, count: int, part_size: int, rounds: int) -> dict[str, Any]:
    """Measure every method in turn, `rounds` times."""
    photographs = folder / "photographs"
    photographs.mkdir()
    found = pictures()
    random.Random(0).shuffle(found)  # shuffled, so that the parts are alike
    for number, path in enumerate(found[:count]):
        (photographs / f"{number:05d}{path.suffix}").symlink_to(path)
    seconds: dict[str, list[float]] = {"plain loop": [], "parts without Ray": []}
    starts: list[float] = []
    with started(None, quiet=True):
        for round_ in range(rounds):
            seconds["plain loop"].append(plain_loop(photographs, folder / "records.jsonl"))
            alone = folder / f"out-{round_}"
            seconds["parts without Ray"].append(without_ray(photographs, alone, part_size))
            for actors in ACTORS:
                out = folder / f"out-{round_}-{actors}"
                start, spent = on_ray(photographs, out, actors, part_size)
                starts.append(start)
                seconds.setdefault(f"{actors} actor{'s' if actors > 1 else ''}", []).append(spent)
    written = sum(path.stat().st_size for path in out.glob("part-*.parquet"))
    done = json.loads((out / "_manifest.json").read_text())["done"]
    shutil.rmtree(out)
    return {
        "photographs": len(found[:count]),
        "part_size": part_size,
        "bytes_per_photograph": written / done["inputs"],
        "faces": done["faces"],
        "errors": done["errors"],
        "seconds": seconds,
        "start_s": starts,
    }


def report(found: dict[str, Any], machine_: dict[str, str], loads: tuple[float, float], command: str) -> str:
    """Return the table, and the arithmetic for 10^8 photographs."""
    count = found["photographs"]
    rates = {way: statistics.median(count / spent for spent in of_way) for way, of_way in found["seconds"].items()}
    plain = rates["plain loop"]
    lines = [
        "# Archives on Ray",
        "",
        f"`{command}`",
        "",
        f"{machine_.get('processor', '')}, {machine_.get('cores usable', '?')} cores, ray {ray.__version__}, "
        f"models/face.onnx (`{read_onnx(MODEL).sha256[:16]}`) on the CPU; "
        f"{count} photographs with {found['faces']} faces, parts of {found['part_size']}; "
        f"medians of {len(found['seconds']['plain loop'])} rounds in turn. Load average of the machine before and "
        f"after: {loads[0]:.1f}, {loads[1]:.1f}.",
        "",
        "| | photographs/s | ratio to the plain loop | ms per photograph |",
        "|---|---|---|---|",
        *(f"| {way} | {rate:.1f} | {rate / plain:.2f} | {1000 / rate:.1f} |" for way, rate in rates.items()),
        "",
        f"One actor takes {1000 / rates['1 actor'] - 1000 / plain:+.1f} ms per photograph compared with the plain "
        f"loop, and {1000 / rates['1 actor'] - 1000 / rates['parts without Ray']:+.1f} ms compared with the same work "
        f"without Ray. Two actors are {rates['2 actors'] / rates['1 actor']:.2f} times as fast as one. One actor "
        "already uses more than one core, because it decodes in a thread beside the network. Ray's workers need "
        f"{statistics.median(found['start_s']):.0f} s until the first part exists. A photograph takes "
        f"{found['bytes_per_photograph'] / 1000:.1f} kB of Parquet.",
        "",
        "## 10^8 photographs like these",
        "",
        f"At {rates['2 actors'] / 2:.1f} photographs/s per actor of one core: 10^8 / {rates['2 actors'] / 2:.1f} = "
        f"{MANY / (rates['2 actors'] / 2) / 3600:.0f} core hours, or {MANY / (rates['2 actors'] / 2) / 3600 / 256:.1f} "
        "hours on 256 cores if they scale as these two do. The result is "
        f"{MANY * found['bytes_per_photograph'] / 1e12:.1f} TB of Parquet in {MANY / 256:.0f} files of 256 "
        "photographs. The cost grows with the number of photographs and faces, because nothing is sorted or shuffled. "
        "The program that starts the run holds the list of inputs in memory (100 bytes each: 10 GB). It reads the end "
        "of each existing file when a run begins and ends.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure, and write results/archive.json and results/archive.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=positive, default=1000, help="number of photographs [%(default)s]")
    parser.add_argument("--part-size", type=positive, default=50, help="photographs per part [%(default)s]")
    parser.add_argument("--rounds", type=positive, default=3, help="rounds of all methods [%(default)s]")
    options = parser.parse_args()
    try:
        there = len(pictures())
    except (UsageError, OSError) as error:
        parser.error(str(error))
    if min(options.count, there) <= options.part_size * max(ACTORS):
        parser.error(
            f"{min(options.count, there)} photographs of {there} in parts of {options.part_size} give {max(ACTORS)} "
            "actors at most one part each, and only later parts are measured; give more with --count, or a smaller "
            "--part-size"
        )
    before = os.getloadavg()[0]
    with TemporaryDirectory() as folder:
        found = measure(Path(folder), options.count, options.part_size, options.rounds)
    loads = (before, os.getloadavg()[0])
    command = command_of(parser, options)
    facts = machine()
    (RESULTS / "archive.json").write_text(json.dumps({**found, "machine": facts, "load": loads}, indent=1) + "\n")
    (RESULTS / "archive.md").write_text(report(found, facts, loads, command))
    print((RESULTS / "archive.md").read_text())


if __name__ == "__main__":
    main()
