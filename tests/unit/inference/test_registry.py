from __future__ import annotations

import hashlib
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom.sr._concepts_dict import concepts

from domain.codes import MILLILITRE, Code
from domain.engine import Answer, EngineManifest
from domain.errors import ConfigurationError, EngineFailed
from domain.series import SeriesFacts
from inference.lungs import measure
from inference.manifest import read_declaration
from inference.registry import ENGINES, Registry, engine_names, not_installed

ROOT = ENGINES.parent
CT = "1.2.840.10008.5.1.4.1.1.2"
DEEPBET = ENGINES / "deepbet" / "manifest.toml"
MANIFEST = (ENGINES / "lungs" / "manifest.toml").read_text("utf-8")


def facts(
    modality: str | None = "CT",
    instances: int = 100,
    image_type: tuple[str, ...] = (),
    spacing_mm: tuple[float, float, float] | None = None,
) -> SeriesFacts:
    return SeriesFacts(
        modality=modality, sop_class_uid=CT, instances=instances, image_type=image_type, spacing_mm=spacing_mm
    )


def engine_folder(tmp_path: Path, name: str, *changes: tuple[str, str]) -> Path:
    text = MANIFEST
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (tmp_path / name).mkdir()
    (tmp_path / name / "manifest.toml").write_text(text, "utf-8")
    return tmp_path


def needing_weights(tmp_path: Path) -> Path:
    return engine_folder(tmp_path, "net", ("[inputs]", "[requires]\nweights = true\n\n[inputs]"))


