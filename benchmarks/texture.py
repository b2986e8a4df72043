"""Colour maps of people -> texture.md and a sheet of twelve: picture, mesh drawn over it, and head turned.

    python benchmarks/texture.py --data DATA                        # minutes; writes results/texture.md and texture.jpg
    python benchmarks/texture.py --data DATA --sheet photos.jpg     # the same sheet of photographs, which is not kept

The sheet that is kept shows rendered people with generated skin, since the photographs of DATA may not be copied.
Figures are from photographs. The difference of a pixel is the mean over its three channels, and the median is over the
pixels where the photograph shows the face. Photographs of a set and frames of a track have other light than their
common map. Their second figure is of the map in the picture's own light, which is fitted: 30 numbers
(`facerecon_rt/sinks/light.py`). The map of a single photograph has its light.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from commands import command_of
from facerecon_rt import Face, Frame, Pipeline, Reconstructor, load_template, open_source, read_image
from facerecon_rt.align import CROP_SIDE_MM, Square, align, square_from_camera
from facerecon_rt.cli import PICTURES_OF_A_SET
from facerecon_rt.data_folder import data_folder, default_data
from facerecon_rt.errors import UsageError
from facerecon_rt.faces.reconstruct import largest
from facerecon_rt.pose import rotation_from_euler
from facerecon_rt.providers.onnx_file import named_by_hash
from facerecon_rt.sinks.draw import vertices_in_frame
from facerecon_rt.sinks.eyes import eyes_of
from facerecon_rt.sinks.light import fitted_light
from facerecon_rt.sinks.looks import Look
from facerecon_rt.sinks.shade import render_mesh, vertex_normals
from facerecon_rt.sinks.texture import colour_map, layout_of, sampled, textured, view_of
from facerecon_rt.types import Floats, Image
from facerecon_training.rendered.head_pose import pointing_photographs
from facerecon_training.rendered.morphable import read_head
from facerecon_training.rendered.people import PeopleRenderer, read_panoramas
from facerecon_training.rendered.render import HeadGeometry

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
CLIP = ROOT / "tests" / "data" / "talking_head.mp4"
TILE = 190
TURN_DEG = 40.0
PAPER = 250
TEMPLATE = load_template()


def difference(face: Face, photograph: Image, colours: Image) -> tuple[float, float, float]:
    """Return the median differences, 0 to 255, of a photograph and the face drawn with a colour map: as it is, and in
    the photograph's fitted light. The third number is the seen share of the drawn face."""
    size = photograph.shape[1::-1]
    layout = layout_of(TEMPLATE, len(colours))
    lit, weights = in_light_of(face, photograph, colours)
    seen = np.repeat(layout.grid((weights[:, None] > 0) * np.float32(255)), 3, 2).astype(np.uint8)
    shown, inside = textured(vertices_in_frame(face), TEMPLATE, seen, size)
    where = inside & (shown[..., 0] > 127)
    errors = []
    for each in (colours, lit):
        drawn, _ = textured(vertices_in_frame(face), TEMPLATE, each, size)
        errors.append(float(np.median(np.abs(drawn.astype(np.float32) - photograph).mean(2)[where])))
    return errors[0], errors[1], float(where.sum() / inside.sum())


def in_light_of(face: Face, photograph: Image, colours: Image) -> tuple[Image, Floats]:
    """Return a colour map (S, S, 3) in the fitted light of a photograph, and how well that shows its places (P,)."""
    layout = layout_of(TEMPLATE, len(colours))
    found, weights = sampled(view_of(face, Frame(photograph, "")), TEMPLATE, layout)
    normals = layout.raster.between(vertex_normals(face.vertices, TEMPLATE.triangles))
    own = colours[layout.raster.rows, layout.raster.columns].astype(np.float32)
    return layout.spread(fitted_light(own, found, normals, weights).put_on(own, normals)), weights


def own_map(face: Face, photograph: Image, size: int) -> Image:
    """Return the colour map of a face of one photograph."""
    return colour_map([view_of(face, Frame(photograph, ""))], TEMPLATE, size)


