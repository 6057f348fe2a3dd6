"""The head of a Part 10 file (PS3.10 7.1), so that a received dataset can be kept byte for byte behind it."""

from __future__ import annotations

import struct

from domain.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

_PREAMBLE = b"\0" * 128 + b"DICM"
_VERSION = b"\x00\x01"


def file_head(
    *,
    sop_class_uid: str,
    sop_instance_uid: str,
    transfer_syntax_uid: str,
    sending_ae_title: str,
    receiving_ae_title: str,
) -> bytes:
    """Return preamble, prefix and File Meta Information in Explicit VR Little Endian.

    Written by hand: through pydicom it costs a fifth of the time that storing an instance takes.
    """
    elements = b"".join(
        (
            # OB has a length of four bytes behind two reserved ones (PS3.5 7.1.2)
            struct.pack("<HH2sHI", 2, 0x0001, b"OB", 0, len(_VERSION)) + _VERSION,
            _element(0x0002, b"UI", sop_class_uid),
            _element(0x0003, b"UI", sop_instance_uid),
            _element(0x0010, b"UI", transfer_syntax_uid),
            _element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID),
            _element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME),
            _element(0x0017, b"AE", sending_ae_title),
            _element(0x0018, b"AE", receiving_ae_title),
        )
    )
    return _PREAMBLE + struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(elements)) + elements


def _element(element: int, vr: bytes, text: str) -> bytes:
    value = text.encode("ascii", "replace")
    if len(value) % 2:
        # UIDs are padded with a null, text with a space (PS3.5 6.2)
        value += b"\0" if vr == b"UI" else b" "
    return struct.pack("<HH2sH", 2, element, vr, len(value)) + value
