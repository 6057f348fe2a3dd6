"""The engine ``deepbet`` around its networks: what goes in, and what is believed of what comes out."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest

from domain.codes import Code
from domain.engine import Case
from domain.errors import EngineFailed, EngineUnavailable, NotApplicable
from domain.findings import Findings
from domain.volume import Grid, Volume
from inference.manifest import read_declaration
from inference.registry import ENGINES
from volume.axes import Axes

if TYPE_CHECKING:
    from inference.deepbet.network import Networks

MANIFEST = read_declaration(ENGINES / "deepbet" / "manifest.toml").manifest
INCOMPLETE = Code("130576", "DCM", "Anatomy coverage incomplete")
SHAPE = (60, 70, 50)  # z, y, x
STEP_MM = 3.0
Array = npt.NDArray[Any]


@pytest.fixture(autouse=True)
def torch_is_there(models: Callable[..., None]) -> None:
    models("torch")


def ellipsoid(centre: tuple[float, float, float], radii_mm: tuple[float, float, float]) -> npt.NDArray[np.bool_]:
    """Return an ellipsoid on the axial grid; the centre is in voxels."""
    index = np.indices(SHAPE).astype(float)
    squares = [
        np.square((axis - c) * STEP_MM / r) for axis, c, r in zip(index, centre, radii_mm, strict=True)
    ]  # fmt: skip
    inside: npt.NDArray[np.bool_] = sum(squares) < 1
    return inside


HEAD = ellipsoid((32, 36, 24), (66, 84, 66))


def axial(voxels: Array) -> Volume:
    affine = np.eye(4)
    affine[:3, :3] = np.diag([STEP_MM] * 3)[:, ::-1]
    return on_grid(voxels, affine)


def on_grid(voxels: Array, affine: Array) -> Volume:
    slices, rows, columns = voxels.shape
    return Volume(
        voxels=voxels.copy(),
        grid=Grid(shape=(slices, rows, columns), affine=affine.copy(), frame_of_reference_uid="2.25.1"),
        sop_instance_uids=tuple(f"2.25.{number + 1}" for number in range(slices)),
    )


def turned(volume: Volume, order: tuple[int, ...], flips: tuple[bool, ...]) -> Volume:
    """Return the same picture in the same place, stored along other axes."""
    affine = volume.grid.affine[:, [*order, 3]].copy()
    voxels = volume.voxels.transpose(order)
    for axis, flip in enumerate(flips):
        if flip:
            affine[:3, 3] += affine[:3, axis] * (voxels.shape[axis] - 1)
            affine[:3, axis] *= -1
            voxels = np.flip(voxels, axis)
    return on_grid(voxels, affine)


class Believing:
    """Stands in for the networks: says what it is told, and keeps what it was shown."""

    def __init__(self, probabilities: Array | None) -> None:
        self._answer = probabilities
        self.seen: list[Array] = []

    def probabilities(self, ras: Array) -> tuple[Array, tuple[slice, slice, slice]] | None:
        self.seen.append(ras)
        if self._answer is None:
            return None
        in_ras = self._answer.transpose(2, 1, 0)[::-1, ::-1].astype(np.float32)
        x, y, z = in_ras.shape
        return in_ras, (slice(0, x), slice(0, y), slice(0, z))


def run(volume: Volume, networks: Any) -> Findings:
    from inference.deepbet.engine import Deepbet

    return Deepbet(MANIFEST, {}, networks=networks).run(Case(volume=volume))


def ramp() -> Array:
    """Values that differ along every axis."""
    return np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)


def test_the_networks_see_right_front_and_head_ascending_whatever_the_axes_of_the_source() -> None:
    told = Believing(HEAD)
    for order in itertools.permutations(range(3)):
        for flips in itertools.product((False, True), repeat=3):
            volume = turned(axial(ramp()), order, flips)
            findings = run(volume, told)
            assert np.array_equal(told.seen.pop(), ramp().transpose(2, 1, 0)[::-1, ::-1])
            assert findings.labels is not None
            assert np.array_equal(Axes.of(volume.grid).view(findings.labels), HEAD)


def networks_by_threshold() -> Networks:
    """Networks that find bright voxels; the fine one leaves out the patient's left front, so that a turn shows."""
    import torch

    from inference.deepbet.network import Networks

    def answer(bright: torch.Tensor) -> torch.Tensor:
        return torch.cat([1 - bright, bright], dim=1)

    def rough(image: torch.Tensor) -> torch.Tensor:
        return answer((image > 0.45).float())

    def fine(image: torch.Tensor) -> torch.Tensor:
        bright = (image > 0.45).float()
        bright[:, :, :128, 128:, 128:] = 0  # RAS: the first half of x is left, the second of y front, of z upper
        return answer(bright)

    return Networks(rough, fine, torch.device("cpu"))


@pytest.mark.parametrize(
    ("order", "flips"),
    [((1, 0, 2), (True, False, False)), ((2, 0, 1), (True, False, True)), ((0, 1, 2), (False, True, True))],
    ids=["coronal", "sagittal", "axial, turned"],
)
def test_two_stages_give_the_same_mask_in_every_orientation(
    order: tuple[int, int, int], flips: tuple[bool, bool, bool]
) -> None:
    volume = axial(HEAD.astype(np.int16) * 100)
    networks = networks_by_threshold()
    plain, other = run(volume, networks), run(turned(volume, order, flips), networks)
    assert plain.labels is not None
    assert other.labels is not None
    assert np.array_equal(Axes.of(turned(volume, order, flips).grid).view(other.labels), plain.labels)
    assert not plain.labels[40, 20, 35]  # head, front, left
    assert plain.labels[40, 20, 13]
    assert plain.labels[20, 20, 35]
    assert plain.labels[40, 50, 35]


