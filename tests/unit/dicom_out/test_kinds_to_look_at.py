"""Key images, reports in PDF, presentation states and key objects: what is changed does not pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from factories import ct_series
from looking import (
    NODULE,
    box_on,
    cine_result,
    engine,
    image_result,
    phantom,
    photograph,
    photograph_result,
    radiograph,
    radiograph_result,
    volume_result,
    writer,
    written,
)
from pictures import with_pixels
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ColorSoftcopyPresentationStateStorage, GrayscaleSoftcopyPresentationStateStorage
from results import result_of
from scipy.ndimage import uniform_filter  # type: ignore[attr-defined]

from dicom_out.profile import BUILT_IN, Choice, Options, Profile
from dicom_out.writer import Writer
from domain.errors import VerificationFailed
from domain.findings import Findings
from domain.job import ResultObject
from domain.ports import Result

ROLES: tuple[Choice, ...] = ("SC", "PDF", "GSPS", "KOS")
RESULTS: dict[str, Callable[[Path], Result]] = {
    "volume": volume_result,
    "radiograph": radiograph_result,
    "inverted radiograph": lambda folder: radiograph_result(folder, inverted=True),
    "radiograph with a VOI LUT": lambda folder: radiograph_result(folder, voi_lut=True),
    "photograph": photograph_result,
    "cine": cine_result,
}


@pytest.mark.parametrize("name", RESULTS)
def test_what_was_written_passes_and_is_written_again_the_same(name: str, tmp_path: Path) -> None:
    result, objects = written(RESULTS[name](tmp_path / "source"), tmp_path / "results", *ROLES)
    writer(*ROLES).verify(result, objects)
    kinds = {item.kind for item in objects}
    presentation = {"volume": set(), "photograph": {"CSPS"}, "cine": {"CSPS"}}.get(name, {"GSPS"})
    assert kinds == {"SC", "PDF", "KOS"} | presentation
    again = writer(*ROLES).write(result, tmp_path / "again")
    assert [item.path.read_bytes() for item in again] == [item.path.read_bytes() for item in objects]


@pytest.mark.parametrize("profile", ["ohif", "slicer"])
@pytest.mark.parametrize("name", ["radiograph", "photograph", "cine", "volume"])
def test_who_reads_no_segmentation_of_pictures_gets_key_images(name: str, profile: str, tmp_path: Path) -> None:
    result, made = RESULTS[name](tmp_path / "source"), Writer(default=BUILT_IN[profile])
    objects = made.write(result, tmp_path / "results")
    made.verify(result, objects)
    report = "SR" if profile == "ohif" else "SR-COMPREHENSIVE"
    assert {item.kind for item in objects} == ({"SEG", report} if name == "volume" else {"SC", report})


def test_nothing_located_has_a_report_and_no_picture(tmp_path: Path) -> None:
    result = volume_result(tmp_path / "source")
    labels = np.zeros_like(result.findings.labels)
    nothing = replace(result, findings=Findings(labels=labels, segments=result.findings.segments))
    _, objects = written(nothing, tmp_path / "results", *ROLES)
    writer(*ROLES).verify(nothing, objects)
    assert [item.kind for item in objects] == ["PDF"]


def test_every_object_says_that_it_is_annotated_and_whose_it_is(tmp_path: Path) -> None:
    _, objects = written(radiograph_result(tmp_path / "source"), tmp_path / "results", *ROLES)
    for item in objects:
        ds = dcmread(item.path)
        assert ds.get("BurnedInAnnotation", "YES") == "YES"
        assert (ds.PatientName, ds.PatientID, ds.AccessionNumber) == ("CANARY^PHI", "CANARYID", "CANARYACC")
        assert ds.SeriesDescription.startswith("AI ")
        assert "Laterality" not in ds or item.kind in ("SC", "GSPS")


@pytest.mark.parametrize("said", ["YES", "NO", None])
def test_a_picture_may_name_the_patient_whatever_its_source_says(said: str | None, tmp_path: Path) -> None:
    """What the source has burned in is in it; a face in the source is a face in the picture."""
    face = photograph()
    if said is not None:
        face.BurnedInAnnotation = face.RecognizableVisualFeatures = said
    shown = image_result([face], tmp_path / "source", photograph_result(tmp_path / "like").findings)
    result, objects = written(shown, tmp_path / "results", "SC", "PDF")
    writer("SC", "PDF").verify(result, objects)
    pictures = [dcmread(item.path) for item in objects]
    assert {ds.BurnedInAnnotation for ds in pictures} == {"YES"}
    assert {ds.get("RecognizableVisualFeatures") for ds in pictures} == {"YES" if said == "YES" else None}
    if said == "YES":
        given = written(result, tmp_path / "again", "SC")
        fails(given, "SC", lambda ds: ds.pop("RecognizableVisualFeatures"), "can be recognised")


def test_a_hundred_segments_that_touch_and_boxes_that_coincide_pass(tmp_path: Path) -> None:
    """Outlines hide one another, and not all fit the legend; that is no fault."""
    series = ct_series(voxels=np.stack([phantom(100, 100) * 400 + k for k in range(3)]).astype(np.int16))
    rows, columns = np.mgrid[:100, :100] // 10
    labels = np.repeat((rows * 10 + columns + 1).astype(np.uint8)[None], 3, axis=0)
    segments = tuple(replace(NODULE, key=str(n), label=f"Structure {n}") for n in range(1, 101))
    boxes = (box_on(1), replace(box_on(1, key="other"), type=NODULE.type))
    findings = Findings(labels=labels, segments=segments, detections=boxes)
    result = result_of(series, tmp_path / "source", findings=findings, engine=engine(*segments))
    _, objects = written(result, tmp_path / "results", "SC", "PDF")
    writer("SC", "PDF").verify(result, objects)


@pytest.mark.parametrize("rows", [90, 2700])
def test_an_outline_under_the_box_of_a_detection_or_a_calliper_is_no_fault(tmp_path: Path, rows: int) -> None:
    """What finds a mass also segments it: the box lies on the mask's outline, and is drawn over it."""
    columns, step = rows * 7 // 9, rows // 90
    source = with_pixels(radiograph(), (phantom(rows, columns) * 4000).astype(np.uint16))
    labels = np.zeros((1, rows, columns), np.uint8)
    labels[0, 30 * step : 60 * step, 20 * step : 45 * step] = 1
    around = box_on(box=(20 * step, 30 * step, 45 * step, 60 * step))
    found = Findings(labels=labels, segments=(NODULE,), detections=(around,))
    result = image_result([source], tmp_path / "source", found)
    _, objects = written(result, tmp_path / "results", "SC")
    writer("SC").verify(result, objects)
    fails((result, objects), "SC", without_colour((0, 210, 255)), "not where the detection is")


