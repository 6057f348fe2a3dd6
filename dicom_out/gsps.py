"""Findings on images as presentation states (PS3.3 A.33.1, A.33.2): drawn by the viewer, over the image as it is.

One instance for each image with something on it, since a presentation state has one inversion and one Modality LUT.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import ImageCms
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ColorSoftcopyPresentationStateStorage, GrayscaleSoftcopyPresentationStateStorage

from dicom_out import wording
from dicom_out.colour import cielab
from dicom_out.derived import Tracking, tracking
from dicom_out.encoding import encoded_dataset, part10
from dicom_out.general import describe_body_part, instance_of
from dicom_out.identity import identity
from dicom_out.keyimages import colour_of, colour_of_box
from dicom_out.keyslices import mask_on
from dicom_out.outline import Polygon, outlines
from dicom_out.places import Place, places_of
from dicom_out.sc import Begin
from dicom_out.source import Source, SourceImage
from domain.image import Raster
from domain.ports import Result

_MOST_POINTS = 8000
"""Of one graphic object: its data has at most 65534 bytes in Explicit VR (PS3.5 Section 7.1.2), 8 a point."""
_PROFILE_DATE = slice(24, 36)
"""Creation date in the header of an ICC profile (ISO 15076-1, 7.2.8)."""
_YEAR_2000 = bytes.fromhex("07d000010001000000000000")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drawn:
    """One graphic object: a polygon or a line with its text."""

    points: Polygon = field(repr=False)
    layer: int
    frame: int | None
    """From 1, where the image has several."""
    tracking: Tracking | None = None
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A graphic layer: everything of one colour and meaning."""

    colour: tuple[int, int, int]
    description: str


def is_on_images(result: Result, *, is_colour: bool) -> bool:
    """Tell whether something was located on images without patient coordinates, in colour or in grey."""
    if not isinstance(result.grid, Raster):
        return False
    places = places_of(result)
    located = [places[k].path for k in range(len(places)) if _drawn(result, k, "")]
    return any(_is_colour(_header(path)) == is_colour for path in dict.fromkeys(located))


def _header(path: Path) -> Dataset:
    return dcmread(path, stop_before_pixels=True)


def _is_colour(header: Dataset) -> bool:
    """Tell whether an image has colours; those of a palette are colours too."""
    return int(header.SamplesPerPixel) > 1 or header.PhotometricInterpretation == "PALETTE COLOR"


def encode_gsps(
    begin: Begin, result: Result, source: Source, *, is_colour: bool, declared: tuple[str, ...]
) -> list[list[bytes]]:
    """Return a presentation state for each image with something on it, as a Part 10 file in pieces.

    Parameters
    ----------
    begin
        Called with the instance's number.
    is_colour
        Which of the images: those in colour need another SOP class than those in grey.
    declared
        Character set of the objects.
    """
    places = places_of(result)
    files: dict[str, list[int]] = {}
    for k in range(len(places)):
        files.setdefault(source.images[k].sop_instance_uid, []).append(k)
    written: list[list[bytes]] = []
    for indices in files.values():
        drawn = [item for k in indices for item in _drawn(result, k, source.series_instance_uid, places[k].frame)]
        header = _header(places[indices[0]].path) if drawn else Dataset()
        if drawn and _is_colour(header) == is_colour:
            ds = begin(len(written) + 1)
            _describe(ds, result, source, indices[0], places[indices[0]], header, drawn)
            elements = encoded_dataset(ds, declared) | identity(source.header, declared)
            written.append(part10(ds.SOPClassUID, ds.SOPInstanceUID, elements))
    return written


def layers_of(result: Result) -> list[Layer]:
    """Return the layers of a result: its segments, the types of its detections, and what was measured."""
    findings = result.findings
    layers = [Layer(colour=colour_of(findings, n), description=s.label) for n, s in enumerate(findings.segments, 1)]
    types = dict.fromkeys(detection.type for detection in findings.detections)
    for kind in types:
        first = next(detection for detection in findings.detections if detection.type == kind)
        layers.append(Layer(colour=colour_of_box(findings, first), description=kind.meaning))
    return [*layers, Layer(colour=(255, 255, 120), description="Measurements")]


def _drawn(result: Result, k: int, series: str, frame: int | None = None) -> list[Drawn]:
    return [*_contours(result, k, series, frame), *_boxes(result, k, series, frame), *_lines(result, k, frame)]


