"""The engine ``medsam2``: an object that somebody points at on one slice or frame, followed through all of them."""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from domain.engine import Case, EngineManifest
from domain.errors import EngineFailed, NotApplicable
from domain.findings import Findings, SegmentDescription
from domain.image import Image
from domain.prompt import ObjectPrompt, Prompt
from domain.volume import Volume
from inference.device import Placement, computing, fallback_of, fitted, placement
from inference.medsam2.areas import area_measurements, area_statements, traced
from inference.medsam2.checkpoint import read_weights
from inference.medsam2.frames import the_image, windowed_frames
from inference.medsam2.measure import cut_off, measurements, pointed_at, shared_with_earlier
from inference.medsam2.network import Features, Network, network_of, placed
from inference.medsam2.options import Options, options_of, window_of
from inference.medsam2.prompts import slice_prompts
from inference.medsam2.tracker import SlicePrompt, at_size, shared_slices, track
from inference.medsam2.windowing import SOFT_TISSUE_HU, Windowed

MOST_OBJECTS = 255

Masks = npt.NDArray[np.bool_]
Segments = tuple[SegmentDescription, ...]


class MedSam2:
    """One network, used by one case at a time.

    Parameters
    ----------
    manifest
        Its one segment describes an object about which the prompt says nothing more.
    settings
        ``weights``, ``device``, ``precision``, ``window``, ``threads`` of ``[engines.medsam2]``.
    """

    def __init__(self, manifest: EngineManifest, settings: Mapping[str, object]) -> None:
        self.manifest = manifest
        self._settings = settings
        self._window = window_of(settings.get("window"))
        self._network: Network = None
        self._place: Placement | None = None

    def load(self) -> None:
        """Read the weights.

        Raises
        ------
        EngineFailed
            The file is not a MedSAM2 checkpoint, or a setting has no meaning.
        """
        place = placement(self._settings)
        with computing(place):
            network = self._read(place)
        self.use(network, place)

    def _read(self, place: Placement) -> Network:
        network = network_of(read_weights(Path(str(self._settings["weights"]))))
        return placed(network, place.device, place.dtype)

    def use(self, network: Network, place: Placement) -> None:
        """Use a network that is loaded and placed already."""
        self._place = place
        self._network = network

    def run(self, case: Case) -> Findings:
        """Return one segment for each object of the prompt, on the case's grid or raster."""
        if case.prompt is None:
            raise NotApplicable("The engine segments what a prompt points at, and nothing was pointed at.")
        if len(case.prompt.objects) > MOST_OBJECTS:
            raise EngineFailed(f"More than {MOST_OBJECTS} objects are asked for.")
        options = options_of(case.options)
        segments = segments_of(case.prompt, self.manifest.segments[0])
        if case.volume is None:
            return self._in_frames(the_image(case.images), case.prompt, options, segments, case)
        return self._in_volume(case.volume, case.prompt, options, segments, case)

    def _in_volume(self, volume: Volume, drawn: Prompt, options: Options, segments: Segments, case: Case) -> Findings:
        prompt = drawn.on(volume.grid)
        window = Windowed(volume.voxels, options.window or self._window or _default_window(volume))
        masks = self._masks(window, volume.grid.shape, prompt, options, case.progress)
        if options.largest_component is not False:
            for mask in masks:
                mask &= largest_component(mask)
        labels, shared = joined(masks)
        return Findings(
            labels=labels,
            segments=segments,
            measurements=measurements(volume, labels, segments, case.context),
            evaluations=(
                *cut_off(labels, segments),
                *shared_with_earlier(shared, segments, "voxels"),
                *pointed_at(prompt, segments),
            ),
        )

    def _in_frames(self, image: Image, drawn: Prompt, options: Options, segments: Segments, case: Case) -> Findings:
        """Follow the objects through the frames of a cine; an image is one frame.

        The engine's own window is not looked at: it is set for volumes, mostly in HU.
        """
        shape = image.raster.shape
        prompt = drawn.on(image.raster)
        masks = self._masks(windowed_frames(image, options.window), shape, prompt, options, case.progress)
        if options.largest_component:
            for mask in masks:
                for frame in mask:
                    frame &= largest_component(frame)
        labels, shared = joined(masks)
        found = traced(image, labels, segments)
        return Findings(
            labels=labels,
            segments=segments,
            measurements=area_measurements(found),
            evaluations=(
                *area_statements(found, image, len(options.slices(shape[0]))),
                *shared_with_earlier(shared, segments, "pixels"),
                *pointed_at(prompt, segments),
            ),
        )

    def _masks(
        self,
        window: Windowed,
        shape: tuple[int, int, int],
        prompt: Prompt,
        options: Options,
        told: Callable[[float], None] | None,
    ) -> Masks:
        """Return the mask of each object; shape (objects, slices, rows, columns)."""
        if self._place is None:
            raise RuntimeError("load() was not called")
        slices, rows, columns = shape
        chosen = options.slices(slices)
        start, stop = chosen.start, chosen.stop
        objects = [_within(drawn, start, stop) for drawn in slice_prompts(prompt, rows, columns)]
        progress = told or (lambda share: None)
        masks = np.zeros((len(objects), slices, rows, columns), bool)

        def follow(place: Placement, batch: int) -> None:
            """Follow so many objects at a time; what an attempt before has drawn is drawn over."""
            masks[:] = False
            network = self._network if place is self._place else self._read(place)

            def image(index: int) -> torch.Tensor:
                picture = window.image(start + index, network.image_size)
                return torch.from_numpy(picture).to(place.device, place.dtype)

            for first in range(0, len(objects), batch):
                some = objects[first : first + batch]
                steps = track(
                    network, Features(network, image, shared_slices(some)), stop - start, some,
                    stop_after_empty=options.stop_after_empty, fill=options.fill_holes,
                )  # fmt: skip
                for done, found in enumerate(steps, start=1):
                    mask = at_size(found.logits, (rows, columns)) > 0
                    masks[first + found.object, start + found.slice] = mask.cpu().numpy()
                    progress((first * (stop - start) + done) / (len(objects) * (stop - start)))

        fitted(follow, self._place, batch=len(objects), fallback=fallback_of(self._settings, self._place))
        return masks


