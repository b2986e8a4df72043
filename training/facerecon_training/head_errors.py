"""Faces -> how far the rest of the head, as the runtime completes it, is from the truth."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from facerecon_rt.head import Head
from facerecon_rt.pose import similarity_align
from facerecon_rt.types import Floats
from numpy.typing import NDArray

from .rendered.morphable import MorphableFace, MorphableHead, carried
from .rendered.people import random_identity
from .rendered.whole_head import Rest

HELD_OUT_SEED = 31
Rows = dict[str, dict[str, float]]


def region_masks(mean: Floats) -> dict[str, NDArray[np.bool_]]:
    """Return which vertices of the rest of the mean head (E, 3) mm are in which region."""
    x, y, z = np.abs(mean[:, 0]), mean[:, 1], mean[:, 2]
    ears = (x > 64) & (y > -50) & (y < 35) & (z > -125) & (z < -55)
    neck = y < -75
    return {"all": np.ones(len(mean), np.bool_), "ears": ears, "neck": neck, "skull": ~ears & ~neck}


class TrueHeads:
    """Heads of the morphable model on the vertices of the whole head, which the runtime completes from the face."""

    def __init__(self, head: MorphableHead, face: MorphableFace, rest: Rest) -> None:
        self._face = face
        self._mean = carried(head.mean, rest.source_vertices, rest.source_weights)
        self._identity = carried(head.identity, rest.source_vertices, rest.source_weights)

    def of(self, identity: Floats) -> tuple[Floats, Floats]:
        """Return the neutral face (V, 3) and the rest (E, 3) in mm of an identity (100,)."""
        face = self._face.mean + np.tensordot(identity, self._face.identity, 1)
        return face, self._mean + np.tensordot(identity, self._identity, 1)

    def errors(self, whole: Head, people: Iterable[tuple[Floats, Floats]]) -> Rows:
        """Return root mean square distances in mm by region.

        `people`: pairs of an identity (100,) and the face (V, 3) mm from which the head is completed. The true head is
        placed on this face by a similarity of the true face. The mean head is placed likewise, or stays in the head
        frame.
        """
        found: dict[str, list[Floats]] = {"completed": [], "mean head": [], "mean head, aligned": []}
        for identity, face in people:
            true_face, true = self.of(identity)
            truth = _moved(true, true_face, face)
            found["completed"].append(whole.neutral(face)[len(face) :] - truth)
            found["mean head"].append(self._mean - truth)
            found["mean head, aligned"].append(_moved(self._mean, self._face.mean, face) - truth)
        regions = region_masks(self._mean)
        return {
            name: {
                region: float(np.sqrt((np.stack(errors)[:, mask] ** 2).sum(2).mean()))
                for region, mask in regions.items()
            }
            for name, errors in found.items()
        }

    def random_people(self, count: int) -> Iterable[tuple[Floats, Floats]]:
        """Yield random identities with their true faces."""
        random = np.random.default_rng(HELD_OUT_SEED)
        for _ in range(count):
            identity = random_identity(random)
            yield identity, self.of(identity)[0]


def _moved(points: Floats, face: Floats, to: Floats) -> Floats:
    """Return points (K, 3) moved by the similarity that aligns `face` (V, 3) to `to` (V, 3)."""
    aligned = similarity_align(face, to)
    known = np.column_stack([face, np.ones(len(face))])
    linear = np.linalg.lstsq(known.astype(np.float64), aligned, rcond=None)[0]
    return np.asarray(np.column_stack([points, np.ones(len(points))]) @ linear, np.float32)


def predicted_people(weights: Path, prepared: Path, pictures: int) -> Iterable[tuple[Floats, Floats]]:
    """Yield identities of held-out rendered people with the neutral faces that weights predict from pictures."""
    from .checkpoint import load_weights
    from .data import Packed
    from .evaluate import predict_people

    folder = prepared / "people" / "held-out"
    seen = predict_people(load_weights(weights), folder, pictures)
    labels = Packed.read(folder).labels
    identity_of = dict(zip(labels["person"].tolist(), labels["identity"], strict=True))
    for person, face in zip(seen.person.tolist(), seen.output.shape.numpy(), strict=True):
        yield identity_of[person], face


def as_table(rows: Rows) -> str:
    """Return rows of figures as a Markdown table."""
    columns = list(next(iter(rows.values())))
    lines = [f"| mm | {' | '.join(columns)} |", f"|---|{'---:|' * len(columns)}"]
    lines += [f"| {name} | {' | '.join(f'{row[column]:.1f}' for column in columns)} |" for name, row in rows.items()]
    return "\n".join(lines)
