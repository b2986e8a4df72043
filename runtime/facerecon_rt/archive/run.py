"""A plan -> Parquet files, with Ray Data: tasks that read, actors that reconstruct, tasks that write, each one part.

Without an address, Ray starts on this machine and ends with the run. Its usage reports and dashboard are off. When a
process or node dies, Ray computes its part again elsewhere.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import ray
import ray.data
from ray.exceptions import RayError, RayTaskError

from ..errors import FaceReconError, ModelRefused, ProviderMissing, SourceError, UsageError
from .operators import Parts, ReconstructPart, write_rows
from .plan import Plan
from .recipe import MOST_ACTORS, Recipe, Workers

log = logging.getLogger("facerecon_rt")
TASK_CPUS = 0.05
"""Processors of a task that reads or writes. It waits for disks and networks, and there are no more such tasks than
actors."""
ACTOR_SHARE = 0.9
"""Share of an actor's processors that Ray counts. The rest is for those tasks, which could never start otherwise."""

LOST_WHILE_STARTING = 3
"""Number of actors in a row that may die at their start, as when nodes go. Ray Data's default gives up at the first."""


@dataclass(slots=True)
class Counts:
    """Counts of an archive or a part."""

    inputs: int = 0
    errors: int = 0
    faces: int = 0
    persons: int = 0
    stages_ms: Counter[str] = field(default_factory=Counter)
    """Milliseconds per stage, summed over all inputs."""

    def add(self, part: dict[str, Any]) -> None:
        """Add the counts of a part, from `counts_of`."""
        self.inputs += part["inputs"]
        self.errors += part["errors"]
        self.faces += part["faces"]
        self.persons += part["persons"]
        self.stages_ms.update(part["stages_ms"])


def archive(plan: Plan, recipe: Recipe, workers: Workers, *, address: str | None = None, quiet: bool = False) -> Counts:
    """Compute the missing parts, and write the counts of all parts into the manifest. Returns the counts.

    `address`: a Ray cluster whose nodes see the models, the inputs and the archive's folder under these names; None
    starts Ray here. Raises FaceReconError; written files stay.
    """
    done = plan.done()
    remaining = [part for part in range(len(plan.sizes)) if part not in done]
    if done:
        log.info("%d of %d parts exist already", len(done), len(plan.sizes))
    if remaining:
        with started(address, quiet=quiet):
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            pool = pool_size(workers, nodes, len(remaining), may_grow=address is not None)
            try:
                for row in _dataset(plan, remaining, recipe, workers, pool, quiet=quiet).iter_rows():
                    if row["failed"]:
                        raise _error(row["failed"], row["exit_code"])
            except RayTaskError:
                raise  # an unexpected error of this program, which needs its traceback
            except RayError as error:
                raise FaceReconError(
                    f"Ray gave up: {_last_line(error)}; written parts stay, run the command again"
                ) from error
        done = plan.done()
    counts = Counts()
    for of_part in done.values():
        counts.add(of_part)
    if counts.inputs != int(plan.sizes.sum()):
        raise FaceReconError(
            f"{plan.folder}: {len(plan.sizes) - len(done)} of {len(plan.sizes)} parts are missing; check that all "
            "nodes see this folder, and run the command again"
        )
    plan.finish(
        {
            **{name: getattr(counts, name) for name in ("inputs", "errors", "faces", "persons")},
            "stages_ms": {stage: round(spent) for stage, spent in counts.stages_ms.items()},
        }
    )
    return counts