def row(face: Face, photograph: Image, colours: Image) -> Image:
    """Draw the photograph, the face drawn over it with its colour map, and the head turned to both sides."""
    drawn, inside = textured(vertices_in_frame(face), TEMPLATE, colours, photograph.shape[1::-1])
    over = np.where(inside[..., None], drawn, photograph)
    square = square_from_camera(face.frame_from_head)
    square = Square(square.x, square.y, square.side * 1.1)
    cells = [align(picture, square, TILE).image for picture in (photograph, over)]
    return np.hstack([*cells, *(turned(face.shape, colours, yaw) for yaw in (-TURN_DEG, TURN_DEG))])


def turned(shape: Floats, colours: Image, yaw: float) -> Image:
    """Draw a neutral face with eyes that look ahead, turned by `yaw` degrees."""
    camera = rotation_from_euler(0, yaw, 0).T.astype(np.float32) * np.float32(2 * TILE / (CROP_SIDE_MM * 1.1))
    points, eyes = shape @ camera, eyes_of(shape, None, TEMPLATE)
    move = np.float32(TILE) - (points.min(0) + points.max(0)) / 2
    size = (2 * TILE, 2 * TILE)
    picture, inside = textured(points + move, TEMPLATE, colours, size)
    drawn, there = render_mesh(eyes.vertices @ camera + move, eyes.triangles, size, eyes.colours)
    paper = np.full((*size, 3), PAPER, np.uint8)
    behind = np.where(there[..., None] > 127, drawn, paper)
    # The eyes are seen through their holes alone, which the neutral face closes around them.
    outline, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = cv2.drawContours(np.zeros(size, np.uint8), outline, -1, 1, cv2.FILLED)
    whole = np.where(inside[..., None], picture, np.where(filled[..., None] > 0, behind, paper))
    return np.asarray(cv2.resize(whole, (TILE, TILE), interpolation=cv2.INTER_AREA), np.uint8)


def rendered_people(data: Path, reconstructor: Reconstructor) -> Iterator[tuple[Face, Image]]:
    """Yield rendered people with generated skin who roughly face the camera, each with the picture."""
    head = HeadGeometry(read_head(data / "face_model" / "ict_facekit.npz"))
    renderer = PeopleRenderer(head, read_panoramas(data / "lighting"), [], data / "assets")
    random = np.random.default_rng(7)
    while True:
        for view in renderer.person(random, 2):
            face = largest(reconstructor.faces(view.image))
            if face is not None and not {"turned", "cut off", "covered"} & set(face.doubts):
                yield face, view.image
                break


def photographs(folder: Path, reconstructor: Reconstructor, every: int) -> Iterator[tuple[Face, Image]]:
    """Yield every n-th photograph of a folder with its largest face."""
    for path in sorted(folder.glob("*.jpg"))[::every]:
        photograph = read_image(path)
        face = largest(reconstructor.faces(photograph))
        if face is not None:
            yield face, photograph


def of_years(folder: Path) -> list[list[Path]]:
    """Return the photographs of five people, who were taken over years in all kinds of light."""
    people = sorted(path for path in folder.iterdir() if path.is_dir())[:5]
    return [sorted(person.glob("*.jpg")) for person in people]


def of_sessions(folder: Path) -> list[list[Path]]:
    """Return the photographs of five people of Pointing'04 who sat in one room and turned their heads by up to 60
    degrees."""
    near = [
        one
        for one in pointing_photographs(folder)
        if abs(one.pan) <= 60 and (one.tilt == 0 or (one.pan == 0 and abs(one.tilt) == 15))
    ]
    return [[one.path for one in near if one.person == f"{person:02}"] for person in range(1, 6)]


def of_sets(sets: list[list[Path]], reconstructor: Reconstructor, size: int) -> list[tuple[float, float, float]]:
    """Return the differences between photographs and the common map of their person."""
    return [difference(*each) for paths in sets for each in set_of(paths, reconstructor, size)]


