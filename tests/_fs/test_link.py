"""Link modes that a destination does not support: which refusals are remembered, and for which folders."""

from __future__ import annotations

from pathlib import Path

import pytest
from archives import FILENAME, Entry, wheel
from faulty import Code, FaultyFiles, Refuse, Refusing, os_error
from folders import files_in
from machines import Machine
from marks import not_on_windows

from wheelcache import LinkMode
from wheelcache._fs import link
from wheelcache._fs.link import Destination, LinkStrategy
from wheelcache._fs.robustio import RobustIO
from wheelcache._operation import Operation

ENTRIES = [Entry(f"demo/{number % 4}/{number}.py", b"%d\n" % number) for number in range(12)]


@pytest.fixture
def files() -> FaultyFiles:
    """The file layer of the machine."""
    return FaultyFiles()


@pytest.fixture
def fs(files: FaultyFiles) -> RobustIO:
    """The file system of one operation."""
    return RobustIO(Operation(Machine(files).cache_class._system))


@pytest.fixture
def strategy() -> LinkStrategy:
    """A strategy without remembered refusals."""
    return LinkStrategy()


def destination(strategy: LinkStrategy, fs: RobustIO, tmp_path: Path, name: str) -> Destination:
    folder = tmp_path / name
    folder.mkdir(exist_ok=True)
    return strategy.destination(fs, str(tmp_path), str(folder))


@pytest.mark.parametrize(
    ("refused", "mode"),
    [("clone", LinkMode.HARDLINK), ("clone link", LinkMode.COPY), ("clone link rename", LinkMode.COPY)],
)
def test_many_new_folders_of_one_volume_ask_once(
    files: FaultyFiles, tmp_path: Path, refused: str, mode: LinkMode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fifty unpacks into new folders try each mode once, and remember one refusal per mode."""
    strategies: set[LinkStrategy] = set()
    remember = LinkStrategy.remember

    def remember_and_note(self: LinkStrategy, key: object) -> None:
        strategies.add(self)
        remember(self, key)

    monkeypatch.setattr(LinkStrategy, "remember", remember_and_note)
    source = tmp_path / FILENAME
    source.write_bytes(wheel(ENTRIES))
    with Machine(files).cache(tmp_path / "cache") as cache:
        found = cache.put(source)
        files.plan = Refusing(Refuse(refused, 50, "*environment*"))
        for number in range(50):
            unpacked = cache.unpack(found, tmp_path / f"environment{number}")
            assert unpacked.mode is mode
    assert files_in(tmp_path / "environment0") == files_in(tmp_path / "environment49") != {}
    assert files.count("clone", "*environment*") == 1
    if "rename" in refused:
        assert files.count("rename", "*environment*") == 1
    if "link" in refused:
        # The first file of each of the tree's folders is linked by its descriptor before the refusal is known.
        assert files.count("link", "*environment*") <= 4
    assert 1 <= sum(strategy.remembered for strategy in strategies) <= 4


@pytest.mark.parametrize("code", [1, 50, 87, "ENOTSUP", "ENOSYS"])
def test_a_refusal_of_the_volume_holds_for_its_other_folders(
    strategy: LinkStrategy, fs: RobustIO, files: FaultyFiles, tmp_path: Path, code: Code
) -> None:
    """A mode that the volume does not support is tried again only on another volume."""
    files.volumes["elsewhere"] = 0
    destination(strategy, fs, tmp_path, "one").mark_unsupported("clone", os_error(code))
    assert not destination(strategy, fs, tmp_path, "two").supports("clone")
    assert destination(strategy, fs, tmp_path, "two").supports("hardlink")
    assert destination(strategy, fs, tmp_path, "elsewhere").supports("clone")


@pytest.mark.parametrize("code", [17, "EXDEV"])
def test_another_device_holds_for_the_pair_of_volumes(
    strategy: LinkStrategy, fs: RobustIO, files: FaultyFiles, tmp_path: Path, code: Code
) -> None:
    """Between two volumes there are no hard links, for any folder."""
    files.volumes.update(one=1, two=1)
    destination(strategy, fs, tmp_path, "one").mark_unsupported("hardlink", os_error(code))
    assert not destination(strategy, fs, tmp_path, "two").supports("hardlink")
    assert destination(strategy, fs, tmp_path, "three").supports("hardlink")


@pytest.mark.parametrize("code", [17, "EXDEV", 396])
def test_a_refusal_of_a_folder_holds_for_that_folder(
    strategy: LinkStrategy, fs: RobustIO, tmp_path: Path, code: Code
) -> None:
    """A bind mount or cloud folder shares its volume number with other folders, where the mode is still tried."""
    destination(strategy, fs, tmp_path, "one").mark_unsupported("hardlink", os_error(code))
    assert not destination(strategy, fs, tmp_path, "one").supports("hardlink")
    assert destination(strategy, fs, tmp_path, "two").supports("hardlink")


@pytest.mark.parametrize("error", [None, "EIO"])
def test_a_volume_without_a_number_is_remembered_by_its_folder(
    strategy: LinkStrategy, fs: RobustIO, files: FaultyFiles, tmp_path: Path, error: Code | None
) -> None:
    """If the system does not identify volumes, a refusal applies to the given folder."""
    if error is None:
        files.volumes.update(one=None, two=None)
    else:
        files.plan = Refusing(Refuse("volume_id", error))
    destination(strategy, fs, tmp_path, "one").mark_unsupported("clone", os_error(50))
    assert not destination(strategy, fs, tmp_path, "one").supports("clone")
    assert destination(strategy, fs, tmp_path, "two").supports("clone")


@pytest.mark.parametrize("code", [1142, 347, "EMLINK"])
def test_a_refusal_of_one_file_is_not_remembered(
    strategy: LinkStrategy, fs: RobustIO, tmp_path: Path, code: Code
) -> None:
    """Too many links, or too many owners of a block, concern one file only."""
    destination(strategy, fs, tmp_path, "one").mark_unsupported("hardlink", os_error(code))
    assert strategy.remembered == 0


def test_the_memory_is_bounded(strategy: LinkStrategy, fs: RobustIO, tmp_path: Path) -> None:
    """If the memory is full, the destination that was unused for the longest time is forgotten."""
    folders = [f"cloud{number}" for number in range(link._MAX_REMEMBERED + 1)]
    for name in folders[:-1]:
        destination(strategy, fs, tmp_path, name).mark_unsupported("hardlink", os_error(396))
    assert not destination(strategy, fs, tmp_path, folders[0]).supports("hardlink")
    destination(strategy, fs, tmp_path, folders[-1]).mark_unsupported("hardlink", os_error(396))
    assert strategy.remembered == link._MAX_REMEMBERED
    assert not destination(strategy, fs, tmp_path, folders[0]).supports("hardlink")
    assert destination(strategy, fs, tmp_path, folders[1]).supports("hardlink")


@not_on_windows("Wine cannot create links to folders")
def test_a_destination_behind_a_link_is_on_the_volume_it_leads_to(fs: RobustIO, tmp_path: Path) -> None:
    """A symlink to a folder has the volume of that folder."""
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second volume here")
    (tmp_path / "away").symlink_to(shared)
    assert fs.files.volume_id(str(tmp_path / "away")) == shared.stat().st_dev
