"""From the files of a request to pictures or one volume; nothing is trusted."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from domain.context import StudyContext
from domain.errors import AssemblyError, GatewayError, InstanceRejected
from domain.instance import Header
from domain.series import Stack, StackKind
from domain.volume import Volume
from inference.nifti import nifti_volume, read_nifti
from inference.predict_request import ImagePart, InvalidRequest, PredictRequest
from inference.predict_settings import PredictSettings
from inference.scratch import scratch, unpack
from volume.assembly import assemble
from volume.context import read_context
from volume.digest import read_header
from volume.geometry import geometry
from volume.priors import is_same_patient, priors_of
from volume.repeats import group_stored
from volume.view import read_picture


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Inputs:
    """What was sent, decoded; ``context`` is what a DICOM header adds."""

    pictures: tuple[npt.NDArray[np.uint8], ...] = ()
    volume: Volume | None = None
    context: StudyContext = StudyContext()
    slices: tuple[str, ...] = field(default=(), repr=False)
    """SOP Instance UID of each picture or slice; empty for what is no DICOM."""


def decode(request: PredictRequest, settings: PredictSettings) -> Inputs:
    """Return the images of a request.

    Raises
    ------
    InvalidRequest
        413 where something is too large, 415 where the format does not go with the modality, 422 where it cannot be
        decoded, 400 where it is ambiguous.
    """
    files = [_bytes(part, index) for index, part in enumerate(request.images)]
    if request.modality == "ct":
        return _volume(request.images, files, settings)
    odd = [f"images[{i}].format: {p.format} holds a volume; the modality is {request.modality}"
           for i, p in enumerate(request.images) if p.format == "nii.gz"]  # fmt: skip
    odd += [f"images[{i}].is_series: only for the modality ct" for i, p in enumerate(request.images) if p.is_series]
    if odd:
        raise InvalidRequest(415, odd)
    if len(files) > settings.most_pictures:
        raise InvalidRequest(413, [f"images: more than {settings.most_pictures}"])
    return _pictures(request.images, files, settings)


def _bytes(part: ImagePart, index: int) -> bytes:
    try:
        return base64.b64decode(part.data.rpartition("base64,")[2], validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest(422, [f"images[{index}].data: not base64"]) from None


def dicom_files(request: PredictRequest, settings: PredictSettings, folder: Path) -> list[Path]:
    """Write what was sent below ``folder``; return the files, whose names are numbers.

    Raises
    ------
    InvalidRequest
        415 where an image is no DICOM; otherwise as ``decode``.
    """
    odd = [f"images[{i}].format: output dicom needs dcm" for i, p in enumerate(request.images) if p.format != "dcm"]
    if odd:
        raise InvalidRequest(415, odd)
    files: list[Path] = []
    room = settings.most_unpacked_mb << 20
    for index, part in enumerate(request.images):
        place = folder / str(index)
        if part.is_series:
            place.mkdir()
            room -= unpack(_bytes(part, index), place, settings, room)
            files += sorted(place.iterdir())
        else:
            place.write_bytes(_bytes(part, index))
            files.append(place)
    return files


# -- Pictures -------------------------------------------------------------------------------------------------------


def _pictures(parts: Sequence[ImagePart], files: Sequence[bytes], settings: PredictSettings) -> Inputs:
    pictures, uids = [], []
    sent: list[Path] = []
    with scratch() as folder:
        for index, (part, data) in enumerate(zip(parts, files, strict=True)):
            if part.format != "dcm":
                pictures.append(_picture(data, index, part.format, settings))
                continue
            path = folder / str(index)
            path.write_bytes(data)
            try:
                found = read_picture(path, most_pixels=settings.most_pixels)
            except InstanceRejected as error:
                raise InvalidRequest(422, [f"images[{index}].data: {error}"]) from None
            pictures.append(found.pixels)
            uids.append(found.sop_instance_uid)
            sent.append(path)
        context = _context(sent)
    known = uids if len(uids) == len(pictures) else []
    return Inputs(pictures=tuple(pictures), context=context, slices=tuple(known))


def _context(sent: Sequence[Path]) -> StudyContext:
    """Return the context of the first image; further ones of the same patient may be what it is compared with."""
    if not sent:
        return StudyContext()
    earlier = priors_of(sent[0], [path for path in sent[1:] if is_same_patient(sent[0], path)])
    return replace(read_context(sent[0]), priors=earlier or None)


def _picture(data: bytes, index: int, kind: str, settings: PredictSettings) -> npt.NDArray[np.uint8]:
    formats = ["PNG"] if kind == "png" else ["JPEG"]
    undecodable = InvalidRequest(422, [f"images[{index}].data: not decodable as {kind}"])
    try:
        image = Image.open(io.BytesIO(data), formats=formats)  # reads no pixel yet
    except Exception:
        raise undecodable from None
    if image.width * image.height > settings.most_pixels:
        raise InvalidRequest(413, [f"images[{index}].data: more than {settings.most_pixels} pixels"])
    try:
        with image:
            return np.asarray(_eight_bits(image).convert("RGB"), np.uint8)
    except Exception:
        raise undecodable from None


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return an image of 16 or 32 bits spread over 8; Pillow itself would clip it."""
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.asarray(image, np.float64)
    low, high = values.min(), values.max()
    return Image.fromarray(np.rint((values - low) / ((high - low) or 1.0) * 255).astype(np.uint8))


