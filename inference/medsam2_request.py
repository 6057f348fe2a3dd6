"""The body of ``POST /models/medsam2/predict``: as the model card has it, each field a list, an entry an image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from inference.predict_request import InvalidRequest, fault_in_words

MOST_IMAGES = 64
_FAR = 1 << 20


def _whole(value: object) -> object:
    """Take 5.0 for 5: tensors of other frameworks come as floats."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Number = Annotated[int | float, Field(ge=-1e9, le=1e9)]
Index = Annotated[int, BeforeValidator(_whole), Field(ge=-_FAR, le=_FAR)]
Texts = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=MOST_IMAGES)]
Boxes = Annotated[list[Annotated[list[Number], Field(min_length=4, max_length=4)]], Field(min_length=1)]
Windows = Annotated[list[Annotated[list[Number], Field(min_length=2, max_length=2)]], Field(min_length=1)]
Indices = Annotated[list[Index], Field(min_length=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class InputData(_Part):
    """One entry an image in every list."""

    nii_image: Annotated[Texts, Field(description="Base64 of NIfTI-1 files, gzipped or not.", repr=False)]
    bbox: Annotated[Boxes, Field(description="x0, y0, x1, y1 in pixels of the key slice.")]
    key_slice_idx: Annotated[Indices, Field(description="The slice of the box, before slice_offset is taken off.")]
    dicom_window: Annotated[Windows, Field(description="Lower and upper bound, not centre and width.")]
    slice_offset: Annotated[
        Indices | None, Field(description="Number of the file's first slice as key_slice_idx counts; default 0.")
    ] = None


class Medsam2Request(_Part):
    """What the model card calls its input."""

    input_data: InputData


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One image with its box; the numbers as they were sent."""

    data: str = field(repr=False)
    bbox: tuple[int | float, ...]
    key_slice: int
    offset: int
    window: tuple[int | float, ...]

    @property
    def own_slice(self) -> int:
        """The key slice as the file counts."""
        return self.key_slice - self.offset


def parse_medsam2(body: object) -> tuple[Asked, ...]:
    """Return the images of a request.

    Raises
    ------
    InvalidRequest
        400, with every fault. No value is quoted.
    """
    if not isinstance(body, dict):
        raise InvalidRequest(400, ["The body is not a JSON object"])
    try:
        given = Medsam2Request.model_validate(body).input_data
    except ValidationError as error:
        faults = error.errors(include_input=False, include_url=False)
        raise InvalidRequest(400, list(dict.fromkeys(map(fault_in_words, faults)))) from None
    said = [*_faults(given)]
    if said:
        raise InvalidRequest(400, said)
    offsets = given.slice_offset or [0] * len(given.nii_image)
    return tuple(
        Asked(data=data, bbox=tuple(box), key_slice=key, offset=offset, window=tuple(window))
        for data, box, key, offset, window in zip(
            given.nii_image, given.bbox, given.key_slice_idx, offsets, given.dicom_window, strict=True
        )
    )


def _faults(given: InputData) -> Iterator[str]:
    images = len(given.nii_image)
    for name in ("bbox", "key_slice_idx", "dicom_window", "slice_offset"):
        entries = getattr(given, name)
        if entries is not None and len(entries) != images:
            yield f"input_data.{name}: must have one entry for each of the {images} nii_image, not {len(entries)}"
    for index, (x0, y0, x1, y1) in enumerate(given.bbox):
        if not (x0 < x1 and y0 < y1):
            yield f"input_data.bbox[{index}]: must be x0, y0, x1, y1 with x0 below x1 and y0 below y1"
    for index, (lower, upper) in enumerate(given.dicom_window):
        if not lower < upper:
            yield f"input_data.dicom_window[{index}]: must be the lower bound, then the upper (not centre and width)"


def medsam2_schema() -> dict[str, Any]:
    """Return the JSON schema of the request."""
    return Medsam2Request.model_json_schema()
