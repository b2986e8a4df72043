"""ICT-FaceKit, light, photographs -> the data that training reads: arrays, packed canvases, rendered people, sheets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import facerecon_rt
import numpy as np
from facerecon_rt.annotated import annotated_photographs
from facerecon_rt.contract import BLENDSHAPES
from facerecon_rt.errors import UsageError
from facerecon_rt.faces.detect import Detector, open_detector
from facerecon_rt.pose import euler_from_camera
from facerecon_rt.sinks.outputs import make_folder, whole, write_whole
from facerecon_rt.sinks.shade import render_mesh
from facerecon_rt.sources.files import read_image
from facerecon_rt.template import FaceTemplate, load_template
from facerecon_rt.types import Floats, Image
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from tqdm import tqdm

from .arrays import read_arrays, readable, save_arrays
from .fit import fit_head
from .landmark_sheet import check_landmarks
from .photographs import canvas_from_photograph, pack_photographs, pack_weakly_labelled
from .photometric import fit_skin
from .rendered.backgrounds import background_files
from .rendered.expressions import random_expression
from .rendered.head_pose import neutral_faces, pack_head_poses
from .rendered.morphable import FACE_VERTICES, MorphableFace, MorphableHead, face_from_head, read_head
from .rendered.people import (
    HELD_OUT_VIEWS,
    VIEWS_PER_PERSON,
    PeopleRenderer,
    pack_people,
    random_identity,
    read_panoramas,
)
from .rendered.remesh import build_template, save_template
from .rendered.render import HeadGeometry, camera_for_crop
from .rendered.skin import FaceColours, colours_from_photograph, learn_colours, random_skin, symmetrised
from .weak_labels import WeakLabels, read_weak_labels

TEMPLATE_PATH = Path(facerecon_rt.__file__).with_name("template.npz")
COLOUR_FOLDERS = ("helen-train", "lfpw-train")
"""Folders from which skin colours are taken. If neither exists, all folders of photographs serve."""
EXPRESSIVE = "expressive"
"""Folder under data/pseudo: photographs of expressive faces that have only weak labels."""
TEST_SUFFIX, SETS_SUFFIX = "-test", "-sets"
"""Ends of the names of folders that are never trained on, and of folders with image sets."""


@dataclass(frozen=True, slots=True)
class PrepareConfig:
    """Settings of `facerecon-train prepare`."""

    data: Path
    """Folder with faces/NAME/, backgrounds/ and lighting/, and with assets/ and pseudo/ if they exist.

    For a clean model, only lighting/, head_pose/ with pseudo/head_pose.npz, detector/, and the meshes and textures of
    assets/ are read.
    """
    face_model: Path
    """A packed ict_facekit.npz, or an ICT-FaceKit FaceXModel folder."""
    out: Path
    photographs: tuple[str, ...] = ()
    """Folders under data/faces to train on. If empty, all folders except those whose names end in -test."""
    people: int = 8000
    """Number of rendered people, with four views each."""
    held_out_people: int = 100
    """Number of held-out rendered people, with ten views each."""
    clean: bool = False
    """Whether to read no photographs except Pointing'04, and to generate all skin and backgrounds."""
    rebuild_template: bool = False
    seed: int = 0
    invented_skins: int = 400
    """Number of generated skins for the skin model, where fewer photographed faces than that lend theirs."""


def prepare(config: PrepareConfig) -> None:
    """Write everything under config.out. Existing results are kept.

    Raises UsageError or SourceError, before any long work, if data are missing or config.out has other settings.
    """
    cv2.setNumThreads(1)
    folders = [] if config.clean else photograph_folders(config)
    backgrounds = [] if config.clean else background_files(config.data / "backgrounds")
    panoramas = read_panoramas(config.data / "lighting")
    head = read_head(config.face_model)
    write_settings(config, [folder.name for folder in folders])
    write_face(config, head)
    write_photographs(config, folders)
    geometry = HeadGeometry(head)
    albedo = photographed_albedo(config, geometry, head, folders) if folders else None
    assets = config.data / "assets"
    colours = None if albedo is None else colour_model(geometry, head, albedo, assets)
    write_head_poses(config)
    renderer = PeopleRenderer(geometry, panoramas, backgrounds, assets if assets.is_dir() else None, colours)
    write_people(config, renderer, albedo)