def _contours(result: Result, k: int, series: str, frame: int | None) -> Iterator[Drawn]:
    findings = result.findings
    for number, segment in enumerate(findings.segments, start=1):
        mask = mask_on(findings, number, k) if findings.shape is not None and k < findings.shape[0] else None
        rings = outlines(mask) if mask is not None else []
        for place, ring in enumerate(rings):
            pieces = [ring[start : start + _MOST_POINTS] for start in range(0, len(ring) - 1, _MOST_POINTS - 1)]
            for part, points in enumerate(pieces):
                yield Drawn(
                    points=points,
                    layer=number,
                    frame=frame,
                    tracking=tracking(series, result.manifest, segment.key),
                    text=segment.label if not place and not part else "",
                )


def _boxes(result: Result, k: int, series: str, frame: int | None) -> Iterator[Drawn]:
    findings = result.findings
    types = list(dict.fromkeys(detection.type for detection in findings.detections))
    for detection in findings.detections:
        if detection.image != k:
            continue
        x0, y0, x1, y1 = detection.box
        yield Drawn(
            points=np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)], float),
            layer=len(findings.segments) + types.index(detection.type) + 1,
            frame=frame,
            tracking=tracking(series, result.manifest, detection.key),
            text=f"{detection.label} {wording.probability(detection.probability)}".rstrip(),
        )


def _lines(result: Result, k: int, frame: int | None) -> Iterator[Drawn]:
    for measurement in result.findings.measurements:
        points = measurement.points
        if len(points) > 1 and all(round(point[0]) == k for point in points):
            yield Drawn(
                points=np.array([(column + 0.5, row + 0.5) for _, row, column in points]),  # from centres to corners
                layer=len(layers_of(result)),
                frame=frame,
                text=f"{wording.name(measurement)}: {wording.measured(measurement)}",
            )


def _describe(
    ds: Dataset, result: Result, source: Source, k: int, place: Place, header: Dataset, drawn: Sequence[Drawn]
) -> None:
    is_colour = _is_colour(header)
    ds.SOPClassUID = ColorSoftcopyPresentationStateStorage if is_colour else GrayscaleSoftcopyPresentationStateStorage
    image = instance_of(source.images[k])
    ds.PresentationCreationDate, ds.PresentationCreationTime = ds.ContentDate, ds.ContentTime
    ds.ContentLabel, ds.ContentDescription = "AI_FINDINGS", f"AI {result.manifest.title}"[:64]
    ds.ContentCreatorName = f"{ds.Manufacturer}^Gateway"
    del ds.ContentDate, ds.ContentTime
    series = Dataset()
    series.SeriesInstanceUID, series.ReferencedImageSequence = source.images[k].series_instance_uid, [image]
    ds.ReferencedSeriesSequence = [series]
    describe_body_part(ds, source.header)
    ds.DisplayedAreaSelectionSequence = [_displayed_area(header, place)]
    layers = layers_of(result)
    used = sorted({item.layer for item in drawn})
    ds.GraphicLayerSequence = [_layer(order, number, layers[number - 1]) for order, number in enumerate(used, 1)]
    ds.GraphicAnnotationSequence = [_annotation(item, source.images[k], header) for item in drawn]
    if is_colour:
        ds.ICCProfile = header.get("ICCProfile") or srgb()
    else:
        _describe_greys(ds, header)


def _layer_name(number: int) -> str:
    return f"AI {number}"


def _layer(order: int, number: int, layer: Layer) -> Dataset:
    item = Dataset()
    item.GraphicLayer, item.GraphicLayerOrder = _layer_name(number), order
    item.GraphicLayerRecommendedDisplayCIELabValue = list(cielab(layer.colour))
    item.GraphicLayerDescription = layer.description[:64]
    return item


def _displayed_area(header: Dataset, place: Place) -> Dataset:
    """Return the whole image, fitted to the window (PS3.3 C.10.4)."""
    item = Dataset()
    item.DisplayedAreaTopLeftHandCorner = [1, 1]
    item.DisplayedAreaBottomRightHandCorner = [int(header.Columns), int(header.Rows)]
    item.PresentationSizeMode = "SCALE TO FIT"
    if place.spacing_mm is not None and not place.is_magnified:
        item.PresentationPixelSpacing = [round(value, 8) for value in place.spacing_mm]
    else:
        ratio = header.get("PixelAspectRatio") or [1, 1]
        if place.spacing_mm is not None:
            ratio = [round(value * 1e6) for value in place.spacing_mm]
        item.PresentationPixelAspectRatio = [int(value) for value in ratio]
    return item


