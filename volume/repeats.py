"""Finds images that came twice under different SOP Instance UIDs, which headers alone cannot do."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path

import numpy as np

from domain.errors import AssemblyError, StorageError
from domain.instance import Header
from domain.series import RefusalCode, Stack
from volume.frames import with_frames
from volume.grouping import group, places_of, received_order
from volume.pixel_format import check_pixel_format
from volume.pixels import read_frame
from volume.splitting import SPLITTERS

log = logging.getLogger(__name__)

_CAUSES = (RefusalCode.DUPLICATE_POSITION, RefusalCode.AMBIGUOUS_STACK)


def group_stored(headers: Sequence[Header], paths: Mapping[str, Path]) -> tuple[Stack, ...]:
    """Split the stored instances of one series into stacks, without the images that are the same twice.

    Like ``volume.grouping.group``, but where slices collide they are decoded: of images with equal pixels, position
    and acquisition only the one with the lowest InstanceNumber stays. The others are in no stack.

    Parameters
    ----------
    headers
        Instances of one series, in any order.
    paths
        Part 10 file of each SOP Instance UID.

    Raises
    ------
    StorageError
        A file is gone or cannot be read.
    """
    images = with_frames(headers)
    stacks = group(images)
    repeated = {image for stack in stacks for image in _repeated(stack, paths)}
    if not repeated:
        return stacks
    log.info("repeated images left out", extra={"instances": len(headers), "repeated": len(repeated)})
    return group([image for image in images if _name(image) not in repeated])


def _name(header: Header) -> tuple[str, int | None]:
    return header.sop_instance_uid, header.frame_number


def _repeated(stack: Stack, paths: Mapping[str, Path]) -> list[tuple[str, int | None]]:
    """Return the images in ``stack`` that are there under a lower InstanceNumber, or in an earlier frame."""
    members = sorted(stack.headers, key=received_order)
    is_suspect = stack.refusal is not None and stack.refusal.code in _CAUSES
    places = places_of(members) if is_suspect else None
    if places is None:
        return []
    count = Counter(places)
    seen: dict[int, set[Hashable]] = defaultdict(set)
    repeated = []
    for header, place in zip(members, places, strict=True):
        if count[place] == 1:
            continue
        content = _content(header, paths)
        if content in seen[place]:
            repeated.append(_name(header))
        seen[place].add(content)
    return repeated


def _content(header: Header, paths: Mapping[str, Path]) -> Hashable:
    """Return what makes two images at one place the same; unique for an image that cannot be compared."""
    path = paths.get(header.sop_instance_uid)
    if path is None:
        raise StorageError("An instance of the stack is not in the store")
    if header.has_modality_lut_sequence:  # the tables would have to be compared as well
        return _name(header)
    try:
        check_pixel_format([header])
        frame = read_frame(header, path, np.empty((header.rows or 0, header.columns or 0), np.int16))
    except AssemblyError:
        return _name(header)
    values = np.ascontiguousarray(frame.values, np.int32)
    return hashlib.sha256(values.tobytes()).digest(), *_attributes(header)


def _attributes(header: Header) -> Sequence[Hashable]:
    position = header.image_position_mm or ()
    return (
        tuple(round(length, 2) for length in position),
        header.image_orientation,
        header.pixel_spacing_mm,
        header.frame_of_reference_uid,
        header.photometric_interpretation,
        header.rescale_slope,
        header.rescale_intercept,
        header.rescale_type,
        header.pixel_padding_value,
        header.pixel_padding_range_limit,
        *(splitter.key(header) for splitter in SPLITTERS),
    )
