"""The body of ``POST /predict``: its schema, and every fault of a request at once."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

MODALITIES = ("cxr", "derm", "ct")
TASKS = ("report generation", "classification", "detection", "segmentation")
FORMATS = ("jpg", "jpeg", "png", "dcm", "nii.gz")
_TASK_NAMES = {"report": "report generation", "vqa": "classification"}


def _plain(value: object) -> object:
    """Return a name as it is written here: case, underscores and hyphens make no difference."""
    if not isinstance(value, str):
        return value
    name = " ".join(value.lower().replace("_", " ").replace("-", " ").split())
    return _TASK_NAMES.get(name, name)


def _lower(value: object) -> object:
    return value.strip().lower().removeprefix(".") if isinstance(value, str) else value


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ImagePart(_Part):
    """One image, or a zip archive of a series."""

    data: Annotated[str, Field(min_length=1, description="Base64 (RFC 4648 Section 4) of the file.", repr=False)]
    format: Annotated[Literal["jpg", "jpeg", "png", "dcm", "nii.gz"], BeforeValidator(_lower)]
    is_series: Annotated[bool, Field(description="The data are a zip archive of DICOM files.")] = False


class Hyperparams(_Part):
    """How the answer is written."""

    num_beams: Annotated[int, Field(ge=1, le=8)] = 1
    do_sample: bool = True
    min_length: Annotated[int, Field(ge=0, le=1024)] = 1
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.9
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] = 1.0
    length_penalty: Annotated[float, Field(ge=-10, le=10)] = 1.0
    temperature: Annotated[float, Field(gt=0, le=100)] = 0.1
    max_new_tokens: Annotated[int, Field(ge=1, le=2048)] = 450
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None


class PredictRequest(_Part):
    """A question about images."""

    images: Annotated[list[ImagePart], Field(min_length=1, max_length=2000)]
    modality: Annotated[Literal["cxr", "derm", "ct"], BeforeValidator(_plain)]
    task: Annotated[
        Literal["report generation", "classification", "detection", "segmentation"], BeforeValidator(_plain)
    ]
    context: Annotated[str, Field(max_length=8000, repr=False)] = ""
    prompt: Annotated[str, Field(max_length=4000, repr=False)] = ""
    hyperparams: Hyperparams = Hyperparams()
    engine: Annotated[str, Field(max_length=64)] = ""
    output: Annotated[
        Literal["json", "dicom"],
        BeforeValidator(_lower),
        Field(description="dicom: a zip archive of SEG and SR, for images that are DICOM."),
    ] = "json"


class InvalidRequest(Exception):
    """The request cannot be taken; ``details`` says everything that is wrong with it."""

    def __init__(self, status: int, details: list[str]) -> None:
        super().__init__(details)
        self.status = status
        self.details = details


def parse(body: object) -> PredictRequest:
    """Return the request in a JSON body.

    Raises
    ------
    InvalidRequest
        415 where nothing but the format of an image is wrong, else 400. No value is quoted.
    """
    if not isinstance(body, dict):
        raise InvalidRequest(400, ["The body is not a JSON object"])
    try:
        return PredictRequest.model_validate(body)
    except ValidationError as error:
        faults = error.errors(include_input=False, include_url=False)
        formats = [fault for fault in faults if fault["loc"][-1:] == ("format",) and fault["type"] == "literal_error"]
        raise InvalidRequest(
            415 if len(formats) == len(faults) else 400, [fault_in_words(f) for f in faults]
        ) from None


def fault_in_words(fault: ErrorDetails) -> str:
    """Return where a fault is and what it is; no value is quoted."""
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault["loc"]).lstrip(".")
    if fault["type"] == "missing":
        return f"Missing required field: {path}"
    if fault["type"] == "extra_forbidden":
        return f"Unknown field: {path}"
    return f"Invalid field: {path}: {fault['msg'].replace('Input should be', 'must be')}"


def schema() -> dict[str, Any]:
    """Return the JSON schema of the request."""
    return PredictRequest.model_json_schema()
