"""The golden vectors: the original's numbers, from checkpoints in its own two formats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest
from programs import module_at

from domain.question import Question, Sampling
from domain.volume import Grid, Volume
from inference.medversa.preprocess import image_input, largest_component, volume_input
from inference.medversa.settings import MedVersaSettings

if TYPE_CHECKING:
    from inference.medversa.loading import Loaded
    from inference.medversa.model import MedVersa, Told

pytestmark = pytest.mark.usefixtures("language_models")
EXACT = 1e-4
"""Tolerance of states, logits, soft tokens and boxes; it is the vectors' own."""
MASK_PIXELS = 10


class Vectors:
    """The vectors, their recipes, and checkpoints written by them."""

    def __init__(self, folder: Path) -> None:
        self.fill = module_at(folder / "fill.py")
        self.npz = np.load(folder / "medversa.npz")
        self.meta: dict[str, Any] = json.loads(str(self.npz["meta"]))
        self.keys = str(folder / "medversa_tiny_keys.tsv")
        self.images = {name: self.fill.rgb_image(*args) for name, args in self.meta["images"].items()}
        self.volume = self.fill.hu_volume(**self.meta["volume"])

    def __getitem__(self, key: str) -> npt.NDArray[Any]:
        found: npt.NDArray[Any] = self.npz[key]
        return found

    def write(self, folder: Path, kind: str = "safetensors", case: str = "") -> Path:
        prefix = f"{case}.override." if case else "override."
        rows = f"{prefix}rows."
        overrides = {
            key.removeprefix(rows): (self.npz[key], self.npz[f"{prefix}values.{key.removeprefix(rows)}"])
            for key in self.npz.files
            if key.startswith(rows)
        }
        self.fill.write_medversa(str(folder), self.keys, self.meta["seed"], overrides, kind=kind)
        return folder

    def case(self, name: str) -> dict[str, Any]:
        return next(case for case in self.meta["cases"] if case["name"] == name)

    def question(self, name: str, max_new_tokens: int = 450) -> Question:
        case = self.case(name)
        return Question(
            modality=case["modality"],
            task=case["task"],
            prompt=case["prompt"],
            context=case["context"],
            pictures=tuple(self.images[image] for image in case["images"] if image in self.images),
            volume=_volume(self.volume) if "volume" in case["images"] else None,
            sampling=Sampling(do_sample=False, min_length=0, max_new_tokens=max_new_tokens),
        )


def _volume(voxels: npt.NDArray[np.int16]) -> Volume:
    affine = np.eye(4)[[2, 1, 0, 3]]  # LPS: slices to the head, rows to the back, columns to the left
    grid = Grid(shape=voxels.shape, affine=affine, frame_of_reference_uid="1.2.3")
    return Volume(voxels=voxels, grid=grid, sop_instance_uids=("1.2",) * len(voxels), unit="HU")


@pytest.fixture(scope="module")
def vectors(golden: Path) -> Vectors:
    return Vectors(golden)


