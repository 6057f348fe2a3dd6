from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stow_bodies import multipart
from werkzeug.exceptions import BadRequest

from dicomweb.multipart import MultipartLimits, MultipartReader, boundary_of, media_type_of


class Collected:
    """The parts of one body."""

    def __init__(self) -> None:
        self.parts: list[tuple[dict[str, str], bytearray]] = []

    def begin(self, headers: Mapping[str, str]) -> None:
        self.parts.append((dict(headers), bytearray()))

    def write(self, data: memoryview) -> None:
        self.parts[-1][1].extend(data)

    @property
    def contents(self) -> list[bytes]:
        return [bytes(content) for _, content in self.parts]


def split(body: bytes, boundary: str = "b", cuts: tuple[int, ...] = ()) -> Collected:
    """Return the parts of ``body``, fed in pieces that end at ``cuts``."""
    parts = Collected()
    reader = MultipartReader(boundary.encode(), parts, MultipartLimits())
    for start, end in pairwise([0, *sorted(cuts), len(body)]):
        reader.feed(body[start:end])
    reader.close()
    return parts


# Pieces of which the worst contents are made: whatever nearly is a delimiter.
FRAGMENTS = st.sampled_from(
    [b"\r", b"\n", b"-", b"--", b"--bo", b"\r\n--b", b"\r\n--bo-", b"\r\n-", b"\r\n\r\n", b"x", b"\0"]
)


@settings(max_examples=300, deadline=None)
@given(
    contents=st.lists(st.lists(FRAGMENTS, max_size=12).map(b"".join), min_size=1, max_size=4),
    cuts=st.sets(st.integers(0, 400), max_size=40),
    preamble=st.sampled_from([b"", b"\r\n", b"This is no part.\r\n", b"--bog\r\n--bo", b"-\r\n\r\n\r\n"]),
    epilogue=st.sampled_from([b"", b"\r\n", b"\r\n--bou\r\n\r\nno part\r\n--bou--\r\n"]),
)
def test_gives_back_every_part_byte_for_byte_however_the_body_is_cut_up(
    contents: list[bytes], cuts: set[int], preamble: bytes, epilogue: bytes
) -> None:
    if preamble and not preamble.endswith(b"\r\n"):
        preamble += b"\r\n"
    body = multipart(contents, boundary="bou", preamble=preamble, epilogue=epilogue)
    inside = tuple(cut for cut in cuts if cut < len(body))
    assert split(body, "bou", inside).contents == contents


@pytest.mark.parametrize("cut", range(1, 60))
def test_a_boundary_may_fall_on_any_edge_between_two_reads(cut: int) -> None:
    body = multipart([b"first \r\n--b", b"second"])
    assert split(body, "Xq7-boundary", (cut,)).contents == [b"first \r\n--b", b"second"]


def test_part_headers_may_be_absent() -> None:
    parts = split(multipart([b"DICM"], boundary="b", headers={})).parts
    assert parts == [({}, bytearray(b"DICM"))]


def test_part_header_names_are_in_lower_case_and_values_as_sent() -> None:
    headers = {"content-TYPE": "application/dicom; transfer-syntax=1.2.840.10008.1.2.1", "Content-Location": "x/1"}
    ((found, _),) = split(multipart([b"x"], boundary="b", headers=headers)).parts
    assert found == {
        "content-type": "application/dicom; transfer-syntax=1.2.840.10008.1.2.1",
        "content-location": "x/1",
    }


def test_white_space_after_a_delimiter_is_padding() -> None:
    assert split(b"--b \t\r\n\r\none\r\n--b  \r\n\r\ntwo\r\n--b--  \r\n").contents == [b"one", b"two"]


def test_a_body_of_the_closing_delimiter_alone_has_no_parts() -> None:
    assert split(b"--b--\r\n").contents == []


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "no delimiter"),
        (b"hello", "no delimiter"),
        (b"--other\r\n\r\nx\r\n--other--\r\n", "no delimiter"),
        (b"--b\r\n\r\nx", "cut off"),
        (b"--b\r\n\r\nx\r\n--b", "cut off"),
        (b"--b\r\n\r\nx\r\n--b-", "cut off"),
        (b"--b\r\n\r\nx\r\n--b\r\n", "cut off"),
        (b"--b\r\nContent-Ty", "cut off"),
        (b"--b\r\nno header line\r\n\r\nx\r\n--b--", "cannot be parsed"),
        (b"--b\r\n: x\r\n\r\nx\r\n--b--", "cannot be parsed"),
        (b"--b\r\nA: b\rC\r\n\r\nx\r\n--b--", "cannot be parsed"),
        (b"--b\r\n" + b"A: b\r\n" * 17 + b"\r\nx\r\n--b--", "cannot be parsed"),
        (b"--b\r\nA: " + b"b" * 5000 + b"\r\n\r\nx\r\n--b--", "cannot be parsed"),
        (b"-" * 100_000, "does not begin"),
    ],
)
def test_says_what_is_wrong_with_a_body(body: bytes, says: str) -> None:
    with pytest.raises(BadRequest) as caught:
        split(body)
    assert says in str(caught.value.description)


def test_reads_on_without_keeping_what_it_handed_over() -> None:
    class Largest(Collected):
        size = 0

        def write(self, data: memoryview) -> None:
            self.size = max(self.size, len(data))

    parts = Largest()
    reader = MultipartReader(b"b", parts, MultipartLimits())
    reader.feed(b"--b\r\n\r\n")
    for _ in range(100):
        reader.feed(bytes(100_000))
    assert parts.size == 100_000


@pytest.mark.parametrize(
    "header",
    [
        'multipart/related; type="application/dicom"; boundary=a-1',
        "multipart/related; type=application/dicom; boundary=a-1",
        'Multipart/Related;BOUNDARY="a-1";Type="application/dicom"',
        'multipart/related; start="<1>"; boundary="a-1"; type=application/dicom; charset=utf-8',
    ],
)
def test_parameters_may_be_quoted_or_not_in_any_order_and_case(header: str) -> None:
    media_type, parameters = media_type_of(header)
    assert media_type == "multipart/related"
    assert parameters["type"] == "application/dicom"
    assert boundary_of(parameters) == b"a-1"


def test_a_boundary_may_hold_what_is_no_token() -> None:
    _, parameters = media_type_of("multipart/related; boundary=----=_Part_1.2:3; type=application/dicom")
    assert boundary_of(parameters) == b"----=_Part_1.2:3"
    _, parameters = media_type_of('multipart/related; boundary="a b;c"')
    assert boundary_of(parameters) == b"a b;c"


@pytest.mark.parametrize(
    "header", ["multipart/related", "multipart/related; boundary", 'multipart/related; boundary=""']
)
def test_a_missing_boundary_is_refused(header: str) -> None:
    with pytest.raises(BadRequest):
        boundary_of(media_type_of(header)[1])


@pytest.mark.parametrize("boundary", ["", "a\r\nb", "é", "x" * 201, "ends in a space "])
def test_what_cannot_be_a_boundary_is_refused(boundary: str) -> None:
    with pytest.raises(BadRequest):
        boundary_of({"boundary": boundary})