def set_of(paths: list[Path], reconstructor: Reconstructor, size: int) -> list[tuple[Face, Image, Image]]:
    """Return the faces and photographs of one person, each with the colour map of all of them."""
    look, faces = Look(size, each=PICTURES_OF_A_SET), []
    for path in paths:
        photograph = read_image(path)
        face = largest(reconstructor.faces(photograph))
        if face is not None:
            look.add(face, Frame(photograph, path.name))
            faces.append((face, photograph))
    colours = look.texture(TEMPLATE)
    assert colours is not None
    return [(face, photograph, colours) for face, photograph in faces]


def of_clip(reconstructor: Reconstructor, size: int) -> list[tuple[float, float, float]]:
    """Return the differences of every tenth frame of the sample clip to the map of the whole track."""
    look, kept = Look(size), []
    with open_source(CLIP) as source:
        for scene in Pipeline(reconstructor).run(source):
            look.add(scene.faces[0], scene.frame)
            if scene.frame.index % 10 == 0:
                kept.append((scene.faces[0], scene.frame.image))
    colours = look.texture(TEMPLATE)
    assert colours is not None
    return [difference(face, image, colours) for face, image in kept]


def sheet(people: Iterator[tuple[Face, Image]], size: int) -> Image:
    """Draw twelve people in two columns."""
    rows = [row(face, image, own_map(face, image, size)) for face, image in islice(people, 12)]
    gap = np.full((6 * TILE, TILE // 16, 3), PAPER, np.uint8)
    return np.hstack([np.vstack(rows[:6]), gap, np.vstack(rows[6:])])


def main() -> None:
    """Write the sheet, and the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=default_data(), help="folder of training/README.md [FACERECON_DATA]"
    )
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "face.onnx")
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="draw photographs of DATA to this file, and end")
    parser.add_argument("--every", type=int, default=8, metavar="N", help="measure every N-th photograph [%(default)s]")
    options = parser.parse_args()
    try:
        data = data_folder(options.data)
    except UsageError as error:
        parser.error(str(error))
    test = data / "faces" / "lfpw-test"
    with Reconstructor(options.model, provider="cpu") as reconstructor:
        if options.sheet is not None:
            cv2.imwrite(str(options.sheet), sheet(photographs(test, reconstructor, 18), 1024))
            return
        picture = sheet(rendered_people(data, reconstructor), 1024)
        cv2.imwrite(str(RESULTS / "texture.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 82])
        lines = [
            "# Colour maps of people",
            "",
            "Median difference, 0 to 255, of a picture and the face drawn over it with its colour map, where the",
            f"picture shows the face. Command: `{command_of(parser, options)}`.",
            "",
            f"Model {named_by_hash(options.model)}.",
            "",
            "| colours from | pictures | map | median | worst picture | median, light of the picture fitted | "
            "worst picture | seen share of the drawn face |",
            "|---|---|---|---|---|---|---|---|",
        ]
        rows = []
        for size in (512, 1024):
            measured = [
                difference(face, image, own_map(face, image, size))
                for face, image in photographs(test, reconstructor, options.every)
            ]
            rows.append(("the photograph (lfpw-test)", size, measured))
        rows.append(("the track (sample clip)", 512, of_clip(reconstructor, 512)))
        for name, sets in (
            ("photographs of one session (Pointing'04)", of_sessions(data / "head_pose")),
            ("ten photographs of years, in other light (identities)", of_years(data / "identities")),
        ):
            rows.append((name, 512, of_sets(sets, reconstructor, 512)))
    for name, size, measured in rows:
        plain, lit, shares = np.array(measured).T
        fitted = f"{np.median(lit):.1f} | {lit.max():.1f}" if "photograph (" not in name else " | "
        lines.append(
            f"| {name} | {len(plain)} | {size} | {np.median(plain):.1f} | {plain.max():.1f} | {fitted} | "
            f"{100 * np.median(shares):.0f} % |"
        )
    text = "\n".join(lines) + "\n"
    (RESULTS / "texture.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