# -- Volumes --------------------------------------------------------------------------------------------------------


def _volume(parts: Sequence[ImagePart], files: Sequence[bytes], settings: PredictSettings) -> Inputs:
    kinds = {(part.format, part.is_series) for part in parts}
    if len(files) == 1 and kinds == {("nii.gz", False)}:
        return Inputs(volume=nifti_volume(read_nifti(files[0], settings)))
    if not kinds <= {("dcm", True), ("dcm", False)} or (len(files) > 1 and ("dcm", True) in kinds):
        raise InvalidRequest(
            415, ["images: the modality ct takes one nii.gz, one zip of a DICOM series (is_series), or its dcm files"]
        )
    with scratch() as folder:
        if parts[0].is_series:
            unpack(files[0], folder, settings, settings.most_unpacked_mb << 20)
        else:
            for index, data in enumerate(files):
                (folder / str(index)).write_bytes(data)
        return _series(folder, settings)


def _series(folder: Path, settings: PredictSettings) -> Inputs:
    """Return the one volume among DICOM files, whatever they are called."""
    paths, headers = _instances(folder)
    if not headers:
        raise InvalidRequest(422, ["images: no DICOM image was found"])
    stacks = list(_stacks(headers, paths))
    reasons = [_unfit(stack) for _, stack in stacks]
    fitting = [stack for (_, stack), reason in zip(stacks, reasons, strict=True) if not reason]
    if len(fitting) != 1:
        listing = [
            f"{name}, {len(stack.headers)} instances: {reason or 'a CT volume'}"
            for (name, stack), reason in zip(stacks, reasons, strict=True)
        ]
        raise InvalidRequest(400 if fitting else 422, ["images: not exactly one CT volume", *listing])
    slices = fitting[0].headers
    if (slices[0].rows or 0) * (slices[0].columns or 0) * len(slices) > settings.most_voxels:
        raise InvalidRequest(413, [f"images: more than {settings.most_voxels} voxels"])
    try:
        volume = assemble(fitting[0], paths)
        context = read_context(paths[slices[0].sop_instance_uid], slices[0])
    except GatewayError as error:
        raise InvalidRequest(422, [f"images: {error}"]) from None
    return Inputs(volume=volume, context=context, slices=volume.sop_instance_uids)


def _instances(folder: Path) -> tuple[dict[str, Path], list[Header]]:
    """Return what is DICOM, in the order sent, each SOP Instance once."""
    paths: dict[str, Path] = {}
    headers: list[Header] = []
    for path in sorted(folder.iterdir(), key=lambda item: int(item.name)):
        try:
            header = read_header(path)
        except GatewayError:
            continue  # a DICOMDIR, a viewer, a text: archives hold such things
        if header.sop_instance_uid not in paths:
            paths[header.sop_instance_uid] = path
            headers.append(header)
    return paths, headers


def _stacks(headers: Sequence[Header], paths: Mapping[str, Path]) -> Iterator[tuple[str, Stack]]:
    """Yield the stacks of all series, each with a name that names nobody."""
    for number, uid in enumerate(dict.fromkeys(header.series_instance_uid for header in headers), start=1):
        for stack in group_stored([header for header in headers if header.series_instance_uid == uid], paths):
            yield f"series {number}{f' ({stack.name})' if stack.name else ''}", stack


def _unfit(stack: Stack) -> str:
    """Return why a stack is no CT volume; empty where it is one."""
    if stack.refusal is not None:
        return stack.refusal.reason
    if stack.kind is not StackKind.VOLUME:
        return f"this is {stack.kind.in_words}"
    if stack.headers[0].modality != "CT":
        return "Modality is not CT"
    try:
        geometry(stack)
    except AssemblyError as error:
        return str(error)
    return ""
