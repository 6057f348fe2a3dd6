"""The check of presentation states: every outline, box and line is where the finding is, in pixels of its image.

Outlines are filled again, by the even-odd rule at the pixels' centres, and must give the mask bit by bit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_out.keyslices import mask_on
from dicom_out.places import places_of
from dicom_out.verify_references import SourceNames, named
from domain.errors import VerificationFailed
from domain.ports import Result

_TOLERANCE_PX = 2e-3
"""Graphic data are single precision."""

Points = npt.NDArray[np.float64]


def check_gsps(objects: Sequence[Dataset], result: Result) -> None:
    """Compare presentation states, read from their files, with the findings and the source.

    Raises
    ------
    VerificationFailed
        They differ; the message says in what.
    """
    source = SourceNames.of(result)
    shown: dict[int, list[tuple[Points, str]]] = defaultdict(list)
    for ds in objects:
        _check_layers(ds)
        allowed = _check_references(ds, source)
        for annotation in ds.GraphicAnnotationSequence:
            (reference,) = annotation.ReferencedImageSequence
            if str(reference.ReferencedSOPInstanceUID) not in allowed:
                raise VerificationFailed("GSPS: an annotation is on an image that is not referred to.")
            k = source.index(reference, "GSPS")
            shown[k] += [
                (_points(graphic), str(annotation.GraphicLayer)) for graphic in annotation.GraphicObjectSequence
            ]
    places = places_of(result)
    for ds in objects:
        _check_display(ds, [places[k].path for k in shown if source.names[k][0] in _instances(ds)])
    is_colour = {k: _is_colour(places[k].path) for k in shown}
    if len(set(is_colour.values())) != 1:
        raise VerificationFailed("GSPS: it annotates no image, or images in grey and in colour alike.")
    for k in range(len(places)):
        if k in shown or _is_colour(places[k].path) in is_colour.values():
            _check_image(result, k, shown.get(k, []), _size(places[k].path))


def _instances(ds: Dataset) -> set[str]:
    return {named(item)[0] for series in ds.ReferencedSeriesSequence for item in series.ReferencedImageSequence}


def _check_layers(ds: Dataset) -> None:
    """Every layer that is used is declared, once (PS3.3 C.10.7)."""
    declared = [str(item.GraphicLayer) for item in ds.GraphicLayerSequence]
    used = {str(item.GraphicLayer) for item in ds.GraphicAnnotationSequence}
    if len(set(declared)) != len(declared) or not used <= set(declared):
        raise VerificationFailed("GSPS: a graphic layer is not declared, or twice.")


def _check_references(ds: Dataset, source: SourceNames) -> set[str]:
    for series in ds.ReferencedSeriesSequence:
        for item in series.ReferencedImageSequence:
            study, _ = source.homes.get(str(item.ReferencedSOPInstanceUID), ("", ""))
            source.check_home(study, series, [item], "GSPS")
    return _instances(ds)


def _points(graphic: Dataset) -> Points:
    if graphic.GraphicAnnotationUnits != "PIXEL" or graphic.GraphicType != "POLYLINE":
        raise VerificationFailed("GSPS: a graphic object is not a polyline in pixels.")
    points = np.array([float(value) for value in graphic.GraphicData]).reshape(-1, 2)
    if len(points) != int(graphic.NumberOfGraphicPoints):
        raise VerificationFailed("GSPS: NumberOfGraphicPoints is not the number of the points.")
    return points


def _check_display(ds: Dataset, paths: Sequence[object]) -> None:
    """The image keeps its greys and is shown whole."""
    if not paths:
        raise VerificationFailed("GSPS: it annotates no image.")
    header = dcmread(str(paths[0]), stop_before_pixels=True)
    area = ds.DisplayedAreaSelectionSequence[0]
    if [*area.DisplayedAreaTopLeftHandCorner, *area.DisplayedAreaBottomRightHandCorner] != [
        1, 1, header.Columns, header.Rows,
    ]:  # fmt: skip
        raise VerificationFailed("GSPS: the displayed area is not the whole image.")
    if _is_colour(paths[0]):
        if "ICCProfile" not in ds:
            raise VerificationFailed("GSPS: a colour presentation state needs an ICC profile.")
        return
    if ds.PresentationLUTShape != ("INVERSE" if header.PhotometricInterpretation == "MONOCHROME1" else "IDENTITY"):
        raise VerificationFailed("GSPS: PresentationLUTShape would invert the image, or not invert it.")
    if "ModalityLUTSequence" not in header and (
        float(ds.get("RescaleSlope", 1)),
        float(ds.get("RescaleIntercept", 0)),
    ) != (float(header.get("RescaleSlope") or 1), float(header.get("RescaleIntercept") or 0)):
        raise VerificationFailed("GSPS: the rescale of the image is not kept.")


def _is_colour(path: object) -> bool:
    header = dcmread(
        str(path), stop_before_pixels=True, specific_tags=["SamplesPerPixel", "PhotometricInterpretation"]
    )
    return int(header.SamplesPerPixel) > 1 or header.PhotometricInterpretation == "PALETTE COLOR"


def _size(path: object) -> tuple[int, int]:
    """Return the columns and rows of an image: what lies beyond is not drawn."""
    header = dcmread(str(path), stop_before_pixels=True, specific_tags=["Rows", "Columns"])
    return int(header.Columns), int(header.Rows)


def _check_image(result: Result, k: int, shown: list[tuple[Points, str]], size: tuple[int, int]) -> None:
    """Everything found on an image is drawn, and nothing else."""
    left = [points for points, _ in shown]
    findings = result.findings
    for detection in (item for item in findings.detections if item.image == k):
        x0, y0, x1, y1 = detection.box
        box = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)], float)
        _remove(left, np.clip(box, 0, size), "a box", k)
    for measurement in findings.measurements:
        if len(measurement.points) > 1 and all(round(point[0]) == k for point in measurement.points):
            line = np.array([(column + 0.5, row + 0.5) for _, row, column in measurement.points])
            _remove(left, np.clip(line, 0, size), "a line", k)
    has_masks = findings.shape is not None and k < findings.shape[0]
    by_layer: dict[str, list[Points]] = defaultdict(list)
    for points, layer in shown:
        if any(points is item for item in left):
            by_layer[layer].append(points)
    drawn = (
        [_filled(rings, findings.shape[1:]) for rings in by_layer.values()] if findings.shape and has_masks else []
    )
    for number in range(1, len(findings.segments) + 1):
        mask = mask_on(findings, number, k) if has_masks else None
        if mask is None or not mask.any():
            continue
        same = [place for place, other in enumerate(drawn) if np.array_equal(other, mask)]
        if not same:
            raise VerificationFailed(f"GSPS: the outline of segment {number} on image {k + 1} is not its mask's.")
        drawn.pop(same[0])
    if drawn or (by_layer and not has_masks):
        raise VerificationFailed(f"GSPS: something is drawn on image {k + 1} that was not found.")


def _remove(left: list[Points], wanted: Points, what: str, k: int) -> None:
    for place, points in enumerate(left):
        if points.shape == wanted.shape and np.abs(points - wanted).max() <= _TOLERANCE_PX:
            del left[place]
            return
    raise VerificationFailed(f"GSPS: {what} on image {k + 1} is not where it was found.")


def _filled(rings: Sequence[Points], shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Return the pixels whose centres lie inside: those with an odd number of crossings at their left."""
    crossings = np.zeros((shape[0], shape[1] + 1), np.int64)
    for ring in rings:
        for (x0, y0), (x1, y1) in pairwise(ring):
            low, high = sorted((y0, y1))
            rows = np.arange(max(0, int(np.ceil(low - 0.5))), min(shape[0], int(np.ceil(high - 0.5))))
            if len(rows):
                at = x0 + (rows + 0.5 - y0) * (x1 - x0) / (y1 - y0)
                columns = np.clip(np.ceil(at - 0.5), 0, shape[1]).astype(int)
                np.add.at(crossings, (rows, columns), 1)
    inside: npt.NDArray[np.bool_] = np.cumsum(crossings, axis=1)[:, :-1] % 2 == 1
    return inside
