"""Answers to STOW-RS, as bytes."""

from __future__ import annotations

import pytest

from dicom_out.stow_response import stored_and_failed


def test_an_empty_failed_sequence_is_no_failure() -> None:
    stored = b'"00081199":{"vr":"SQ","Value":[{"00081155":{"vr":"UI","Value":["1.2"]}}]}'
    answer = b'{"00081198":{"Value":[],"vr":"SQ"},' + stored + b"}"
    assert stored_and_failed(answer, "application/dicom+json") == ({"1.2": 0}, {})


def test_a_failure_without_reason_is_a_processing_failure() -> None:
    answer = b'[{"00081198":{"vr":"SQ","Value":[{"00081155":{"vr":"UI","Value":["1.2"]}}]}}]'
    assert stored_and_failed(answer, "application/dicom+json; charset=utf-8") == ({}, {"1.2": 0x0110})


@pytest.mark.parametrize(
    "answer", [b"", b"[]", b"{}", b"null", b"7", b"<html/>", b'{"00081199":{"Value":[3]}}', b"[" * 200_000]
)
def test_what_is_no_such_module_says_nothing(answer: bytes) -> None:
    assert stored_and_failed(answer, "application/dicom+json") is None


def test_xml_that_is_something_else_says_nothing() -> None:
    assert stored_and_failed(b"<a><b/></a>", "application/xml") is None
