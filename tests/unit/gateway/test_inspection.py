from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from drawn import rectangle, report, scoord
from factories import copied, ct_series, mr_series, pet_series, phases, save
from PIL import Image
from working import MANIFEST, OneEngine

from domain.engine import Answer
from domain.errors import ConfigurationError
from gateway.commands.inspect import inspect_files
from gateway.config import load_config
from gateway.inspection import Inspection, inspected
from gateway.offline import explain_routes
from gateway.sections import DrawingSection, RouteSection

CHEST = RouteSection(name="chest", engine="lungs", modality=("CT",), min_instances=3)
CONFIG = load_config(environ={}).model_copy(update={"routes": (CHEST,)})


def look(*paths: Path) -> Inspection:
    with inspected(paths, CONFIG, lambda what, share: None) as found:
        return found


def test_tells_volumes_routes_and_reasons(tmp_path: Path) -> None:
    save(ct_series(40), tmp_path / "ct")
    save(mr_series(3), tmp_path / "mr")
    chest, brain = look(tmp_path).stacks
    assert chest.verdict == "taken by chest"
    assert chest.kind == "CT, CT Image"
    assert chest.geometry == "20 x 16 x 40, 0.8 x 0.7 x 2.5 mm, axial, feet to head"
    assert chest.unit == "HU"
    assert (brain.verdict, brain.unit, brain.series, brain.study) == ("no-route", "", 2, 2)
    assert "Modality" in brain.reason


def test_a_zip_a_file_and_a_folder_read_alike(tmp_path: Path) -> None:
    paths = save(ct_series(4), tmp_path / "ct")
    with zipfile.ZipFile(tmp_path / "ct.zip", "w") as archive:
        for path in paths:
            archive.write(path, f"study/{path.name}")
    for given in ([tmp_path / "ct"], paths, [tmp_path / "ct.zip"]):
        (report,) = look(*given).stacks
        assert len(report.stack.headers) == 4


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    (path,) = save(ct_series(1), tmp_path / "ct")
    whole = tmp_path / "ct.zip"
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(path, "a.dcm")
    data = bytearray(whole.read_bytes())
    data[60:400] = bytes(340)
    whole.write_bytes(data)
    with pytest.raises(ConfigurationError, match=r"ct\.zip: the archive is damaged"):
        look(whole)


def test_what_is_in_no_stack_is_listed_with_its_reason(tmp_path: Path) -> None:
    series = ct_series(3)
    save(series, tmp_path / "a")
    save(series[:1], tmp_path / "b")
    series[1].RescaleIntercept = "-1"
    save(series[1:2], tmp_path / "c")
    (tmp_path / "d.txt").write_text("notes")
    found = look(tmp_path)
    assert len(found.stacks) == 1
    assert {item.path.relative_to(tmp_path).parts[0]: item.reason for item in found.left_out} == {
        "b": "the same instance again; the first one is used",
        "c": "SOPInstanceUID is there with another dataset; the first one is used",
        "d.txt": "Not a DICOM Part 10 file: no DICM prefix after the preamble",
    }


def test_files_in_an_archive_are_named_by_the_archive(tmp_path: Path) -> None:
    (path,) = save(ct_series(1), tmp_path / "ct")
    whole = tmp_path / "study.zip"
    with zipfile.ZipFile(whole, "w") as archive:
        archive.write(path, "images/a.dcm")
        archive.write(path, "images/b.dcm")
        archive.writestr("images/notes.txt", "notes")
    assert [item.path for item in look(whole).left_out] == [whole / "images/b.dcm", whole / "images/notes.txt"]


