"""Looking whether a destination shows what it stored: C-FIND (PS3.4 C) and QIDO-RS (PS3.18 10.6)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import requests
from pydicom.dataset import Dataset
from pynetdicom.association import Association

from dicom_out.association import limited, opened_for
from dicom_out.http_exchange import Exchange
from dicom_out.settings import DimseSettings, StowSettings
from domain.errors import PeerOutOfResources, PeerRefused, PeerUnreachable
from domain.job import ResultObject

STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
_OUT_OF_RESOURCES = 0xA700
_MOST_MATCHES = 10_000
_SOP_INSTANCE_UID = "00080018"

Level = Literal["image", "series"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DimseFinder:
    """A ``Finder`` by C-FIND, Study Root. Each object is asked for by itself: lists of UIDs are not known to all."""

    settings: DimseSettings
    level: Level = "image"
    """``series`` for destinations that do not answer at the level of images: the object's series is looked for."""

    def visible(self, study_instance_uid: str, objects: Sequence[ResultObject]) -> set[str]:
        """See ``Finder.visible``."""
        try:
            with opened_for(self.settings, STUDY_ROOT_FIND) as association:
                return {
                    item.sop_instance_uid for item in objects if self._looks(association, study_instance_uid, item)
                }
        except RuntimeError as error:
            raise PeerUnreachable("the association ended during the query") from error

    def _looks(self, association: Association, study_instance_uid: str, item: ResultObject) -> bool:
        """Ask for one object; all answers together have as long as two may take."""
        with limited(association, 2 * self.settings.response_timeout_s):
            return self._is_found(association, study_instance_uid, item)

    def _is_found(self, association: Association, study_instance_uid: str, item: ResultObject) -> bool:
        keyword = "SOPInstanceUID" if self.level == "image" else "SeriesInstanceUID"
        identifier = _identifier(self.level, study_instance_uid, item)
        wanted, found = identifier[keyword].value, False
        for number, (status, match) in enumerate(association.send_c_find(identifier, STUDY_ROOT_FIND)):
            if number > _MOST_MATCHES:
                raise PeerRefused(
                    f"the destination answers with more than {_MOST_MATCHES} objects where one is asked for"
                )
            if "Status" not in status:
                raise PeerUnreachable("the association ended, or the time ran out, during the query")
            _judge(int(status.Status))
            # Some answer with everything when they do not know a key
            found = found or (match is not None and match.get(keyword) == wanted)
        return found


def _identifier(level: Level, study_instance_uid: str, item: ResultObject) -> Dataset:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level.upper()
    identifier.StudyInstanceUID = study_instance_uid
    identifier.SeriesInstanceUID = item.series_instance_uid
    if level == "image":
        identifier.SOPInstanceUID = item.sop_instance_uid
    return identifier


def _judge(status: int) -> None:
    """Raise for a status that is neither Success nor Pending (PS3.4 Table C.4-1)."""
    if status in (0x0000, 0xFF00, 0xFF01):
        return
    if status == _OUT_OF_RESOURCES:
        raise PeerOutOfResources("the destination is out of resources for a query (status A700H)")
    raise PeerRefused(f"the destination cannot answer the query (status {status:04X}H)")


@dataclass(frozen=True, slots=True, kw_only=True)
class QidoFinder:
    """A ``Finder`` by QIDO-RS."""

    settings: StowSettings

    def visible(self, study_instance_uid: str, objects: Sequence[ResultObject]) -> set[str]:
        """See ``Finder.visible``."""
        with Exchange(self.settings) as http:
            return {item.sop_instance_uid for item in objects if self._is_found(http, study_instance_uid, item)}

    def _is_found(self, http: Exchange, study_instance_uid: str, item: ResultObject) -> bool:
        series = f"studies/{study_instance_uid}/series/{item.series_instance_uid}"
        params = {"SOPInstanceUID": item.sop_instance_uid}
        try:
            answer = http.request("GET", f"{series}/instances", headers={}, params=params)
        except requests.RequestException as error:
            raise PeerUnreachable(f"no answer to the query ({type(error).__name__})") from error
        # 204 for nothing found (PS3.18 10.6.3.1); some say 404 of a series they do not have
        if answer.status not in (200, 204, 404):
            raise _http_error(answer.status)
        return answer.status == requests.codes.ok and item.sop_instance_uid in _found(answer.content)


def _found(content: bytes) -> set[str]:
    """Return the SOP Instance UIDs of an answer in JSON."""
    try:
        return {
            str(value) for match in json.loads(content) for value in match.get(_SOP_INSTANCE_UID, {}).get("Value", ())
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise PeerUnreachable("the answer to the query cannot be read") from error


def _http_error(status: int) -> PeerRefused | PeerUnreachable:
    if status >= 500 or status in (408, 429):
        return PeerUnreachable(f"the destination cannot answer the query now (HTTP {status})")
    return PeerRefused(f"the destination cannot answer the query (HTTP {status})")
