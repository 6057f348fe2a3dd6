"""Asks a running gateway about images: ``python examples/client.py report chest.dcm``; see ``--help``.

Needs requests, numpy and Pillow. Import it to use ``predict``, ``masks`` and ``overlay`` in a program of your own.
"""

from __future__ import annotations

import argparse
import base64
import io
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import requests
from PIL import Image

TASKS = {
    "report": ("cxr", "report generation"),
    "classify": ("derm", "classification"),
    "segment": ("derm", "segmentation"),
    "ct": ("ct", "segmentation"),
}


class Refused(Exception):
    """The gateway did not answer the question; says why."""


def image(path: Path) -> dict[str, object]:
    """Return a file, or a folder of DICOM files as a zip archive, as the request takes it."""
    if path.is_dir():
        return {"data": _text(_zipped(path)), "format": "dcm", "is_series": True}
    if path.suffix == ".zip":
        return {"data": _text(path.read_bytes()), "format": "dcm", "is_series": True}
    kind = "nii.gz" if path.name.endswith(".nii.gz") else path.suffix.lstrip(".").lower() or "dcm"
    return {"data": _text(path.read_bytes()), "format": kind}


def predict(
    url: str, paths: list[Path], modality: str, task: str, *, token: str = "", **more: object
) -> dict[str, Any]:
    """Return the answer of ``POST /predict``.

    Raises
    ------
    Refused
        With everything that the gateway says is wrong.
    """
    body = {"images": [image(path) for path in paths], "modality": modality, "task": task, **more}
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        response = requests.post(f"{url.rstrip('/')}/predict", json=body, headers=headers, timeout=(10, 900))
        answer: dict[str, Any] = response.json()
    except requests.RequestException as error:
        raise Refused(f"no answer from {url} ({type(error).__name__})") from error
    if "error" in answer or response.status_code != 200:
        raise Refused(f"{response.status_code}: " + "; ".join(answer.get("details") or [str(answer)]))
    return answer


def masks(answer: dict[str, Any]) -> list[npt.NDArray[np.uint8]]:
    """Return the masks of an answer, one per picture or slice, 0 or 1."""
    return [np.load(io.BytesIO(base64.b64decode(item)), allow_pickle=False) for item in answer["segmentation_mask"]]


def overlay(picture: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return an RGB picture ``(rows, columns, 3)`` with the mask in half-transparent red."""
    drawn = picture.astype(np.float64)
    drawn[mask > 0] = drawn[mask > 0] / 2 + np.array([127.5, 0, 0])
    return drawn.astype(np.uint8)


def main(arguments: list[str] | None = None) -> int:
    """Ask, print the text, and write masks (``mask-N.png``, and ``overlay.png`` of a photograph) where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=TASKS)
    parser.add_argument("paths", nargs="+", type=Path, help="files; for ct a folder, a zip or a nii.gz")
    parser.add_argument("--url", default="http://127.0.0.1:5000")
    parser.add_argument("--token", default="")
    parser.add_argument("--prompt", default="")
    parser.add_argument("--context", default="")
    parser.add_argument("--engine", default="")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    more = {key: getattr(given, key) for key in ("prompt", "context", "engine") if getattr(given, key)}
    modality, task = TASKS[given.what]
    try:
        answer = predict(given.url, given.paths, modality, task, token=given.token, **more)
    except Refused as error:
        print(error, file=sys.stderr)
        return 1
    print(answer["text"])
    if given.out is not None and "segmentation_mask" in answer:
        _write(answer, given.paths, given.out)
    return 0


def _write(answer: dict[str, Any], paths: list[Path], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    drawn = masks(answer)
    for number, mask in enumerate(drawn):
        Image.fromarray(mask * 255).save(out / f"mask-{number}.png")
    if drawn and paths[0].suffix.lower() in (".jpg", ".jpeg", ".png"):
        picture = np.asarray(Image.open(paths[0]).convert("RGB"))
        Image.fromarray(overlay(picture, drawn[0])).save(out / "overlay.png")


def _zipped(folder: Path) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(item for item in folder.rglob("*") if item.is_file()):
            archive.write(path, str(path.relative_to(folder)))
    return out.getvalue()


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


if __name__ == "__main__":
    sys.exit(main())
