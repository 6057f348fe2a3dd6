"""What the SCP takes: every storage SOP class in every transfer syntax of the standard, Verification, and Storage
Commitment."""

from __future__ import annotations

from collections.abc import Iterable

from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    UID_dictionary,
)
from pynetdicom import sop_class
from pynetdicom.presentation import PresentationContext

VERIFICATION = "1.2.840.10008.1.1"
STORAGE_COMMITMENT = "1.2.840.10008.1.20.1"
LABEL_MAP_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.7"  # unknown to pydicom 3.0
_STORED_OTHERWISE = (
    STORAGE_COMMITMENT,  # stores nothing
    "1.2.840.10008.1.20.2",
    "1.2.840.10008.1.3.10",  # DICOMDIR, for media only (PS3.3 F)
)
_NOT_FOR_STORAGE = (
    "1.2.840.10008.1.2.6.1",  # MIME and XML: other encodings than PS3.5's
    "1.2.840.10008.1.2.6.2",
    "1.2.840.10008.1.2.7.1",  # SMPTE ST 2110: real-time streams (PS3.22)
    "1.2.840.10008.1.2.7.2",
    "1.2.840.10008.1.2.7.3",
    "1.2.840.10008.1.20",  # Papyrus 3
)
_PREFERRED = (
    JPEGLSLossless,
    JPEG2000Lossless,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEGLosslessSV1,
    JPEGLossless,
    RLELossless,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)


class SharedContext(PresentationContext):
    """A supported presentation context that no association changes.

    pynetdicom copies all supported contexts deeply for each association; with some 200 SOP classes in some 50
    transfer syntaxes that costs a tenth of a second with the interpreter's lock held. Negotiation only reads them
    (``pynetdicom.presentation.negotiate_as_acceptor``), so one copy serves all.
    """

    def __deepcopy__(self, memo: dict[int, object]) -> SharedContext:
        return self


def storage_sop_classes(private: Iterable[str] = ()) -> frozenset[str]:
    """Return the UIDs of all storage SOP classes, retired ones too, with ``private`` ones added."""
    in_dictionary = {
        uid for uid, (name, kind, *_) in UID_dictionary.items() if kind == "SOP Class" and "Storage" in name
    }
    # pynetdicom's public list of contexts ends at 128; its tables know classes newer than pydicom's dictionary
    in_tables = {*sop_class._STORAGE_CLASSES.values(), *sop_class._NON_PATIENT_OBJECT_CLASSES.values()}
    known = {*in_dictionary, *in_tables, LABEL_MAP_SEGMENTATION} - set(_STORED_OTHERWISE)
    return frozenset(known | set(private))


def transfer_syntaxes(private: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the UIDs of all transfer syntaxes of stored objects, in our order of preference.

    It matters for a sender that offers several in one context. DCMTK does so for losslessly compressed files, and
    would decompress if it could: the same object sent by another way would then differ from it. So lossless syntaxes
    that we can decode come first, then the uncompressed ones, and last those for whose sake a sender might compress
    with loss.
    """
    known = {uid for uid, (_, kind, *_) in UID_dictionary.items() if kind == "Transfer Syntax"}
    known = (known | set(private)) - set(_NOT_FOR_STORAGE)
    return tuple(sorted(known, key=_preference))


def _preference(transfer_syntax_uid: str) -> tuple[int, str]:
    if transfer_syntax_uid in _PREFERRED:
        return _PREFERRED.index(UID(transfer_syntax_uid)), ""
    uncompressed = "Endian" in UID_dictionary.get(transfer_syntax_uid, ("",))[0]
    return len(_PREFERRED) + (not uncompressed), transfer_syntax_uid


def supported_contexts(
    sop_class_uids: Iterable[str], transfer_syntax_uids: Iterable[str], *, commitment: bool = False
) -> list[PresentationContext]:
    """Return one context for each SOP class, one for Verification, and one for Storage Commitment if wanted.

    There may be more than 128 (PS3.8 9.3.2.2 limits what is proposed, not what is supported).
    """
    syntaxes = [UID(uid) for uid in transfer_syntax_uids]
    uncompressed = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
    contexts = [_context(uid, syntaxes) for uid in sorted(sop_class_uids)]
    contexts.append(_context(VERIFICATION, uncompressed))
    if commitment:
        # Peers ask us, and answer what we asked them: the latter as SCPs that open the association (PS3.7 D.3.3.4)
        both_ways = _context(STORAGE_COMMITMENT, uncompressed)
        both_ways.scu_role = both_ways.scp_role = True
        contexts.append(both_ways)
    return contexts


def _context(abstract_syntax: str, syntaxes: list[UID]) -> PresentationContext:
    context = SharedContext()
    context.abstract_syntax = UID(abstract_syntax)
    context.transfer_syntax = syntaxes  # type: ignore[assignment]  # the setter's wider type
    return context
