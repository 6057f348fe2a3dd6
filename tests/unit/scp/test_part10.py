"""The head of a stored file."""

from __future__ import annotations

from io import BytesIO

import pytest
from pydicom import dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info

from domain.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from scp.part10 import file_head


@pytest.mark.parametrize("sending", ["CT", "ODD", "A TITLE OF 16 CH"])
@pytest.mark.parametrize("instance", ["1.2.3", "1.2.34"])
def test_is_what_pydicom_would_write(sending: str, instance: str) -> None:
    head = file_head(
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        sop_instance_uid=instance,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        sending_ae_title=sending,
        receiving_ae_title="VOXGATE",
    )
    meta = dcmread(BytesIO(head)).file_meta
    assert meta.MediaStorageSOPInstanceUID == instance
    assert meta.SendingApplicationEntityTitle == sending
    assert meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID
    assert meta.ImplementationVersionName == IMPLEMENTATION_VERSION_NAME
    written = DicomBytesIO()
    write_file_meta_info(written, meta)
    assert head == b"\0" * 128 + b"DICM" + written.getvalue()


def test_our_names_fit_their_value_representations() -> None:
    assert len(IMPLEMENTATION_CLASS_UID) <= 64
    assert IMPLEMENTATION_CLASS_UID.startswith("2.25.")
    assert len(IMPLEMENTATION_VERSION_NAME) <= 16