def test_a_ragged_mask_whose_outline_covers_much_of_the_picture_is_no_fault(tmp_path: Path) -> None:
    """A model may draw noise: a dim picture is still its source's, the right way round."""
    y, x = np.mgrid[:80, :100]
    dim = (20 + (np.hypot(y - 40, x - 50) < 35) * 60 + y * 0.05).astype(np.uint8)
    source = with_pixels(photograph(), np.repeat(dim[:, :, None], 3, axis=2))
    labels = (uniform_filter(np.random.default_rng(0).random((1, 80, 100)), (0, 3, 3)) > 0.5).astype(np.uint8)
    labels[:, 40:] = 0
    result = image_result([source], tmp_path / "source", Findings(labels=labels, segments=(NODULE,)))
    _, objects = written(result, tmp_path / "results", "SC")
    writer("SC").verify(result, objects)


def test_colour_has_a_colour_presentation_state_and_grey_a_grey_one(tmp_path: Path) -> None:
    for name, uid in (
        ("photograph", ColorSoftcopyPresentationStateStorage),
        ("radiograph", GrayscaleSoftcopyPresentationStateStorage),
    ):
        _, objects = written(RESULTS[name](tmp_path / name), tmp_path / f"results {name}", "GSPS")
        assert [item.sop_class_uid for item in objects] == [uid]


Change = Callable[[Dataset], object]
Objects = tuple[Result, tuple[ResultObject, ...]]


