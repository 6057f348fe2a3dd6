"""The check of key images: of which slice, the right way round, and every outline where its mask is.

The pictures are measured, not drawn again: outlines are found by their colour and compared with the masks in pixels
of the source, and the image under them with the source's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from scipy.ndimage import binary_dilation  # type: ignore[attr-defined]  # its stubs leave it out
from scipy.spatial import KDTree

from dicom_out.keyimages import MOST, colour_of, colour_of_box
from dicom_out.keyslices import mask_on
from dicom_out.picture import Colour, Placing, placing
from dicom_out.places import Place, places_of
from dicom_out.verify_references import SourceNames, named
from domain.errors import VerificationFailed
from domain.findings import Detection, Findings
from domain.ports import Result
from volume.display import Picture
from volume.screen import Frame, read_frame

_COVERED = 0.85
"""Least share of an outline that must be seen; other outlines, letters and captions may lie over the rest."""
_STRAY = 0.02
"""Largest share of an outline's pixels that may lie elsewhere."""
_LIKENESS = 0.75
_SMEAR = 2
"""Pixels beside a drawn one that it may have blended into."""
_SEEN = 0.25
"""Least part of a piece of the picture, and of all pieces, that was not drawn over."""
_COARSE = 48
"""Images are compared in that many steps a side: finer detail is what the window and the outlines change."""

_BESIDE = 2.5
"""Pixels of the source: edges nearer than this are drawn over each other."""
_PEN = 3
"""Pixels of the picture that a line covers."""
_STEPS = 100
"""Points at which a line is looked at."""

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]


def check_sc(objects: Sequence[Dataset], result: Result) -> None:
    """Compare key images, read from their files, with the findings and the source.

    Raises
    ------
    VerificationFailed
        They differ; the message says in what.
    """
    source, places = SourceNames.of(result), places_of(result)
    if not 0 < len(objects) <= MOST:
        raise VerificationFailed(f"SC: {len(objects)} key images; there are 1 to {MOST}.")
    if len({(named(ds.SourceImageSequence[0]), _tile_named(ds)) for ds in objects}) != len(objects):
        raise VerificationFailed("SC: two key images show the same slice.")
    for number, ds in enumerate(objects, start=1):
        _check_header(ds, number)
        if len(ds.SourceImageSequence) != 1:
            raise VerificationFailed(f"SC: key image {number} is not of one image of the source.")
        source.check_series(ds, "SC")
        k = _slice_of(ds, result, source)
        frame = read_frame(places[k].path, places[k].frame, places[k].tile)
        if frame.header.get("RecognizableVisualFeatures") == "YES" != ds.get("RecognizableVisualFeatures"):
            raise VerificationFailed(f"SC: key image {number} does not say that the patient can be recognised in it.")
        _check_picture(ds.pixel_array, result, places[k], frame, k, number)


def _slice_of(ds: Dataset, result: Result, source: SourceNames) -> int:
    """Return which slice a key image says that it shows."""
    k = source.index(ds.SourceImageSequence[0], "SC")
    if not result.tiles:
        return k
    numbers = [tile.number for tile in result.tiles]
    number = _tile_named(ds)
    if number not in numbers:
        raise VerificationFailed("SC: a key image of a mosaic does not name its tile.")
    return numbers.index(number)


def _tile_named(ds: Dataset) -> int | None:
    said = re.search(r"; tile (\d+) of the mosaic$", str(ds.get("DerivationDescription", "")))
    return None if said is None else int(said[1])


def _check_header(ds: Dataset, number: int) -> None:
    said = (ds.PhotometricInterpretation, ds.SamplesPerPixel, ds.BitsStored, ds.PixelRepresentation)
    if said != ("RGB", 3, 8, 0):
        raise VerificationFailed(f"SC: key image {number} is not RGB of 8 bits.")
    if ds.BurnedInAnnotation != "YES" or list(ds.ImageType[:2]) != ["DERIVED", "SECONDARY"]:
        raise VerificationFailed(f"SC: key image {number} does not say that it is derived and annotated.")
    if not ds.SourceImageSequence[0].PurposeOfReferenceCodeSequence:
        raise VerificationFailed(f"SC: key image {number} does not say what its source image was used for.")


