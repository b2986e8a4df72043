"""Archives on Ray against the plain loop: photographs per second, what Ray adds to each, and how actors add up.

    FACERECON_DATA=… python benchmarks/archive.py            # ten minutes; writes results/archive.md and .json

The plain loop is what `facerecon-rt --input FOLDER --output records.jsonl` does: one process, pictures decoded in a
thread ahead, one photograph after the other, and shapes not kept. The archive does eight at a time and keeps shapes;
"parts without Ray" is that in one process. Ways take turns, so that whatever else the machine does hits all of them.
Rates of the archive leave Ray's start out and give it apart: of a long run it is nothing.
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
from facerecon_rt import Pipeline, Reconstructor, open_sink, open_source
from facerecon_rt.archive.operators import ReconstructPart, read_part, write_rows
from facerecon_rt.archive.plan import list_inputs, open_plan
from facerecon_rt.archive.recipe import Recipe, Workers
from facerecon_rt.archive.run import archive, started
from facerecon_rt.data_folder import data_folder
from facerecon_rt.environment import machine
from facerecon_rt.sources.prefetch import prefetched

RESULTS = Path(__file__).with_name("results")
MODEL = Path("models/face.onnx").absolute()
SETS = ("lfpw-test", "afw", "helen-train", "lfpw-train")
ACTORS = (1, 2)
MANY = 10**8


def plain_loop(photographs: Path, out: Path) -> float:
    """Seconds, the model's loading left out."""
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
    """Seconds for what actors and tasks do, one after the other in this process."""
    recipe, workers = Recipe((str(MODEL),)), Workers(provider="cpu")
    plan = open_plan(out, list_inputs([str(photographs)]), part_size, recipe)
    reconstruct = ReconstructPart(recipe, recipe.identity(), workers)
    begun = time.perf_counter()
    for part in range(len(plan.sizes)):
        for inputs in read_part(plan.folder, part, recipe.most_bytes):
            write_rows(reconstruct(inputs), folder=plan.folder)
    return time.perf_counter() - begun


def on_ray(photographs: Path, out: Path, actors: int, part_size: int) -> tuple[float, float]:
    """Seconds until the first part is there, and from then on for the others, scaled to all of them."""
    recipe = Recipe((str(MODEL),))
    plan = open_plan(out, list_inputs([str(photographs)]), part_size, recipe)
    begun = time.time()
    archive(plan, recipe, Workers(least=actors, most=actors, provider="cpu"), quiet=True)
    written = sorted(path.stat().st_mtime for path in out.glob("part-*.parquet"))
    # The first of each actor: by then all of them run.
    later = len(written) - actors
    return written[actors - 1] - begun, (written[-1] - written[actors - 1]) / later * len(written)


def measure(folder: Path, count: int, part_size: int, rounds: int) -> dict[str, Any]:
    """Every way in turn, `rounds` times."""
    photographs = folder / "photographs"
    photographs.mkdir()
    data = data_folder(None) / "faces"
    found = [path for name in SETS for path in sorted((data / name).iterdir()) if path.suffix in (".jpg", ".png")]
    random.Random(0).shuffle(found)  # parts are to be alike
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
    """The table, and the arithmetic of 10^8 photographs."""
    count = found["photographs"]
    rates = {way: statistics.median(count / spent for spent in of_way) for way, of_way in found["seconds"].items()}
    plain = rates["plain loop"]
    lines = [
        "# Archives on Ray",
        "",
        f"`{command}`",
        "",
        f"{machine_.get('processor', '')}, {machine_.get('cores usable', '?')} cores, ray {ray.__version__}, "
        f"models/face.onnx on the CPU; {count} photographs with {found['faces']} faces, parts of {found['part_size']}; "
        f"medians of {len(found['seconds']['plain loop'])} rounds in turn. Load average of the machine before and "
        f"after: {loads[0]:.1f}, {loads[1]:.1f}.",
        "",
        "| | photographs/s | of the plain loop | ms per photograph |",
        "|---|---|---|---|",
        *(f"| {way} | {rate:.1f} | {rate / plain:.2f} | {1000 / rate:.1f} |" for way, rate in rates.items()),
        "",
        f"One actor takes {1000 / rates['1 actor'] - 1000 / plain:+.1f} ms per photograph beside the plain loop and "
        f"{1000 / rates['1 actor'] - 1000 / rates['parts without Ray']:+.1f} ms beside the same work without Ray, "
        f"and two are {rates['2 actors'] / rates['1 actor']:.2f} times one, which decodes in a thread beside "
        f"the network and so takes more than one core by itself. Ray's workers need "
        f"{statistics.median(found['start_s']):.0f} s until the first part is there. A photograph is "
        f"{found['bytes_per_photograph'] / 1000:.1f} kB of Parquet.",
        "",
        "## 10^8 photographs like these",
        "",
        f"At {rates['2 actors'] / 2:.1f} photographs/s per actor of one core: 10^8 / {rates['2 actors'] / 2:.1f} = "
        f"{MANY / (rates['2 actors'] / 2) / 3600:.0f} core hours, "
        f"{MANY / (rates['2 actors'] / 2) / 3600 / 256:.1f} hours on 256 cores, if they add up as these two do; "
        f"{MANY * found['bytes_per_photograph'] / 1e12:.1f} TB of Parquet in {MANY / 256:.0f} files of 256. Cost "
        "grows with the photographs and the faces in them: nothing is sorted or shuffled. Beside it, the program that "
        "starts it holds the list of inputs in memory (100 bytes each: 10 GB), and looks at the end of each file that "
        "is there when a run begins and ends.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure and write results/archive.json and results/archive.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000, help="photographs [%(default)s]")
    parser.add_argument("--part-size", type=int, default=50, help="[%(default)s]")
    parser.add_argument("--rounds", type=int, default=3, help="[%(default)s]")
    options = parser.parse_args()
    before = os.getloadavg()[0]
    with TemporaryDirectory() as folder:
        found = measure(Path(folder), options.count, options.part_size, options.rounds)
    loads = (before, os.getloadavg()[0])
    command = f"python benchmarks/archive.py --count {options.count} --part-size {options.part_size} "
    command += f"--rounds {options.rounds}"
    facts = machine()
    (RESULTS / "archive.json").write_text(json.dumps({**found, "machine": facts, "load": loads}, indent=1) + "\n")
    (RESULTS / "archive.md").write_text(report(found, facts, loads, command))
    print((RESULTS / "archive.md").read_text())


if __name__ == "__main__":
    main()