def fails(given: Objects, role: Choice, change: Change, match: str, which: int = 0) -> None:
    """Change one object on disk and expect the check to say ``match``."""
    result, objects = given
    ds = dcmread(objects[which].path)
    change(ds)
    ds.save_as(objects[which].path, enforce_file_format=True)
    with pytest.raises(VerificationFailed, match=match):
        writer(role).verify(result, objects)


def picture_changed(change: Callable[[np.ndarray], np.ndarray]) -> Change:
    """Return a change of the pixels."""

    def apply(ds: Dataset) -> None:
        pixels = change(ds.pixel_array.copy())
        ds.PixelData = np.ascontiguousarray(pixels).tobytes()

    return apply


def mirrored(pixels: np.ndarray) -> np.ndarray:
    side = pixels.shape[1] - 400
    pixels[:, :side] = pixels[:, :side][:, ::-1]
    return pixels


def without_colour(colour: tuple[int, int, int]) -> Change:
    def apply(pixels: np.ndarray) -> np.ndarray:
        pixels[(pixels == colour).all(axis=2)] = 128
        return pixels

    return picture_changed(apply)


def outline_moved(colour: tuple[int, int, int], by: int) -> Change:
    def apply(pixels: np.ndarray) -> np.ndarray:
        side = pixels.shape[1] - 400
        drawn = (pixels[:, :side] == colour).all(axis=2)
        pixels[:, :side][drawn] = 90
        pixels[:, :side][np.roll(drawn, by, axis=1)] = colour
        return pixels

    return picture_changed(apply)


LIVER, BOX = (90, 200, 120), (255, 210, 0)
SC_FAULTS: dict[str, tuple[str, Change, str]] = {
    "mirrored": ("volume", picture_changed(mirrored), "does not show its source"),
    "upside down": ("radiograph", picture_changed(lambda p: p[::-1]), "does not show its source"),
    "an outline is missing": ("volume", without_colour(LIVER), "no whole outline"),
    "an outline lies elsewhere": ("volume", outline_moved(LIVER, 90), "is not its mask's"),
    "a box lies elsewhere": ("radiograph", outline_moved(BOX, 60), "not where the detection is"),
    "a box is missing": ("radiograph", without_colour(BOX), "not where the detection is"),
    "another slice is named": (
        "volume",
        lambda ds: setattr(ds.SourceImageSequence[0], "ReferencedSOPInstanceUID", "1.2.3"),
        "not the source's",
    ),
    "the source is not in the series": (
        "volume",
        lambda ds: setattr(ds.ReferencedSeriesSequence[0], "SeriesInstanceUID", "1.2.3"),
        "another series than its own",
    ),
    "not said to be annotated": ("volume", lambda ds: setattr(ds, "BurnedInAnnotation", "NO"), "annotated"),
    "not said to be derived": ("volume", lambda ds: setattr(ds, "ImageType", ["ORIGINAL", "PRIMARY"]), "derived"),
    "another patient": ("volume", lambda ds: setattr(ds, "PatientID", "OTHER"), "PatientID"),
    "another SOP class of the source": (
        "volume",
        lambda ds: setattr(ds.SourceImageSequence[0], "ReferencedSOPClassUID", "1.2.840.10008.5.1.4.1.1.4"),
        "not the source's",
    ),
}


@pytest.mark.parametrize("fault", SC_FAULTS)
def test_a_fault_in_a_key_image_is_noticed(fault: str, tmp_path: Path) -> None:
    name, change, match = SC_FAULTS[fault]
    fails(written(RESULTS[name](tmp_path / "source"), tmp_path / "results", "SC"), "SC", change, match)


def test_a_key_image_of_a_neighbouring_slice_is_noticed(tmp_path: Path) -> None:
    """Its picture is alike, its outlines are not all there."""
    given = written(volume_result(tmp_path / "source"), tmp_path / "results", "SC")
    uids = [str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in given[0].source_paths]

    def change(ds: Dataset) -> None:
        ds.SourceImageSequence[0].ReferencedSOPInstanceUID = uids[0]
        ds.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0].ReferencedSOPInstanceUID = uids[0]

    fails(given, "SC", change, "which is not there")