def write_face(config: PrepareConfig, head: MorphableHead) -> None:
    """Write the morphable face on the template, its contact sheet, and with --rebuild-template the template itself."""
    if config.rebuild_template or not TEMPLATE_PATH.is_file():
        save_template(build_template(head), TEMPLATE_PATH)
        load_template.cache_clear()
        (config.out / "skin.npz").unlink(missing_ok=True)  # it lies on the old template
    face = template_face(head)
    check_same_face(config.out / "face.npz", face)
    save_arrays(
        config.out / "face.npz",
        mean=face.mean,
        identity=face.identity,
        expression=face.expression,
        eyes=face.eyes,
        template_sha256=load_template().sha256,
    )
    if config.rebuild_template or not (config.out / "contact_sheet.png").is_file():
        write_png(config.out / "contact_sheet.png", contact_sheet(face, load_template()))


def check_same_face(path: Path, face: MorphableFace) -> None:
    """Raise UsageError if the folder's face.npz holds another face model on the same template: its people would not be
    people of this model."""
    if not path.is_file():
        return
    before = read_arrays(path)
    with readable(path):
        same_template = str(before["template_sha256"]) == load_template().sha256
        same = np.shape(before["mean"]) == face.mean.shape and np.allclose(before["mean"], face.mean, atol=1e-3)
        if same_template and not (same and np.allclose(before["identity"][:1], face.identity[:1], atol=1e-3)):
            raise UsageError(
                f"{path} was prepared from another --face-model; give another --out, or delete {path.parent}"
            )


def write_png(path: Path, picture: Image) -> None:
    """Write a picture (H, W, 3) uint8 BGR completely or not at all. Raises UsageError."""
    write_whole(path, cv2.imencode(".png", picture)[1].tobytes())


def write_photographs(config: PrepareConfig, folders: Sequence[Path]) -> None:
    """Pack the folders of annotated photographs, and the expressive faces that have only weak labels."""
    weak = None if config.clean else weak_labels(config.data)
    for folder in folders:
        target = config.out / "photographs" / folder.name
        if (target / "labels.npz").is_file():
            say_outdated(folder, target)
            if not (target / "sheet.jpg").is_file():
                check_landmarks(target)
        else:
            count = pack_photographs(folder, target, weak)
            people = len(np.unique(read_arrays(target / "labels.npz")["person"]))
            of_people = f" of {people} people" if folder.name.endswith(SETS_SUFFIX) else ""
            print(f"{folder.name}: {count} photographs{of_people}")
            check_landmarks(target)
    expressive = config.data / "pseudo" / EXPRESSIVE
    target = config.out / "photographs" / EXPRESSIVE
    if wants_expressive(config) and not (target / "labels.npz").is_file():
        count = pack_weakly_labelled(expressive, read_weak_labels(expressive.with_suffix(".npz")), target)
        print(f"{EXPRESSIVE}: {count} photographs with weak labels only")


def wants_expressive(config: PrepareConfig) -> bool:
    """Return whether the expressive faces with weak labels only are packed. Raises UsageError if they are named and do
    not exist."""
    folder = config.data / "pseudo" / EXPRESSIVE
    if EXPRESSIVE in config.photographs and not folder.is_dir():
        raise UsageError(f"there is no {folder}; leave {EXPRESSIVE} out of --photographs, or add it")
    return folder.is_dir() and not config.clean and (not config.photographs or EXPRESSIVE in config.photographs)


def say_outdated(folder: Path, target: Path) -> None:
    """Say how to pack a folder again if its number of photographs has changed."""
    packed = len(read_arrays(target / "labels.npz")["person"])
    there = sum(1 for _ in annotated_photographs(folder))
    if packed != there:
        print(f"{folder.name}: has {there} photographs now, but {packed} were packed; delete {target} to pack it again")


