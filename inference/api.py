"""``POST /predict``: questions about images by HTTP. Imports neither numpy nor a decoder until a question comes."""

from __future__ import annotations

import base64
import io
import logging
import time
import uuid
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from flask import Blueprint, Response, jsonify, request
from werkzeug.exceptions import HTTPException

from domain.engine import Case
from domain.errors import EngineUnavailable, GatewayError, InferenceError
from domain.ports import Engine
from domain.question import Answer, Answering, Question, Sampling
from inference.context import context_used
from inference.desk import Desk
from inference.medsam2_api import Medsam2Service
from inference.openapi import document
from inference.predict_request import MODALITIES, TASKS, InvalidRequest, PredictRequest, parse
from inference.predict_settings import PredictSettings
from inference.wsgi import client_gone, json_body

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from inference.predict_inputs import Inputs

log = logging.getLogger(__name__)

INVALID, UNAVAILABLE, FAILED = "Invalid request", "Service unavailable", "Prediction failed"


class Engines(Protocol):
    """What of ``inference.registry.Registry`` is needed here."""

    def obstacle(self, name: str) -> str | None: ...
    def prompts(self, name: str) -> Mapping[str, Mapping[str, str]]: ...
    def is_loaded(self, name: str) -> bool: ...
    def engine(self, name: str) -> Engine: ...


class PredictService:
    """The question side of the gateway: one desk, one worker, the engines of one registry.

    Parameters
    ----------
    registry
        Used for its engines by the worker alone.
    device
        What ``/info`` says about where the default engine runs.
    """

    def __init__(self, registry: Engines, settings: PredictSettings, device: str = "") -> None:
        self._registry = registry
        self._settings = settings
        self._device = device
        self._desk = Desk(settings.queue)
        self._medsam2 = Medsam2Service(registry, settings, self._desk)

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
        """Return ``/predict``, ``/models/medsam2/predict`` and ``/openapi.json``."""
        blueprint = Blueprint("predict", __name__)
        blueprint.register_blueprint(self._medsam2.blueprint())
        blueprint.post("/predict")(self._predict)
        blueprint.get("/openapi.json")(lambda: jsonify(document()))
        return blueprint

    # -- One request ------------------------------------------------------------------------------------------------

    def _predict(self) -> Response:
        began = time.perf_counter()
        try:
            asked = self._asked()
            answered = self._answered(asked)
            return jsonify({**answered, "processing_time": round(time.perf_counter() - began, 3)})
        except InvalidRequest as error:
            return _error(error.status, INVALID, error.details)
        except HTTPException as error:
            return _error(error.code or 400, INVALID, [error.description or error.name])
        except EngineUnavailable as error:
            return self._unavailable(str(error))
        except InferenceError as error:
            return _error(422, INVALID, [str(error)])
        except Exception:
            number = uuid.uuid4().hex
            log.exception("predict failed", extra={"fault": number})
            return _error(500, FAILED, [f"An unexpected fault; the log has it under {number}"])

    def _asked(self) -> PredictRequest:
        return parse(json_body(request, self._settings.most_body_mb))

    def _answered(self, asked: PredictRequest) -> dict[str, object]:
        name = asked.engine or self._settings.engine
        prompt = self._prompt(asked, name)
        obstacle = self._obstacle(name)
        if obstacle is not None:
            raise EngineUnavailable(f"The engine {name} cannot be used: {obstacle}")
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
        answer = self._desk.ask(
            request.remote_addr or "",
            lambda cancelled: self._work(name, question, inputs, cancelled),
            timeout_s=self._settings.timeout_s,
            is_gone=client_gone(request.environ),
        )
        return {**_body(asked, inputs, answer), "context_used": question.context, "engine": name}

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

    def _work(self, name: str, question: Question, inputs: Inputs, cancelled: Callable[[], bool]) -> Answer:
        """Answer in the worker thread; the first question there loads the weights."""
        try:
            engine = self._registry.engine(name)
        except GatewayError as error:
            log.warning("engine cannot be loaded", extra={"engine": name, "error": type(error).__name__})
            raise EngineUnavailable(str(error)) from error
        if isinstance(engine, Answering):
            return engine.ask(question, cancelled)
        if question.task != "segmentation" or question.volume is None:
            raise InvalidRequest(400, [f"engine: {name} does segmentation of ct only"])
        findings = engine.run(Case(volume=question.volume, context=inputs.context))
        said = "; ".join(f"{m.segment}: {m.label} {m.value:.4g} {m.unit.value}" for m in findings.measurements)
        masks = () if findings.labels is None else ((findings.labels > 0).astype("uint8"),)
        return Answer(text=findings.narrative or said, volume_masks=masks)

    def _unavailable(self, reason: str) -> Response:
        response = _error(503, UNAVAILABLE, [reason])
        response.headers["Retry-After"] = str(self._settings.retry_after_s)
        return response


def _error(status: int, what: str, details: list[str]) -> Response:
    response = jsonify(error=what, details=details)
    response.status_code = status
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
            body["slices"] = [{"sop_instance_uid": uid, "frame": 1} for uid in inputs.slices]
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