def pool_size(workers: Workers, nodes: Sequence[Mapping[str, float]], parts: int, *, may_grow: bool) -> tuple[int, int]:
    """Return the minimum and maximum number of actors for some parts, on nodes with these resources.

    `may_grow`: more nodes may join, as in a cluster that starts them on demand. Otherwise the pool is as large as there
    is room: actors that wait for room leave none for tasks. Raises UsageError where no actor will ever fit.
    """
    fit = sum(min(_share(node, "CPU", workers.cpus), _share(node, "GPU", workers.gpus)) for node in nodes)
    if not fit:
        largest = max(((node.get("CPU", 0), node.get("GPU", 0)) for node in nodes), default=(0, 0))
        said = f"an actor takes {workers.cpus:g} processors and {workers.gpus:g} GPUs, and "
        has = f"{largest[0]:g} and {largest[1]:g}"
        if not may_grow:
            raise UsageError(f"{said}this machine has {has}; lower --actor-cpus or --threads, or --actor-gpus")
        log.warning("%sthe largest node has %s; waiting for a larger node to join the cluster", said, has)
    most = workers.most or max(1, min(fit, parts))
    if most > fit and not may_grow:
        log.warning("there is room for %d of %d actors", fit, most)
        most = fit
    return min(workers.least, most), most


def _share(node: Mapping[str, float], kind: str, of_actor: float) -> int:
    """Return how many actors a node has room for by one kind of its resources."""
    return int(node.get(kind, 0) / of_actor + 1e-6) if of_actor else MOST_ACTORS


@contextmanager
def started(address: str | None, *, quiet: bool) -> Iterator[None]:
    """Start or join Ray, and leave it again after the block. A Ray that the caller has joined stays as it is."""
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no usage reports unless the user allows them
    level = logging.ERROR if quiet else logging.WARNING
    try:
        with sigterm_kept(), _InTime():
            if address is None:
                # "local" is needed, since Ray would otherwise join the cluster that was last started here.
                ray.init("local", include_dashboard=False, logging_level=level, log_to_driver=not quiet)
            else:
                ray.init(address, logging_level=level, log_to_driver=not quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UsageError(f"Ray does not start: {_last_line(error)}; check --ray-address") from error
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def sigterm_kept() -> Iterator[None]:
    """Restore the handler of SIGTERM after the block. Ray's would end the program at once, and forks would inherit it.

    Only the main thread may set handlers. In other threads, Ray sets none.
    """
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(signal.SIGTERM, before)


def _dataset(
    plan: Plan, remaining: Sequence[int], recipe: Recipe, workers: Workers, pool: tuple[int, int], *, quiet: bool
) -> ray.data.Dataset:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = not quiet
    context.print_on_execution_start = not quiet
    if quiet:
        logging.getLogger("ray.data").setLevel(logging.ERROR)
    context.max_consecutive_actor_init_deaths = LOST_WHILE_STARTING
    least, most = pool
    tasks = ray.data.TaskPoolStrategy(min(max(2, most), len(remaining)))
    one_part: dict[str, Any] = {"batch_size": 1, "batch_format": "pyarrow"}
    return (
        ray.data.read_datasource(
            Parts(plan, remaining, recipe.most_bytes),
            compute=tasks,
            num_cpus=TASK_CPUS,
            override_num_blocks=len(remaining),
        )
        .map_batches(
            ReconstructPart,
            fn_constructor_kwargs={"recipe": recipe, "identity": recipe.identity(), "workers": workers},
            compute=ray.data.ActorPoolStrategy(min_size=least, max_size=most, initial_size=most),
            num_cpus=workers.cpus * ACTOR_SHARE,
            num_gpus=workers.gpus or None,
            # OpenCV reads this variable when it is loaded.
            runtime_env={"env_vars": {"OPENCV_IO_MAX_IMAGE_PIXELS": str(recipe.most_pixels)}},
            **one_part,
        )
        .map_batches(write_rows, fn_kwargs={"folder": plan.folder}, compute=tasks, num_cpus=TASK_CPUS, **one_part)
    )


def _error(text: str, exit_code: int) -> FaceReconError:
    """Return the error of the kind that has this exit code."""
    kinds = (UsageError, ModelRefused, ProviderMissing, SourceError)
    return next((kind for kind in kinds if kind.exit_code == exit_code), FaceReconError)(text)


class _InTime:
    """Turns the bare Exception that Ray raises where its own processes start too slowly into an error of ours."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is Exception and error is not None:
            raise FaceReconError(
                f"Ray does not start: {_last_line(error)} Run the command again when the machine is less busy"
            ) from error


def _last_line(error: BaseException) -> str:
    """Return the last line of an error of Ray, which follows the tracebacks of all processes on the way."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