def photographed_albedo(
    config: PrepareConfig, geometry: HeadGeometry, head: MorphableHead, folders: list[Path]
) -> Floats:
    """Return the `face_colours` (P, F, 3) of COLOUR_FOLDERS, or of all folders if none of these exists. They are stored
    in face_colours.npy. Raises UsageError if this file is damaged."""
    path = config.out / "face_colours.npy"
    if not path.is_file():
        sources = [folder for folder in folders if folder.name in COLOUR_FOLDERS] or folders
        with whole(path) as partial:
            np.save(partial, face_colours(geometry, head, sources))
    with readable(path):
        found: Floats = np.load(path)
    print(f"took skin colours from {len(found)} photographed faces")
    return found


def write_head_poses(config: PrepareConfig) -> None:
    """Pack Pointing'04's photographs, if they and a detector exist. For a clean model, also pack those with points."""
    if (config.data / "head_pose").is_dir() and not (config.out / "head_pose" / "labels.npz").is_file():
        detector = head_detector(config)
        if detector is not None:
            count = pack_head_poses(config.data / "head_pose", detector, config.out / "head_pose")
            print(f"head_pose: {count} photographs with known head direction")
    points = config.data / "pseudo" / "head_pose.npz"
    target = config.out / "photographs" / "head_pose"
    if config.clean and points.is_file() and not (target / "labels.npz").is_file():
        weak = neutral_faces(read_weak_labels(points))
        count = pack_weakly_labelled(config.data / "head_pose", weak, target)
        print(f"head_pose: {count} photographs with mesh points of another face tracker")


def write_people(config: PrepareConfig, renderer: PeopleRenderer, albedo: Floats | None) -> None:
    """Write the skin's statistics, a sheet of rendered people, and the rendered people of training and evaluation.

    `albedo` (P, F, 3) is that of photographed faces; None for generated skin.
    """
    if not (config.out / "skin.npz").is_file():
        mean, basis = skin_statistics(renderer, albedo, config.seed, config.invented_skins)
        save_arrays(config.out / "skin.npz", mean=mean, basis=basis)
    if not (config.out / "people_sheet.png").is_file():
        write_png(config.out / "people_sheet.png", people_sheet(renderer, config.seed + 99))
    kinds = (
        ("held-out", config.held_out_people, 1, HELD_OUT_VIEWS),
        ("train", config.people, 2, VIEWS_PER_PERSON),
    )
    for name, count, seed, views in kinds:
        if not (config.out / "people" / name / "labels.npz").is_file():
            pack_people(renderer, count, config.seed * 1000 + seed, config.out / "people" / name, views)


def photograph_folders(config: PrepareConfig) -> list[Path]:
    """Return the folders under data/faces to train on.

    Raises UsageError or SourceError if a folder holds nothing annotated.
    """
    faces = config.data / "faces"
    # Those of EXPRESSIVE have no points of annotators, and are packed from another place.
    names = [name for name in config.photographs if name != EXPRESSIVE]
    if not config.photographs:
        names = [path.name for path in sorted(faces.glob("*")) if path.is_dir()]
        names = [name for name in names if not name.endswith(TEST_SUFFIX)]
    if not names and not wants_expressive(config):
        raise UsageError(
            f"{faces} holds no folder of annotated photographs; add one (see training/README.md), or use --clean"
        )
    folders = [faces / name for name in names]
    for folder in folders:
        next(annotated_photographs(folder))
    return folders


def write_settings(config: PrepareConfig, photographs: Sequence[str]) -> None:
    """Write prepare.json, with the names of the folders of annotated photographs.

    Raises UsageError if the folder was prepared with other settings.
    Existing results are kept, so other settings would mix two kinds of data, such as photographs' colours in a clean
    set.
    """
    path = config.out / "prepare.json"
    packed = {"photographs": list(photographs), EXPRESSIVE: wants_expressive(config)}
    settings = json.loads(json.dumps(asdict(config), default=str)) | packed
    if path.is_file():
        with readable(path):
            before = {"clean": False, **json.loads(path.read_text())}
        for key in ("clean", "photographs", EXPRESSIVE, "people", "held_out_people", "seed"):
            then, now = before.get(key, settings[key]), settings[key]
            if then != now and not (key == "photographs" and sorted(then) == sorted(now)):
                raise UsageError(
                    f"{path}: the folder was prepared with {key} = {then}, not {now}; give another --out, or delete "
                    "the folder"
                )
    make_folder(config.out)
    write_whole(path, (json.dumps(settings, indent=1) + "\n").encode())


