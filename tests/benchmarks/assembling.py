"""From files to a checked volume, beside SimpleITK's series reader in the same run: CPU, clock and memory.

``PYTHONPATH=.:tests python tests/benchmarks/assembling.py [--slices 300] [--size 512] [--repeat 3]`` prints one line
a case. Each measurement is a process of its own, and both read the same files from a warm cache. Ours reads and
groups the headers, proves the geometry, rescales and replaces padding; ``indexed`` leaves out the reading of headers,
which intake has done before.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
from factories import ct_slice
from pydicom.uid import UID, generate_uid

from volume.assembly import assemble
from volume.digest import inspect, read_header
from volume.grouping import group

SYNTAXES = {"raw": "", "JPEG-LS": "1.2.840.10008.1.2.4.80", "JPEG 2000": "1.2.840.10008.1.2.4.90"}
READERS = ("ours", "indexed", "SimpleITK")


def main() -> None:
    """Measure every reader on every syntax and print the best of the runs."""
    options = _arguments()
    if options.child:
        print(json.dumps(_measured(options.child, Path(options.folder))))
        return
    with tempfile.TemporaryDirectory() as folder:
        for name, syntax in SYNTAXES.items():
            series = Path(folder) / name.replace(" ", "")
            _write(series, options.slices, options.size, syntax)
            runs = {reader: [_run(reader, series) for _ in range(options.repeat)] for reader in READERS}
            best = {name: {key: min(run[key] for run in found) for key in found[0]} for name, found in runs.items()}
            for reader, found in best.items():
                cpu, clock = (best["SimpleITK"][key] / found[key] for key in ("cpu_s", "clock_s"))
                print(
                    f"{name:10} {reader:10} cpu {found['cpu_s']:7.3f} s (x {cpu:.2f})  "
                    f"clock {found['clock_s']:7.3f} s (x {clock:.2f})  over the start {found['peak_mib']:6.0f} MiB"
                )
    print(f"x: how many times less than SimpleITK; the volume itself is {options.slices * options.size**2 >> 19} MiB")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--child", choices=READERS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    return parser.parse_args()


def _write(folder: Path, slices: int, size: int, syntax: str) -> None:
    """Write a smooth body with noise, which compresses about as far as a real CT."""
    folder.mkdir()
    row, column = np.mgrid[0:size, 0:size] / size - 0.5
    body = np.where(row**2 + column**2 < 0.16, 40.0, -1000.0)
    noise = np.random.default_rng(1)
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    for k in range(slices):
        voxels = (body + noise.normal(0, 12, body.shape) + 1024).astype(np.int16)
        ds = ct_slice(voxels=voxels, position_mm=(0, 0, k), spacing_mm=(0.7, 0.7), number=k + 1)
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study, series, frame
        ds.RescaleIntercept = "-1024"  # as in most CTs: every voxel is computed
        if syntax:
            ds.compress(UID(syntax), generate_instance_uid=False)
        ds.save_as(folder / f"{k:05d}.dcm", enforce_file_format=True)


def _run(reader: str, folder: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", reader, "--folder", str(folder)]
    return dict(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def _measured(reader: str, folder: Path) -> dict[str, float]:
    read = _prepared(reader, folder)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    clock, cpu = time.perf_counter(), time.process_time()
    kept = read()
    found = {"clock_s": time.perf_counter() - clock, "cpu_s": time.process_time() - cpu}
    found["peak_mib"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    del kept
    return found


def _prepared(reader: str, folder: Path) -> Callable[[], object]:
    """Return what is timed; imports and, for ``indexed``, the headers are there before."""
    files = sorted(folder.iterdir())
    if reader == "SimpleITK":
        itk: Any = SimpleITK  # it has no annotations

        def by_simple_itk() -> object:
            image_reader = itk.ImageSeriesReader()
            image_reader.SetFileNames(itk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
            return itk.GetArrayViewFromImage(image_reader.Execute())

        return by_simple_itk

    known = [inspect(path)[0] for path in files] if reader == "indexed" else None

    def ours() -> object:
        read = known or list(map(read_header, files))
        (stack,) = group(read)
        return assemble(stack, {header.sop_instance_uid: path for header, path in zip(read, files, strict=True)})

    return ours


if __name__ == "__main__":
    main()
