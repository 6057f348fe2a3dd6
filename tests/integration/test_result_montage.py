"""The montage of a SEG that the product wrote, over the series it was made from."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pydicom
from chests import lungs_in
from PIL import Image

from dicom_out.writer import Writer
from domain.ports import Result
from gateway.montage import write_montage, write_result_montage
from gateway.phantom import write_phantom
from inference.registry import Registry
from volume.assembly import assemble
from volume.grouping import group
from volume.header import header_of


def test_the_montage_of_a_seg_is_the_montage_of_the_findings(tmp_path: Path) -> None:
    truth = write_phantom(tmp_path / "series", small=True)
    datasets = [pydicom.dcmread(path) for path in truth.paths]
    headers = [header_of(ds, ds.file_meta.TransferSyntaxUID) for ds in datasets]
    paths = {header.sop_instance_uid: path for header, path in zip(headers, truth.paths, strict=True)}
    (stack,) = group(headers)
    volume = assemble(stack, paths)
    findings = lungs_in(volume)
    written = Writer().write(
        Result(
            job_id="0" * 40,
            findings=findings,
            grid=volume.grid,
            source_paths=tuple(paths[uid] for uid in volume.sop_instance_uids),
            manifest=Registry({}).manifest("lungs"),
            route="lungs",
            stack="",
            started_at=datetime(2026, 1, 1, tzinfo=UTC),
        ),
        tmp_path,
    )
    (seg,) = (item.path for item in written if item.kind == "SEG")
    write_result_montage(truth.paths, seg, tmp_path / "seg.png")
    colours = [segment.colour_rgb for segment in findings.segments]
    write_montage(volume, findings.labels, colours, tmp_path / "findings.png")
    ours, theirs = (np.asarray(Image.open(tmp_path / name), int) for name in ("seg.png", "findings.png"))
    assert np.array_equal(np.ptp(ours, axis=2) > 10, np.ptp(theirs, axis=2) > 10)
    assert np.abs(ours - theirs).max() < 40  # readers of CIELab differ in their white point
