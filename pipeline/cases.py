"""From the stored instances of a job to what an engine works on, and to where its findings lie."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from domain.engine import Case
from domain.errors import StorageError
from domain.findings import Findings
from domain.image import Image, Raster
from domain.instance import Header, StoredInstance, Tile
from domain.job import Job
from domain.ports import Analysed
from domain.prompt import Prompt
from domain.series import Resample, Stack, StackKind
from domain.volume import Grid, Volume
from volume.assembly import assemble
from volume.frames import frame_numbers, frames_of
from volume.geometry import geometry
from volume.image_format import raster_of
from volume.images import read_image
from volume.onto_source import findings_on_source
from volume.resample import Resampling, prompt_on_regular, resampling_of


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Place:
    """Where the findings on a stack lie, and the files behind it; see ``domain.ports.Result``."""

    grid: Grid | Raster
    source_paths: tuple[Path, ...] = field(repr=False)
    source_frames: tuple[int | None, ...]
    tiles: tuple[Tile, ...] = ()
    resampling: Resampling | None = None
    """How the volume that the engine saw was made of the slices; ``None`` where it saw the slices themselves."""

    def findings_on_source(self, findings: Findings) -> tuple[Findings, Analysed | None]:
        """Return an engine's findings on ``grid``, and as the engine gave them where that was another one."""
        if self.resampling is None:
            return findings, None
        analysed = Analysed(findings=findings, grid=self.resampling.regular)
        return findings_on_source(findings, self.resampling), analysed


def images_of(job: Job, instances: Sequence[StoredInstance]) -> tuple[Header, ...]:
    """Return the header of each image of a job: of an instance, or of the frame of it that belongs to the stack."""
    headers = (instance.header for instance in instances)
    if not job.frame_numbers:
        return tuple(headers)
    split: dict[str, tuple[Header, ...]] = {}
    images = []
    for header, number in zip(headers, job.frame_numbers, strict=True):
        if header.sop_instance_uid not in split:
            split[header.sop_instance_uid] = frames_of(header)
        images.append(split[header.sop_instance_uid][(number or 1) - 1])
    return tuple(images)


def decoded(stack: Stack, paths: Mapping[str, Path], allowed: Collection[Resample]) -> Case:
    """Return a case with the volume or the images of a stack, decoded.

    Parameters
    ----------
    allowed
        What a volume may be resampled for.

    Raises
    ------
    AssemblyError
        The stack is no regular volume, or its pixels cannot be used.
    StorageError
        A file is gone or cannot be read.
    """
    if stack.kind is StackKind.VOLUME:
        return Case(volume=assemble(stack, paths, allowed))
    studies = [header.study_instance_uid for header in stack.headers]
    return Case(images=_images(stack, paths), priors=sum(study != studies[0] for study in studies))


def _images(stack: Stack, paths: Mapping[str, Path]) -> tuple[Image, ...]:
    missing = [header for header in stack.headers if header.sop_instance_uid not in paths]
    if missing:
        raise StorageError("An instance of the stack is not in the store")
    return tuple(read_image(header, paths[header.sop_instance_uid]) for header in stack.headers)


def placed_prompt(prompt: Prompt | None, stack: Stack, allowed: Collection[Resample]) -> Prompt | None:
    """Return what the engine is pointed at, on the volume that it gets; whoever points sees the source's slices."""
    if prompt is None or stack.kind is not StackKind.VOLUME:
        return prompt
    proven = geometry(stack, allowed)
    return prompt_on_regular(prompt, resampling_of(proven)) if proven.resample else prompt


def place_of(stack: Stack, paths: Mapping[str, Path], allowed: Collection[Resample]) -> Place:
    """Return where the findings lie, from the headers alone; see ``decoded``.

    Raises
    ------
    AssemblyError
        The stack is no regular volume.
    """
    if stack.kind is StackKind.VOLUME:
        proven = geometry(stack, allowed)
        tiles = tuple(header.tile for header in proven.headers if header.tile is not None)
        return Place(
            grid=proven.grid,
            source_paths=tuple(paths[header.sop_instance_uid] for header in proven.headers),
            source_frames=() if tiles else frame_numbers(proven.headers),
            tiles=tiles,
            resampling=resampling_of(proven) if proven.resample else None,
        )
    raster = raster_of(stack.headers[0])
    first, *further = (paths[header.sop_instance_uid] for header in stack.headers)
    if stack.kind is StackKind.CINE:
        frames = raster.shape[0]
        return Place(grid=raster, source_paths=(first,) * frames, source_frames=tuple(range(1, frames + 1)))
    return Place(grid=raster, source_paths=(first, *further), source_frames=())


def misplaced(findings: Findings, case: Case) -> str:
    """Return what lies elsewhere than on the case, to end an engine's run with; empty where everything fits."""
    shape = _shape(case.volume, case.images)
    arrays = (*((findings.labels,) if findings.labels is not None else ()), *findings.masks, *findings.probabilities)
    if any(array.shape != shape for array in arrays):
        return "The engine's mask does not lie on the grid of the images."
    places = len(case.images) if len(case.images) > 1 else shape[0]
    if any(not 0 <= detection.image < places for detection in findings.detections):
        return "The engine's box lies on no image of the case."
    return ""


def _shape(volume: Volume | None, images: tuple[Image, ...]) -> tuple[int, int, int]:
    return images[0].raster.shape if volume is None else volume.grid.shape