def _within(drawn: Mapping[int, SlicePrompt], start: int, stop: int) -> dict[int, SlicePrompt]:
    if any(not start <= k < stop for k in drawn):
        raise EngineFailed("The prompt lies outside the slices or frames that first_slice and last_slice leave.")
    return {k - start: prompt for k, prompt in drawn.items()}


def _default_window(volume: Volume) -> tuple[float, float] | None:
    return SOFT_TISSUE_HU if volume.unit == "HU" else None


def largest_component(mask: Masks) -> Masks:
    """Return the largest part of ``mask`` whose voxels touch by a face, an edge or a corner; of equals the first.

    That is 26 neighbours, or 8 in a frame.
    """
    numbers, count = ndimage.label(mask, structure=np.ones((3,) * mask.ndim, bool))  # type: ignore[attr-defined]
    if count < 2:
        return mask
    sizes = np.bincount(numbers.ravel())
    sizes[0] = 0
    largest: Masks = numbers == sizes.argmax()
    return largest


def joined(masks: Masks) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return one label map, and how many voxels of each mask an earlier one has already."""
    labels = np.zeros(masks.shape[1:], np.uint8)
    shared = np.zeros(len(masks), np.int64)
    for number, mask in enumerate(masks, start=1):
        shared[number - 1] = np.count_nonzero(mask & (labels != 0))
        labels[mask & (labels == 0)] = number
    return labels, shared


def segments_of(prompt: Prompt, default: SegmentDescription) -> tuple[SegmentDescription, ...]:
    """Return the description of each object: what the prompt says, else the manifest's.

    The key, from which the tracking UID is made, changes with the prompt: another object drawn on the same series
    must not look like the same finding measured again.
    """
    drawn = prompt.digest[:8]
    return tuple(
        _segment(item, number, f"{default.key}_{number}_{drawn}", default)
        for number, item in enumerate(prompt.objects, start=1)
    )


def _segment(item: ObjectPrompt, number: int, key: str, default: SegmentDescription) -> SegmentDescription:
    return SegmentDescription(
        key=key,
        label=item.label or f"{default.label} {number}",
        category=item.category or default.category,
        type=item.type or default.type,
        colour_rgb=default.colour_rgb if number == 1 else _colour(number),
    )


def _colour(number: int) -> tuple[int, int, int]:
    """Return a colour that differs from its neighbours': the golden angle around the circle of hues."""
    red, green, blue = colorsys.hsv_to_rgb(number * 0.618 % 1, 0.7, 0.9)
    return round(255 * red), round(255 * green), round(255 * blue)