def test_a_whole_head_has_an_intracranial_volume_that_is_not_called_brain() -> None:
    findings = run(axial(ramp()), Believing(HEAD))
    (measured,) = findings.measurements
    assert measured.value == pytest.approx(np.count_nonzero(HEAD) * STEP_MM**3 / 1000)
    assert measured.label == "Intracranial volume"
    (segment,) = findings.segments
    assert segment.type == Code("1101003", "SCT", "Intracranial")
    assert (
        "brain" not in f"{segment.label} {segment.type.meaning} {measured.label} {measured.concept.meaning}".lower()
    )
    assert INCOMPLETE not in {said.value for said in findings.evaluations}


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("end", [0, -1])
def test_a_head_that_a_face_of_the_volume_cuts_is_qualified_and_has_no_volume(axis: int, end: int) -> None:
    middle = [30.0, 35.0, 25.0]
    middle[axis] = 18.0 if end == 0 else SHAPE[axis] - 19.0
    cut = ellipsoid((middle[0], middle[1], middle[2]), (66, 84, 66))
    findings = run(axial(ramp()), Believing(cut))
    assert findings.measurements == ()
    assert INCOMPLETE in {said.value for said in findings.evaluations}


def test_holes_are_filled_and_lone_pieces_left_out() -> None:
    told = HEAD.copy()
    told[30:33, 34:38, 22:26] = False
    told[0:2, 0:2, 0:2] = True
    findings = run(axial(ramp()), Believing(told))
    assert findings.labels is not None
    assert np.array_equal(findings.labels.astype(bool), HEAD)


@pytest.mark.parametrize(
    ("probabilities", "reason"),
    [
        (None, "No head"),
        (np.zeros(SHAPE), "No head"),
        (ellipsoid((30, 35, 25), (30, 30, 30)), "small part"),
        (ellipsoid((30, 35, 25), (52, 60, 50)), "between 800 and 2200 ml"),
        (ellipsoid((30, 35, 25), (87, 100, 70)), "between 800 and 2200 ml"),
        (ellipsoid((30, 35, 25), (60, 60, 74)) * 0.94, "not certain"),
        (ellipsoid((30, 35, 25), (89, 60, 60)), "longer"),
        (np.where(ellipsoid((30, 35, 25), (75, 92, 70)) & ~HEAD, 0.3, HEAD), "not certain"),
    ],
    ids=["nothing", "empty", "small", "too small", "too large", "doubtful", "long", "broad border"],
)
def test_an_answer_that_no_head_has_is_not_applicable(probabilities: Array | None, reason: str) -> None:
    with pytest.raises(NotApplicable, match=reason):
        run(axial(ramp()), Believing(probabilities))


def test_a_slab_is_not_applicable() -> None:
    with pytest.raises(NotApplicable, match="thinner than 100 mm"):
        run(axial(ramp()[:30]), Believing(HEAD[:30]))


def test_an_empty_image_is_not_applicable() -> None:
    with pytest.raises(NotApplicable, match="No head"):
        run(axial(np.zeros(SHAPE, np.int16)), networks_by_threshold())


def test_voxels_that_are_no_numbers_are_black() -> None:
    voxels = HEAD.astype(np.float32) * 100
    plain = run(axial(voxels), networks_by_threshold())
    voxels[0, 0, 0] = np.nan
    spoilt = run(axial(voxels), networks_by_threshold())
    assert plain.labels is not None
    assert spoilt.labels is not None
    assert np.array_equal(plain.labels, spoilt.labels)


def test_an_engine_that_was_not_loaded_says_so() -> None:
    with pytest.raises(EngineFailed, match="not been loaded"):
        run(axial(ramp()), None)


def test_a_device_that_pytorch_cannot_use_is_named_by_its_setting() -> None:
    from inference.deepbet.engine import Deepbet

    package = read_declaration(ENGINES / "deepbet" / "manifest.toml").weights
    assert package is not None
    files = replace(package, files=())
    with pytest.raises(EngineUnavailable, match=r"engines\.deepbet\.device: .* is not there"):
        Deepbet(MANIFEST, {"package": files, "weights": None, "device": "cuda:99"}).load()


def test_what_a_device_has_no_room_for_is_computed_on_the_cpu_where_that_is_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    from inference.deepbet import engine as module
    from inference.device import OutOfDeviceMemory, Placement

    class Full:
        def probabilities(self, ras: Array) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory")

    read: list[str] = []

    def on_cpu(package: object, folder: object, device: torch.device) -> Any:
        read.append(device.type)
        return networks_by_threshold()

    monkeypatch.setattr(module, "load_networks", on_cpu)
    expected = run(axial(HEAD * 100), networks_by_threshold())
    for allowed in (True, False):
        settings = {"package": None, "weights": None, "cpu_fallback": allowed}
        engine = module.Deepbet(MANIFEST, settings, networks=Full())  # type: ignore[arg-type]
        engine._place = Placement(device=torch.device("meta"), dtype=torch.float32, threads=1)
        if allowed:
            found = engine.run(Case(volume=axial(HEAD * 100)))
            assert np.array_equal(found.labels, expected.labels)  # type: ignore[arg-type]
        else:
            with pytest.raises(OutOfDeviceMemory):
                engine.run(Case(volume=axial(HEAD * 100)))
    assert read == ["cpu"]
