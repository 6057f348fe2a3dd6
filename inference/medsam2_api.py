"""``POST /models/medsam2/predict``: a box on a slice of a NIfTI volume in, its mask out, as the model card has it."""

from __future__ import annotations

import base64
import binascii
import io
import json
import logging
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from flask import Blueprint, Response, request
from werkzeug.exceptions import HTTPException

from domain.engine import Case, Engine
from domain.errors import EngineUnavailable, GatewayError, InferenceError, StorageError
from domain.question import Withdrawn
from inference.desk import Desk, TimedOut
from inference.medsam2_request import Asked, parse_medsam2
from inference.predict_request import InvalidRequest
from inference.predict_settings import PredictSettings
from inference.wsgi import client_gone, json_body

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from domain.prompt import Prompt
    from inference.nifti import Nifti

log = logging.getLogger(__name__)

ENGINE = "medsam2"
JSON, NPY, GZIP = "application/json", "application/x-npy", "application/gzip"
METADATA = "X-Voxgate-Metadata"
"""Header with the metadata beside a binary mask, as JSON."""
_TITLES = {400: "Invalid request", 413: "Too large", 415: "Unsupported format", 422: "Cannot be segmented"}


class Engines(Protocol):
    """What of ``inference.registry.Registry`` is needed here."""

    def obstacle(self, name: str) -> str | None: ...
    def engine(self, name: str) -> Engine: ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Answer:
    mask: npt.NDArray[np.uint8]
    metadata: dict[str, object]
    read: Nifti


class Medsam2Service:
    """Answers in the order of the desk that it shares with ``/predict``: one worker holds the device.

    Parameters
    ----------
    registry
        Used for its engines by the desk's worker alone.
    desk
        Returns where questions to an engine wait.
    """

    def __init__(self, registry: Engines, settings: PredictSettings, desk: Callable[[str], Desk]) -> None:
        self._registry = registry
        self._settings = settings
        self._desk = desk

    def blueprint(self) -> Blueprint:
        """Return ``/models/medsam2/predict``."""
        blueprint = Blueprint("medsam2", __name__)
        blueprint.post("/models/medsam2/predict")(self._predict)
        return blueprint

    def _predict(self) -> Response:
        try:
            form = _form()
            return _response(self._answered(self._asked(form)), form)
        except InvalidRequest as error:
            return _refused(error.status, error.details)
        except HTTPException as error:
            return _refused(error.code or 400, [error.description or error.name])
        except (EngineUnavailable, StorageError) as error:
            response = _refused(503, [str(error)])
            response.headers["Retry-After"] = str(self._settings.retry_after_s)
            return response
        except InferenceError as error:
            return _refused(422, [str(error)])
        except Exception:
            number = uuid.uuid4().hex
            log.exception("medsam2 predict failed", extra={"fault": number})
            return _refused(500, [f"An unexpected fault; the log has it under {number}"])

    def _asked(self, form: str) -> tuple[Asked, ...]:
        asked = parse_medsam2(json_body(request, self._settings.most_body_mb))
        if form != JSON and len(asked) > 1:
            raise InvalidRequest(400, [f"Accept: {form} has room for one image only; send one, or take JSON"])
        obstacle = self._registry.obstacle(ENGINE) if self._settings.enabled else "[predict] enabled is false"
        if obstacle is not None:
            raise EngineUnavailable(f"The engine {ENGINE} cannot be used: {obstacle}")
        return asked

    def _read(self, asked: Sequence[Asked]) -> list[Nifti]:
        """Return the volumes; all of them together keep the limit of one."""
        from inference.nifti import read_nifti

        read, limits = [], self._settings
        for index, item in enumerate(asked):
            data = _decoded(item, index)
            read.append(read_nifti(data, limits, f"input_data.nii_image[{index}]", plain=True))
            _check_place(item, read[-1], index)
            limits = replace(limits, most_voxels=limits.most_voxels - read[-1].voxels.size)
        return read

    def _answered(self, asked: Sequence[Asked]) -> list[_Answer]:
        self._desk(ENGINE).check_room()
        read = self._read(asked)
        return self._desk(ENGINE).ask(
            request.remote_addr or "",
            lambda cancelled: [self._segmented(*pair, cancelled) for pair in zip(asked, read, strict=True)],
            timeout_s=self._settings.timeout_s,
            is_gone=client_gone(request.environ),
        )

    def _segmented(self, asked: Asked, read: Nifti, cancelled: Callable[[], bool]) -> _Answer:
        """Answer in the worker thread; the first request there loads the weights."""
        from inference.nifti import nifti_volume

        try:
            engine = self._registry.engine(ENGINE)
        except GatewayError as error:
            log.warning("engine cannot be loaded", extra={"engine": ENGINE, "error": type(error).__name__})
            raise EngineUnavailable(str(error)) from error

        def progress(share: float) -> None:
            if cancelled():
                raise Withdrawn

        lower, upper = asked.window
        case = Case(
            volume=nifti_volume(read, unit=""),
            options={"window": f"{lower},{upper}"},
            prompt=_prompt(asked, read.voxels.shape),
            progress=progress,
        )
        try:
            labels = engine.run(case).labels
        except Withdrawn:
            raise TimedOut("Nobody waits for the answer any more.") from None
        if labels is None:
            raise EngineUnavailable("The engine drew no mask.")
        return _Answer(mask=(labels == 1).view("uint8"), metadata=_metadata(asked, read), read=read)


