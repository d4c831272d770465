"""The POSIX file layer of a cache follows no link below the folder of the cache, whatever another process does."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from folders import listing, open_below
from marks import not_on_windows

from wheelcache._os.confined.entries import FolderEntry, UnsafePathError
from wheelcache._os.files import FileSystem, native

pytestmark = not_on_windows("tests/_os/test_confined_windows.py tests the layer of Windows")

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and renameat2 of Linux")
FOLDER = "v1/wheels/aa"
CONTENT = b"content"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A cache folder with one file and one empty folder."""
    root = tmp_path / "cache"
    (root / FOLDER / "empty").mkdir(parents=True)
    (root / FOLDER / "file").write_bytes(CONTENT)
    (root / "v1" / "spare").write_bytes(CONTENT)
    return root


@pytest.fixture
def files(root: Path) -> Iterator[FileSystem]:
    """The file layer of the cache folder."""
    files = native().confined_to(str(root / "v1"))
    yield files
    files.close_folders()


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder that a link may lead to, with the names of the cache."""
    outside = tmp_path / "outside"
    for folder in ("", "aa", "wheels/aa"):
        (outside / folder / "empty").mkdir(parents=True, exist_ok=True)
        (outside / folder / "file").write_bytes(b"precious")
    return outside


def close(opened: object) -> None:
    opened.__exit__(None, None, None)  # type: ignore[attr-defined]


# Each operation, with the folder that contains ``file`` and ``empty``, and a path in the cache that is free.
OPERATIONS: dict[str, Callable[[FileSystem, str, str], object]] = {
    "create": lambda files, folder, _: close(files.create(f"{folder}/new")),
    "open_read": lambda files, folder, _: close(files.open_read(f"{folder}/file")),
    "open_write": lambda files, folder, _: close(files.open_write(f"{folder}/file")),
    "open_write new": lambda files, folder, _: close(files.open_write(f"{folder}/new")),
    "open_append": lambda files, folder, _: close(files.open_append(f"{folder}/file")),
    "open_append new": lambda files, folder, _: close(files.open_append(f"{folder}/new")),
    "touch": lambda files, folder, _: files.touch(f"{folder}/file", 1.0),
    "scan": lambda files, folder, _: files.scan(folder),
    "open_folder": lambda files, folder, _: close(files.open_folder(folder)),
    "rename from": lambda files, folder, free: files.rename(f"{folder}/file", free),
    "rename to": lambda files, folder, free: files.rename(f"{os.path.dirname(free)}/spare", f"{folder}/new"),
    "replace from": lambda files, folder, free: files.replace(f"{folder}/file", free),
    "replace to": lambda files, folder, free: files.replace(f"{os.path.dirname(free)}/spare", f"{folder}/file"),
    "link from": lambda files, folder, free: files.link(f"{folder}/file", free),
    "link to": lambda files, folder, free: files.link(f"{os.path.dirname(free)}/spare", f"{folder}/new"),
    "make_read_only": lambda files, folder, _: files.make_read_only(f"{folder}/file", executable=True),
    "unlink": lambda files, folder, _: files.unlink(f"{folder}/file"),
    "mkdir": lambda files, folder, _: files.mkdir(f"{folder}/new"),
    "rmdir": lambda files, folder, _: files.rmdir(f"{folder}/empty"),
}


def perform(operation: str, files: FileSystem, root: Path) -> object:
    return OPERATIONS[operation](files, str(root / FOLDER), str(root / "v1" / "free"))


def plant(kind: str, path: Path, outside: Path) -> None:
    """Put an object in place of a folder. The folder is kept beside it."""
    path.rename(path.with_name("moved"))
    match kind:
        case "link to a folder":
            path.symlink_to(outside)
        case "relative link to a folder":
            path.symlink_to(os.path.relpath(outside, path.parent))
        case "link to a folder of the cache":
            path.symlink_to("moved")
        case "link to a file":
            path.symlink_to(outside / "file")
        case "dangling link":
            path.symlink_to(outside / "missing")
        case "link to itself":
            path.symlink_to(path)
        case "pipe":
            os.mkfifo(path)
        case "file":
            path.write_bytes(b"")


LINKS = ["link to a folder", "relative link to a folder", "link to a folder of the cache"]
LINKS += ["link to a file", "dangling link", "link to itself"]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_works(files: FileSystem, root: Path, operation: str) -> None:
    """Without a link, each operation of the table succeeds, so that the refusals below have no other cause."""
    perform(operation, files, root)


@pytest.mark.parametrize("kept", [False, True], ids=["opened", "kept open"])
@pytest.mark.parametrize("component", ["v1", "v1/wheels", "v1/wheels/aa"])
@pytest.mark.parametrize("kind", LINKS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_link_in_place_of_a_folder_is_refused(
    files: FileSystem, root: Path, outside: Path, operation: str, kind: str, component: str, kept: bool
) -> None:
    """Each operation through a link fails with the path of the link, and changes nothing outside or behind it."""
    if kept:  # a neighbouring folder is open, as in a walk
        files.scan(str(root / os.path.dirname(component) or root))
    link = root / component
    plant(kind, link, outside)
    before = listing(outside), listing(root)
    with pytest.raises(UnsafePathError) as caught:
        perform(operation, files, root)
    assert caught.value.filename == str(link)
    assert "is a link" in str(caught.value)
    assert (listing(outside), listing(root)) == before
    assert not files.is_dir(str(root / FOLDER))
    assert not files.is_dir(str(root / FOLDER / "empty"))


@pytest.mark.parametrize(("root_mode", "file_mode"), [(0o2775, 0o664), (0o700, 0o600)], ids=["shared", "private"])
@pytest.mark.parametrize("operation", ["create", "open_write new", "open_append new", "mkdir"])
def test_a_folder_with_modes_is_confined_too(
    root: Path, outside: Path, operation: str, root_mode: int, file_mode: int
) -> None:
    """New files of a shared or private cache get its modes, and a link is refused before anything is created."""
    root.chmod(root_mode)
    files = native().confined_to(str(root / "v1"))
    perform(operation, files, root)
    new = stat.S_IMODE((root / FOLDER / "new").stat().st_mode)
    assert new == (root_mode if operation == "mkdir" else file_mode)
    files.close_folders()
    plant("link to a folder", root / "v1" / "wheels", outside)
    before = listing(outside)
    with pytest.raises(UnsafePathError):
        perform(operation, files, root)
    files.close_folders()
    assert listing(outside) == before


@pytest.mark.parametrize("kind", ["file", "pipe"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_file_in_place_of_a_folder_is_not_a_link(
    files: FileSystem, root: Path, outside: Path, operation: str, kind: str
) -> None:
    """A file or pipe with the name of a folder is reported as such, with the path of the operation."""
    plant(kind, root / "v1" / "wheels", outside)
    with pytest.raises(NotADirectoryError, match="v1/wheels/aa"):
        perform(operation, files, root)


LAST = ["open_read", "open_write", "open_append", "make_read_only"]


@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe", "device"])
@pytest.mark.parametrize("operation", LAST)
def test_a_link_or_special_file_in_place_of_a_file_is_refused(
    files: FileSystem, root: Path, outside: Path, operation: str, kind: str
) -> None:
    """Opening never follows a link, and never waits for the other end of a pipe."""
    path = root / FOLDER / "file"
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        if os.geteuid() != 0:
            pytest.skip("only root can create a device")
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    else:
        path.symlink_to(outside / ("file" if kind == "link" else "missing"))
    before = listing(outside)
    with pytest.raises(UnsafePathError) as caught:
        perform(operation, files, root)
    assert caught.value.filename == str(path)
    assert listing(outside) == before


def test_operations_on_a_link_concern_the_link_itself(files: FileSystem, root: Path, outside: Path) -> None:
    """A link is listed as neither folder nor file. It can be renamed and deleted without its target."""
    link, moved = str(root / FOLDER / "link"), str(root / "v1" / "moved")
    before = listing(outside)
    os.symlink(outside, link)
    assert FolderEntry("link", is_dir=False, is_file=False) in files.scan(str(root / FOLDER))
    with pytest.raises(FileExistsError):
        files.create(link)
    with pytest.raises(FileExistsError):
        files.mkdir(link)
    with pytest.raises(NotADirectoryError):
        files.rmdir(link)
    with pytest.raises(UnsafePathError):
        files.touch(link, 1.0)
    files.rename(link, moved)
    files.unlink(moved)
    assert not os.path.lexists(moved)
    assert listing(outside) == before


@pytest.mark.parametrize("name", ["..", "."])
def test_a_relative_name_does_not_lead_out(files: FileSystem, root: Path, outside: Path, name: str) -> None:
    """A path with such a name in place of a folder is refused, even if its folders exist."""
    before = listing(root)
    with pytest.raises(UnsafePathError):
        files.create(f"{root}/v1/wheels/{name}/new")
    with pytest.raises(UnsafePathError):
        files.scan(f"{root}/{FOLDER}/../../../../{outside.name}")
    assert listing(root) == before


def test_links_to_the_cache_folder_are_followed(root: Path, tmp_path: Path) -> None:
    """The cache folder and the folders above it may be links."""
    (tmp_path / "above").symlink_to(tmp_path)
    (tmp_path / "link").symlink_to(root)
    for path in (tmp_path / "link", tmp_path / "above" / "cache"):
        files = native().confined_to(str(path / "v1"))
        assert [entry.name for entry in files.scan(str(path / "v1" / "wheels"))] == ["aa"]
        files.close_folders()


def test_paths_outside_are_not_confined(files: FileSystem, root: Path, outside: Path) -> None:
    """Operations elsewhere follow links as before, also beside the confined folder and between both."""
    for parent in (root, outside.parent):
        link = parent / "site"
        link.symlink_to(outside)
        close(files.create(f"{link}/new{parent.name}"))
        assert "new" + parent.name in {entry.name for entry in files.scan(str(link))}
        assert files.is_dir(str(link))
        files.link(str(root / FOLDER / "file"), f"{link}/linked{parent.name}")
        files.rename(f"{link}/linked{parent.name}", f"{root}/v1/{parent.name}")
        with files.open_folder(str(root / "v1")) as source, files.open_folder(str(link)) as target:
            source.link("spare", target)
        (outside / "spare").unlink()


def test_a_layer_is_confined_too(root: Path, outside: Path, tmp_path: Path) -> None:
    """Scans and reads of a layer follow no link."""
    other = tmp_path / "other"
    (other / "v1").mkdir(parents=True)
    files = native().confined_to(str(other / "v1"), [str(root / "v1")])
    with files.open_read(str(root / FOLDER / "file")) as file:
        assert file.read() == CONTENT
    files.close_folders()
    plant("link to a folder", root / "v1" / "wheels", outside)
    for operation in ("scan", "open_read", "open_folder"):
        with pytest.raises(UnsafePathError):
            perform(operation, files, root)
    files.close_folders()


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_folder_that_was_created_again_is_opened_again(files: FileSystem, root: Path, operation: str) -> None:
    """If another process prunes and creates a folder that is kept open, the operation is done in the new folder."""
    files.scan(str(root / FOLDER))
    (root / FOLDER / "file").unlink()
    (root / FOLDER / "empty").rmdir()
    (root / FOLDER).rmdir()
    (root / "v1" / "wheels").rmdir()
    (root / FOLDER / "empty").mkdir(parents=True)
    (root / FOLDER / "file").write_bytes(CONTENT)
    before = listing(root)
    perform(operation, files, root)
    # The listing contains no modes.
    unchanged = {"open_read", "open_write", "open_append", "scan", "open_folder", "make_read_only"}
    assert (listing(root) == before) == (operation in unchanged)


@on_linux
def test_any_order_of_folders_leads_to_the_right_ones(files: FileSystem, root: Path) -> None:
    """Whichever folders are open, an operation is made in the folder of its path, also with repeated slashes."""
    folders = ["v1", "v1/wheels", FOLDER, f"{FOLDER}/empty", "v1/wheels/bb", "v1/wheels/bb/cc", f"{FOLDER}//empty"]
    (root / "v1/wheels/bb/cc").mkdir(parents=True)
    for folder in folders:
        (root / folder / "name").write_text(os.path.normpath(folder))
    for before in (*folders, f"{FOLDER}/"):
        for folder in folders:
            files.scan(f"{root}/{before}")
            with files.open_read(f"{root}/{folder}/name") as file:
                assert file.read().decode() == os.path.normpath(folder)
            assert "name" in {entry.name for entry in files.scan(f"{root}/{folder}/")}
            with files.open_read(f"{root}/{before}/name".replace("//name", "/name")) as file:
                assert file.read().decode() == os.path.normpath(before)


def test_a_missing_file_is_reported_by_its_path(files: FileSystem, root: Path) -> None:
    """The errors of operations by name contain the absolute paths."""
    missing, other = str(root / FOLDER / "missing"), str(root / "v1" / "other")
    for _ in range(2):
        with pytest.raises(FileNotFoundError) as caught:
            files.open_read(missing)
        assert caught.value.filename == missing
    with pytest.raises(FileNotFoundError) as caught:
        files.rename(missing, other)
    assert (caught.value.filename, caught.value.filename2) == (missing, other)


# Descriptors


@on_linux
def test_folders_are_kept_open_until_they_are_closed(files: FileSystem, root: Path) -> None:
    """The folders of the last path remain open, and an open folder outlives the call that closes them."""
    files.scan(str(root / FOLDER))
    assert len(open_below(root)) == 4
    close(files.create(str(root / "v1" / "new")))
    assert open_below(root) == [str(root), str(root / "v1")]
    with files.open_folder(str(root / FOLDER)) as folder:
        files.close_folders()
        assert open_below(root) == [str(root / FOLDER)]
        assert folder.stat("file").st_size == len(CONTENT)
    assert open_below(root) == []
    files.close_folders()


@on_linux
def test_a_refusal_leaves_nothing_open(files: FileSystem, root: Path, outside: Path) -> None:
    """After refusals, closing the folders closes every descriptor."""
    plant("link to a folder", root / FOLDER, outside)
    (root / "v1" / "pipe").mkdir()
    os.mkfifo(root / "v1" / "pipe" / "file")
    for operation in OPERATIONS:
        with pytest.raises(UnsafePathError):
            perform(operation, files, root)
    for operation in LAST:
        with pytest.raises(UnsafePathError):
            OPERATIONS[operation](files, str(root / "v1" / "pipe"), "")
    files.close_folders()
    assert open_below(root) == []


@on_linux
def test_a_deep_tree_needs_few_descriptors(files: FileSystem, root: Path, outside: Path) -> None:
    """The number of open folders has a limit, and a link is refused at every depth."""
    path = str(root / FOLDER)
    for depth in range(60):
        path += f"/{depth}"
        files.mkdir(path)
    close(files.create(f"{path}/file"))
    assert len(open_below(root)) < 30
    assert [entry.name for entry in files.scan(path)] == ["file"]
    for depth in (10, 30, 58):
        files.close_folders()
        link = Path(root / FOLDER, *map(str, range(depth)))
        plant("link to a folder", link, outside)
        with pytest.raises(UnsafePathError) as caught:
            files.unlink(f"{path}/file")
        assert caught.value.filename == str(link)
        link.unlink()
        link.with_name("moved").rename(link)
    files.unlink(f"{path}/file")


@on_linux
def test_each_thread_has_its_own_folders(files: FileSystem, root: Path) -> None:
    """Closing concerns the folders of one thread, and those of a thread are closed when it ends."""
    files.scan(str(root / FOLDER))
    here = open_below(root)
    scanned, go_on = threading.Event(), threading.Event()

    def work() -> None:
        files.scan(str(root / FOLDER))
        scanned.set()
        go_on.wait(60)

    thread = threading.Thread(target=work)
    thread.start()
    scanned.wait(60)
    files.close_folders()
    assert open_below(root) == here
    go_on.set()
    thread.join()
    assert open_below(root) == []


@on_linux
def test_a_signal_handler_may_use_the_layer(files: FileSystem, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the folders are closed while an operation is in progress, that operation keeps its own."""
    scandir = os.scandir

    def interrupted(folder: int) -> object:
        monkeypatch.setattr(os, "scandir", scandir)
        files.mkdir(str(root / "v1" / "other"))
        files.close_folders()
        close(files.create(str(root / "v1" / "other" / "file")))  # receives the numbers of closed descriptors
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", interrupted)
    assert {entry.name for entry in files.scan(str(root / FOLDER))} == {"file", "empty"}
    assert {entry.name for entry in files.scan(str(root / FOLDER))} == {"file", "empty"}
    files.close_folders()
    assert open_below(root) == []


