"""Checkpoints of MedVersa: what fits, what does not, and what is said about it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from medversa_checkpoint import HIDDEN, write_checkpoint

from domain.errors import ConfigurationError, EngineFailed, EngineUnavailable
from domain.question import Question, Sampling, Withdrawn
from inference.checkpoints import digest_of, folder_of
from inference.medversa.settings import MedVersaSettings

pytestmark = pytest.mark.usefixtures("language_models")

PICTURE = np.random.default_rng(3).integers(0, 255, (60, 80, 3)).astype(np.uint8)
QUERY = "llama_model.base_model.model.model.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("medversa"))


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    from inference.medversa.loading import load
    from inference.medversa.model import MedVersa

    return MedVersa(load(MedVersaSettings(weights=str(folder))))


@pytest.fixture
def changed(folder: Path, tmp_path: Path) -> Callable[[Callable[[dict[str, Any]], object]], Path]:
    """Return a function that copies the checkpoint with changed tensors."""

    def change(by: Callable[[dict[str, Any]], object]) -> Path:
        from safetensors.torch import load_file, save_file

        tensors = load_file(folder / "model.safetensors")
        by(tensors)
        save_file(tensors, tmp_path / "model.safetensors")
        (tmp_path / "config.json").write_text(json.dumps({"llama_model": str(folder / "llama")}))
        return tmp_path

    return change


def _load(folder: Path, **settings: Any) -> Any:
    from inference.medversa.loading import load

    return load(MedVersaSettings(weights=str(folder), **settings))


def _question(**changes: Any) -> Question:
    facts: dict[str, Any] = {
        "modality": "derm", "task": "segmentation", "prompt": "mask", "pictures": (PICTURE,),
        "sampling": Sampling(do_sample=False),
    }  # fmt: skip
    return Question(**{**facts, **changes})


def test_an_answer_says_what_the_checkpoint_says(model: Any) -> None:
    answer = model.ask(_question())
    assert answer.text == "The mask <2DSEG> <3DSEG> <DET>"
    assert answer.picture_masks[0][0].shape == PICTURE.shape[:2]
    assert len(answer.boxes) == 1
    assert answer.volume_masks == ()  # it was shown no volume


def test_a_mask_token_at_the_very_end_is_drawn(tmp_path: Path) -> None:
    from inference.medversa.model import MedVersa

    model = MedVersa(_load(write_checkpoint(tmp_path, says=("The", "<2DSEG>"))))
    sampling = Sampling(do_sample=False, max_new_tokens=2)
    assert len(model.ask(_question(sampling=sampling)).picture_masks) == 1


def test_each_mask_token_is_drawn_on_each_picture(tmp_path: Path) -> None:
    from inference.medversa.model import MedVersa

    model = MedVersa(_load(write_checkpoint(tmp_path, says=("<2DSEG>", "mask", "###"))))
    answer = model.ask(_question(pictures=(PICTURE, PICTURE[:30])))
    assert [[mask.shape for mask in masks] for masks in answer.picture_masks] == [[(60, 80), (30, 80)]]


def test_beams_give_the_masks_of_the_answer_that_won(model: Any) -> None:
    one = model.ask(_question())
    beams = model.ask(_question(sampling=Sampling(do_sample=False, num_beams=3)))
    assert beams.text == one.text
    assert np.array_equal(beams.picture_masks[0][0], one.picture_masks[0][0])


def test_a_seed_makes_sampling_repeatable(model: Any) -> None:
    def asked(seed: int | None) -> str:
        sampling = Sampling(seed=seed, temperature=30.0, top_p=1.0, max_new_tokens=12)
        text: str = model.ask(_question(sampling=sampling)).text
        return text

    assert asked(7) == asked(7)
    assert len({asked(seed) for seed in (1, 2, 3, None, None)}) > 1


def test_a_question_is_given_up_when_nobody_waits(model: Any) -> None:
    with pytest.raises(Withdrawn):
        model.ask(_question(), lambda: True)


def test_a_volume_is_refused_by_a_checkpoint_without_its_encoder(model: Any) -> None:
    from domain.volume import Grid, Volume

    grid = Grid(shape=(2, 3, 4), affine=np.eye(4)[[2, 1, 0, 3]], frame_of_reference_uid="1.2")
    volume = Volume(voxels=np.zeros((2, 3, 4), np.int16), grid=grid, sop_instance_uids=("1", "2"), unit="HU")
    with pytest.raises(EngineFailed, match="no encoder for volumes"):
        model.ask(_question(pictures=(), volume=volume))


def test_a_prompt_that_fills_the_memory_is_refused(model: Any) -> None:
    with pytest.raises(EngineFailed, match="the model takes fewer than 1024"):
        model.ask(_question(prompt="heart " * 1100))


def test_missing_and_unknown_keys_are_listed(changed: Callable[..., Path]) -> None:
    import torch

    def spoil(tensors: dict[str, Any]) -> None:
        del tensors["text_det.0.weight"]
        tensors["text_det.9.weight"] = torch.zeros(3)
        tensors["ln_vision_2d.bias"] = torch.zeros(3)

    with pytest.raises(ConfigurationError) as caught:
        _load(changed(spoil))
    said = str(caught.value)
    assert "1 missing: text_det.0.weight" in said
    assert "1 unexpected: text_det.9.weight" in said
    assert "1 of another shape: ln_vision_2d.bias" in said


def test_a_group_may_be_absent_but_not_half_there(changed: Callable[..., Path]) -> None:
    def drop(tensors: dict[str, Any]) -> None:
        for key in [key for key in tensors if key.startswith("text_det.")]:
            del tensors[key]

    assert not _load(changed(drop)).network.sizes.has_boxes


def test_groups_of_newer_checkpoints_are_known(changed: Callable[..., Path]) -> None:
    import torch

    def newer(tensors: dict[str, Any]) -> None:
        tensors["visual_encoder_2d_vqa.layernorm.weight"] = torch.zeros(3)
        tensors["text2sam_2d.0.weight"] = torch.zeros(3)

    assert _load(changed(newer)).unused == ("visual_encoder_2d_vqa", "text2sam_2d")


@pytest.mark.parametrize("spelling", ["lora_{}.weight", "lora_{}.default.weight"])
def test_low_rank_parts_are_added_in_float32(changed: Callable[..., Path], spelling: str) -> None:
    import torch

    down, up = torch.full((16, HIDDEN), 1e-3), torch.full((HIDDEN, 16), 1e-3)
    found: dict[str, Any] = {}

    def add(tensors: dict[str, Any]) -> None:
        found["before"] = tensors[f"{QUERY}.weight"] = tensors[f"{QUERY}.weight"].to(torch.bfloat16)
        tensors[f"{QUERY}." + spelling.format("A")] = down
        tensors[f"{QUERY}." + spelling.format("B")] = up

    after = _load(changed(add)).network.state_dict()["llama_model.model.layers.0.self_attn.q_proj.weight"]
    assert torch.equal(after, found["before"].float() + up @ down)


def test_half_of_a_low_rank_part_is_a_fault(changed: Callable[..., Path]) -> None:
    import torch

    with pytest.raises(ConfigurationError, match="one of two low-rank factors"):
        _load(changed(lambda tensors: tensors.update({f"{QUERY}.lora_A.weight": torch.zeros(16, HIDDEN)})))


def test_the_second_names_of_shared_tensors_are_taken(changed: Callable[..., Path]) -> None:
    def rename(tensors: dict[str, Any]) -> None:
        tensors["embed_tokens.weight"] = tensors.pop("llama_model.base_model.model.model.embed_tokens.weight")
        tensors["embed_states.weight"] = tensors.pop("llama_model.base_model.model.lm_head.0.weight")

    assert _load(changed(rename)).network.sizes.hidden == HIDDEN


def test_a_training_checkpoint_holds_the_weights_one_level_deeper(folder: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    torch.save({"model": load_file(folder / "model.safetensors"), "epoch": 3}, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text(json.dumps({"llama_model": str(folder / "llama")}))
    assert _load(tmp_path).network.sizes.hidden == HIDDEN


def test_the_language_model_alone_takes_the_precision(folder: Path) -> None:
    import torch

    network = _load(folder, precision="bf16").network
    assert network.llama_model.lm_head.weight.dtype is torch.bfloat16
    assert network.llama_proj_2d.weight.dtype is torch.float32


def test_half_precision_answers_too(folder: Path) -> None:
    from inference.medversa.model import MedVersa

    answer = MedVersa(_load(folder, precision="bf16")).ask(_question())
    assert answer.text.startswith("The mask")
    assert len(answer.picture_masks) == 1


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_an_answer_from_packed_matrices(folder: Path, precision: str) -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    from inference.medversa.model import MedVersa

    answer = MedVersa(_load(folder, precision=precision)).ask(_question())
    assert answer.text.startswith("The mask")
    assert len(answer.picture_masks) == 1


@pytest.mark.parametrize("bits", [8, 4])
def test_a_packed_matrix_multiplies_like_the_whole_one(bits: int) -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    import torch

    from inference.medversa.quantised import quantised

    random = torch.Generator().manual_seed(0)
    weight, rows = torch.randn(96, 64, generator=random), torch.randn(5, 64, generator=random)
    layer = quantised(weight, bits, torch.device("cpu"), torch.float32)
    wanted = rows @ weight.T
    assert float((layer(rows) - wanted).norm() / wanted.norm()) < {8: 0.02, 4: 0.15}[bits]


def test_without_bitsandbytes_few_bits_are_refused_with_the_way_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from inference.medversa import quantised

    monkeypatch.setattr(quantised, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match="pip install bitsandbytes"):
        _load(folder, precision="int8")


def test_another_base_model_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 4096}))
    with pytest.raises(ConfigurationError, match="not its base model"):
        _load(folder, base_model=str(tmp_path))


def test_too_little_memory_is_told_before_anything_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from inference.medversa import loading

    monkeypatch.setattr(loading, "free_bytes", lambda device: 100 << 20)
    with pytest.raises(EngineUnavailable, match=r"needs 0\.\d GiB on cpu, of which 0\.1 GiB are free"):
        _load(folder)


@pytest.mark.parametrize("broken", ["config.json", "model.safetensors"])
def test_broken_files_are_named(folder: Path, tmp_path: Path, broken: str) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes() if name != broken else b"{")
    with pytest.raises(ConfigurationError, match=broken):
        _load(tmp_path, base_model=str(folder / "llama"))


def test_a_folder_in_the_cache_of_the_hub_is_found_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = tmp_path / "models--lab--medversa" / "blobs" / ("ab" * 32)
    snapshot = tmp_path / "models--lab--medversa" / "snapshots" / "c0ffee"
    refs = tmp_path / "models--lab--medversa" / "refs"
    for made in (blob.parent, snapshot, refs):
        made.mkdir(parents=True)
    blob.write_bytes(b"weights")
    (refs / "main").write_text("c0ffee")
    (snapshot / "model.safetensors").symlink_to(blob)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert folder_of("lab/medversa") == snapshot
    assert digest_of(snapshot / "model.safetensors") == "ab" * 32


def test_a_name_that_is_nowhere_is_told_with_the_way_to_fetch_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigurationError, match="hf download lab/medversa"):
        folder_of("lab/medversa")


def test_what_a_device_has_no_room_for_is_answered_on_the_cpu_where_that_is_allowed(folder: Path) -> None:
    import torch

    from inference.device import OutOfDeviceMemory, Placement
    from inference.medversa.model import MedVersa

    loaded = _load(folder)
    full = replace(loaded, place=Placement(device=torch.device("meta"), dtype=torch.float32, threads=1))
    expected = MedVersa(loaded).ask(_question())

    class Full(MedVersa):
        def _start(self, *_: object) -> Any:
            raise torch.OutOfMemoryError("CUDA out of memory")

    found = Full(full, spare=lambda: loaded).ask(_question())
    assert found.ids == expected.ids
    assert np.array_equal(found.picture_masks[0][0], expected.picture_masks[0][0])
    with pytest.raises(OutOfDeviceMemory, match="out of memory"):
        Full(full).ask(_question())


def test_weights_without_room_on_a_device_go_to_the_cpu_where_that_is_allowed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from inference.device import OutOfDeviceMemory
    from inference.medversa import engine, loading

    tried: list[str] = []
    load = loading.load

    def crowded(settings: MedVersaSettings) -> Any:
        tried.append(settings.device)
        if settings.device != "cpu":
            raise OutOfDeviceMemory("MedVersa needs 14.0 GiB on cuda")
        return load(settings)

    monkeypatch.setattr(loading, "load", crowded)
    given = MedVersaSettings(weights=str(folder), device="cuda")
    with pytest.raises(OutOfDeviceMemory):
        engine._opened(given)
    assert engine._opened(replace(given, cpu_fallback=True)).ask(_question()).text
    assert tried == ["cuda", "cuda", "cpu"]


def test_a_device_is_named_as_for_every_engine(folder: Path) -> None:
    from domain.errors import EngineUnavailable

    assert _load(folder, device="auto", threads=1).place.threads == 1
    with pytest.raises(ConfigurationError, match=r"engines\.medversa\.device: .* must be"):
        _load(folder, device="gpu")
    with pytest.raises(EngineUnavailable, match=r"engines\.medversa\.device: .* is not there"):
        _load(folder, device="cuda:63")
