"""From a stack and its files to a volume: decoded, rescaled, padding replaced."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.pixels import apply_modality_lut

from domain.errors import StorageError
from domain.instance import Header
from domain.series import Resample, Stack
from domain.volume import Volume
from volume.ahead import in_order, workers_for
from volume.frames import frame_numbers
from volume.geometry import geometry
from volume.jpeg import SYNTAXES
from volume.jpeg_helpers import jpeg_decoder
from volume.pet import suv_scale
from volume.pixel_format import HOUNSFIELD, unit_of
from volume.pixels import Frame, LastDataset, gains_by_threads, read_frame
from volume.plain import read_plain
from volume.resample import resampled, resampling_of
from volume.stored import stored_range, unreadable
from volume.voi import voi_of_slices

log = logging.getLogger(__name__)

AIR_HU = -1024
"""What replaces padding in CT: the lowest value of a 12-bit scanner, below every tissue."""

_INT16 = range(-(1 << 15), 1 << 15)

Voxels = npt.NDArray[np.int16] | npt.NDArray[np.float32]


def assemble(stack: Stack, paths: Mapping[str, Path], allowed: Collection[Resample] = ()) -> Volume:
    """Decode a stack into a volume on its proven grid.

    Each slice goes through its own Modality LUT (PS3.3 C.11.1); stored values of MONOCHROME1 are not inverted, since
    photometric interpretation is about display. Padding becomes -1024 HU in a volume in HU and 0 in any other, and
    ``Volume.padding_value`` says so. The voxels are int16 where every value is a whole number that fits, otherwise
    float32. Memory beyond the voxels stays at a few slices while they are int16 or known to be fractional by their
    headers; whole numbers that turn out not to fit cost half as much again.

    Parameters
    ----------
    stack
        As ``volume.grouping.group`` returned it, in any order.
    paths
        Part 10 file of each SOP Instance UID of the stack.
    allowed
        What may be resampled; see ``volume.resample``. A regular stack is never interpolated.

    Raises
    ------
    AssemblyError
        The stack is no regular volume (see ``volume.geometry.geometry``), or its pixels cannot be decoded.
    StorageError
        A file is gone or cannot be read.
    """
    proven = geometry(stack, allowed)
    log.debug(
        "stack is regular",
        extra={"slices": len(proven.headers), "deviation_mm": round(proven.deviation_mm, 4)},
    )
    unit = unit_of(proven.headers[0])
    padding_value = AIR_HU if unit == HOUNSFIELD else 0
    voxels, is_padded = _read(proven.headers, proven.grid.shape, paths, padding_value)
    grid, headers = proven.grid, proven.headers
    if proven.resample:
        plan = resampling_of(proven)
        grid, headers = plan.regular, tuple(headers[k] for k in plan.nearest_source)
        voxels = resampled(voxels, plan, padding_value)
        is_padded |= grid.shape[1:] != proven.grid.shape[1:]
    return Volume(
        voxels=voxels,
        grid=grid,
        sop_instance_uids=tuple(header.sop_instance_uid for header in headers),
        frame_numbers=frame_numbers(headers),
        unit=unit,
        padding_value=padding_value if is_padded else None,
        suv_body_weight_factor=suv_scale(proven.headers).factor if proven.headers[0].modality == "PT" else None,
        voi=voi_of_slices(headers, paths),
        photometric_interpretation=proven.headers[0].photometric_interpretation or "MONOCHROME2",
    )


def _read(
    headers: Sequence[Header], shape: tuple[int, int, int], paths: Mapping[str, Path], padding_value: int
) -> tuple[Voxels, bool]:
    files = [_path_of(header, paths) for header in headers]
    voxels: Voxels
    if all(map(_is_whole, headers)):
        voxels = np.empty(shape, np.int16)
        remaining = read_plain(headers, files, voxels)
    else:
        voxels = np.empty(shape, np.float32)
        remaining = list(range(len(headers)))
    is_padded = False
    for k, frame in zip(remaining, _frames(headers, files, voxels, remaining), strict=True):
        header = headers[k]
        if voxels.dtype == np.int16 and not _rescale_in_place(header, frame, voxels[k]):
            voxels = voxels.astype(np.float32)
        if voxels.dtype == np.float32:
            voxels[k] = _rescaled(header, files[k], frame)
        if frame.padding is not None:
            np.copyto(voxels[k], padding_value, where=frame.padding)
            is_padded = True
    return voxels, is_padded


def _frames(
    headers: Sequence[Header], files: Sequence[Path], voxels: Voxels, order: Sequence[int]
) -> Iterator[Frame]:
    """Yield the stored values of the slices in ``order``, decoded by several threads where that is faster.

    Whole numbers are read straight into their place in ``voxels`` and changed there.
    """
    last, scratch = LastDataset(), np.empty(voxels.shape[1:], np.int16)
    if not any(gains_by_threads(headers[k]) for k in order):
        for k in order:
            yield read_frame(headers[k], files[k], voxels[k] if voxels.dtype == np.int16 else scratch, last)
        return

    workers = workers_for(len(order))
    has_jpeg = any(headers[k].transfer_syntax_uid in SYNTAXES for k in order)
    with jpeg_decoder(workers, len(order) * scratch.nbytes if has_jpeg else 0) as jpeg:
        last = LastDataset(jpeg)

        def read(k: int) -> Frame:
            buffer = voxels[k] if voxels.dtype == np.int16 else np.empty_like(scratch)
            return read_frame(
                headers[k], files[k], buffer, LastDataset(jpeg) if headers[k].frame_number is None else last
            )

        yield from in_order(read, order, workers)


def _path_of(header: Header, paths: Mapping[str, Path]) -> Path:
    path = paths.get(header.sop_instance_uid)
    if path is None:
        raise StorageError("An instance of the stack is not in the store")
    return path


def _slope_and_intercept(header: Header) -> tuple[float, float]:
    slope, intercept = header.rescale_slope, header.rescale_intercept
    return 1.0 if slope is None else slope, 0.0 if intercept is None else intercept


def _is_whole(header: Header) -> bool:
    return not header.has_modality_lut_sequence and all(value.is_integer() for value in _slope_and_intercept(header))


def _rescale_in_place(header: Header, frame: Frame, out: npt.NDArray[np.int16]) -> bool:
    """Write whole rescaled values to ``out``, which may hold the stored ones; return whether they fit.

    Where they do not fit, nothing is changed.
    """
    slope, intercept = map(int, _slope_and_intercept(header))
    if not _fits(header, frame, slope, intercept):
        return False
    # Arithmetic modulo 2**16 gives the right 16 bits whenever the result fits; padding is overwritten afterwards.
    if not np.may_share_memory(out, frame.values):
        np.copyto(out, frame.values, casting="unsafe")
    if slope != 1:
        out *= np.int64(slope).astype(np.int16)
    if intercept:
        out += np.int64(intercept).astype(np.int16)
    return True


def _fits(header: Header, frame: Frame, slope: int, intercept: int) -> bool:
    """Tell whether all rescaled values outside padding are int16; looks at the values only where they may not be."""
    # Rescaling is monotonic: the ends decide. What fits by BitsStored alone, or with padding, needs no closer look.
    for bound, end in zip(stored_range(header), (np.minimum, np.maximum), strict=True):
        if bound * slope + intercept in _INT16:
            continue
        if int(end.reduce(frame.values, axis=None)) * slope + intercept in _INT16:
            continue
        values = frame.values[~frame.padding] if frame.padding is not None else frame.values
        if values.size and int(end.reduce(values, axis=None)) * slope + intercept not in _INT16:
            return False
    return True


def _rescaled(header: Header, path: Path, frame: Frame) -> npt.NDArray[np.float32]:
    if header.has_modality_lut_sequence:
        return _looked_up(header, path, frame)
    slope, intercept = _slope_and_intercept(header)
    values: npt.NDArray[np.float32] = (frame.values * slope + intercept).astype(np.float32)
    return values


def _looked_up(header: Header, path: Path, frame: Frame) -> npt.NDArray[np.float32]:
    """Apply the Modality LUT Sequence (PS3.3 C.11.1.1)."""
    try:
        ds = pydicom.dcmread(path, specific_tags=["ModalityLUTSequence", "PixelRepresentation"])
        return np.asarray(apply_modality_lut(frame.values, ds), np.float32)
    except OSError as error:
        raise StorageError("The stored file of an instance cannot be read") from error
    except Exception as error:  # pydicom raises whatever a damaged sequence leads to
        raise unreadable(header, "ModalityLUTSequence cannot be applied") from error
