"""Asks a running gateway to segment what a box points at, and measures the mask as MedSAM2's model card does.

``python examples/medsam2_client.py scan.nii.gz --box 205,97,295,163 --slice 41 --window=-160,240 --out mask.nii.gz``

Needs requests and numpy. Import it to use ``segment`` and ``measured`` in a program of your own.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import io
import json
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import requests

PATH = "models/medsam2/predict"
METADATA = "X-Voxgate-Metadata"
JSON, NPY, NIFTI = "application/json", "application/x-npy", "application/gzip"


def payload(path: Path, box: list[float], key_slice: int, window: list[float], offset: int = 0) -> dict[str, Any]:
    """Return the body of a request for one image."""
    return {
        "input_data": {
            "nii_image": [base64.b64encode(path.read_bytes()).decode("ascii")],
            "bbox": [box],
            "key_slice_idx": [key_slice],
            "dicom_window": [window],
            "slice_offset": [offset],
        }
    }


def joined(*bodies: dict[str, Any]) -> dict[str, Any]:
    """Return one body for several images, from those for one each."""
    parts = [body["input_data"] for body in bodies]
    return {"input_data": {name: [entry for part in parts for entry in part[name]] for name in parts[0]}}


def segment_all(url: str, *bodies: dict[str, Any], token: str = "") -> list[dict[str, Any]]:
    """Return an answer for each image, asked for in one request; an error is the answer for all of them."""
    answer = _asked(url, joined(*bodies), token, JSON)
    return [_as_arrays(one) for one in answer] if isinstance(answer, list) else [_as_arrays(answer) for _ in bodies]


def segment(url: str, body: dict[str, Any], *, token: str = "", accept: str = NPY) -> dict[str, Any]:
    """Return ``mask`` (an array z, y, x) and ``metadata``, or ``error``, ``status`` and ``details``.

    ``accept`` is how the mask comes: ``NPY``, which is many times smaller and faster than the nested lists of
    ``JSON``, or ``NIFTI``, whose bytes are in ``file`` too. For several images there is ``segment_all``.
    """
    return _as_arrays(_asked(url, body, token, accept))


def _asked(url: str, body: dict[str, Any], token: str, accept: str) -> Any:
    headers = {"Accept": accept} | ({"Authorization": f"Bearer {token}"} if token else {})
    try:
        response = requests.post(f"{url.rstrip('/')}/{PATH}", json=body, headers=headers, timeout=(10, 900))
        if response.ok and accept != JSON:
            metadata = json.loads(response.headers[METADATA])
            mask = _loaded(response.content) if accept == NPY else _unzipped(response.content, metadata["shape"])
            return {"mask": mask, "metadata": metadata, "file": response.content}
        answer = response.json()
    except (requests.RequestException, ValueError) as error:
        return {"error": f"no answer from {url}", "status": None, "details": [type(error).__name__]}
    if isinstance(answer, list) or "mask" in answer:
        return answer
    # Whatever stands between us and the gateway has words of its own for errors.
    return {"error": str(answer), "details": []} | answer | {"status": answer.get("status", response.status_code)}


def _as_arrays(answer: dict[str, Any]) -> dict[str, Any]:
    return {**answer, "mask": np.asarray(answer["mask"], np.uint8)} if "mask" in answer else answer


def _loaded(content: bytes) -> npt.NDArray[np.uint8]:
    mask: npt.NDArray[np.uint8] = np.load(io.BytesIO(content), allow_pickle=False)
    return mask


def _unzipped(content: bytes, shape: list[int]) -> npt.NDArray[np.uint8]:
    plain = gzip.decompress(content)
    (offset,) = struct.unpack_from("<f", plain, 108)  # NIfTI-1: vox_offset
    return np.frombuffer(plain, np.uint8, offset=int(offset)).reshape(shape[::-1])


def measured(path: Path, answer: dict[str, Any]) -> dict[str, Any]:
    """Return what the model card's post-processing tells about an answer; errors are passed through."""
    if "mask" not in answer:
        return {"file_path": str(path), "segmentation_successful": False} | {
            key: answer.get(key) for key in ("error", "status", "details")
        }
    mask: npt.NDArray[np.uint8] = np.asarray(answer["mask"])
    metadata = dict(answer["metadata"])
    total, inside = int(mask.size), int(np.count_nonzero(mask))
    return {
        "file_path": str(path),
        "mask_shape": list(mask.shape),
        "mask_dtype": str(mask.dtype),
        "unique_values": [int(value) for value in np.unique(mask)],
        "total_voxels": total,
        "segmented_voxels": inside,
        "segmentation_ratio": round(100 * inside / total, 2) if total else 0.0,
        "segmentation_successful": inside > 0,
        "image_shape": metadata.pop("shape"),
        **metadata,
    }


def main(arguments: list[str] | None = None) -> int:
    """Ask, print the numbers as JSON, and write the mask where asked to (``.npy``, or ``.nii.gz`` in place)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path, help="a NIfTI file, gzipped or not")
    parser.add_argument("--box", required=True, help="x0,y0,x1,y1 in pixels of the slice")
    parser.add_argument("--slice", required=True, type=int, dest="key_slice")
    parser.add_argument("--window", default="-160,240", help="lower,upper (not centre,width)")
    parser.add_argument("--offset", default=0, type=int, help="number of the file's first slice")
    parser.add_argument("--url", default="http://127.0.0.1:5000")
    parser.add_argument("--token", default="")
    parser.add_argument("--out", type=Path, help="mask.npy, or mask.nii.gz, which lies where the image lies")
    given = parser.parse_args(arguments)
    try:
        body = payload(given.path, _numbers(given.box), given.key_slice, _numbers(given.window), given.offset)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    as_npy = given.out is None or given.out.suffix == ".npy"
    answer = segment(given.url, body, token=given.token, accept=NPY if as_npy else NIFTI)
    print(json.dumps(measured(given.path, answer), indent=2))
    if "mask" not in answer:
        return 1
    if given.out is not None:
        given.out.write_bytes(answer["file"])
    return 0


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
