"""``POST /predict``: pictures and volumes. (n) is a defect of the public server that is not here."""

from __future__ import annotations

import gzip
import io
import struct
from pathlib import Path

import numpy as np
import pytest
from enhanced import enhanced, shuffled
from factories import ct_series, mr_series
from PIL import Image
from pydicom.uid import generate_uid
from questions import QuestionModel as Model
from questions import body, client, encoded, grey, masks, part10, png, zipped

from inference.predict_inputs import dicom_files
from inference.predict_request import InvalidRequest, PredictRequest
from inference.predict_settings import PredictSettings

# -- Pictures -------------------------------------------------------------------------------------------------------


def test_masks_lie_on_the_grid_of_each_picture_sent() -> None:
    """(4)"""
    answer = client().post(
        "/predict",
        json=body({"data": png((30, 50)), "format": "png"}, {"data": png((20, 10), kind="jpg"), "format": ".JPG"}),
    )
    assert answer.json is not None
    assert answer.json["is_3d"] is False
    assert answer.json["segmentation_mask"] == answer.json["segmentation_2d"]
    assert [mask.shape for mask in masks(answer)] == [(30, 50), (20, 10)]
    assert {mask.dtype.name for mask in masks(answer)} == {"uint8"}
    assert set(np.unique(masks(answer)[0])) <= {0, 1}


def test_an_answer_without_a_mask_has_an_empty_list() -> None:
    answer = client(Model(draws=0)).post("/predict", json=body())
    assert answer.json is not None
    assert (answer.json["segmentation_2d"], answer.json["is_3d"]) == ([], False)


def test_several_masks_of_one_picture_are_joined() -> None:
    assert len(masks(client(Model(draws=3)).post("/predict", json=body()))) == 1


def test_boxes_are_in_pixels_of_the_picture() -> None:
    answer = client().post("/predict", json=body(task="detection"))
    assert answer.json is not None
    assert answer.json["boxes"] == [[12.5, 15.0, 37.5, 30.0]]


def test_a_radiograph_and_its_inverse_give_the_same_picture() -> None:
    """(6)"""
    pixels = np.random.default_rng(2).integers(0, 4096, (40, 30))
    model = Model()
    for data in (grey(pixels), grey(4095 - pixels, "MONOCHROME1")):
        sent = body({"data": encoded(data), "format": "dcm"}, modality="cxr", task="classification")
        assert client(model).post("/predict", json=sent).status_code == 200
    one, other = (question.pictures[0] for question in model.asked)
    assert np.array_equal(one, other)


def test_rescale_and_window_are_applied_and_negative_values_do_not_wrap() -> None:
    """(6)"""
    pixels = np.linspace(-1000, 3000, 1200).reshape(40, 30).astype(int)
    data = grey(pixels, RescaleSlope=2, RescaleIntercept=-10, WindowCenter=1000, WindowWidth=400)
    model = Model()
    client(model).post("/predict", json=body({"data": encoded(data), "format": "dcm"}, modality="cxr", task="report"))
    shown = model.asked[0].pictures[0][..., 0].ravel().astype(int)
    assert (np.diff(shown) >= 0).all()
    values = pixels.ravel() * 2 - 10
    assert set(shown[values < 790]) == {0}
    assert set(shown[values > 1210]) == {255}


def test_a_picture_of_16_bits_is_spread_not_clipped() -> None:
    out = io.BytesIO()
    Image.fromarray(np.linspace(0, 4095, 600).reshape(20, 30).astype(np.uint16)).save(out, "PNG")
    model = Model()
    client(model).post("/predict", json=body({"data": encoded(out.getvalue()), "format": "png"}))
    shown = model.asked[0].pictures[0]
    assert (shown.min(), shown.max(), len(np.unique(shown))) == (0, 255, 256)


def test_the_header_adds_to_the_context_and_sent_lines_win() -> None:
    pixels = np.arange(12).reshape(3, 4)
    image = {"data": encoded(grey(pixels, PatientAge="064Y", PatientSex="F")), "format": "dcm"}
    sent = body(image, modality="cxr", task="report", context="Indication: cough.")
    answer = client().post("/predict", json=sent)
    assert answer.json is not None
    assert answer.json["context_used"] == "Age:60-70.\nGender:F.\nIndication: cough."
    answer = client().post("/predict", json={**sent, "context": "Age:5.\nGender:M."})
    assert answer.json is not None
    assert answer.json["context_used"] == "Age:5.\nGender:M."


