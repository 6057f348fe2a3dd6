"""Words of the model and of routes: reports in sections, prompts that name structures."""

from __future__ import annotations

import re
from collections.abc import Sequence

from domain.errors import EngineFailed
from domain.findings import SegmentDescription


def sections(text: str) -> tuple[str, str]:
    """Return a report's findings, with whatever stands before them, and its impression; either may be empty.

    A report without headings is findings; nothing is added to what the model wrote.
    """
    parts = re.split(r"(?i)(?:^|(?<=[.\s]))(findings?|impressions?)\s*:\s*", text)
    findings: list[str] = [parts[0].strip()]
    impressions: list[str] = []
    for heading, body in zip(parts[1::2], parts[2::2], strict=True):
        (findings if heading.lower().startswith("finding") else impressions).append(body.strip())
    return "\n".join(filter(None, findings)), "\n".join(filter(None, impressions))


def asked_segments(prompts: str, known: Sequence[SegmentDescription]) -> list[tuple[str, SegmentDescription]]:
    """Return each sentence of the prompts with the one structure of the manifest that it names."""
    asked: list[tuple[str, SegmentDescription]] = []
    for sentence in re.findall(r"[^.]+\.?", prompts):
        if not sentence.strip():
            continue
        words = sentence.lower()
        named = [segment for segment in known if re.search(rf"\b{segment.label.lower()}s?\b", words)]
        if len(named) != 1 or any(segment == named[0] for _, segment in asked):
            names = ", ".join(segment.label.lower() for segment in known)
            raise EngineFailed(f"Each sentence of the route's prompt must name one structure, each once: {names}.")
        asked.append((sentence.strip(), named[0]))
    return asked
