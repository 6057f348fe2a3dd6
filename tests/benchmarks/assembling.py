"""From files to a checked volume, beside SimpleITK's series reader in the same run: CPU, clock and memory.

``PYTHONPATH=.:tests python tests/benchmarks/assembling.py [--slices 300] [--size 512] [--repeat 3] [--only NAME]``
prints one line a case. Each measurement is a process of its own, and all read the same files from a warm cache. Ours
reads and groups the headers, proves the geometry, rescales and replaces padding; ``indexed`` leaves out reading the
headers, which intake has done before. Processes that are started count in CPU and, by their share, in memory.
JPEG is encoded by DCMTK's dcmcjpeg and HTJ2K by the package imagecodecs, and left out where these are not there;
SimpleITK does not read HTJ2K.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
from enhanced import enhanced
from factories import ct_slice
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import UID, generate_uid

from volume.assembly import assemble
from volume.digest import inspect, read_header
from volume.frames import with_frames
from volume.grouping import group

SYNTAXES = {
    "raw": "",
    "RLE": "1.2.840.10008.1.2.5",
    "JPEG lossless": "1.2.840.10008.1.2.4.70",
    "JPEG-LS": "1.2.840.10008.1.2.4.80",
    "JPEG 2000": "1.2.840.10008.1.2.4.90",
    "HTJ2K": "1.2.840.10008.1.2.4.201",
    "JPEG-LS enhanced": "1.2.840.10008.1.2.4.80",
    "JPEG lossless enhanced": "1.2.840.10008.1.2.4.70",
}
READERS = ("ours", "indexed", "SimpleITK")


def main() -> None:
    """Measure every reader on every syntax and print the best of the runs."""
    options = _arguments()
    if options.child:
        print(json.dumps(_measured(options.child, Path(options.folder))))
        return
    with tempfile.TemporaryDirectory() as folder:
        for name, syntax in SYNTAXES.items():
            if (options.only and name not in options.only) or not _can_be_written(name):
                continue
            series = Path(folder) / name.replace(" ", "")
            _write(series, options.slices, options.size, syntax, as_one="enhanced" in name)
            readers = READERS[:2] if name == "HTJ2K" else READERS
            # In turn, so that what else the machine does falls on all alike.
            runs = [{reader: _run(reader, series) for reader in readers} for _ in range(options.repeat)]
            best = {
                reader: {key: min(run[reader][key] for run in runs) for key in runs[0][reader]} for reader in readers
            }
            for reader, found in best.items():
                cpu, clock = (best[readers[-1]][key] / found[key] for key in ("cpu_s", "clock_s"))
                print(
                    f"{name:22} {reader:10} cpu {found['cpu_s']:7.3f} s (x {cpu:.2f})  "
                    f"clock {found['clock_s']:7.3f} s (x {clock:.2f})  over the start {found['peak_mib']:6.0f} MiB"
                )
    print(f"x: how many times less than SimpleITK; the volume itself is {options.slices * options.size**2 >> 19} MiB")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", choices=SYNTAXES, action="append")
    parser.add_argument("--child", choices=READERS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    return parser.parse_args()


def _write(folder: Path, slices: int, size: int, syntax: str, *, as_one: bool) -> None:
    """Write a smooth body with noise, which compresses about as far as a real CT; ``as_one`` as an Enhanced CT."""
    folder.mkdir()
    row, column = np.mgrid[0:size, 0:size] / size - 0.5
    body = np.where(row**2 + column**2 < 0.16, 40.0, -1000.0)
    noise = np.random.default_rng(1)
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    written = []
    for k in range(slices):
        voxels = (body + noise.normal(0, 12, body.shape) + 1024).astype(np.int16)
        ds = ct_slice(voxels=voxels, position_mm=(0, 0, k), spacing_mm=(0.7, 0.7), number=k + 1)
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study, series, frame
        ds.RescaleIntercept = "-1024"  # as in most CTs: every voxel is computed
        if syntax:
            _compress(ds, voxels, syntax)
        if as_one:
            written.append(ds)
        else:
            ds.save_as(folder / f"{k:05d}.dcm", enforce_file_format=True)
    if as_one:
        frames = [get_frame(ds.PixelData, 0, number_of_frames=1) for ds in written]
        ds = enhanced(written)
        # Without a table of offsets: where the frames are has to be found.
        ds.PixelData, ds["PixelData"].is_undefined_length = encapsulate(frames, has_bot=False), True
        ds.save_as(folder / "00000.dcm", enforce_file_format=True)


def _can_be_written(name: str) -> bool:
    if name.startswith("JPEG lossless"):
        return shutil.which("dcmcjpeg") is not None
    return name != "HTJ2K" or find_spec("imagecodecs") is not None


def _compress(ds: Dataset, voxels: Any, syntax: str) -> None:
    if syntax.endswith("4.201"):
        ds.PixelData = encapsulate([import_module("imagecodecs").htj2k_encode(voxels)])
    elif syntax.endswith("4.70"):
        ds.PixelData = encapsulate([_jpeg_lossless(ds)])
    else:
        ds.compress(UID(syntax), generate_instance_uid=False)
        return
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    ds.file_meta.TransferSyntaxUID = UID(syntax)


def _jpeg_lossless(ds: Dataset) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        ds.save_as(Path(folder) / "plain", enforce_file_format=True)
        subprocess.run(["dcmcjpeg", "plain", "encoded"], cwd=folder, check=True)
        return get_frame(dcmread(Path(folder) / "encoded").PixelData, 0, number_of_frames=1)


def _run(reader: str, folder: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", reader, "--folder", str(folder)]
    return dict(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def _measured(reader: str, folder: Path) -> dict[str, float]:
    read = _prepared(reader, folder)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with _memory_of_children() as most:
        clock, cpu = time.perf_counter(), _cpu_s()
        kept = read()
        found = {"clock_s": time.perf_counter() - clock, "cpu_s": _cpu_s() - cpu}
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    found["peak_mib"] = (own + max(most)) / 1024
    del kept
    return found


def _cpu_s() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


@contextmanager
def _memory_of_children() -> Iterator[list[int]]:
    """Yield the memory, in KiB, that the processes started meanwhile have together, and share with nobody."""
    found, is_over = [0], threading.Event()

    def look() -> None:
        while not is_over.wait(0.1):
            found.append(sum(map(_proportional_kib, _children())))

    watch = threading.Thread(target=look)
    watch.start()
    try:
        yield found
    finally:
        is_over.set()
        watch.join()


def _children() -> list[str]:
    return [
        pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text("ascii").split()
    ]


def _proportional_kib(pid: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines()
    except OSError:
        return 0  # it has ended
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def _prepared(reader: str, folder: Path) -> Callable[[], object]:
    """Return what is timed; imports and, for ``indexed``, the headers are there before."""
    files = sorted(folder.iterdir())
    if reader == "SimpleITK":
        itk: Any = SimpleITK  # it has no annotations

        def by_simple_itk() -> object:
            image_reader = itk.ImageSeriesReader()
            if len(files) == 1:
                return itk.GetArrayViewFromImage(itk.ReadImage(str(files[0])))
            image_reader.SetFileNames(itk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
            return itk.GetArrayViewFromImage(image_reader.Execute())

        return by_simple_itk

    known = [inspect(path)[0] for path in files] if reader == "indexed" else None

    def ours() -> object:
        read = known or list(map(read_header, files))
        (stack,) = group(with_frames(read))
        return assemble(stack, {header.sop_instance_uid: path for header, path in zip(read, files, strict=True)})

    return ours


if __name__ == "__main__":
    main()