def test_a_report_of_other_numbers_is_noticed(tmp_path: Path) -> None:
    result, objects = written(volume_result(tmp_path / "source"), tmp_path / "results", "PDF")
    numbers = result.findings.measurements
    for changed in (
        (replace(numbers[0], value=8.8708), numbers[1]),
        (numbers[0], replace(numbers[1], value=7.13)),
        (*numbers, replace(numbers[0], segment="nodule")),
        (replace(numbers[0], unit=numbers[1].unit), numbers[1]),
    ):
        other = replace(result, findings=replace(result.findings, measurements=changed))
        with pytest.raises(VerificationFailed, match="a measurement is missing"):
            writer("PDF").verify(other, objects)
    said = replace(result.findings.evaluations[0], value="Everybody is ill")
    other = replace(result, findings=replace(result.findings, evaluations=(said,)))
    with pytest.raises(VerificationFailed, match="lacks a statement"):
        writer("PDF").verify(other, objects)
    other = replace(result, manifest=replace(result.manifest, version="9.9.9"))
    with pytest.raises(VerificationFailed, match="about the model"):
        writer("PDF").verify(other, objects)


def document(change: Callable[[bytes], bytes]) -> Change:
    def apply(ds: Dataset) -> None:
        ds.EncapsulatedDocument = change(bytes(ds.EncapsulatedDocument))

    return apply