def _annotation(drawn: Drawn, image: SourceImage, header: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedImageSequence = [instance_of(image, drawn.frame)]
    item.GraphicLayer = _layer_name(drawn.layer)
    inside = np.clip(drawn.points, 0, (int(header.Columns), int(header.Rows)))
    graphic = Dataset()
    graphic.GraphicAnnotationUnits = "PIXEL"
    graphic.GraphicDimensions = 2
    graphic.NumberOfGraphicPoints = len(inside)
    graphic.GraphicData = inside.ravel().tolist()
    graphic.GraphicType = "POLYLINE"
    if np.array_equal(inside[0], inside[-1]):
        graphic.GraphicFilled = "N"
    if drawn.tracking is not None:
        graphic.TrackingID, graphic.TrackingUID = drawn.tracking.identifier, drawn.tracking.uid
    item.GraphicObjectSequence = [graphic]
    if drawn.text:
        text = Dataset()
        text.AnchorPointAnnotationUnits = "PIXEL"
        text.UnformattedTextValue = drawn.text
        text.AnchorPoint = [float(inside[:, 0].min()), float(inside[:, 1].min())]
        text.AnchorPointVisibility = "N"
        item.TextObjectSequence = [text]
    return item


def _describe_greys(ds: Dataset, header: Dataset) -> None:
    """Keep the image's own greys: what a presentation state does not say is taken as identity (PS3.4 N.2.1)."""
    slope, intercept = header.get("RescaleSlope"), header.get("RescaleIntercept")
    if header.get("ModalityLUTSequence"):
        table = header.ModalityLUTSequence[0]
        ds.ModalityLUTSequence = [_lut(table, ModalityLUTType=str(table.get("ModalityLUTType") or "US"))]
    elif slope is not None and intercept is not None:
        ds.RescaleSlope, ds.RescaleIntercept = slope, intercept
        ds.RescaleType = header.get("RescaleType") or "US"
    voi = Dataset()
    if header.get("VOILUTSequence"):
        voi.VOILUTSequence = [_lut(header.VOILUTSequence[0])]  # one item only (PS3.3 C.11.8)
    elif header.get("WindowCenter") not in (None, "") and header.get("WindowWidth") not in (None, ""):
        for keyword in ("WindowCenter", "WindowWidth", "WindowCenterWidthExplanation", "VOILUTFunction"):
            if header.get(keyword) not in (None, ""):
                setattr(voi, keyword, header[keyword].value)
    if len(voi):
        ds.SoftcopyVOILUTSequence = [voi]
    ds.PresentationLUTShape = "INVERSE" if header.PhotometricInterpretation == "MONOCHROME1" else "IDENTITY"


def _lut(table: Dataset, **also: str) -> Dataset:
    """Return a look-up table as presentation states have it: 8 or 16 bits an entry (PS3.3 C.11.1, C.11.8).

    The VRs of the source's depend on its pixels. Of a VOI LUT the entries span black to white, so fewer bits are
    stretched to 16; what a Modality LUT gives are values, which stay.
    """
    entries, first, bits = (int(value) for value in table.LUTDescriptor)
    data = table.LUTData
    held = np.frombuffer(data, "<u2") if isinstance(data, bytes) else np.asarray(data, np.uint16)
    if bits not in (8, 16):
        if not also:
            held = np.rint(held * (65535 / (2**bits - 1))).clip(0, 65535)
        bits = 16
    item = Dataset()
    item.add_new("LUTDescriptor", "US" if first >= 0 else "SS", [_as_vr(entries, first), first, bits])
    item.add_new("LUTData", "OW", held.astype("<u2").tobytes())
    if table.get("LUTExplanation"):
        item.LUTExplanation = table.LUTExplanation
    for keyword, value in also.items():
        setattr(item, keyword, value)
    return item


def _as_vr(entries: int, first: int) -> int:
    """Return a number of entries as SS holds it where the first value is negative."""
    return entries - 65536 if first < 0 and entries > 32767 else entries


def srgb() -> bytes:
    """Return an ICC profile of sRGB, the same whenever it is made."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[_PROFILE_DATE] = _YEAR_2000
    return bytes(profile) + b"\0" * (len(profile) % 2)
