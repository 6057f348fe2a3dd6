from __future__ import annotations

from pathlib import Path

import pytest
from extras import require_models

require_models()

import torch
from medsam2_golden import checkpoint, golden_network, small_network
from safetensors.torch import save_file

from domain.errors import EngineFailed
from inference.medsam2.checkpoint import convert, read_weights
from inference.medsam2.network import network_of


class Anything:
    """What a pickle may hold that is not a tensor."""


def refusal(path: Path) -> str:
    with pytest.raises(EngineFailed) as refused:
        network_of(read_weights(path))
    return str(refused.value)


def test_a_published_checkpoint_loads_strictly() -> None:
    tensors = read_weights(checkpoint())
    assert len(tensors) == 469  # 471, less 4 point embeddings, plus their table and the second positional matrix
    wanted = network_of(read_weights(checkpoint())).state_dict()  # as it was loaded, before it is placed
    assert tensors.keys() == wanted.keys()
    assert all(torch.equal(tensors[name], wanted[name]) for name in tensors)


def test_the_four_point_embeddings_keep_their_order() -> None:
    original = torch.load(checkpoint(), weights_only=True)["model"]
    table = read_weights(checkpoint())["prompt_encoder.point_embed.weight"]
    for number in range(4):
        assert torch.equal(table[number], original[f"sam_prompt_encoder.point_embeddings.{number}.weight"][0])


def test_a_converted_file_loads_to_the_same_tensors(tmp_path: Path) -> None:
    target = tmp_path / "medsam2.safetensors"
    assert convert(checkpoint(), target) == 469
    assert [item.name for item in tmp_path.iterdir()] == ["medsam2.safetensors"]
    original, converted = read_weights(checkpoint()), read_weights(target)
    assert original.keys() == converted.keys()
    assert all(torch.equal(original[name], converted[name]) for name in original)


def test_a_file_that_is_no_torch_file_is_refused_with_what_was_expected(tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_bytes(b"not a checkpoint" * 100)
    assert "MedSAM2_latest.pt" in refusal(tmp_path / "w.pt")


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save({"model": Anything()}, tmp_path / "w.pt")
    assert "cannot be read as a torch file of tensors" in refusal(tmp_path / "w.pt")


def test_a_bare_state_dict_is_refused_by_name(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1)}, tmp_path / "w.pt")
    assert 'without a table "model"' in refusal(tmp_path / "w.pt")


def test_a_network_of_another_size_is_refused_with_the_first_faults(tmp_path: Path) -> None:
    tensors = torch.load(checkpoint(), weights_only=True)["model"]
    tensors["image_encoder.trunk.pos_embed"] = torch.zeros(1, 112, 7, 7)
    del tensors["no_obj_ptr"]
    tensors["image_encoder.trunk.blocks.12.norm1.weight"] = torch.zeros(768)
    torch.save({"model": tensors}, tmp_path / "w.pt")
    said = refusal(tmp_path / "w.pt")
    assert "vision_encoder.backbone.pos_embed has the shape (1, 112, 7, 7) instead of (1, 96, 7, 7)" in said
    assert "no_object_pointer is missing" in said
    assert "vision_encoder.backbone.blocks.12.layer_norm1.weight is unknown" in said


def test_a_broken_safetensors_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(b"\x00" * 64)
    assert "cannot be read as safetensors" in refusal(tmp_path / "w.safetensors")


def test_nothing_is_written_for_a_file_that_does_not_fit(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(EngineFailed, match="do not fit MedSAM2"):
        convert(tmp_path / "w.safetensors", tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_a_network_has_no_gradients_and_is_not_in_training() -> None:
    assert not golden_network().training
    assert not any(parameter.requires_grad for parameter in golden_network().parameters())
    assert small_network().image_size == 64
