"""What must be known of a Part 10 file in order to send it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.filereader import read_partial
from pydicom.tag import BaseTag
from pynetdicom.dsutils import split_dataset

from domain.errors import DeliveryError
from domain.ports import SendReport

_SOP_INSTANCE_UID = 0x00080018


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """One object on its way out."""

    path: Path = field(repr=False)
    sop_class_uid: str
    sop_instance_uid: str = field(repr=False)
    transfer_syntax_uid: str
    dataset_offset: int
    """Bytes before the dataset."""
    size: int
    """Bytes of the file."""


def read_all(paths: Sequence[Path]) -> tuple[dict[int, Outgoing], dict[int, SendReport]]:
    """Return, by place in ``paths``, what can be sent, and a report for each file that cannot."""
    outgoing: dict[int, Outgoing] = {}
    reports: dict[int, SendReport] = {}
    for index, path in enumerate(paths):
        try:
            outgoing[index] = read_outgoing(path)
        except DeliveryError as error:
            reports[index] = SendReport(sop_instance_uid="", error=error)
    return outgoing, reports


def read_outgoing(path: Path) -> Outgoing:
    """Read what identifies the object in ``path``; the dataset counts, not the File Meta Information.

    Raises
    ------
    DeliveryError
        This is no Part 10 file, or it does not say what it is.
    """
    try:
        meta, dataset_offset = split_dataset(path)
        with path.open("rb") as file:
            dataset = read_partial(file, stop_when=_is_beyond_sop_instance_uid)
        identity = (
            str(dataset.get("SOPClassUID", "")),
            str(dataset.get("SOPInstanceUID", "")),
            str(meta.get("TransferSyntaxUID", "")),
        )
        size = path.stat().st_size
    except Exception as error:  # on its way through a broken file pydicom raises whatever it meets
        raise DeliveryError("the file cannot be read as DICOM Part 10") from error
    if not all(identity):
        raise DeliveryError("SOPClassUID, SOPInstanceUID or TransferSyntaxUID is missing or empty")
    return Outgoing(
        path=path,
        sop_class_uid=identity[0],
        sop_instance_uid=identity[1],
        transfer_syntax_uid=identity[2],
        dataset_offset=dataset_offset,
        size=size,
    )


def _is_beyond_sop_instance_uid(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return int(tag) > _SOP_INSTANCE_UID