def _check_picture(picture: Picture, result: Result, place: Place, frame: Frame, k: int, number: int) -> None:
    rows, columns = frame.values.shape[:2]
    lies = placing(rows, columns, place.spacing_mm)
    if place.spacing_mm is None:
        height = picture.shape[0]  # an aspect ratio may have stretched it
        lies = placing(rows, columns, None, _aspect_of(frame))
        if height < lies.height:
            raise VerificationFailed(f"SC: key image {number} is smaller than its image.")
    image = picture[lies.top : lies.top + lies.height, lies.left : lies.left + lies.width]
    if image.shape[:2] != (lies.height, lies.width):
        raise VerificationFailed(f"SC: key image {number} is smaller than its image.")
    _check_likeness(image, frame, _untouched(image, result.findings), number)
    _check_outlines(image, result.findings, k, lies, number, is_grey=not frame.is_colour)
    _check_boxes(image, result.findings, k, lies, number)


def _aspect_of(frame: Frame) -> float:
    said = frame.header.get("PixelAspectRatio") or (1, 1)
    return float(said[0]) / float(said[1])


def _untouched(image: Picture, findings: Findings) -> BoolArray:
    """Return where nothing was drawn over the source: a ragged mask has much outline."""
    colours = {colour_of(findings, segment) for segment in range(1, len(findings.segments) + 1)}
    colours |= {colour_of_box(findings, detection) for detection in findings.detections}
    drawn = np.zeros(image.shape[:2], bool)
    for colour in colours:
        drawn |= _pixels_of(image, colour)
    free: BoolArray = ~binary_dilation(drawn, iterations=_SMEAR)
    return free


def _check_likeness(image: Picture, frame: Frame, free: BoolArray, number: int) -> None:
    """Where it was not drawn over, the picture must be more like its source than like it turned or mirrored."""
    source = frame.values.astype(float) if not frame.is_colour else frame.values.mean(axis=2)
    steps = min(_COARSE, *source.shape)
    seen = _coarse(free.astype(float), steps)
    shown = _coarse(image.mean(axis=2) * free, steps) / np.maximum(seen, 1e-9)
    original = _coarse(source, steps)
    known = seen >= _SEEN
    if np.count_nonzero(known) < known.size * _SEEN:  # drawn all over: then it is compared with what was drawn
        shown, known = _coarse(image.mean(axis=2), steps), np.ones_like(known)
    if np.ptp(original[known]) == 0 or np.ptp(shown[known]) == 0:
        return
    inverted = frame.modality == "PT" or frame.header.PhotometricInterpretation == "MONOCHROME1"
    likeness = [
        float(np.corrcoef(_ranks(shown[known]), _ranks(turned[known]))[0, 1]) * (-1 if inverted else 1)
        for turned in (original, original[:, ::-1], original[::-1], original[::-1, ::-1])
    ]
    if likeness[0] < _LIKENESS or max(likeness) > likeness[0]:
        raise VerificationFailed(f"SC: key image {number} does not show its source image, or not that way round.")


def _ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the rank of each value, equal ones sharing theirs: a window keeps ranks, whatever it does to values."""
    _, place, count = np.unique(values.ravel(), return_inverse=True, return_counts=True)
    ranks: npt.NDArray[np.float64] = (np.cumsum(count) - count / 2)[place]
    return ranks


def _coarse(values: npt.NDArray[np.float64], steps: int) -> npt.NDArray[np.float64]:
    """Return the means of ``steps`` x ``steps`` parts."""
    for axis in (0, 1):
        edges = np.unique(np.linspace(0, values.shape[axis], steps + 1).astype(int))
        sums = np.add.reduceat(values, edges[:-1], axis=axis)
        counts = np.diff(edges)
        values = sums / (counts[:, None] if axis == 0 else counts[None, :])
    return values


def _check_outlines(image: Picture, findings: Findings, k: int, lies: Placing, number: int, *, is_grey: bool) -> None:
    tolerance = tuple(1.0 + 3.0 / scale for scale in lies.scale)
    for segment in range(1, len(findings.segments) + 1):
        on_slice = findings.shape is not None and k < findings.shape[0]
        mask = mask_on(findings, segment, k) if on_slice else None
        rows, columns = np.nonzero(_pixels_of(image, colour_of(findings, segment)))
        drawn = np.column_stack([(rows + 0.5) / lies.scale[1], (columns + 0.5) / lies.scale[0]])
        if mask is None or not mask.any():
            if is_grey and len(drawn) and not _is_shared(findings, segment):
                raise VerificationFailed(f"SC: key image {number} shows segment {segment}, which is not there.")
            continue
        edge = _edge(mask)
        strays = np.count_nonzero(_distances(drawn, edge) > max(tolerance))
        if is_grey and not _is_shared(findings, segment) and strays > _STRAY * max(len(drawn), 1):
            raise VerificationFailed(f"SC: the outline of segment {segment} on key image {number} is not its mask's.")
        seen = float((_distances(edge, drawn) <= max(tolerance)).mean())
        if seen < _COVERED and not _is_hidden(findings, segment, k, lies):
            raise VerificationFailed(f"SC: segment {segment} has no whole outline on key image {number}.")


def _pixels_of(image: Picture, colour: Colour) -> BoolArray:
    same: BoolArray = (image == np.asarray(colour, np.uint8)).all(axis=2)
    return same


def _is_shared(findings: Findings, segment: int) -> bool:
    """Tell whether something else has the segment's colour."""
    own = colour_of(findings, segment)
    others = [colour_of(findings, n) for n in range(1, len(findings.segments) + 1) if n != segment]
    return own in [*others, *(colour_of_box(findings, detection) for detection in findings.detections)]