def test_listing_engines_imports_no_model_library() -> None:
    program = (
        "import sys; from inference.registry import Registry; names = [m.name for m in Registry({}).manifests()];"
        "print(names, sorted({'torch', 'SimpleITK', 'scipy', 'inference.lungs.engine'} & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert told.stdout.strip().startswith("['")
    assert told.stdout.strip().endswith("] []")


def test_lungs_is_in_every_installation() -> None:
    assert "lungs" in engine_names()
    assert "lungs" in {manifest.name for manifest in Registry({}).manifests()}


def test_an_engine_is_made_once_and_kept() -> None:
    registry = Registry({})
    assert registry.engine("lungs") is registry.engine("lungs")
    assert registry.engine("lungs").manifest == registry.manifest("lungs")


def codes_of(manifest: EngineManifest) -> set[Code]:
    of_segments = {
        code
        for segment in manifest.segments
        for code in (segment.category, segment.type, *segment.type_modifiers, segment.anatomic_region)
        if code is not None
    }
    assert manifest.finding_site is not None
    return of_segments | {manifest.algorithm_family, manifest.finding_site}


def codes_of_lungs() -> set[Code]:
    measured = {value for value in vars(measure).values() if isinstance(value, Code) and value.scheme != "99VOXGATE"}
    return codes_of(Registry({}).manifest("lungs")) | measured


def test_every_standard_code_of_an_engine_is_in_the_standard_with_this_meaning() -> None:
    tables: Any = concepts  # its stub says object
    known = {
        (value, scheme): meaning[0]
        for scheme, keywords in tables.items()
        for values in keywords.values()
        for value, meaning in values.items()
    }
    found = codes_of_lungs() | codes_of(read_declaration(DEEPBET).manifest)
    for code in found - {MILLILITRE}:
        assert (code.value, code.scheme) in known, code
    for code in found:
        if code.scheme == "DCM":
            assert known[code.value, code.scheme] == code.meaning


def test_private_codes_fit_into_a_code_value() -> None:
    private = [value for value in vars(measure).values() if isinstance(value, Code) and value.scheme == "99VOXGATE"]
    assert private
    assert all(len(code.value) <= 16 and len(code.meaning) <= 64 for code in private)  # SH and LO, PS3.5 6.2


@pytest.mark.parametrize(
    ("series", "answer", "reason"),
    [
        (facts(), Answer.YES, "fit"),
        (facts(spacing_mm=(2.5, 0.7, 0.7)), Answer.YES, "fit"),
        (facts(modality="MR"), Answer.NO, "Modality"),
        (facts(modality=None), Answer.UNKNOWN, "Modality is missing"),
        (facts(instances=3), Answer.NO, "3 instances"),
        (facts(image_type=("ORIGINAL", "PRIMARY", "LOCALIZER")), Answer.NO, "LOCALIZER"),
        (facts(spacing_mm=(20, 0.7, 0.7)), Answer.NO, "12.5 mm apart"),
        (facts(spacing_mm=(5, 10, 10)), Answer.NO, "PixelSpacing"),
    ],
)
def test_headers_decide_what_lungs_takes(series: SeriesFacts, answer: Answer, reason: str) -> None:
    verdict = Registry({}).accepts("lungs", series)
    assert verdict.answer is answer
    assert reason in verdict.reason


def test_an_unknown_engine_takes_nothing_and_cannot_be_had() -> None:
    registry = Registry({})
    assert registry.accepts("nodules", facts()).answer is Answer.NO
    with pytest.raises(EngineFailed, match="no such engine"):
        registry.manifest("nodules")


def test_settings_for_an_unknown_engine_are_a_fault_with_its_path() -> None:
    with pytest.raises(ConfigurationError, match=r"engines\.nodules"):
        Registry({"nodules": {}})


def test_a_disabled_engine_is_not_listed_and_says_why() -> None:
    registry = Registry({"lungs": {"enabled": False}})
    assert "lungs" not in {manifest.name for manifest in registry.manifests()}
    assert "enabled" in registry.unavailable()["lungs"]
    assert "enabled" in registry.accepts("lungs", facts()).reason
    with pytest.raises(EngineFailed, match="enabled"):
        registry.engine("lungs")


def test_an_engine_whose_library_is_missing_is_not_listed_and_says_which(tmp_path: Path) -> None:
    folder = engine_folder(tmp_path, "net", ("[inputs]", '[requires]\nmodules = ["no_such_library"]\n\n[inputs]'))
    assert engine_names(folder) == ()
    assert "no_such_library" in Registry({}, folder).unavailable()["lungs"]


def test_an_engine_without_its_weights_is_not_listed_and_says_which_setting(tmp_path: Path) -> None:
    folder = needing_weights(tmp_path)
    assert Registry({}, folder).unavailable() == {"lungs": "engines.lungs.weights is not set"}
    missing = Registry({"lungs": {"weights": tmp_path / "none.pt"}}, folder)
    assert missing.unavailable() == {"lungs": "engines.lungs.weights is not a file"}
    assert missing.manifests() == ()


def with_a_package(tmp_path: Path) -> Path:
    table = '[weights]\npackage = "net"\nversion = "1"\nsha256 = "aa"\n'
    file = f'[[weights.files]]\nname = "net.pt"\nmember = "net.pt"\nsha256 = "{hashlib.sha256(b"net").hexdigest()}"\n'
    return engine_folder(tmp_path, "net", ("[inputs]", f"[requires]\nweights = true\n\n{table}{file}\n[inputs]"))


def test_an_engine_whose_package_of_weights_is_not_installed_says_how_to_get_it(tmp_path: Path) -> None:
    folder, weights = with_a_package(tmp_path), tmp_path / "weights"
    told = Registry({}, folder, weights).unavailable()["lungs"]
    assert told == "its weights are not installed: net.pt (voxgate weights install lungs)"
    assert "no folder" in Registry({}, folder).unavailable()["lungs"]


def test_a_package_of_weights_is_found_in_its_folder_or_where_the_setting_says(tmp_path: Path) -> None:
    folder, weights = with_a_package(tmp_path), tmp_path / "weights"
    for place, settings in ((weights / "lungs", {}), (tmp_path / "own", {"lungs": {"weights": tmp_path / "own"}})):
        place.mkdir(parents=True)
        (place / "net.pt").write_bytes(b"net")
        registry = Registry(settings, folder, weights)
        assert registry.unavailable() == {}
        assert registry.manifest("lungs").weights_digest == "aa"
        (package, known), *_ = registry.packages().values()
        assert (package.package, known) == ("net", place)
        (place / "net.pt").write_bytes(b"other")
        assert "not those of net 1" in Registry(settings, folder, weights).unavailable()["lungs"]


def test_every_fault_of_a_package_of_weights_is_told_with_its_key(tmp_path: Path) -> None:
    table = '[weights]\npackage = "net"\nsize = 1\n[[weights.files]]\nname = "net.pt"\nsha256 = 3\n'
    folder = engine_folder(tmp_path, "net", ("[inputs]", f"{table}\n[inputs]"))
    with pytest.raises(ConfigurationError) as raised:
        read_declaration(folder / "net" / "manifest.toml")
    for key in ("weights.version", "weights.sha256", "weights.size", "files[0].member", "files[0].sha256"):
        assert key in str(raised.value), key


def test_software_that_is_missing_is_told_by_engine(tmp_path: Path) -> None:
    folder = engine_folder(tmp_path, "net", ("[inputs]", '[requires]\nmodules = ["no_such_library"]\n\n[inputs]'))
    assert not_installed(folder) == {"lungs": "no_such_library"}


def test_what_is_not_t1_is_not_for_deepbet_and_what_cannot_be_told_is_unknown() -> None:
    inputs = read_declaration(DEEPBET).inputs
    series = facts(modality="MR", spacing_mm=(1.0, 1.0, 1.0))
    assert inputs.accepts(replace(series, series_description="T1 MPRAGE")).answer is Answer.YES
    assert inputs.accepts(replace(series, series_description="FLAIR")).answer is Answer.NO
    assert inputs.accepts(series).answer is Answer.UNKNOWN
    assert inputs.accepts(replace(series, series_description="T1", spacing_mm=(5.0, 1.0, 1.0))).answer is Answer.NO
    assert inputs.accepts(replace(series, series_description="T1", modality="CT")).answer is Answer.NO


def test_a_series_that_an_engine_would_not_take_is_told_so_before_anything_is_to_be_installed() -> None:
    registry, series = Registry({}), facts(modality="MR", spacing_mm=(1.0, 1.0, 1.0))
    assert "FLAIR" in registry.accepts("deepbet", replace(series, series_description="FLAIR")).reason
    assert "cannot be used" in registry.accepts("deepbet", replace(series, series_description="T1")).reason


def test_other_weights_are_another_device(tmp_path: Path) -> None:
    folder, weights = needing_weights(tmp_path), tmp_path / "weights.pt"
    uids = set()
    for content in (b"one", b"two"):
        weights.write_bytes(content)
        manifest = Registry({"lungs": {"weights": weights}}, folder).manifest("lungs")
        assert manifest.weights_digest == hashlib.sha256(content).hexdigest()
        uids.add(manifest.device_uid)
    assert len(uids) == 2


def test_two_engines_of_one_name_are_a_fault(tmp_path: Path) -> None:
    engine_folder(tmp_path, "one")
    with pytest.raises(ConfigurationError, match="same name"):
        Registry({}, engine_folder(tmp_path, "two"))


def test_every_fault_of_a_manifest_is_told_with_its_key(tmp_path: Path) -> None:
    folder = engine_folder(
        tmp_path,
        "net",
        ('version = "1.0.0"', "version = 1"),
        ('device = "cpu"', 'device = "tpu"'),
        ("min_instances = 10", "min_instances = 0\nmax_rows = 512"),
        ("[224, 111, 92]", "[224, 111, 999]"),
        ('type_modifiers = [["7771000", "SCT", "Left"]]', 'type_modifiers = [["7771000", "Left"]]'),
        ('key = "right_lung"', 'key = "left_lung"'),
    )
    with pytest.raises(ConfigurationError) as raised:
        read_declaration(folder / "net" / "manifest.toml")
    told = str(raised.value)
    for key in (
        "engine.version", "engine.device", "inputs.min_instances", "inputs.max_rows", "segments[0].colour_rgb",
        "segments[0].type_modifiers", "same key",
    ):  # fmt: skip
        assert key in told, key
    assert len(told.splitlines()) == 7


def test_a_manifest_that_is_not_toml_names_its_file(tmp_path: Path) -> None:
    (tmp_path / "manifest.toml").write_text("[engine")
    with pytest.raises(ConfigurationError, match=r"manifest\.toml: not readable"):
        read_declaration(tmp_path / "manifest.toml")


def test_the_manifest_of_lungs_says_what_its_table_says() -> None:
    declared = tomllib.loads(MANIFEST)
    manifest = Registry({}).manifest("lungs")
    assert [segment.key for segment in manifest.segments] == [item["key"] for item in declared["segments"]]
    assert manifest.version == declared["engine"]["version"]
    assert manifest.deadline_s == declared["engine"]["deadline_s"]
