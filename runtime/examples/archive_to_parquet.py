"""A folder of photographs -> Parquet -> questions to it: who smiles, who looks away, and which rows are errors.

    pip install '.[cpu,ray]'
    python runtime/examples/archive_to_parquet.py models/face.onnx photos/ results.parquet/

The first half is what `facerecon-rt archive` does; the second needs nothing but pandas and pyarrow.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
from facerecon_rt.archive.lock import only_writer
from facerecon_rt.archive.plan import list_inputs, open_plan
from facerecon_rt.archive.recipe import Recipe, Workers
from facerecon_rt.archive.run import archive

WANTED = (
    "confidence",
    "pose.euler_deg.yaw",
    "blendshapes.mouthSmile_L",
    "blendshapes.mouthSmile_R",
)


def faces_of(results: Path) -> pd.DataFrame:
    """Return one row per face. Only the columns in WANTED are read; the shapes, which are nearly all of the bytes, are
    not."""
    columns = ["source", *(f"faces.list.element.{name}" for name in WANTED)]
    parts = [pq.ParquetFile(path).read(columns=columns) for path in sorted(results.glob("part-*.parquet"))]
    rows = pa.concat_tables(parts).to_pandas().explode("faces").dropna(subset=["faces"])
    faces = pd.json_normalize(rows["faces"].tolist())
    faces.insert(0, "source", [Path(source).name for source in rows["source"]])
    return faces.rename(columns=lambda name: name.rpartition(".")[2])


def main(arguments: Sequence[str]) -> None:
    """Reconstruct a folder of photographs and print answers to three questions.

    `arguments`: the model, the photographs, and the folder for the results.
    """
    model, photographs, results = arguments
    recipe = Recipe(models=(str(Path(model).absolute()),))
    with only_writer(Path(results).absolute()):
        plan = open_plan(Path(results).absolute(), list_inputs([photographs]), part_size=256, recipe=recipe)
        counts = archive(plan, recipe, Workers(), quiet=True)
    print(f"{counts.inputs} photographs, {counts.faces} faces, {counts.errors} errors")

    faces = faces_of(plan.folder)
    faces["smile"] = (faces["mouthSmile_L"] + faces["mouthSmile_R"]) / 2
    print(faces.nlargest(3, "smile")[["source", "smile", "yaw"]].to_string(index=False, float_format="%.2f"))
    print(f"turned by more than 30 degrees: {(faces['yaw'].abs() > 30).sum()}")

    errors = pads.dataset(plan.folder).to_table(columns=["source", "error"], filter=~pads.field("error").is_null())
    for row in errors.to_pylist():
        print(f"error: {row['error']}")


if __name__ == "__main__":
    main(sys.argv[1:])
