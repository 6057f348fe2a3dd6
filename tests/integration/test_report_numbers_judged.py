"""Every number of a report as dcmqi reads it, and reports about segments of label maps before today's judges."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from factories import ct_series
from pydicom import dcmread
from results import ball, grid_of, many_segments, result_of

from dicom_out.kind import Work, WriterSettings
from dicom_out.profile import Options, Profile
from dicom_out.source import read_source
from dicom_out.writer import Writer
from domain.findings import Measurement
from domain.ports import Result

Peer = Callable[[str], str]
Number = tuple[str, str, str]
"""What is measured, how it is derived, and its unit."""
LABEL_MAP, SEGMENTATION = b"1.2.840.10008.5.1.4.1.1.66.7", b"1.2.840.10008.5.1.4.1.1.66.4"
UNKNOWN = "Shall not be present for Referenced SOP Class that is not segmentation"
pytestmark = pytest.mark.peer


def read_by_dcmqi(peer: Peer, report: Path) -> dict[str, dict[Number, float]]:
    """Return the numbers of each tracking UID; a number that is there twice fails."""
    out = report.with_suffix(".json")
    command = [peer("tid1500reader"), "--inputDICOM", str(report), "--outputMetadata", str(out)]
    subprocess.run(command, check=True, capture_output=True)
    found: dict[str, dict[Number, float]] = {}
    for group in json.loads(out.read_text())["Measurements"]:
        own = found.setdefault(group["TrackingUniqueIdentifier"], {})
        for item in group.get("measurementItems", ()):
            derivation = item.get("derivationModifier", {}).get("CodeValue", "")
            what = item["quantity"]["CodeValue"], derivation, item["units"]["CodeValue"]
            assert what not in own
            own[what] = float(item["value"])
    return found


def given(result: Result) -> list[dict[Number, float]]:
    """Return the engine's numbers of each segment, with the length of the line that is drawn of it."""
    work = Work(result, read_source(result.source_paths), WriterSettings())
    return [
        _named(
            [item for item in result.findings.measurements if item.segment == segment.key]
            + [line.measured for line in work.lines[number] if line.measured is not None]
        )
        for number, segment in enumerate(result.findings.segments, start=1)
    ]


def _named(measurements: list[Measurement]) -> dict[Number, float]:
    return {
        (item.concept.value, "" if item.derivation is None else item.derivation.value, item.unit.value): item.value
        for item in measurements
    }


def errors_of(peer: Peer, report: Path) -> tuple[list[str], int]:
    """Return what dciodvfy calls errors, and how dsrdump ends."""
    said = subprocess.run([peer("dciodvfy"), "-new", str(report)], capture_output=True, text=True, check=False)
    dumped = subprocess.run([peer("dsrdump"), str(report)], capture_output=True, check=False)
    lines = (said.stdout + said.stderr).splitlines()
    return [line for line in lines if line.startswith("Error")], dumped.returncode


def test_every_number_of_104_segments_is_read_as_the_engine_gave_it(tmp_path: Path, peer: Peer) -> None:
    result = many_segments(tmp_path / "source", 104)
    seg, report = Writer().write(result, tmp_path / "results")
    assert errors_of(peer, report.path) == ([], 0)
    found = read_by_dcmqi(peer, report.path)
    assert list(found) == [item.TrackingUID for item in dcmread(seg.path).SegmentSequence]
    for ours, theirs in zip(given(result), found.values(), strict=True):
        assert theirs == pytest.approx(ours, rel=1e-12)


def test_what_judges_fault_in_a_report_on_a_label_map_is_a_uid_that_they_do_not_know(
    tmp_path: Path, peer: Peer
) -> None:
    """PS3.3 Table C.18.4-1 asks for the segment's number wherever a Segmentation is referred to.

    A label map is one: PS3.3 C.8.20.2 has it as a Segmentation Type, and dciodvfy itself judges it by that IOD. With
    the UID of Segmentation Storage in its place, and nothing else changed, both judges pass the report.
    """
    series = ct_series(voxels=np.zeros((9, 31, 37), np.int16))
    grid, _ = grid_of(series)
    labels = ball(grid, grid.to_lps((4, 15, 11)), 6.0).astype(np.uint8)
    labels[ball(grid, grid.to_lps((5, 15, 28)), 4.0)] = 2
    result = result_of(series, tmp_path / "source", labels)
    writer = Writer(default=Profile(name="own", options=Options(segmentation="labelmap")))
    seg, report = writer.write(result, tmp_path / "results")
    judged = subprocess.run([peer("dciodvfy"), "-new", str(seg.path)], capture_output=True, text=True, check=False)
    assert (judged.stdout + judged.stderr).splitlines()[0] == "Segmentation"

    errors, _ = errors_of(peer, report.path)
    assert [line.rsplit(" - ", 1)[1] for line in errors] == [UNKNOWN] * len(errors)
    other = tmp_path / "other.dcm"
    other.write_bytes(report.path.read_bytes().replace(LABEL_MAP, SEGMENTATION))
    assert errors_of(peer, other) == ([], 0)

    for ours, theirs in zip(given(result), read_by_dcmqi(peer, report.path).values(), strict=True):
        assert theirs == pytest.approx(ours, rel=1e-12)
