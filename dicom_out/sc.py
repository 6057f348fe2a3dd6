"""Key images as DICOM Secondary Capture (PS3.3 A.8.1): RGB, one instance for each, in one series."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from dicom_out.codes import SOURCE_IMAGE_FOR_PROCESSING
from dicom_out.encoding import element, encoded_dataset, part10, tag_of
from dicom_out.general import describe_annotation, describe_body_part, describe_loss, describe_references, reference
from dicom_out.identity import identity
from dicom_out.keyimages import KeyImage
from dicom_out.source import Source
from volume.display import Picture

Begin = Callable[[int], Dataset]
"""Returns series, equipment and time of the object's n-th instance, from 1."""


def encode_sc(
    begin: Begin, source: Source, pictures: Sequence[KeyImage], *, declared: tuple[str, ...]
) -> list[list[bytes]]:
    """Return each key image as a Part 10 file, in pieces.

    Parameters
    ----------
    begin
        Called with the instance's number.
    declared
        Character set of the objects.
    """
    return [_encoded(begin(n), key, source, declared) for n, key in enumerate(pictures, start=1)]


def _encoded(ds: Dataset, key: KeyImage, source: Source, declared: tuple[str, ...]) -> list[bytes]:
    ds.SOPClassUID = SecondaryCaptureImageStorage
    image = source.images[key.index]
    ds.ConversionType = "WSD"
    ds.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    ds.PatientOrientation = ""
    describe_annotation(ds, source)
    ds.DerivationDescription = "Key image with outlines and measurements of an AI result drawn in"
    if image.tile is not None:  # no reference can name a part of an image
        ds.DerivationDescription += f"; tile {image.tile.number} of the mosaic"
    ds.SourceImageSequence = [reference(image, SOURCE_IMAGE_FOR_PROCESSING)]
    describe_references(ds, source, [(image.sop_class_uid, image.sop_instance_uid)])
    describe_body_part(ds, source.header)
    describe_loss(ds, source)
    describe_pixels(ds, key.picture)
    elements = encoded_dataset(ds, declared) | identity(source.header, declared)
    elements[tag_of("PixelData")] = element("PixelData", key.picture.tobytes())
    return part10(ds.SOPClassUID, ds.SOPInstanceUID, elements)


def describe_pixels(ds: Dataset, picture: Picture) -> None:
    """Image Pixel Module of an RGB picture (PS3.3 C.7.6.3)."""
    ds.Rows, ds.Columns = picture.shape[:2]
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
