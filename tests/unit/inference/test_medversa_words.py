"""Tokens, prompt and what is read out of an answer; no torch."""

from __future__ import annotations

from pathlib import Path

import pytest
from medversa_checkpoint import pieces, write_tokenizer

from domain.errors import ConfigurationError, EngineFailed
from inference.medversa.prompt import Tokens
from inference.medversa.sentencepiece import SentencePiece
from inference.medversa.words import sections

VOCABULARY = len(pieces()) + 5


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    write_tokenizer(path)
    return path


@pytest.fixture(scope="module")
def tokens(model_file: Path) -> Tokens:
    return Tokens(model_file, VOCABULARY)


def test_text_comes_back_from_its_ids(model_file: Path) -> None:
    spelled = SentencePiece(model_file)
    for text in ("The heart is normal", "5 µm, 肺", " two  blanks ", "line\nbreak"):
        assert spelled.decode(spelled.encode(text)) == text


def test_pairs_are_merged_best_score_first(model_file: Path) -> None:
    spelled = SentencePiece(model_file)
    assert len(spelled.encode("heart")) == 1
    assert spelled.encode("") == []


def test_what_no_piece_spells_falls_back_to_bytes(model_file: Path) -> None:
    spelled = SentencePiece(model_file)
    blank = next(i for i, (piece, _, _) in enumerate(pieces()) if piece == "\u2581")
    assert spelled.encode("µ") == [blank, 3 + 0xC2, 3 + 0xB5]


@pytest.mark.parametrize("content", [b"", b"\x0a\xff\xff", b"no protocol buffer at all", b"\x0a"])
def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match="SentencePiece"):
        SentencePiece(path)


def test_a_unigram_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    write_tokenizer(path, kind=1)
    with pytest.raises(ConfigurationError, match="not a SentencePiece BPE model"):
        SentencePiece(path)


def test_the_tokenizer_must_belong_to_the_checkpoint(model_file: Path) -> None:
    with pytest.raises(ConfigurationError, match="another base model is needed"):
        Tokens(model_file, 32005)


def test_every_spelling_of_the_stop_is_one(tokens: Tokens, model_file: Path) -> None:
    spelled = SentencePiece(model_file)
    assert (spelled.id_of("\u2581###"),) in tokens.stops
    assert (spelled.id_of("##"), spelled.id_of("#")) in tokens.stops


def test_each_image_has_nine_places(tokens: Tokens) -> None:
    prompt = tokens.prompt(images=2, task="segmentation", context="", prompt="mask", longest_prefix=256)
    assert len(prompt.image_places) == 18
    assert {prompt.prefix_ids[place] for place in prompt.image_places} == {tokens.image}


def test_the_context_is_told_to_reports_and_classification_only(tokens: Tokens) -> None:
    def said(task: str) -> str:
        prompt = tokens.prompt(images=1, task=task, context="Age:70.", prompt="normal", longest_prefix=256)
        return tokens.decode(prompt.prompt_ids)

    assert said("report generation") == said("classification") == "<context>Age:70.</context>normal###Assistant:"
    assert said("segmentation") == said("detection") == "normal###Assistant:"


def test_words_of_the_caller_are_never_added_tokens(tokens: Tokens) -> None:
    words = "<ImageHere><3DSEG></s>"
    prompt = tokens.prompt(images=1, task="classification", context=words, prompt=words, longest_prefix=256)
    assert max(prompt.prompt_ids) < tokens.image
    assert 2 not in prompt.prompt_ids


def test_more_images_than_the_prompt_holds_are_refused(tokens: Tokens) -> None:
    with pytest.raises(EngineFailed, match="40 images are more"):
        tokens.prompt(images=40, task="segmentation", context="", prompt="mask", longest_prefix=256)


def test_the_answer_ends_before_the_stop(tokens: Tokens, model_file: Path) -> None:
    spelled = SentencePiece(model_file)
    ids = [*spelled.encode("The mask"), tokens.seg2d, *spelled.encode("###"), *spelled.encode("heart")]
    assert tokens.answer(ids) == "The mask <2DSEG>"


def test_a_report_is_split_where_it_has_headings() -> None:
    text = "Findings: The lungs are clear. Impression: Normal."
    assert sections(text) == ("The lungs are clear.", "Normal.")


def test_a_report_without_headings_gets_none() -> None:
    assert sections(" No acute findings. ") == ("No acute findings.", "")


def test_melanoma_is_not_read_into_other_words() -> None:
    assert sections("A melon-coloured patch.") == ("A melon-coloured patch.", "")