@pytest.fixture(scope="module")
def loaded(vectors: Vectors, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    from inference.medversa.loading import load

    return load(MedVersaSettings(weights=str(vectors.write(tmp_path_factory.mktemp("medversa")))))


@pytest.fixture(scope="module")
def model(loaded: Loaded) -> MedVersa:
    from inference.medversa.model import MedVersa

    return MedVersa(loaded)


def _off(one: Any, other: npt.NDArray[Any]) -> float:
    return float(np.abs(np.asarray(one, np.float64) - other).max())


def test_the_inputs_are_those_of_the_vectors(vectors: Vectors) -> None:
    sha = vectors.meta["sha256"]
    assert {f"image.{name}": vectors.fill.sha(image) for name, image in vectors.images.items()}.items() <= sha.items()
    assert vectors.fill.sha(vectors.volume) == sha["volume_int16"]


@pytest.mark.parametrize("name", ["derm", "cxr_a", "cxr_b"])
def test_pictures_are_prepared_as_in_training(vectors: Vectors, name: str) -> None:
    prepared = image_input(vectors.images[name])
    assert _off(prepared[:, ::4, ::4], vectors[f"pre.image.{name}_strided"]) <= 1e-5
    stats = [prepared.mean(), prepared.std(), prepared.min(), prepared.max()]
    assert _off(stats, vectors[f"pre.image.{name}_stats"]) <= 1e-5


def test_volumes_are_prepared_as_in_training(vectors: Vectors) -> None:
    prepared = volume_input(vectors.volume)
    assert _off(prepared[:, ::4, ::6, ::6], vectors["pre.volume_strided"]) <= 1e-5
    stats = [prepared.mean(), prepared.std(), prepared.min(), prepared.max()]
    assert _off(stats, vectors["pre.volume_stats"]) <= 1e-5


@pytest.mark.parametrize("name", ["seg2d", "seg3d", "det", "report", "free"])
def test_prompts_have_the_ids_of_the_original(vectors: Vectors, loaded: Loaded, name: str) -> None:
    case = vectors.case(name)
    prompt = loaded.tokens.prompt(
        images=len(case["images"]),
        task=case["task"],
        context=case["context"],
        prompt=case["prompt"],
        longest_prefix=256,
    )
    assert list(prompt.prefix_ids) == vectors[f"{name}.prefix_ids"].tolist()
    assert list(prompt.prompt_ids) == vectors[f"{name}.prompt_ids"].tolist()


def _answer(vectors: Vectors, model: MedVersa, name: str) -> Told:
    """Ask; ids and text are the original's, and so are soft tokens, embeddings and every state on the way."""
    import torch

    from inference.medversa.generation import states

    question = vectors.question(name, max_new_tokens=24 if name == "free" else 450)
    with torch.inference_mode():
        if question.volume is None:
            seen = model._look(question)
            assert _off(seen.soft, vectors[f"{name}.soft_tokens"]) <= EXACT
            assert _off(model._embeddings(question, seen)[0], vectors[f"{name}.inputs_embeds"]) <= 8e-3
        answer: Told = model.ask(question)
        assert list(answer.ids) == vectors[f"{name}.sequence"].tolist()
        assert answer.text.replace(" ", "") == vectors.case(name)["text"].replace(" ", "")
        given = torch.from_numpy(vectors[f"{name}.inputs_embeds"])[None]
        read = states(model._network, given, answer.ids)
        length = given.shape[1]
        assert _off(read[:length], vectors[f"{name}.prompt_hidden"]) <= EXACT
        written = read[length - 1 : length - 1 + len(answer.ids)]
        assert _off(written, vectors[f"{name}.step_hidden"]) <= EXACT
        logits = model._network.llama_model.lm_head(written)
        assert _off(logits[0, ::16], vectors[f"{name}.first_logits_strided"]) <= EXACT
        assert _off(logits.topk(2).values, vectors[f"{name}.top2_logits_fp32"]) <= EXACT
    return answer


def test_segments_a_picture(vectors: Vectors, model: MedVersa) -> None:
    import torch

    answer = _answer(vectors, model, "seg2d")
    with torch.inference_mode():
        image = model._input(image_input(vectors.images["derm"]))
        logits = model._network.image_mask(image, torch.from_numpy(vectors["seg2d.seg_hidden"]))
    assert _off(logits, vectors["seg2d.logits"]) <= EXACT
    largest = np.unpackbits(vectors["seg2d.mask_largest_bits"])[: 224 * 224].reshape(224, 224)
    assert (largest_component(logits.numpy() >= 0) != largest).sum() <= MASK_PIXELS
    shape = tuple(vectors["seg2d.image_mask_shape"].tolist())
    expected = np.unpackbits(vectors["seg2d.image_mask_bits"])[: np.prod(shape)].reshape(shape)
    assert (answer.picture_masks[0][0] != expected).sum() <= MASK_PIXELS


def test_segments_a_volume(vectors: Vectors, model: MedVersa, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    looked: list[Any] = []
    draw, look = model._network.volume_mask, model._network.volume_features

    # Each takes seconds; the states on the way are looked at while the one answer is made.
    def looking(volume: Any) -> Any:
        looked.append(look(volume))
        return looked[-1]

    def drawing(features: Any, state: Any) -> Any:
        drawn.append((state, draw(features, state)))
        return drawn[-1][1]

    monkeypatch.setattr(model._network, "volume_features", looking)
    monkeypatch.setattr(model._network, "volume_mask", drawing)
    answer = _answer(vectors, model, "seg3d")
    levels, (state, logits) = looked[0], drawn[0]
    assert _off(levels[4][0, ::16, :, ::3, ::3], vectors["seg3d.feature4_strided"]) <= EXACT
    for level, features in enumerate(levels):
        stats = [features.mean(), features.std(), features.abs().max()]
        assert _off(stats, vectors[f"seg3d.feature{level}_stats"]) <= 1e-3
    assert _off(state, vectors["seg3d.seg_hidden"]) <= 5e-3
    assert _off(logits[::4, ::6, ::6], vectors["seg3d.logits_strided"]) <= EXACT
    mask = np.unpackbits(vectors["seg3d.mask_bits"])[: logits.numel()].reshape(logits.shape)
    assert ((logits.numpy() >= 0) != mask).sum() <= MASK_PIXELS
    shape = vectors.volume.shape
    expected = np.unpackbits(vectors["seg3d.volume_mask_bits"])[: np.prod(shape)].reshape(shape)
    assert (answer.volume_masks[0] != expected).sum() <= MASK_PIXELS


def test_finds_a_box(vectors: Vectors, model: MedVersa) -> None:
    answer = _answer(vectors, model, "det")
    assert _off(answer.boxes, vectors["det.box"][None]) <= EXACT


def test_reports_on_two_images(vectors: Vectors, model: MedVersa) -> None:
    answer = _answer(vectors, model, "report")
    assert answer.text == "The heart is normal in size. No acute findings."
    assert (answer.picture_masks, answer.volume_masks, answer.boxes) == ((), (), ())


def test_writes_on_without_a_stop_from_the_pickled_container(vectors: Vectors, tmp_path: Path) -> None:
    from inference.medversa.loading import load
    from inference.medversa.model import MedVersa

    loaded = load(MedVersaSettings(weights=str(vectors.write(tmp_path, kind="bin", case="free"))))
    _answer(vectors, MedVersa(loaded), "free")


def test_both_containers_hold_the_same_network(vectors: Vectors, loaded: Loaded, tmp_path: Path) -> None:
    import torch

    from inference.medversa.loading import load

    other = load(MedVersaSettings(weights=str(vectors.write(tmp_path, kind="bin")))).network.state_dict()
    own = loaded.network.state_dict()
    assert own.keys() == other.keys()
    assert all(torch.equal(value, other[key]) for key, value in own.items())
