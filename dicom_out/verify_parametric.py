"""The check of encoded parametric maps: every value, where it lies, and whose probability it is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydicom.dataset import Dataset

from dicom_out.verify_groups import frame_facts
from dicom_out.verify_seg import Slices, check_geometry, check_referenced_series, slices_of
from domain.errors import VerificationFailed
from domain.ports import Result

_QUANTITY, _PROBABILITY = "246205007", "110854"


def check_parametric_maps(maps: Sequence[Dataset], result: Result, slices: Slices) -> None:
    """Compare the maps, read from their files, with the probabilities: one for each segment that has any, in order.

    Raises
    ------
    VerificationFailed
        They differ; the message says in what.
    """
    segments = [number for number, values in enumerate(result.findings.probabilities, 1) if np.any(values)]
    if len(maps) != len(segments):
        raise VerificationFailed("PMAP: there is not one for each segment with a probability.")
    for number, ds in zip(segments, maps, strict=True):
        _check_meaning(number, ds, result)
        check_geometry(ds, result.patient_grid, slices, what="PMAP")
        check_referenced_series(ds, slices, result.grid.shape[0], what="PMAP")
        _check_values(number, ds, result, slices)


def _check_meaning(number: int, ds: Dataset, result: Result) -> None:
    (mapping,) = ds.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
    (quantity,) = mapping.QuantityDefinitionSequence
    said = quantity.ConceptNameCodeSequence[0].CodeValue, quantity.ConceptCodeSequence[0].CodeValue
    if said != (_QUANTITY, _PROBABILITY):
        raise VerificationFailed("PMAP: it is not one of a probability.")
    if (float(mapping.RealWorldValueSlope), float(mapping.RealWorldValueIntercept)) != (1.0, 0.0):
        raise VerificationFailed("PMAP: its values are scaled.")
    label = result.findings.segments[number - 1].label
    if str(mapping.LUTExplanation) != f"Probability: {label}"[:64]:
        raise VerificationFailed(f"PMAP: it does not name segment {number}.")


def _check_values(number: int, ds: Dataset, result: Result, slices: Slices) -> None:
    grid, probability = result.patient_grid, result.findings.probabilities[number - 1]
    values = np.frombuffer(ds.FloatPixelData, "<f4").reshape(-1, *grid.shape[1:])
    seen = set()
    lie = slices_of(list(frame_facts(ds)), grid, slices, what="PMAP")
    for index, (k, plane) in enumerate(zip(lie, values, strict=True), 1):
        if k in seen or not np.array_equal(plane, probability[k]):
            raise VerificationFailed(f"PMAP: frame {index} is not the engine's probability of segment {number}.")
        seen.add(k)
    if any(k not in seen and plane.any() for k, plane in enumerate(probability)):
        raise VerificationFailed(f"PMAP: a slice with probabilities of segment {number} is missing.")
