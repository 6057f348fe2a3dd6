"""Tokens and prompt of MedVersa: the original template, in ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from domain.errors import ConfigurationError, EngineFailed
from inference.medversa.sentencepiece import SentencePiece

SOFT_TOKENS = 9
"""Positions that one image takes in the prompt."""
ADDED = ("<ImageHere>", "<DET>", "<2DSEG>", "<3DSEG>", "<N/A>")
"""Appended to the pieces of the language model, in this order."""
STOP = "###"
_WITH_CONTEXT = frozenset({"report generation", "classification"})
_BOS = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """Ids of a whole prompt; ``image_places`` are the positions that the images' soft tokens take, in order."""

    prefix_ids: tuple[int, ...]
    prompt_ids: tuple[int, ...]
    image_places: tuple[int, ...]


class Tokens:
    """The tokenizer of the base model with MedVersa's added tokens.

    Parameters
    ----------
    path
        ``tokenizer.model`` of the base model.
    vocabulary
        Rows of the checkpoint's embedding; must be the pieces and the added tokens.
    """

    def __init__(self, path: Path, vocabulary: int) -> None:
        self._pieces = SentencePiece(path)
        if len(self._pieces) + len(ADDED) != vocabulary:
            raise ConfigurationError(
                f"{path} has {len(self._pieces)} pieces, and with {len(ADDED)} added tokens that is not the "
                f"checkpoint's vocabulary of {vocabulary}: another base model is needed"
            )
        self.image, self.det, self.seg2d, self.seg3d, self.none = (
            len(self._pieces) + index for index in range(len(ADDED))
        )

    @property
    def stops(self) -> tuple[tuple[int, ...], ...]:
        """Sequences of ids that end an answer: every spelling of ``###`` (Llama: 835; 2277, 29937)."""
        spelled = [("\u2581###",), ("##", "#"), ("###",), ("\u2581##", "#")]
        ids = [tuple(self._pieces.id_of(piece) for piece in pieces) for pieces in spelled]
        return tuple(tuple(i for i in found if i is not None) for found in ids if None not in found)

    def prompt(self, *, images: int, task: str, context: str, prompt: str, longest_prefix: int) -> Prompt:
        """Return the prompt for a number of images.

        ``<img0>`` … are plain text to this model. Each text between added tokens is encoded on its own, with the
        dummy prefix. The words of the caller are never taken for added tokens: an ``<ImageHere>`` in a context is
        text.
        """
        prefix: list[int] = [_BOS]
        places: list[int] = []
        opening = "###Human:"
        for image in range(images):
            prefix += self._pieces.encode(f"{opening}<img{image}>")
            places += range(len(prefix), len(prefix) + SOFT_TOKENS)
            prefix += [self.image] * SOFT_TOKENS
            opening = f"</img{image}>"
        prefix += self._pieces.encode(opening)
        if len(prefix) > longest_prefix:
            raise EngineFailed(f"{images} images are more than this model takes in one prompt.")
        told = f"<context>{context}</context>" if task in _WITH_CONTEXT else ""
        words = self._pieces.encode(f"{told}{prompt}###Assistant:")
        return Prompt(prefix_ids=tuple(prefix), prompt_ids=tuple(words), image_places=tuple(places))

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of generated ids, added tokens as words of their own."""
        texts: list[str] = []
        run: list[int] = []
        for index in ids:
            if index < len(self._pieces):
                run.append(index)
                continue
            texts += [self._pieces.decode(run), ADDED[index - len(self._pieces)]]
            run = []
        return " ".join(text for text in (*texts, self._pieces.decode(run)) if text)

    def answer(self, ids: Sequence[int]) -> str:
        """Return what is said before the stop."""
        return self.decode(ids).partition(STOP)[0].rpartition("Assistant:")[2].strip()