def _form() -> str:
    """Return the media type of the answer; JSON for whoever takes anything."""
    wanted = request.accept_mimetypes
    return wanted.best_match([JSON, NPY, GZIP], default=JSON) if wanted else JSON


def _decoded(asked: Asked, index: int) -> bytes:
    try:
        return base64.b64decode(asked.data.rpartition("base64,")[2], validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest(422, [f"input_data.nii_image[{index}]: not base64"]) from None


def _check_place(asked: Asked, read: Nifti, index: int) -> None:
    slices, rows, columns = read.voxels.shape
    said = []
    if not 0 <= asked.own_slice < slices:
        said.append(
            f"input_data.key_slice_idx[{index}]: without slice_offset it must be from 0 to {slices - 1}, the slices "
            "of the volume"
        )
    x0, y0, x1, y1 = asked.bbox
    if x0 < 0 or y0 < 0 or x1 > columns or y1 > rows:
        said.append(f"input_data.bbox[{index}]: must lie within the {columns} x {rows} pixels of a slice")
    if said:
        raise InvalidRequest(422, said)


def _prompt(asked: Asked, shape: tuple[int, ...]) -> Prompt:
    """Return the box as voxels; where it ends with the image it ends at the last pixel's outer edge."""
    from domain.prompt import Box, ObjectPrompt, Prompt  # the HTTP process imports this module, without numpy

    _, rows, columns = shape
    x0, y0, x1, y1 = asked.bbox
    k = float(asked.own_slice)
    corners = ((k, float(y0), float(x0)), (k, min(float(y1), rows - 0.5), min(float(x1), columns - 0.5)))
    return Prompt(objects=(ObjectPrompt(boxes=(Box(corners=corners),)),))


def _metadata(asked: Asked, read: Nifti) -> dict[str, object]:
    return {
        "shape": list(reversed(read.voxels.shape)),
        "key_slice_index": asked.key_slice,
        "adjusted_key_slice_index": asked.own_slice,
        "bbox": list(asked.bbox),
        "dicom_window": list(asked.window),
        "spacing": list(read.spacing),
        "origin": list(read.origin),
    }


# -- The answer -----------------------------------------------------------------------------------------------------


def _response(answers: Sequence[_Answer], form: str) -> Response:
    if form == JSON:
        parts = [
            b'{"mask":%b,"metadata":%b}' % (nested(item.mask), json.dumps(item.metadata).encode()) for item in answers
        ]
        return Response(parts[0] if len(parts) == 1 else b"[" + b",".join(parts) + b"]", mimetype=JSON)
    (answer,) = answers
    response = Response(_npy(answer.mask) if form == NPY else _nifti(answer), mimetype=form)
    response.headers[METADATA] = json.dumps(answer.metadata)
    return response


def nested(mask: npt.NDArray[np.uint8]) -> bytes:
    """Return a 0/1 array ``(slices, rows, columns)`` as the JSON text of nested lists.

    Laid out as bytes: Python lists of a hundred slices would take gigabytes and a minute.
    """
    return b"[" + b",".join(_slices(mask)) + b"]"


def _slices(mask: npt.NDArray[np.uint8]) -> Iterator[bytes]:
    import numpy as np

    _, rows, columns = mask.shape
    text = np.full((rows, 2 * columns + 2), ord(","), np.uint8)  # "[0,1,0]," for each row
    text[:, 0], text[:, -2] = ord("["), ord("]")
    for plane in mask:
        text[:, 1:-2:2] = plane + ord("0")
        yield b"[" + text.tobytes()[:-1] + b"]"


def _npy(mask: npt.NDArray[np.uint8]) -> bytes:
    import numpy as np

    out = io.BytesIO()
    np.save(out, np.ascontiguousarray(mask), allow_pickle=False)
    return out.getvalue()


def _nifti(answer: _Answer) -> bytes:
    from inference.nifti import mask_nifti

    return mask_nifti(answer.mask, answer.read)


def _refused(status: int, details: list[str]) -> Response:
    title = _TITLES.get(status, "Service unavailable" if status == 503 else "Prediction failed")
    body = {"error": title, "status": status, "details": details}
    return Response(json.dumps(body), status=status, mimetype=JSON)
