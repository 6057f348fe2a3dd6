from __future__ import annotations

from http import HTTPStatus

import pytest
from http_fakes import refused, stored
from pydicom.dataset import Dataset

from dicomweb.response import failure_reason, response_module, status_of
from domain.errors import (
    ConflictingInstance,
    GatewayError,
    InstanceMismatch,
    InstanceRejected,
    MalformedInstance,
    OutOfSpace,
    UnsupportedSopClass,
)
from domain.instance import Disposition, Outcome

CT = "1.2.840.10008.5.1.4.1.1.2"
DUPLICATE = Outcome(disposition=Disposition.DUPLICATE, sop_class_uid=CT, sop_instance_uid="1.2.3.4.9")


@pytest.mark.parametrize(
    ("outcomes", "foreign", "status"),
    [
        ([stored()], 0, HTTPStatus.OK),
        ([stored(), DUPLICATE], 0, HTTPStatus.OK),
        ([DUPLICATE], 0, HTTPStatus.OK),
        ([stored(), refused(MalformedInstance())], 0, HTTPStatus.ACCEPTED),
        ([stored()], 1, HTTPStatus.ACCEPTED),
        ([refused(MalformedInstance()), refused(UnsupportedSopClass())], 0, HTTPStatus.CONFLICT),
        ([refused(MalformedInstance())], 1, HTTPStatus.CONFLICT),
        ([], 2, HTTPStatus.UNSUPPORTED_MEDIA_TYPE),
    ],
)
def test_status_says_whether_all_some_or_none_were_stored(
    outcomes: list[Outcome], foreign: int, status: HTTPStatus
) -> None:
    assert status_of(outcomes, foreign) is status


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OutOfSpace(), 42752),
        (InstanceMismatch(), 43264),
        (MalformedInstance(), 49152),
        (InstanceRejected(), 49152),
        (UnsupportedSopClass(), 290),
        (ConflictingInstance(), 273),
        (GatewayError(), 272),
        (None, 272),
    ],
)
def test_each_error_has_its_failure_reason(error: GatewayError | None, reason: int) -> None:
    assert failure_reason(error) == reason


def test_module_names_what_was_stored_with_an_empty_retrieve_url() -> None:
    assert response_module([stored(7)], 0) == {
        "00081190": {"vr": "UR"},
        "00081199": {
            "vr": "SQ",
            "Value": [
                {
                    "00081150": {"vr": "UI", "Value": [CT]},
                    "00081155": {"vr": "UI", "Value": ["1.2.3.4.7"]},
                    "00081190": {"vr": "UR"},
                }
            ],
        },
    }


def test_module_names_what_failed_and_why() -> None:
    assert response_module([refused(ConflictingInstance())], 0) == {
        "00081190": {"vr": "UR"},
        "00081198": {
            "vr": "SQ",
            "Value": [
                {
                    "00081150": {"vr": "UI", "Value": [CT]},
                    "00081155": {"vr": "UI", "Value": ["1.2.3.5.1"]},
                    "00081197": {"vr": "US", "Value": [273]},
                }
            ],
        },
    }


def test_parts_that_name_no_instance_are_other_failures() -> None:
    module = response_module([stored(), refused(MalformedInstance(), sop_instance_uid=None)], 2)
    assert "00081198" not in module
    assert module["0008119A"] == {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [49152]}}] * 3}


def test_pydicom_reads_the_module() -> None:
    dataset = Dataset.from_json(response_module([stored(), refused(UnsupportedSopClass())], 1))
    assert dataset.RetrieveURL == ""
    assert dataset.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "1.2.3.4.0"
    assert dataset.FailedSOPSequence[0].FailureReason == 0x0122
    assert dataset.OtherFailuresSequence[0].FailureReason == 0xC000
