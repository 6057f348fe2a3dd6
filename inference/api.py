"""``POST /predict``: questions about images by HTTP. Imports neither numpy nor a decoder until a question comes."""

from __future__ import annotations

import base64
import io
import logging
import time
import uuid
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from flask import Blueprint, Response, jsonify, request
from werkzeug.exceptions import HTTPException

from domain.engine import Engine
from domain.errors import EngineUnavailable, InferenceError, StorageError
from domain.question import Answer, Question, Sampling
from inference.asking import Asking
from inference.context import context_used
from inference.desk import Busy, Desk
from inference.medsam2_api import Medsam2Service
from inference.predict_request import MODALITIES, TASKS, InvalidRequest, PredictRequest, parse
from inference.predict_settings import PredictSettings
from inference.predictions import Answered, Predictions
from inference.wsgi import client_gone, json_body

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from inference.predict_inputs import Inputs

log = logging.getLogger(__name__)

_LATER_AT_ONCE = 4
"""Kept questions in memory and in the queue at a time, at most half of it; an engine may answer them together."""
INVALID, UNAVAILABLE, FAILED, UNKNOWN = "Invalid request", "Service unavailable", "Prediction failed", "Not found"


class Engines(Protocol):
    """What of ``inference.registry.Registry`` is needed here."""

    def names(self) -> tuple[str, ...]: ...
    def obstacle(self, name: str) -> str | None: ...
    def prompts(self, name: str) -> Mapping[str, Mapping[str, str]]: ...
    def is_loaded(self, name: str) -> bool: ...
    def devices(self) -> Mapping[str, str]: ...
    def engine(self, name: str) -> Engine: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """Results as DICOM files, by the name that they get in the answer, and why some images have none."""

    objects: Mapping[str, Path]
    reasons: tuple[str, ...] = ()


class MakesDicom(Protocol):
    """Runs an engine with a route's options on DICOM files and writes its results below a folder.

    Gives up once ``cancelled`` says so, between files and as often as the engine tells how far it is.
    """

    def __call__(
        self,
        files: Sequence[Path],
        engine: str,
        options: Mapping[str, str | int],
        out: Path,
        cancelled: Callable[[], bool],
        /,
    ) -> Written: ...