def test_json_has_the_grid_and_the_factor_to_suv(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(pet_series(3), tmp_path / "pt")
    assert inspect_files([tmp_path / "pt"], config=CONFIG, png=None, as_json=True) == 0
    said = json.loads(capsys.readouterr().out)
    (stack,) = said["stacks"]
    assert (said["schema_version"], stack["modality"], stack["unit"]) == (1, "PT", "BQML")
    assert stack["shape"] == [3, 16, 20]
    np.testing.assert_allclose(np.asarray(stack["affine_lps"])[:3, 3], (-10, -20, 30))
    assert stack["suv_body_weight_factor"] == pytest.approx(2.556e-4, rel=1e-3)
    assert (stack["taken_by"], stack["code"]) == ([], "no-route")
    assert [item["route"] for item in stack["routes"]] == ["chest"]


def test_json_has_the_windows_once_or_for_each_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    series = ct_series(3)
    for ds in series:
        ds.WindowCenter, ds.WindowWidth, ds.VOILUTFunction = ["40", "-600"], ["400", "1500"], "SIGMOID"
        ds.WindowCenterWidthExplanation = ["SOFT", "LUNG"]
    save(series, tmp_path / "ct")

    def voi() -> dict[str, object]:
        inspect_files([tmp_path / "ct"], config=CONFIG, png=None, as_json=True)
        found: dict[str, object] = json.loads(capsys.readouterr().out)["stacks"][0]["voi"]
        return found

    soft = {"centre": 40, "width": 400, "explanation": "SOFT"}
    lung = {"centre": -600, "width": 1500, "explanation": "LUNG"}
    assert voi() == {
        "differs": False, "windows": [[soft, lung]], "function": "SIGMOID", "has_lut_sequence": False
    }  # fmt: skip
    series[1].WindowCenter, series[1].WindowWidth = "41", "400"
    save(series, tmp_path / "ct")
    other = {"centre": 41, "width": 400, "explanation": "SOFT"}
    said = voi()
    assert (said["differs"], said["windows"]) == (True, [[soft, lung], [other], [soft, lung]])


def test_the_contact_sheet_shows_a_volume_in_the_window_of_its_header(tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.arange(-500, 1100, 80, dtype=np.int16), (6, 16, 20))
    series = ct_series(voxels=ramp)
    for ds in series:
        ds.WindowCenter, ds.WindowWidth = "0", "800"
    save(series, tmp_path / "a")
    sheet = tmp_path / "sheet.png"
    inspect_files([tmp_path / "a"], config=CONFIG, png=sheet, as_json=True)
    with Image.open(sheet) as image:
        axial = np.asarray(image.convert("L"), int)[60:100, :160]
    assert axial[:, 108:].min() == 255  # from 400 HU on


def test_nothing_that_identifies_the_patient_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(ct_series(4), tmp_path / "ct")
    inspect_files([tmp_path / "ct"], config=CONFIG, png=tmp_path / "sheet.png", as_json=True)
    inspect_files([tmp_path / "ct"], config=CONFIG, png=None, as_json=False)
    assert "CANARY" not in "".join(capsys.readouterr())


def test_the_table_says_each_reason_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        save(ct_series(1), tmp_path / name)
    assert inspect_files([tmp_path], config=CONFIG, png=None, as_json=False) == 0
    out, err = capsys.readouterr()
    assert out.count("single-slice") == 2
    assert err.count("#1 to 2: single-slice: There is one slice only.") == 1


def test_stacks_that_are_alike_share_a_row_unless_all_are_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(mr_series(3), tmp_path / "mr")
    save(phases(10), tmp_path / "ten")
    inspect_files([tmp_path], config=CONFIG, png=tmp_path / "few.png", as_json=False, context=True)
    out, err = capsys.readouterr()
    assert "2 to 11" in out
    assert "10 stacks, axial, acquisition 1 to acquisition 10" in out
    assert "3 each" in out
    assert "--all lists each" in err
    assert "#12" not in out + err
    inspect_files([tmp_path], config=CONFIG, png=tmp_path / "all.png", as_json=False, everything=True)
    out, err = capsys.readouterr()
    assert out.count("axial, acquisition") == 10
    assert "--all" not in err
    heights = [Image.open(tmp_path / name).height for name in ("few.png", "all.png")]
    assert heights == [2 * 160, 11 * 160]
    inspect_files([tmp_path], config=CONFIG, png=None, as_json=True)
    assert len(json.loads(capsys.readouterr().out)["stacks"]) == 11


def test_no_instance_at_all_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    assert inspect_files([tmp_path], config=CONFIG, png=None, as_json=False) == 1


def test_the_contact_sheet_has_a_row_for_every_stack(tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.arange(-500, 1100, 80, dtype=np.int16), (6, 16, 20))
    series = ct_series(voxels=ramp)
    save(series, tmp_path / "a")
    save(copied(ct_series(1)), tmp_path / "b")
    sheet = tmp_path / "sheet.png"
    inspect_files([tmp_path / "a", tmp_path / "b"], config=CONFIG, png=sheet, as_json=True)
    with Image.open(sheet) as image:
        picture = np.asarray(image.convert("L"), int)
    assert picture.shape == (320, 480)
    axial = picture[60:100, :160]
    assert axial[:, :20].mean() < 20  # the patient's right, dark here, is on the left
    assert axial[:, -20:].mean() > 230


def test_the_context_is_shown_with_its_sources_and_without_the_patient(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    series = ct_series(4)
    for ds in series:
        ds.ReasonForStudy, ds.PatientAge, ds.PatientSize = "CANARY with cough", "053Y", "170"
    save(series, tmp_path / "ct")
    inspect_files([tmp_path / "ct"], config=CONFIG, png=None, as_json=False, context=True)
    out, err = capsys.readouterr()
    assert "53 years" in out
    assert "ReasonForStudy of InstanceNumber 1 (1 identifying part removed)" in out
    assert "Chest (816094009, SCT)" in out
    assert "#1: PatientSize: is no height in metres" in err
    inspect_files([tmp_path / "ct"], config=CONFIG, png=None, as_json=True, context=True)
    said = capsys.readouterr().out
    (stack,) = json.loads(said)["stacks"]
    assert stack["context"]["values"]["indication"] == "___ with cough"
    assert stack["context"]["schema_version"] == 1
    assert "CANARY" not in out + err + said


def test_an_earlier_study_among_the_files_is_the_comparison(tmp_path: Path) -> None:
    before, now, stranger = ct_series(3), ct_series(3), ct_series(3)
    for ds in before:
        ds.StudyDate, ds.BodyPartExamined = "20230102", "ABDOMEN"
    for ds in stranger:
        ds.StudyDate, ds.PatientID = "20220102", "SOMEBODY"
    for name, series in (("a", before), ("b", now), ("c", stranger)):
        save(series, tmp_path / name)
    with inspected([tmp_path], CONFIG, lambda what, share: None) as found:
        said = [found.context_of(report).comparison for report in found.stacks]
    assert said == ["None.", "CT abdomen, 12 months earlier.", None]


def drawn_study(folder: Path) -> None:
    """A series, a report in which a box is drawn on it, and one in which nothing is."""
    series = ct_series(4)
    save(series, folder / "ct")
    box = scoord(series[1], "POLYLINE", rectangle(2, 3, 9, 8))
    empty = report(series)
    drawn = report(series, [box])
    empty.SeriesInstanceUID = drawn.SeriesInstanceUID
    save([drawn, empty], folder / "sr")


def test_a_drawing_says_what_it_prompts_and_why_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn_study(tmp_path)
    manifest = replace(MANIFEST, takes_prompts=True)
    monkeypatch.setattr("gateway.wiring.engine_registry", lambda config: OneEngine(manifest_now=manifest))
    route = RouteSection(name="point", engine="threshold", prompts_from_dicom=DrawingSection())
    config = CONFIG.model_copy(update={"routes": (route,)})
    with inspected([tmp_path], config, lambda what, share: None) as found:
        images, drawn, empty = found.stacks
        assert (images.code, "waits for a drawing" in images.reason) == ("no-route", True)
        assert (drawn.verdict, drawn.reason) == ("prompts point", "")
        assert empty.verdict == "drawing-refused"
        assert "Nothing is drawn in it" in empty.reason
    answers = {row.code: row.verdicts for row in explain_routes([tmp_path], config)}
    assert answers.keys() == {"no-route", "", "drawing-refused"}
    assert [(route, verdict.answer) for route, verdict in answers[""]] == [("point", Answer.YES)]
    assert answers["drawing-refused"] == ()


def test_a_drawing_that_no_route_takes_is_mentioned(tmp_path: Path) -> None:
    drawn_study(tmp_path)
    _, reports = look(tmp_path).stacks
    assert reports.code == "not-an-image"
    assert "In 1 of them something is drawn that an engine could be pointed at" in reports.reason
    answers = [row.reason for row in explain_routes([tmp_path], CONFIG) if row.code == "not-an-image"]
    assert len(answers) == 1
    assert "no route takes drawings (prompts_from_dicom)" in answers[0]


def test_an_image_that_came_twice_under_two_uids_is_listed(tmp_path: Path) -> None:
    series = ct_series(4)
    save([*series, *copied(series[1:2], first_number=9)], tmp_path)
    found = look(tmp_path)
    assert [len(report.stack.headers) for report in found.stacks] == [4]
    (left,) = found.left_out
    assert left.path.name == "00004.dcm"
    assert left.reason.startswith("the same image as another one of its series")


def test_a_directory_of_a_medium_is_called_one(tmp_path: Path) -> None:
    save(ct_series(3), tmp_path)
    class_uid = b"\x02\x00\x02\x00UI\x14\x001.2.840.10008.1.3.10"
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM" + class_uid)
    (left,) = look(tmp_path).left_out
    assert (left.path.name, left.reason) == ("DICOMDIR", "a DICOMDIR, which describes a medium")