@on_linux
def test_a_child_opens_its_own_folders(files: FileSystem, root: Path) -> None:
    """After a fork, the child uses and closes its own folders, and those of the parent remain usable."""
    files.scan(str(root / FOLDER))
    before = open_below(root)
    child = os.fork()
    if child == 0:
        try:
            close(files.create(str(root / FOLDER / "child")))
            files.close_folders()
            os._exit(0 if open_below(root) == [] else 2)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert open_below(root) == before
    assert len(files.scan(str(root / FOLDER))) == 3


# Another process that swaps a folder and a link

SWAP = """
import ctypes, os, sys
rename = ctypes.CDLL(None, use_errno=True).renameat2
one, two = map(os.fsencode, sys.argv[1:])
first = True
while True:
    if rename(-100, one, -100, two, 2):
        sys.exit(os.strerror(ctypes.get_errno()))
    if first:
        print("begun", flush=True)
        first = False
"""


@contextmanager
def swapping(one: Path, two: Path) -> Iterator[None]:
    """Let another process exchange two names all the time, each time at once."""
    child = subprocess.Popen([sys.executable, "-c", SWAP, one, two], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        if child.stdout.readline() != "begun\n":
            pytest.skip("this volume cannot exchange two names")
        yield
        assert child.poll() is None
    finally:
        child.kill()
        child.communicate()


@on_linux
@pytest.mark.parametrize("component", ["v1/wheels", "v1/wheels/aa"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_process_that_swaps_folder_and_link_redirects_nothing(
    files: FileSystem, root: Path, outside: Path, operation: str, component: str
) -> None:
    """While a folder and a link to another folder change places, each operation is refused or done in the folder."""
    folder, link = root / component, root / "v1" / "link"
    link.symlink_to(outside)
    before = listing(outside)
    refused = done = 0
    deadline = time.monotonic() + 60
    with swapping(folder, link):
        while not (refused and done) and time.monotonic() < deadline:
            files.close_folders()
            try:
                perform(operation, files, root)
            except UnsafePathError:
                refused += 1
            except (FileExistsError, FileNotFoundError):
                done += 1  # an earlier operation has created or deleted the file
            else:
                done += 1
    assert refused
    assert done
    assert listing(outside) == before