def is_clean(prepared: Path) -> bool:
    """Return whether this folder was prepared with --clean."""
    path = prepared / "prepare.json"
    with readable(path):
        return path.is_file() and bool(dict(json.loads(path.read_text())).get("clean", False))


def template_face(head: MorphableHead) -> MorphableFace:
    """Return the morphable model on the shipped template's vertices."""
    arrays = template_arrays()
    return face_from_head(head, arrays["source_vertices"], arrays["source_weights"])


def template_arrays() -> dict[str, NDArray[Any]]:
    """Return the arrays of the shipped template, with those that only training reads."""
    with np.load(TEMPLATE_PATH, allow_pickle=False) as arrays:
        return dict(arrays)


def read_face(prepared: Path) -> MorphableFace:
    """Read the face that `prepare` wrote. Raises UsageError if it is missing, or belongs to another template."""
    path = prepared / "face.npz"
    if not path.is_file():
        raise UsageError(f"{prepared} holds no prepared data; run `facerecon-train prepare --out {prepared}` first")
    arrays = read_arrays(path)
    with readable(path):
        if str(arrays["template_sha256"]) != load_template().sha256:
            raise UsageError(f"{path} was prepared for another face template; delete {prepared} and prepare again")
        if "eyes" not in arrays:
            raise UsageError(f"{path} was prepared by an earlier release; delete {prepared} and prepare again")
        return MorphableFace(arrays["mean"], arrays["identity"], arrays["expression"], arrays["eyes"])


def face_colours(geometry: HeadGeometry, head: MorphableHead, folders: list[Path]) -> Floats:
    """Return albedo (P, F, 3) float16 on the face part's vertices of annotated photographs, large near-frontal faces
    only."""
    face = geometry.parts["face"]
    mirror = cKDTree(head.mean[face]).query(head.mean[face] * [-1, 1, 1])[1]
    kept = []
    photographs = [photograph for folder in folders for photograph in annotated_photographs(folder)]
    for photograph in tqdm(photographs, desc="taking skin colours", unit="photo", leave=False):
        image = read_image(photograph.path)
        canvas, landmarks = canvas_from_photograph(image, photograph.landmarks, reflect=True)
        if np.nanmax(photograph.landmarks[:, 0]) - np.nanmin(photograph.landmarks[:, 0]) < 90:
            continue
        identity, expression, camera = fit_head(geometry, landmarks)
        _, yaw, _ = euler_from_camera(camera)
        mouth_open = np.linalg.norm(landmarks[62] - landmarks[66]) > 0.2 * np.linalg.norm(landmarks[48] - landmarks[54])
        if abs(yaw) > 25 or mouth_open:
            continue
        vertices = geometry.expressed(geometry.neutral(identity), expression)
        albedo, seen = symmetrised(*colours_from_photograph(geometry, vertices, canvas, camera), mirror)
        narrow = np.arange(len(albedo)) < FACE_VERTICES
        if seen[narrow].mean() > 0.7:
            tone = np.median(albedo[narrow], axis=0)
            kept.append((albedo * seen[:, None] + tone * (1 - seen[:, None])).astype(np.float16))
    return np.stack(kept) if kept else np.zeros((0, len(face), 3), np.float16)


def colour_model(geometry: HeadGeometry, head: MorphableHead, colours: Floats, assets: Path) -> FaceColours | None:
    """Return the colour model of people from albedo (P, F, 3) of photographed faces, and whole skins if they exist.

    The result is None for fewer than eight faces. Raises UsageError for a damaged file of whole skins.
    """
    if len(colours) < 8:
        return None
    face = geometry.parts["face"]
    mirror = cKDTree(head.mean[face]).query(head.mean[face] * [-1, 1, 1])[1]
    skins = None
    path = assets / "skins_albedo.npz"
    if path.is_file():
        remedy = "download the data again, or remove the file"
        arrays = read_arrays(path, remedy)
        with readable(path, remedy):
            rgb = np.concatenate([arrays["albedo"], arrays["albedo_head"]], 1) / np.float32(255)
            skins = np.ascontiguousarray(rgb[:, :, ::-1] ** np.float32(2.2), np.float32)
        print(f"took whole skins from {path}, which are for research only")
    return learn_colours(colours, mirror, skins)