class PredictService:
    """The question side of the gateway: for each device one desk with one worker, the engines of one registry.

    Parameters
    ----------
    registry
        Used for its engines by the workers alone.
    device
        What ``/info`` says about where the default engine runs.
    dicom
        Called by a worker. ``None``: answers are never DICOM.
    """

    def __init__(
        self,
        registry: Engines,
        settings: PredictSettings,
        device: str = "",
        dicom: MakesDicom | None = None,
    ) -> None:
        self._registry = registry
        self._settings = settings
        self._device = device
        self._dicom = dicom
        self._desks: dict[str, Desk] = {}
        self._desk_of: dict[str, Desk] = {}
        self._medsam2 = Medsam2Service(registry, settings, self._desk)
        self._later: Predictions | None = None
        if settings.enabled and settings.folder is not None:
            self._later = Predictions(
                settings.folder,
                self._answer_later,
                most=settings.queue,
                keep_s=settings.keep_answers_h * 3600,
                at_once=max(1, min(_LATER_AT_ONCE, settings.queue // 2)),
            )

    @property
    def model_loaded(self) -> bool:
        """The weights of the default engine are in memory."""
        return self._registry.is_loaded(self._settings.engine)

    def info(self) -> dict[str, object]:
        """Return what the public server's ``/info`` says, and what stands in the way of the default engine."""
        said: dict[str, object] = {
            "name": self._settings.name,
            "supported_modalities": list(MODALITIES),
            "supported_tasks": list(TASKS),
            "device": self._device or "auto",
            "engine": self._settings.engine,
        }
        obstacle = self._obstacle(self._settings.engine)
        return said if obstacle is None else {**said, "unavailable": obstacle}

    def blueprint(self) -> Blueprint:
        """Return ``/predict``, what is answered later, and ``/models/medsam2/predict``."""
        blueprint = Blueprint("predict", __name__)
        blueprint.register_blueprint(self._medsam2.blueprint())
        blueprint.post("/predict")(self._predict)
        blueprint.get("/api/v1/jobs/predict-<key>")(self._show)
        blueprint.get("/api/v1/jobs/predict-<key>/result")(self._result)
        blueprint.delete("/api/v1/jobs/predict-<key>")(self._forget)
        return blueprint

    def _desk(self, engine: str) -> Desk:
        """Return where questions to an engine wait, always the same: two workers must not use one engine.

        It is that of its device, or one for all while the device of some engine is not known.
        """
        if engine not in self._desk_of:
            devices = self._registry.devices()
            device = "" if "" in devices.values() else devices.get(engine, "")
            desk = Desk(self._settings.queue, self._settings.gather_ms / 1000)
            self._desk_of.setdefault(engine, self._desks.setdefault(device, desk))
        return self._desk_of[engine]

    # -- One request ------------------------------------------------------------------------------------------------

    def _predict(self) -> Response:
        def answer() -> Answered:
            asked = parse(json_body(request, self._settings.most_body_mb))
            later = request.args.get("async", "0")
            if later not in ("0", "1"):
                raise InvalidRequest(400, ["Invalid field: async: must be 0 or 1"])
            if later == "1":
                return self._accepted(asked)
            return self._answered(asked, request.remote_addr or "", client_gone(request.environ))

        return _response(self._guarded(answer))

    def _guarded(self, answer: Callable[[], Answered]) -> Answered:
        """Return the answer, or what is wrong in the form of the public interface."""
        try:
            return answer()
        except InvalidRequest as error:
            return _error(error.status, INVALID, error.details)
        except HTTPException as error:
            return _error(error.code or 400, INVALID, [error.description or error.name])
        except (EngineUnavailable, StorageError) as error:
            return _error(503, UNAVAILABLE, [str(error)], retry_after_s=self._settings.retry_after_s)
        except InferenceError as error:
            return _error(422, INVALID, [str(error)])
        except Exception:
            number = uuid.uuid4().hex
            log.exception("predict failed", extra={"fault": number})
            return _error(500, FAILED, [f"An unexpected fault; the log has it under {number}"])

    # -- Later ------------------------------------------------------------------------------------------------------

    def _accepted(self, asked: PredictRequest) -> Answered:
        """Keep a question whose form is right; whether its images can be decoded is said in its answer."""
        if self._later is None:
            raise EngineUnavailable("Questions are not answered later here: [predict] enabled is false.")
        self._engine(asked)
        key = self._later.accept(request.get_data())
        place = f"/api/v1/jobs/predict-{key}"
        return Answered(
            status=202,
            body={"job_id": f"predict-{key}", "state": "queued", "url": place},
            headers={"Location": place},
        )

    def _answer_later(self, body: object, cancelled: Callable[[], bool]) -> Answered:
        """Answer a kept question; while too many others wait, it waits with them unless it is withdrawn."""

        def answer() -> Answered:
            while True:
                try:
                    return self._answered(parse(body), "later", cancelled)
                except Busy:
                    if cancelled():
                        raise
                    time.sleep(1)

        return self._guarded(answer)

    def _result(self, key: str) -> Response:
        path = self._later.result(key) if self._later is not None else None
        if path is None:
            return _response(_error(404, UNKNOWN, ["There is no such file; GET the job itself"]))
        return _response(Answered(status=200, content=path.read_bytes(), content_type="application/zip"))

    def _show(self, key: str) -> Response:
        state = self._later.state(key) if self._later is not None else None
        if self._later is None or state is None:
            return _response(_error(404, UNKNOWN, ["There is no such question; answers are kept for some hours"]))
        answered = self._later.answer(key)
        body: dict[str, object] = {"job_id": f"predict-{key}", "state": state}
        if answered is not None:
            body["answer" if state == "done" else "fault"] = answered.body
            if answered.content_type:
                body["answer"] = {"url": f"/api/v1/jobs/predict-{key}/result", "content_type": answered.content_type}
        return _response(Answered(status=200, body=body))

    def _forget(self, key: str) -> Response:
        if self._later is None or not self._later.remove(key):
            return _response(_error(404, UNKNOWN, ["There is no such question"]))
        return Response(status=204)

    # -- The question -----------------------------------------------------------------------------------------------

    def _answered(self, asked: PredictRequest, client: str, is_gone: Callable[[], bool]) -> Answered:
        began = time.perf_counter()
        name = self._engine(asked)
        prompt = self._prompt(asked, name)
        obstacle = self._obstacle(name)
        if obstacle is not None:
            raise EngineUnavailable(f"The engine {name} cannot be used: {obstacle}")
        self._desk(name).check_room()
        if asked.output == "dicom":
            return self._as_dicom(asked, name, prompt, client, is_gone)
        from inference.predict_inputs import decode

        inputs = decode(asked, self._settings)
        question = Question(
            modality=asked.modality,
            task=asked.task,
            prompt=prompt.replace("{images}", "".join(f"<img{i}>" for i in range(len(inputs.pictures) or 1))),
            context=context_used(asked.context, inputs.context, asked.modality),
            pictures=inputs.pictures,
            volume=inputs.volume,
            sampling=Sampling(**asked.hyperparams.model_dump()),
        )
        answer = self._desk(name).ask(
            client,
            Asking(registry=self._registry, engine=name, question=question, context=inputs.context),
            timeout_s=self._settings.timeout_s,
            is_gone=is_gone,
        )
        said = {**_body(asked, inputs, answer), "context_used": question.context, "engine": name}
        return Answered(status=200, body={**said, "processing_time": round(time.perf_counter() - began, 3)})

    def _as_dicom(
        self, asked: PredictRequest, name: str, prompt: str, client: str, is_gone: Callable[[], bool]
    ) -> Answered:
        """Answer as a route with these options would: SEG and SR, verified, in a zip archive."""
        if self._dicom is None:
            raise InvalidRequest(400, ["Invalid field: output: this service writes no DICOM"])
        from inference.predict_inputs import dicom_files
        from inference.scratch import scratch

        make = self._dicom
        with scratch() as folder:
            files = dicom_files(asked, self._settings, folder)
            options = _options(asked, prompt) if self._registry.prompts(name) else {}
            written = self._desk(name).ask(
                client,
                lambda cancelled: make(files, name, options, folder / "results", cancelled),
                timeout_s=self._settings.timeout_s,
                is_gone=is_gone,
            )
            if not written.objects:
                raise InvalidRequest(422, [f"images: {reason}" for reason in written.reasons])
            return Answered(status=200, content=_zipped(written), content_type="application/zip")

    def _engine(self, asked: PredictRequest) -> str:
        """Return the engine that is asked; the client's fault where it names one that does not exist."""
        if asked.engine and asked.engine not in self._registry.names():
            raise InvalidRequest(400, [f"Invalid field: engine: must be one of {', '.join(self._registry.names())}"])
        return asked.engine or self._settings.engine

    def _prompt(self, asked: PredictRequest, name: str) -> str:
        """Return the prompt of the request, or the engine's own for such a task."""
        defaults = self._registry.prompts(name)
        if asked.prompt.strip() or not defaults:
            return asked.prompt
        if asked.task not in defaults.get(asked.modality, {}):
            raise InvalidRequest(
                400, [f"Missing required field: prompt ({asked.task} of {asked.modality} has no default)"]
            )
        return defaults[asked.modality][asked.task]

    def _obstacle(self, name: str) -> str | None:
        if not self._settings.enabled:
            return "[predict] enabled is false"
        return self._registry.obstacle(name)


def _error(status: int, what: str, details: list[str], *, retry_after_s: int | None = None) -> Answered:
    headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
    return Answered(status=status, body={"error": what, "details": details}, headers=headers)


def _options(asked: PredictRequest, prompt: str) -> dict[str, str | int]:
    """Return the question as options of a route; what is written for the PACS is written greedily."""
    options: dict[str, str | int] = {"task": asked.task, "max_new_tokens": asked.hyperparams.max_new_tokens}
    options |= {"prompt": prompt} if prompt else {}
    options |= {"context": asked.context} if asked.context.strip() else {}
    return options if asked.modality == "ct" else {**options, "modality": asked.modality}


def _zipped(written: Written) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, path in written.objects.items():
            archive.write(path, name)
        if written.reasons:
            archive.writestr("not-analysed.txt", "\n".join(written.reasons) + "\n")
    return out.getvalue()


def _response(answered: Answered) -> Response:
    if answered.content_type:
        return Response(answered.content, answered.status, answered.headers, content_type=answered.content_type)
    response = jsonify(answered.body)
    response.status_code = answered.status
    response.headers.update(answered.headers)
    return response


# -- The answer -----------------------------------------------------------------------------------------------------


def _body(asked: PredictRequest, inputs: Inputs, answer: Answer) -> dict[str, object]:
    body: dict[str, object] = {"text": answer.text}
    segmented = asked.task == "segmentation"
    if inputs.volume is not None:
        if segmented or answer.volume_masks:
            masks = [_encoded(plane) for plane in _union(answer.volume_masks)]
            body |= {"segmentation_3d": masks, "segmentation_mask": masks, "is_3d": True}
        if inputs.slices:
            frames = inputs.volume.frame_numbers or (None,) * len(inputs.slices)
            body["slices"] = [
                {"sop_instance_uid": uid, "frame": frame or 1}
                for uid, frame in zip(inputs.slices, frames, strict=True)
            ]
        return body
    if segmented or answer.picture_masks:
        masks = [_encoded(_union(drawn)) for drawn in zip(*answer.picture_masks, strict=True)]
        body |= {"segmentation_2d": masks, "segmentation_mask": masks, "is_3d": False}
    if asked.task == "detection" or answer.boxes:
        rows, columns = inputs.pictures[0].shape[:2]
        body["boxes"] = [[x1 * columns, y1 * rows, x2 * columns, y2 * rows] for x1, y1, x2, y2 in answer.boxes]
    return body


def _union(masks: tuple[npt.NDArray[np.uint8], ...]) -> Any:
    """Return one mask of all that were drawn; nothing of none."""
    import numpy as np

    return np.bitwise_or.reduce(masks) if masks else ()


def _encoded(mask: npt.NDArray[np.uint8]) -> str:
    """Return the base64 of ``numpy.save``."""
    import numpy as np

    out = io.BytesIO()
    np.save(out, np.ascontiguousarray(mask), allow_pickle=False)
    return base64.b64encode(out.getvalue()).decode("ascii")