def test_the_whole_context_comes_from_the_header_and_an_earlier_image_of_the_patient_is_the_comparison() -> None:
    pixels = np.arange(12).reshape(3, 4)
    said = {"PatientAge": "064Y", "PatientSex": "F", "ReasonForStudy": "Mrs. CANARY: dyspnea"}
    now = {"data": encoded(grey(pixels, **said)), "format": "dcm"}
    before = {"data": encoded(grey(pixels, StudyDate="20231001")), "format": "dcm"}
    stranger = {"data": encoded(grey(pixels, StudyDate="20230101", PatientID="OTHER")), "format": "dcm"}
    sent = body(now, modality="cxr", task="report") | {"images": [now, before, stranger]}
    answer = client().post("/predict", json=sent)
    assert answer.json is not None
    assert answer.json["context_used"] == (
        "Age:60-70.\nGender:F.\nIndication: Mrs. ___: dyspnea.\nComparison: DX chest, 3 months earlier."
    )


def test_frontal_and_lateral_of_one_day_are_no_comparison() -> None:
    image = {"data": encoded(grey(np.arange(12).reshape(3, 4), PatientBirthDate="")), "format": "dcm"}
    answer = client().post("/predict", json=body(image, modality="cxr", task="report") | {"images": [image, image]})
    assert answer.json is not None
    assert answer.json["context_used"] == ""


@pytest.mark.parametrize("kind", ["png", "dcm"])
def test_a_picture_too_large_is_refused_before_it_is_decoded(kind: str) -> None:
    data = png((40, 40)) if kind == "png" else encoded(grey(np.arange(1600).reshape(40, 40)))
    answer = client(most_pixels=1000).post("/predict", json=body({"data": data, "format": kind}))
    assert answer.status_code in (413, 422)
    assert answer.json is not None
    assert "1000 pixels" in answer.json["details"][0]


def test_a_body_too_large_is_answered_413() -> None:
    answer = client(most_body_mb=1).post("/predict", json=body({"data": "A" * (2 << 20), "format": "png"}))
    assert answer.status_code == 413


# -- Volumes --------------------------------------------------------------------------------------------------------


def test_a_zipped_series_is_one_volume_in_its_own_order_whatever_the_files_are_called(tmp_path: Path) -> None:
    """(7), (9)"""
    series = ct_series(6)
    files = part10(series, tmp_path)
    order = [3, 0, 5, 1, 4, 2]
    names = {f"a/b{i}/f{'x' * i}": files[i] for i in order} | {"DICOMDIR": b"no", "readme.txt": b"hello"}
    model = Model()
    answer = client(model).post(
        "/predict", json=body({"data": zipped(names), "format": "dcm", "is_series": True}, modality="ct")
    )
    assert answer.status_code == 200, answer.text
    assert answer.json is not None
    assert model.asked[0].prompt == "Segment the liver."
    volume = model.asked[0].volume
    assert volume is not None
    assert [item["sop_instance_uid"] for item in answer.json["slices"]] == list(volume.sop_instance_uids)
    assert answer.json["is_3d"] is True
    assert [mask.shape for mask in masks(answer, "segmentation_3d")] == [volume.grid.shape[1:]] * 6
    assert volume.unit == "HU"


def test_the_slices_may_be_sent_one_by_one(tmp_path: Path) -> None:
    files = [{"data": encoded(data), "format": "dcm"} for data in part10(ct_series(4), tmp_path)]
    assert len(masks(client().post("/predict", json=body(*files, modality="ct")))) == 4


def test_of_several_series_the_one_that_fits_is_taken(tmp_path: Path) -> None:
    """(9)"""
    files = part10(ct_series(4), tmp_path / "ct") + part10(mr_series(5), tmp_path / "mr")
    data = zipped({str(i): file for i, file in enumerate(files)})
    answer = client().post("/predict", json=body({"data": data, "format": "dcm", "is_series": True}, modality="ct"))
    assert len(masks(answer)) == 4


def test_several_series_that_fit_are_listed(tmp_path: Path) -> None:
    """(9)"""
    other = ct_series(5)
    series_uid = generate_uid()
    for ds in other:
        ds.SeriesInstanceUID, ds.SOPInstanceUID = series_uid, generate_uid()
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    files = part10(ct_series(4), tmp_path / "one") + part10(other, tmp_path / "other")
    data = zipped({str(i): file for i, file in enumerate(files)})
    answer = client().post("/predict", json=body({"data": data, "format": "dcm", "is_series": True}, modality="ct"))
    assert answer.status_code == 400
    assert answer.json is not None
    assert answer.json["details"] == [
        "images: not exactly one CT volume",
        "series 1, 4 instances: a CT volume",
        "series 2, 5 instances: a CT volume",
    ]


def test_a_series_with_a_gap_is_refused_with_the_reason(tmp_path: Path) -> None:
    files = part10(ct_series(8), tmp_path)
    data = zipped({str(i): file for i, file in enumerate(files) if i != 4})
    answer = client().post("/predict", json=body({"data": data, "format": "dcm", "is_series": True}, modality="ct"))
    assert answer.status_code == 422
    assert "missing" in answer.text.lower()