def _is_hidden(findings: Findings, segment: int, k: int, lies: Placing) -> bool:
    """Tell whether what is drawn later may lie over the segment's outline: where some of its edge is theirs too."""
    mask = mask_on(findings, segment, k)
    if mask is None:
        return False
    edge = _edge(mask)
    later = [mask_on(findings, number, k) for number in range(segment + 1, len(findings.segments) + 1)]
    over = np.concatenate([*(_edge(other) for other in later if other is not None), *_lines_over(findings, k)])
    covered = _distances(edge, over) <= max(_BESIDE, _PEN / min(lies.scale))
    return bool(np.count_nonzero(covered) > (1 - _COVERED) * len(edge))


def _lines_over(findings: Findings, k: int) -> Iterator[FloatArray]:
    """Yield the sides of boxes and what was measured with callipers, which are drawn after all outlines."""
    yield np.empty((0, 2))
    for detection in findings.detections:
        if detection.image == k:
            yield _sides(detection)[:, ::-1]
    for measurement in findings.measurements:
        points = np.asarray([point[1:] for point in measurement.points if round(point[0]) == k], float)
        if len(points) == 2:
            yield points[0] + 0.5 + np.linspace(0, 1, _STEPS)[:, None] * (points[1] - points[0])


def _sides(detection: Detection) -> FloatArray:
    """Return points on the sides of a box, as (column, row)."""
    x0, y0, x1, y1 = detection.box
    steps = np.linspace(0, 1, _STEPS)
    x, y = x0 + (x1 - x0) * steps, y0 + (y1 - y0) * steps
    sides = [(x, np.full_like(x, y0)), (x, np.full_like(x, y1)), (np.full_like(y, x0), y), (np.full_like(y, x1), y)]
    points: FloatArray = np.concatenate([np.column_stack(side) for side in sides])
    return points


def _edge(mask: BoolArray) -> FloatArray:
    """Return the centres of the pixels of a mask that touch its outside, as (row, column)."""
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    centres: FloatArray = np.argwhere(mask & ~inner).astype(np.float64) + 0.5
    return centres


def _distances(points: FloatArray, others: FloatArray) -> FloatArray:
    """Return how far each point is from the nearest of the others."""
    if not len(others) or not len(points):
        return np.full(len(points), np.inf)
    distances: FloatArray = KDTree(others).query(points)[0]  # type: ignore[no-untyped-call]
    return distances


def _check_boxes(image: Picture, findings: Findings, k: int, lies: Placing, number: int) -> None:
    here = [item for item in findings.detections if item.image == k]
    colours = {colour_of_box(findings, detection) for detection in here}  # one box may lie exactly on another
    if not here:
        return
    drawn = np.logical_or.reduce([_pixels_of(image, colour) for colour in colours])
    around = binary_dilation(drawn, iterations=3)
    for detection in here:
        spots = _sides(detection) * lies.scale
        inside = (spots > 0).all(axis=1) & (spots < (lies.width, lies.height)).all(axis=1)
        columns, rows = spots[inside].astype(int).T
        if not inside.any() or around[rows, columns].mean() < _COVERED:
            raise VerificationFailed(f"SC: a box of key image {number} is not where the detection is.")
