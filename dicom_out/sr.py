"""Findings to a DICOM Comprehensive 3D SR (PS3.3 A.35.13) after TID 1500 Imaging Measurement Report."""

from __future__ import annotations

from dicom_out import codes
from dicom_out.content import ACQUIRES, MODIFIES, Item, code, container, image, uidref
from dicom_out.document import describe_document, observer, written
from dicom_out.groups import groups_of, statements_of
from dicom_out.kind import Order
from dicom_out.source import Source, string_values
from domain.codes import Code

_PROCEDURES = ("ProcedureCodeSequence", "RequestedProcedureCodeSequence")


def encode_sr(order: Order) -> list[bytes]:
    """Return a report as a Part 10 file, in pieces.

    The content is the same for Comprehensive 3D and Comprehensive SR: every region is drawn on a source image.
    """
    ds = order.begin()
    describe_document(order, ds)
    root = container(codes.IMAGING_MEASUREMENT_REPORT, _tree(order), relationship=None, template="1500")
    return written(ds, root, order.source, order.declared)


def _tree(order: Order) -> list[Item]:
    """Return the content below the root, in the order of TID 1500."""
    result, source = order.result, order.source
    said = statements_of(order)
    tree = [
        code(codes.LANGUAGE, codes.ENGLISH, MODIFIES),
        *observer(result.manifest),
        code(codes.PROCEDURE_REPORTED, _procedure(source), MODIFIES),
        _image_library(source),
        container(codes.IMAGING_MEASUREMENTS, groups_of(order)),
    ]
    return [*tree, container(codes.QUALITATIVE_EVALUATIONS, said)] if said else tree


def _procedure(source: Source) -> Code:
    """Return the imaging procedure, never the analysis (IHE AIR): as the source codes it, else by modality."""
    header = source.header
    for keyword in _PROCEDURES:
        for item in header.get(keyword) or ():
            value, scheme = item.get("CodeValue"), item.get("CodingSchemeDesignator")
            if value and scheme and item.get("CodeMeaning"):
                return Code(str(value), str(scheme), str(item.CodeMeaning))
    return codes.PROCEDURES.get(_modality(source), codes.IMAGING_PROCEDURE)


def _modality(source: Source) -> str:
    known = codes.MODALITIES.get(source.images[0].sop_class_uid)
    return known.value if known else (string_values(source.header, "Modality") or [""])[0]


def _image_library(source: Source) -> Item:
    """Return TID 1600: every image that was analysed, and what they share."""
    frame_of_reference = source.header.get("FrameOfReferenceUID")
    shared = [uidref(codes.FRAME_OF_REFERENCE, str(frame_of_reference), ACQUIRES)] if frame_of_reference else []
    said = (string_values(source.header, "Modality") or [""])[0]
    modality = codes.MODALITIES.get(source.images[0].sop_class_uid) or codes.MODALITY_CODES.get(said)
    if modality is not None:
        shared.insert(0, code(codes.MODALITY, modality, ACQUIRES))
    entries = [image(codes.SOURCE, *uids) for uids in source.instances]
    return container(codes.IMAGE_LIBRARY, [container(codes.IMAGE_LIBRARY_GROUP, [*shared, *entries])])
