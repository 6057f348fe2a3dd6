"""Segmentations and reports written and read back beside highdicom in the same run: CPU, memory, equal frames.

``PYTHONPATH=.:tests python tests/benchmarks/encoding.py [--slices 300] [--size 512] [--labels 1,104] [--repeat 3]``
prints one line a case. Each measurement is a process of its own. Both begin with the headers of the source and the
array of labels in memory, and end with a synced file; reading begins with the file and ends with every pixel compared
(ours: with the whole check before sending; highdicom: with the label array rebuilt).

Both reports have the same content (``tests/unit/dicom_out/test_report_beside_highdicom.py``): measurements and a
line for each segment, beginning with the findings and the lines, and ending with a file. Reading ours ends with every
number and reference compared, highdicom's with its content parsed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from factories import ct_slice
from highdicom_report import highdicom_report
from pydicom import dcmread
from pydicom.dataset import Dataset
from results import lung, manifest, measured, result_of

from dicom_out import codes
from dicom_out.files import write_durably
from dicom_out.kind import Check, Order, Segmented, Work, WriterSettings
from dicom_out.kinds import KINDS
from dicom_out.profile import Options
from dicom_out.source import read_source
from dicom_out.verify import DEFERRED, read_slices
from dicom_out.verify_frames import voxel_counts
from dicom_out.verify_seg import check_seg
from dicom_out.verify_sr import check_sr
from domain.codes import LEFT
from domain.findings import Findings
from domain.ports import Result

OURS = {"binary": "SEG", "labelmap": "SEG-LABELMAP", "labelmap rle": "SEG-LABELMAP"}
_SEGMENT = "SegmentIdentificationSequence"
CASES = (
    "ours binary",
    "ours labelmap",
    "ours labelmap rle",
    "highdicom binary",
    "highdicom labelmap",
    "ours report",
    "highdicom report",
)


def main() -> None:
    """Measure every writer and reader, and print the best of the runs."""
    options = _arguments()
    if options.child:
        print(json.dumps(_measured(options.child, Path(options.folder), options.count)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_source(folder / "source", options.slices, options.size)
        for count in (int(text) for text in options.labels.split(",")):
            np.save(folder / "labels.npy", _labels(count, options.slices, options.size))
            _compare(folder, count, options.repeat)


def _compare(folder: Path, count: int, repeat: int) -> None:
    best: dict[str, dict[str, float]] = {}
    for _ in range(repeat):
        for case in (f"{what} {case}" for case in CASES for what in ("write", "read")):
            found = _run(case, folder, count)
            known = best.get(case, found)
            best[case] = {key: min(known[key], found[key]) for key in found}
    for case, found in best.items():
        what = case.split()[0]
        beside = "report" if case.endswith("report") else "binary"
        ratio = best[f"{what} highdicom {beside}"]["cpu_s"] / found["cpu_s"]
        print(
            f"{count:4} {case:24} cpu {found['cpu_s']:7.3f} s (x {ratio:5.1f})  "
            f"over the start {found['peak_mib']:6.0f} MiB"
        )
    equal = [_frames(folder / f"{who} binary.dcm") for who in ("ours", "highdicom")]
    print(f"{count:4} frames of both BINARY files are equal, byte for byte: {equal[0] == equal[1]} ({len(equal[0])})")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--labels", default="1,10,104")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--child", default="")
    parser.add_argument("--folder", default="")
    parser.add_argument("--count", type=int, default=1)
    return parser.parse_args()


def _run(case: str, folder: Path, count: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", case, "--folder", str(folder), "--count", str(count)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _write_source(folder: Path, slices: int, size: int) -> None:
    """Write headers; neither writer looks at the pixels of the source."""
    folder.mkdir()
    for k in range(slices):
        ds = ct_slice(
            position_mm=(0, 0, 1.25 * k),
            number=k + 1,
            study_instance_uid="2.25.1",
            series_instance_uid="2.25.2",
            frame_of_reference_uid="2.25.3",
        )
        ds.Rows = ds.Columns = size
        del ds.PixelData
        ds.save_as(folder / f"{k:04}.dcm", enforce_file_format=True)


def _labels(count: int, slices: int, size: int) -> npt.NDArray[np.uint8]:
    """Return ellipsoids of very different sizes, as organs have them; later ones do not cover earlier ones."""
    random = np.random.default_rng(1)
    labels = np.zeros((slices, size, size), np.uint8)
    z, y, x = np.ogrid[:slices, :size, :size]
    for number in range(1, count + 1):
        radius = (
            random.uniform(0.05, 0.15, 3) * (slices, size, size) * (3 if count == 1 else random.choice([1, 1, 2]))
        )
        while not (labels == number).any():
            at = random.uniform(0.2, 0.8, 3) * (slices, size, size)
            low, high = max(0, int(at[0] - radius[0])), min(slices, int(at[0] + radius[0]) + 2)
            part = labels[low:high]
            inside = sum(((i - c) / r) ** 2 for i, c, r in zip((z[low:high], y, x), at, radius, strict=True)) < 1
            part[inside & (part == 0)] = number
    return labels


def _result(folder: Path, count: int, *, is_measured: bool = False) -> Result:
    paths = sorted((folder / "source").iterdir())
    segments = tuple(replace(lung(LEFT), key=f"part_{n}", label=f"Part {n}") for n in range(1, count + 1))
    engine = manifest(segments=segments)
    labels = np.load(folder / "labels.npy")
    findings = Findings(labels=labels, segments=segments)
    headers = [dcmread(path) for path in paths]
    result = result_of(headers, folder / "again", findings=findings, engine=engine)
    if is_measured:
        result = replace(result, findings=measured(labels, result.patient_grid, segments))
    return replace(result, source_paths=tuple(paths))


def _measured(case: str, folder: Path, count: int) -> dict[str, float]:
    what, who, kind = case.split(maxsplit=2)
    path = folder / f"{who} {kind}.dcm"
    run = WORK[what, who, kind == "report"](folder, count, kind, path)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew (proc(5))
    before, start = _memory_mib("VmRSS"), time.process_time()
    run()
    used = time.process_time() - start
    return {"cpu_s": used, "peak_mib": _memory_mib("VmHWM") - before}


def _memory_mib(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024


def _options(kind: str) -> Options:
    return Options(compression="rle" if kind.endswith("rle") else "none")


def _write_ours(folder: Path, count: int, kind: str, path: Path) -> Callable[[], object]:
    result = _result(folder, count)
    source = read_source(result.source_paths)
    chosen = next(item for item in KINDS if item.name == OURS[kind])

    def run() -> None:
        work = Work(result, source, WriterSettings())
        (encoded,) = chosen.encode(Order(kind=chosen, variant="SEG", work=work, options=_options(kind)))
        write_durably(path, encoded.pieces)

    return run


def _read_ours(folder: Path, count: int, kind: str, path: Path) -> Callable[[], object]:
    result = _result(folder, count)
    _, slices = read_slices(result)
    return lambda: check_seg(dcmread(path, defer_size=DEFERRED), result, slices, voxel_counts(result.findings))


def _write_theirs(folder: Path, count: int, kind: str, path: Path) -> Callable[[], object]:
    import highdicom as hd
    from pydicom.sr.codedict import codes as concepts

    sources: list[Dataset] = [dcmread(item) for item in sorted((folder / "source").iterdir())]
    labels = np.load(folder / "labels.npy")
    family = hd.AlgorithmIdentificationSequence(name="x", family=concepts.DCM.ArtificialIntelligence, version="1")
    described: list[Any] = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=f"Part {number}",
            segmented_property_category=concepts.SCT.Organ,
            segmented_property_type=concepts.SCT.Lung,
            algorithm_type="AUTOMATIC",
            algorithm_identification=family,
            tracking_uid=hd.UID(),
            tracking_id=f"{number}",
        )
        for number in range(1, count + 1)
    ]

    def run() -> None:
        hd.seg.Segmentation(
            source_images=sources,
            pixel_array=labels,
            segmentation_type=kind.upper(),
            segment_descriptions=described,
            series_instance_uid=hd.UID(),
            series_number=100,
            sop_instance_uid=hd.UID(),
            instance_number=1,
            manufacturer="x",
            manufacturer_model_name="x",
            software_versions="1",
            device_serial_number="1",
        ).save_as(path)

    return run


def _read_theirs(folder: Path, count: int, kind: str, path: Path) -> Callable[[], object]:
    import highdicom as hd

    return lambda: hd.seg.segread(path).get_volume(combine_segments=True, dtype=np.uint8)


def _write_our_report(folder: Path, count: int, kind: str, path: Path) -> Callable[[], object]:
    result = _result(folder, count, is_measured=True)
    seg = dcmread(folder / "ours binary.dcm", stop_before_pixels=True)
    work = Work(result, read_source(result.source_paths), WriterSettings())
    chosen = next(item for item in KINDS if item.name == "SR")
    segmented = {
        number: Segmented(
            sop_class_uid=str(seg.SOPClassUID),
            sop_instance_uid=str(seg.SOPInstanceUID),
            series_instance_uid=str(seg.SeriesInstanceUID),
            number=number,
            of=number,
        )
        for number in work.lines
    }

    def run() -> None:
        order = Order(kind=chosen, variant="SR", work=work, options=Options(), segmented=segmented)
        (encoded,) = chosen.encode(order)
        write_durably(path, encoded.pieces)

    return run


def _write_their_report(folder: Path, count: int, kind: str, path: Path) -> Callable[[], object]:
    result = _result(folder, count, is_measured=True)
    seg = dcmread(folder / "ours binary.dcm", stop_before_pixels=True)
    lines = Work(result, read_source(result.source_paths), WriterSettings()).lines
    headers = [dcmread(item) for item in result.source_paths]

    def run() -> None:
        report = highdicom_report(
            result, headers, seg, lines, procedure=codes.PROCEDURES["CT"], language=codes.ENGLISH
        )
        report.save_as(path)

    return run


def _read_our_report(folder: Path, count: int, kind: str, path: Path) -> Callable[[], object]:
    result = _result(folder, count, is_measured=True)
    _, slices = read_slices(result)
    voxels = voxel_counts(result.findings)
    seg = check_seg(dcmread(folder / "ours binary.dcm", defer_size=DEFERRED), result, slices, voxels)

    def run() -> None:
        check_sr(
            Check(result=result, slices=slices, objects=[dcmread(path)], options=Options(), seg=seg, voxels=voxels)
        )

    return run


def _read_their_report(folder: Path, count: int, kind: str, path: Path) -> Callable[[], object]:
    import highdicom as hd

    return lambda: hd.sr.srread(path).content


WORK: dict[tuple[str, str, bool], Callable[[Path, int, str, Path], Callable[[], object]]] = {
    ("write", "ours", False): _write_ours,
    ("write", "highdicom", False): _write_theirs,
    ("read", "ours", False): _read_ours,
    ("read", "highdicom", False): _read_theirs,
    ("write", "ours", True): _write_our_report,
    ("write", "highdicom", True): _write_their_report,
    ("read", "ours", True): _read_our_report,
    ("read", "highdicom", True): _read_their_report,
}


def _frames(path: Path) -> dict[tuple[int, str], bytes]:
    """Return the bits of each frame by segment and source instance: the order of frames is the writer's choice."""
    seg = dcmread(path)
    size = seg.Rows * seg.Columns // 8
    (shared,) = seg.SharedFunctionalGroupsSequence
    return {
        (
            int((group if _SEGMENT in group else shared)[_SEGMENT][0].ReferencedSegmentNumber),
            str(group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID),
        ): seg.PixelData[index * size : (index + 1) * size]
        for index, group in enumerate(seg.PerFrameFunctionalGroupsSequence)
    }


if __name__ == "__main__":
    main()