PDF_FAULTS: dict[str, tuple[Change, str]] = {
    "no PDF": (document(lambda pdf: b"x" * len(pdf)), "no whole PDF"),
    "cut off": (document(lambda pdf: pdf[: len(pdf) // 2 * 2 - 200]), "Length is not"),
    "a damaged object": (document(lambda pdf: pdf.replace(b"1 0 obj", b"1 0 obx", 1)), "table of objects"),
    "a wrong length": (lambda ds: setattr(ds, "EncapsulatedDocumentLength", 17), "Length is not"),
    "no title": (lambda ds: setattr(ds, "DocumentTitle", ""), "no title"),
    "another type": (lambda ds: setattr(ds, "MIMETypeOfEncapsulatedDocument", "text/xml"), "what it is"),
    "another source": (
        lambda ds: setattr(ds.SourceInstanceSequence[0], "ReferencedSOPInstanceUID", "1.2.3"),
        "not the source's",
    ),
}


@pytest.mark.parametrize("fault", PDF_FAULTS)
def test_a_fault_in_a_report_is_noticed(fault: str, tmp_path: Path) -> None:
    change, match = PDF_FAULTS[fault]
    fails(written(volume_result(tmp_path / "source"), tmp_path / "results", "PDF"), "PDF", change, match)


def graphic(ds: Dataset, index: int = 0) -> Dataset:
    item: Dataset = ds.GraphicAnnotationSequence[index].GraphicObjectSequence[0]
    return item


def shifted(by: float) -> Change:
    def apply(ds: Dataset) -> None:
        graphic(ds).GraphicData = [value + by for value in graphic(ds).GraphicData]

    return apply


GSPS_FAULTS: dict[str, tuple[str, Change, str]] = {
    "half a pixel off": ("radiograph", shifted(0.5), "a box on image 1"),
    "an outline half a pixel off": ("photograph", shifted(0.6), "outline of segment 1"),
    "a missing box": ("radiograph", lambda ds: ds.GraphicAnnotationSequence.pop(), "a box on image 1"),
    "a hole that is filled": ("photograph", lambda ds: ds.GraphicAnnotationSequence.pop(), "outline of segment 1"),
    "one box more": (
        "radiograph",
        lambda ds: ds.GraphicAnnotationSequence.append(ds.GraphicAnnotationSequence[0]),
        "was not found",
    ),
    "an undeclared layer": (
        "radiograph",
        lambda ds: setattr(ds.GraphicAnnotationSequence[0], "GraphicLayer", "OTHER"),
        "not declared",
    ),
    "display units": (
        "radiograph",
        lambda ds: setattr(graphic(ds), "GraphicAnnotationUnits", "DISPLAY"),
        "in pixels",
    ),
    "an inverted image": ("radiograph", lambda ds: setattr(ds, "PresentationLUTShape", "INVERSE"), "invert"),
    "half of the image": (
        "radiograph",
        lambda ds: setattr(ds.DisplayedAreaSelectionSequence[0], "DisplayedAreaBottomRightHandCorner", [35, 90]),
        "whole image",
    ),
    "another image": (
        "radiograph",
        lambda ds: setattr(
            ds.ReferencedSeriesSequence[0].ReferencedImageSequence[0], "ReferencedSOPInstanceUID", "1.2.3"
        ),
        "not the source's",
    ),
    "another frame": (
        "cine",
        lambda ds: setattr(ds.GraphicAnnotationSequence[0].ReferencedImageSequence[0], "ReferencedFrameNumber", 1),
        "was not found|outline of segment",
    ),
    "no profile": ("photograph", lambda ds: ds.pop("ICCProfile"), "ICC"),
    "a number of points": ("radiograph", lambda ds: setattr(graphic(ds), "NumberOfGraphicPoints", 4), "NumberOf"),
}


@pytest.mark.parametrize("fault", GSPS_FAULTS)
def test_a_fault_in_a_presentation_state_is_noticed(fault: str, tmp_path: Path) -> None:
    name, change, match = GSPS_FAULTS[fault]
    fails(written(RESULTS[name](tmp_path / "source"), tmp_path / "results", "GSPS"), "GSPS", change, match)


def images(ds: Dataset) -> list[Dataset]:
    return [item for item in ds.ContentSequence if item.ValueType in ("IMAGE", "COMPOSITE")]


KOS_FAULTS: dict[str, tuple[Change, str]] = {
    "a title": (lambda ds: setattr(ds.ConceptNameCodeSequence[0], "CodeValue", "113010"), "title"),
    "an image that is not there": (
        lambda ds: setattr(images(ds)[0].ReferencedSOPSequence[0], "ReferencedSOPInstanceUID", "1.2.3"),
        "not the source's",
    ),
    "an image twice": (
        lambda ds: setattr(images(ds)[0], "ReferencedSOPSequence", images(ds)[1].ReferencedSOPSequence),
        "twice",
    ),
    "no evidence": (
        lambda ds: (
            ds.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence.pop()
        ),
        "evidence",
    ),
}


@pytest.mark.parametrize("fault", KOS_FAULTS)
def test_a_fault_in_a_key_object_selection_is_noticed(fault: str, tmp_path: Path) -> None:
    change, match = KOS_FAULTS[fault]
    fails(written(volume_result(tmp_path / "source"), tmp_path / "results", "KOS"), "KOS", change, match)


def rejecting() -> Writer:
    options = Options(superseded="reject")
    return Writer(default=Profile(name="test", objects=("SEG", "SR", "SC"), options=options))


def second_generation(folder: Path) -> Objects:
    """Return a result that replaces an earlier one, written, with the note that rejects it."""
    first = volume_result(folder / "source")
    objects = rejecting().write(first, folder / "first")
    assert "REJECTION" not in {item.kind for item in objects}
    second = replace(first, job_id="0" * 16, generation=2, predecessors=objects)
    return second, rejecting().write(second, folder / "second")


def test_a_rejection_names_what_is_superseded_and_no_report(tmp_path: Path) -> None:
    result, objects = second_generation(tmp_path)
    rejecting().verify(result, objects)
    note = dcmread(objects[-1].path)
    assert objects[-1].kind == "REJECTION"
    assert note.ConceptNameCodeSequence[0].CodeValue == "113001"
    named = {item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in images(note)}
    assert named == {item.sop_instance_uid for item in result.predecessors if item.kind != "SR"}


def test_a_rejection_of_something_else_is_noticed(tmp_path: Path) -> None:
    result, objects = second_generation(tmp_path)
    note = dcmread(objects[-1].path)
    images(note)[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID = objects[0].sop_instance_uid
    note.save_as(objects[-1].path, enforce_file_format=True)
    with pytest.raises(VerificationFailed, match="rejects other objects"):
        rejecting().verify(result, objects)