def weak_labels(data: Path) -> WeakLabels | None:
    """Return the weak labels of the annotated photographs, or None if there are none."""
    path = data / "pseudo" / "photographs.npz"
    return read_weak_labels(path) if path.is_file() else None


def head_detector(config: PrepareConfig) -> Detector | None:
    """Return the detector that finds Pointing'04's heads, or None with a message."""
    for path in (config.data / "detector" / "face_detection_yunet_2023mar.onnx", Path("models/face_detector.onnx")):
        if path.is_file():
            return open_detector(path)
    print("there is no face detector, so head_pose is left out of the training data")
    return None


def skin_statistics(
    renderer: PeopleRenderer, colours: Floats | None, seed: int, invented: int
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Return mean and principal components of skin on the template, of photographed faces or of generated skin."""
    if colours is None or len(colours) < invented:
        random = np.random.default_rng((seed, 77))
        face = renderer.head.parts["face"]
        colours = np.stack([random_skin(renderer.head, renderer.where, random)[face] for _ in range(invented)])
    with np.load(TEMPLATE_PATH, allow_pickle=False) as template:
        return fit_skin(colours, template["source_vertices"], template["source_weights"])


def draw_clay(face_vertices: Floats, size: int, *, pitch: float = 0.0, yaw: float = 0.0, roll: float = 0.0) -> Image:
    """Render a mesh (V, 3) mm in clay on white, at the angles of pose.euler_from_camera: (size, size, 3) uint8."""
    camera = camera_for_crop(pitch, yaw, roll, size, 0.95 * size)
    points = face_vertices @ camera[:, :3].T + camera[:, 3]
    picture, coverage = render_mesh(points, load_template().triangles, (size, size))
    alpha = coverage[..., None] / np.float32(255)
    return np.asarray(alpha * picture + (1 - alpha) * 255, np.uint8)


def contact_sheet(face: MorphableFace, template: FaceTemplate) -> Image:
    """Draw the mean face with landmarks, eight identity modes at +-2 standard deviations, and all blendshapes at 1."""
    size = 150

    def cell(vertices: Floats, label: str, yaw: float = 0.0) -> Image:
        image = draw_clay(vertices, size, yaw=yaw)
        cv2.putText(image, label, (4, size - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.35, (160, 60, 20), 1, cv2.LINE_AA)
        return image

    def marked(yaw: float) -> Image:
        image = cell(face.mean, "68 landmarks", yaw)
        camera = camera_for_crop(0, yaw, 0, size, 0.95 * size)
        points = template.landmark_positions @ camera[:, :3].T + camera[:, 3]
        for x, y, _ in points:
            cv2.circle(image, (round(float(x)), round(float(y))), 1, (40, 40, 230), -1, cv2.LINE_AA)
        return image

    cells = [cell(face.mean, "mean"), marked(0), marked(-45), cell(face.mean, "mean", 45), cell(face.mean, "mean", 90)]
    for mode in range(8):
        for sign in (-2, 2):
            cells.append(cell(face.mean + sign * face.identity[mode], f"identity {mode} {sign:+}"))
    cells += [cell(face.mean + face.expression[i], name) for i, name in enumerate(BLENDSHAPES)]
    random = np.random.default_rng(0)
    while len(cells) % 10:
        identity, expression = random_identity(random), random_expression(random).weights
        vertices = face.mean + np.tensordot(identity, face.identity, 1) + np.tensordot(expression, face.expression, 1)
        cells.append(cell(vertices.astype(np.float32), "random", 30))
    return np.vstack([np.hstack(cells[i : i + 10]) for i in range(0, len(cells), 10)])


def people_sheet(renderer: PeopleRenderer, seed: int, people: int = 16) -> Image:
    """Draw an even number of rendered people, two a row, with four views each."""
    rows = [
        np.hstack([view.image for view in renderer.person(np.random.default_rng((seed, i)))]) for i in range(people)
    ]
    return np.vstack([np.hstack(rows[i : i + 2]) for i in range(0, people, 2)])