def nifti(voxels: np.ndarray, *, claim: tuple[int, ...] | None = None) -> bytes:
    """Return a gzipped NIfTI-1 file of voxels ``(x, y, z)``."""
    header = bytearray(348)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, *(claim or voxels.shape), 1, 1, 1, 1)
    struct.pack_into("<hh", header, 70, 4, 16)
    struct.pack_into("<8f", header, 76, 1.0, 1.0, 1.0, 3.0, 0, 0, 0, 0)
    struct.pack_into("<f", header, 108, 352.0)
    struct.pack_into("<f", header, 112, 1.0)
    struct.pack_into("<h", header, 254, 1)
    for row, values in enumerate(((-1.0, 0, 0, 0), (0, -1.0, 0, 0), (0, 0, 3.0, 0))):
        struct.pack_into("<4f", header, 280 + 16 * row, *values)
    header[344:348] = b"n+1\0"
    return gzip.compress(bytes(header) + b"\0" * 4 + voxels.astype("<i2").tobytes(order="F"))


def test_a_nifti_is_taken_and_its_masks_are_its_slices() -> None:
    """(3)"""
    voxels = np.zeros((8, 6, 5), np.int16)
    voxels[7, 2, 3] = 300
    answer = client().post("/predict", json=body({"data": encoded(nifti(voxels)), "format": "nii.gz"}, modality="CT"))
    assert answer.status_code == 200, answer.text
    drawn = np.stack(masks(answer))
    assert drawn.shape == (5, 6, 8)
    assert np.argwhere(drawn).tolist() == [[3, 2, 7]]
    assert answer.json is not None
    assert "slices" not in answer.json


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"no gzip", 422),
        (gzip.compress(b"short"), 422),
        (nifti(np.zeros((4, 4, 4)), claim=(30000, 30000, 30000)), 413),
        (nifti(np.zeros((4, 4, 4)), claim=(40, 40, 40)), 422),
        (nifti(np.zeros((4, 4, 4)), claim=(4, 4, 0)), 422),
        (gzip.compress(b"\0" * (3 << 20)), 413),
    ],
    ids=["no gzip", "short", "more voxels than allowed", "more voxels than there are", "no slices", "bomb"],
)
def test_a_nifti_that_lies_is_refused(data: bytes, status: int) -> None:
    sent = body({"data": encoded(data), "format": "nii.gz"}, modality="ct")
    assert client(most_unpacked_mb=2).post("/predict", json=sent).status_code == status


def test_an_archive_cannot_write_outside_nor_burst(tmp_path: Path) -> None:
    """(9)"""
    outside = tmp_path / "outside"
    sent = {"format": "dcm", "is_series": True}
    for names, status in (
        ({f"../../../../..{outside}": b"x", str(outside): b"x"}, 422),
        ({"bomb": b"\0" * (3 << 20)}, 413),
        ({str(i): b"" for i in range(30)}, 413),
    ):
        answer = client(most_unpacked_mb=2, most_entries=20).post(
            "/predict", json=body({**sent, "data": zipped(names)}, modality="ct")
        )
        assert answer.status_code == status
    assert not outside.exists()


def test_each_slice_of_an_enhanced_image_names_its_own_frame(tmp_path: Path) -> None:
    series = ct_series(6)
    for ds in series[::2]:
        ds.PixelData = np.full((ds.Rows, ds.Columns), 3000, np.int16).tobytes()
    frames = shuffled(series)
    (file,) = part10([enhanced(frames)], tmp_path)
    answer = client().post("/predict", json=body({"data": encoded(file), "format": "dcm"}, modality="ct"))
    assert answer.json is not None
    named = [frames[part["frame"] - 1] for part in answer.json["slices"]]
    assert [ds.ImagePositionPatient for ds in named] == [ds.ImagePositionPatient for ds in series]
    drawn = [bool(mask.all()) for mask in masks(answer)]
    assert drawn == [True, False] * 3
    assert drawn == [bool((ds.pixel_array == 3000).all()) for ds in named]


def test_a_picture_is_no_volume() -> None:
    assert client().post("/predict", json=body(modality="ct")).status_code == 415
    volume = {"data": encoded(nifti(np.zeros((4, 4, 4)))), "format": "nii.gz"}
    assert client().post("/predict", json=body(volume)).status_code == 415


def test_archives_of_one_question_share_the_room(tmp_path: Path) -> None:
    archive = {"data": zipped({"a": b"\0" * (3 << 19)}), "format": "dcm", "is_series": True}
    asked = PredictRequest.model_validate({**body(modality="ct"), "images": [archive, archive], "output": "dicom"})
    with pytest.raises(InvalidRequest) as refused:
        dicom_files(asked, PredictSettings(most_unpacked_mb=2), tmp_path)
    assert refused.value.status == 413
