"""Export: a flat folder of wheels under their true names, which installers use without an index."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from faulty import Doing, FaultyFiles
from folders import files_in
from machines import Machine
from marks import with_uv
from wheels import Wheel, make_wheel, wheel_filename

from wheelcache import Cache

NAMES = ("alpha", "beta", "gamma")


@pytest.fixture
def wheels(cache: Cache, tmp_path: Path) -> dict[str, Wheel]:
    """Three wheels, in the cache."""
    found = {name: Wheel(wheel_filename(name), make_wheel(name, size=4000)) for name in NAMES}
    for wheel in found.values():
        (tmp_path / wheel.filename).write_bytes(wheel.data)
        cache.put(tmp_path / wheel.filename)
    return found


@pytest.mark.parametrize("mode", ["auto", "hardlink", "copy"])
def test_all_wheels_go_out_under_their_true_names(
    cache: Cache, wheels: dict[str, Wheel], tmp_path: Path, mode: str
) -> None:
    """The folder is created and holds every wheel once and nothing else. A second export is accepted."""
    out = tmp_path / "a" / "house"
    paths = cache.export(out, mode=mode)
    assert {path.name: path.read_bytes() for path in paths} == {w.filename: w.data for w in wheels.values()}
    assert files_in(out) == {wheel.filename: wheel.data for wheel in wheels.values()}
    assert cache.export(out, mode=mode) == paths


def test_chosen_wheels_go_out_from_layers_too(machine: Machine, cache: Cache, wheels: dict[str, Wheel], tmp_path: Path):
    """Only the given wheels are exported, in their order, from the cache and its layers."""
    with machine.cache(tmp_path / "upper", layers=[cache.path]) as upper:
        chosen = [upper.get(wheels[name].digest) for name in ("gamma", "alpha", "gamma")]
        paths = upper.export(tmp_path / "out", [wheel for wheel in chosen if wheel is not None])
    assert [path.name for path in paths] == [wheels["gamma"].filename, wheels["alpha"].filename]


def test_two_wheels_of_one_name_are_refused_before_anything_is_written(
    cache: Cache, wheels: dict[str, Wheel], tmp_path: Path
) -> None:
    """Two wheels with one name are an error with both digests, and the folder is not created."""
    other = cache.put(tmp_path / wheels["beta"].filename, filename="Alpha-1.0-py3-none-any.whl")
    with pytest.raises(ValueError, match="two different wheels are named") as caught:
        cache.export(tmp_path / "out")
    assert wheels["alpha"].digest in str(caught.value)
    assert other.digest in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_wheel_that_is_pruned_meanwhile_is_omitted(tmp_path: Path) -> None:
    """A wheel that is pruned between listing and linking is omitted. One that was named is an error."""
    files = FaultyFiles()
    with Machine(files).cache(tmp_path / "cache") as cache:
        for name in NAMES:
            (tmp_path / wheel_filename(name)).write_bytes(make_wheel(name))
        wheels = [cache.put(tmp_path / wheel_filename(name)) for name in NAMES]
        files.plan = Doing("mkdir", lambda call: cache.remove("beta"), path="*out")
        paths = cache.export(tmp_path / "out")
        assert sorted(path.name for path in paths) == [wheel_filename("alpha"), wheel_filename("gamma")]
        assert set(files_in(tmp_path / "out")) == {path.name for path in paths}
        with pytest.raises(FileNotFoundError, match="no longer in the cache"):
            cache.export(tmp_path / "named", wheels)


def test_a_file_with_other_bytes_is_left_alone(cache: Cache, wheels: dict[str, Wheel], tmp_path: Path) -> None:
    """An existing file with other bytes is an error that names it, and is kept."""
    (tmp_path / "out").mkdir()
    mine = tmp_path / "out" / wheels["beta"].filename
    mine.write_text("mine")
    with pytest.raises(FileExistsError) as caught:
        cache.export(tmp_path / "out")
    assert caught.value.filename == str(mine)
    assert mine.read_text() == "mine"


@pytest.mark.parametrize("installer", ["pip", pytest.param("uv", marks=with_uv)])
def test_installers_take_the_folder(cache: Cache, wheels: dict[str, Wheel], tmp_path: Path, installer: str) -> None:
    """Both pip and uv install from the folder without an index."""
    cache.export(tmp_path / "house")
    command = [sys.executable, "-m", *installer.split(), *(["pip"] if installer == "uv" else []), "install"]
    subprocess.run(
        [*command, "--no-index", "--find-links", tmp_path / "house", "--target", tmp_path / "site", *NAMES],
        check=True,
        capture_output=True,
    )
    assert {path.name for path in (tmp_path / "site").glob("*.dist-info")} == {
        f"{name}-1.0.dist-info" for name in NAMES
    }
