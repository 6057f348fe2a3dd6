"""What the SCP supports."""

from __future__ import annotations

import copy

import pytest
from pydicom.uid import (
    JPEG2000,
    UID,
    AllTransferSyntaxes,
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)
from pynetdicom import AllStoragePresentationContexts

from scp.contexts import VERIFICATION, storage_sop_classes, supported_contexts, transfer_syntaxes


@pytest.mark.parametrize(
    "uid",
    [
        CTImageStorage,
        "1.2.840.10008.5.1.4.1.1.66.4",
        "1.2.840.10008.5.1.4.1.1.66.7",
        "1.2.840.10008.5.1.4.1.1.30",
        "1.2.840.10008.5.1.4.1.1.88.34",
        "1.2.840.10008.5.1.4.1.1.6",  # retired ultrasound, still sent by old machines
        "1.2.840.10008.5.1.4.38.1",  # of no patient
    ],
)
def test_every_storage_class_is_taken(uid: str) -> None:
    assert uid in storage_sop_classes()


def test_nothing_that_pynetdicom_knows_as_storage_is_missing() -> None:
    assert {str(cx.abstract_syntax) for cx in AllStoragePresentationContexts} <= storage_sop_classes()


def test_services_that_only_sound_like_storage_are_not_taken() -> None:
    assert not {"1.2.840.10008.1.20.1", "1.2.840.10008.1.3.10", VERIFICATION} & storage_sop_classes()


def test_private_classes_and_syntaxes_are_added() -> None:
    assert "1.3.46.670589.2.3" in storage_sop_classes(["1.3.46.670589.2.3"])
    assert "1.2.3.4" in transfer_syntaxes(["1.2.3.4"])


def test_every_stored_transfer_syntax_is_taken_lossless_ones_before_lossy_ones() -> None:
    order = transfer_syntaxes()
    streams = {uid for uid in AllTransferSyntaxes if uid.startswith("1.2.840.10008.1.2.7.")}
    assert set(AllTransferSyntaxes) - streams <= set(order)
    for lossless in (JPEG2000Lossless, RLELossless, ExplicitVRLittleEndian, ImplicitVRLittleEndian):
        for lossy in (JPEG2000, JPEGBaseline8Bit):
            assert order.index(lossless) < order.index(lossy)


def test_contexts_are_shared_by_associations() -> None:
    contexts = supported_contexts(storage_sop_classes(), transfer_syntaxes())
    copied = copy.deepcopy(contexts)
    assert all(mine is theirs for mine, theirs in zip(contexts, copied, strict=True))
    assert {str(context.abstract_syntax) for context in contexts} == storage_sop_classes() | {VERIFICATION}
    assert all(UID(str(context.abstract_syntax)).is_valid for context in contexts)
