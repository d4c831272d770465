"""Test Cache.put, Cache.get and Cache.link, read-only caches and layers."""

from __future__ import annotations

import dataclasses
import io
import os
import pickle
import sys
from pathlib import Path

import pytest
from folders import assert_nothing_came, blobs, files_in, listing, quarantined, records, unfinished
from machines import Machine
from marks import not_on_windows
from server import Server
from wheels import Wheel, make_wheel, wheel_filename

from wheelcache import (
    Cache,
    CachedWheel,
    CommitError,
    HashMismatchError,
    InvalidWheelError,
    LinkMode,
    ReadOnlyError,
    Status,
    WheelRequest,
)


@pytest.fixture
def source(wheel: Wheel, tmp_path: Path) -> Path:
    """Return the path of a wheel in a local folder."""
    path = tmp_path / "source" / wheel.filename
    path.parent.mkdir()
    path.write_bytes(wheel.data)
    return path


# put


@pytest.mark.parametrize("kind", [str, Path])
def test_put_copies_a_file(kind, source: Path, cache: Cache, wheel: Wheel) -> None:
    """A local wheel becomes an entry, and its file is not changed."""
    before = listing(source.parent)
    found = cache.put(kind(source))
    assert (found.status, found.filename, found.digest, found.url) == (Status.ADDED, wheel.filename, wheel.digest, None)
    assert found.path.read_bytes() == wheel.data
    assert listing(source.parent) == before
    assert unfinished(cache) == []
    assert list(cache.entries()) == [found]


def test_put_reads_a_file_object_from_its_position(cache: Cache, wheel: Wheel) -> None:
    """A file object is read from its position to its end, and is not closed."""
    file = io.BytesIO(b"before" + wheel.data)
    file.seek(6)
    found = cache.put(file, filename=wheel.filename, hashes=wheel.digest)
    assert found.path.read_bytes() == wheel.data
    assert not file.closed


def test_put_accepts_short_reads(cache: Cache, wheel: Wheel) -> None:
    """A short read is not the end of the file."""

    class Dribbling(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(7)

    assert cache.put(Dribbling(wheel.data), filename=wheel.filename).path.read_bytes() == wheel.data


def test_a_wheel_that_was_put_is_a_hit(source: Path, server: Server, cache: Cache, wheel: Wheel) -> None:
    """A wheel that was added with put is a hit for every URL with its hash."""
    cache.put(source)
    assert cache.fetch(wheel.on(server), hashes=wheel.digest).status is Status.HIT
    assert server.count() == 0


def test_put_twice_keeps_one_entry(source: Path, cache: Cache, wheel: Wheel) -> None:
    """Adding the same wheel again keeps one blob and one record."""
    first, second = cache.put(source), cache.put(source)
    assert first == second
    assert len(blobs(cache)) == len(records(cache)) == 1
    assert quarantined(cache) == []
    assert unfinished(cache) == []


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_put_checks_the_hash(algorithm: str, source: Path, cache: Cache, wheel: Wheel, other_wheel: Wheel) -> None:
    """A file with another hash raises HashMismatchError with its path, and stores nothing."""
    with pytest.raises(HashMismatchError) as caught:
        cache.put(source, hashes={algorithm: other_wheel.hex(algorithm)})
    assert caught.value.expected == {algorithm: other_wheel.hex(algorithm)}
    assert caught.value.actual["sha256"] == wheel.hex()
    assert str(source) in str(caught.value)
    assert_nothing_came(cache)
    assert cache.put(source, hashes={algorithm: wheel.hex(algorithm)}).hashes[algorithm] == wheel.hex(algorithm)
    assert f"{algorithm}:{wheel.hex(algorithm)}" in cache


def test_put_of_a_missing_file_is_file_not_found(cache: Cache, wheel: Wheel, tmp_path: Path) -> None:
    """A missing source raises FileNotFoundError with its path, like open()."""
    with pytest.raises(FileNotFoundError) as caught:
        cache.put(tmp_path / wheel.filename)
    assert caught.value.filename == str(tmp_path / wheel.filename)
    assert_nothing_came(cache)


def test_put_of_a_folder_is_an_os_error(cache: Cache, wheel: Wheel, tmp_path: Path) -> None:
    """A folder with the name of a wheel raises the system's OSError, and stores nothing."""
    (tmp_path / wheel.filename).mkdir()
    with pytest.raises(OSError, match="demo"):
        cache.put(tmp_path / wheel.filename)
    assert_nothing_came(cache)


@pytest.mark.parametrize("content", [b"", b"no zip at all", b"PK\x03\x04 and no end"])
def test_put_refuses_a_file_that_is_not_an_archive(content: bytes, cache: Cache, wheel: Wheel, tmp_path: Path) -> None:
    """Without a hash, a file without a zip end record raises InvalidWheelError with its path."""
    path = tmp_path / wheel.filename
    path.write_bytes(content)
    with pytest.raises(InvalidWheelError) as caught:
        cache.put(path)
    assert str(path) in str(caught.value)
    assert_nothing_came(cache)


@pytest.mark.parametrize("name", ["demo.zip", "demo-1.0.tar.gz", "demo.whl", "demo-1.0-py3-none-any.whl.part"])
def test_put_needs_a_wheel_file_name(name: str, cache: Cache, wheel: Wheel, tmp_path: Path) -> None:
    """A file without a wheel file name raises InvalidWheelError, unless filename is given."""
    path = tmp_path / name
    path.write_bytes(wheel.data)
    with pytest.raises(InvalidWheelError) as caught:
        cache.put(path)
    assert repr(name) in str(caught.value)
    assert_nothing_came(cache)
    assert cache.put(path, filename=wheel.filename).filename == wheel.filename


def test_put_of_a_file_object_needs_a_filename(cache: Cache, wheel: Wheel) -> None:
    """A file object without a name raises InvalidWheelError."""
    with pytest.raises(InvalidWheelError):
        cache.put(io.BytesIO(wheel.data))
    assert_nothing_came(cache)


@pytest.mark.parametrize("hashes", ["md5:" + "0" * 32, "sha256:00", {"crc32": "00"}])
def test_put_refuses_invalid_hashes(hashes, source: Path, cache: Cache) -> None:
    """A weak, malformed or unknown hash raises ValueError before the file is read."""
    with pytest.raises(ValueError):
        cache.put(source, hashes=hashes)
    assert_nothing_came(cache)


def test_a_source_that_fails_leaves_nothing(cache: Cache, wheel: Wheel) -> None:
    """An exception of the source propagates unchanged, and nothing is stored."""

    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 0:
                raise OSError(5, "the disk is gone")
            return super().read(10)

    with pytest.raises(OSError, match="the disk is gone"):
        cache.put(Failing(wheel.data), filename=wheel.filename)
    assert_nothing_came(cache)


def test_put_refuses_a_text_file(cache: Cache, wheel: Wheel) -> None:
    """A file in text mode raises TypeError, and stores nothing."""
    with pytest.raises(TypeError):
        cache.put(io.StringIO("text"), filename=wheel.filename)  # type: ignore[arg-type]
    assert_nothing_came(cache)


# get


def test_get_never_uses_the_network(server: Server, cache: Cache, wheel: Wheel) -> None:
    """get() returns None for a missing wheel, and finds a wheel by any spelling of its hash, without a request."""
    assert cache.get(wheel.digest) is None
    assert wheel.digest not in cache
    found = cache.fetch(wheel.on(server), hashes=wheel.digest)
    for form in (wheel.digest, f"sha256={wheel.hex()}", f"SHA256:{wheel.hex().upper()}"):
        assert cache.get(form) == found
        assert form in cache
    assert server.count() == 1


@pytest.mark.parametrize("digest", ["", "sha256", "sha256:00", "md5:" + "0" * 32, "crc32:00000000", "x" * 64])
def test_get_of_an_invalid_hash_is_a_value_error(digest: str, cache: Cache) -> None:
    """get() accepts only valid strong hashes."""
    with pytest.raises(ValueError):
        cache.get(digest)


def test_get_by_file_name(source: Path, cache: Cache, wheel: Wheel) -> None:
    """The path that get() returns ends in the requested file name."""
    cache.put(source)
    found = cache.get(wheel.digest, filename="demo-1.0-py2.py3-none-any.whl")
    assert found is not None
    assert found.path.name == "demo-1.0-py2.py3-none-any.whl"
    assert found.path.read_bytes() == wheel.data


def test_a_cached_wheel_pickles_and_compares(source: Path, cache: Cache) -> None:
    """A CachedWheel can be pickled, and is equal to the result of another lookup."""
    found = cache.put(source)
    assert pickle.loads(pickle.dumps(found)) == found
    assert cache.get(found.digest) == found
    assert len({found, cache.get(found.digest)}) == 1


# link


@pytest.fixture
def cached(source: Path, cache: Cache) -> CachedWheel:
    """Return a wheel in the cache."""
    return cache.put(source)


@pytest.mark.parametrize("mode", [LinkMode.AUTO, LinkMode.HARDLINK, LinkMode.COPY, "auto", "hardlink", "copy"])
def test_link_creates_the_file(mode, cache: Cache, cached: CachedWheel, wheel: Wheel, tmp_path: Path) -> None:
    """Each mode creates a file of the given name with the wheel's bytes, and link() returns the mode that was used."""
    target = tmp_path / "out" / "deep" / "renamed.whl"
    used = cache.link(cached, target, mode=mode)
    assert target.read_bytes() == wheel.data
    assert used is (LinkMode(mode) if mode != "auto" else used)
    assert isinstance(used, LinkMode)
    assert used is not LinkMode.AUTO
    assert target.samefile(cached.path) == (used is LinkMode.HARDLINK)
    assert list(target.parent.iterdir()) == [target]


def test_a_copy_is_independent(cache: Cache, cached: CachedWheel, wheel: Wheel, tmp_path: Path) -> None:
    """Editing a copy does not change the wheel in the cache."""
    cache.link(cached, tmp_path / "copy.whl", mode="copy")
    (tmp_path / "copy.whl").write_bytes(b"changed")
    assert cached.path.read_bytes() == wheel.data


def test_a_clone_is_created_or_refused(cache: Cache, cached: CachedWheel, wheel: Wheel, tmp_path: Path) -> None:
    """On a volume that cannot clone, mode='clone' raises CommitError, and leaves nothing behind."""
    target = tmp_path / "out" / wheel.filename
    try:
        assert cache.link(cached, target, mode="clone") is LinkMode.CLONE
    except CommitError as error:
        assert (error.path, error.target) == (str(cached.path), str(target))  # noqa: PT017
        assert list(target.parent.iterdir()) == []
    else:
        assert target.read_bytes() == wheel.data
        assert not target.samefile(cached.path)


@pytest.mark.parametrize("form", ["folder", "folder text", "new folder with a separator"])
def test_link_into_a_folder_keeps_the_name(form: str, cache: Cache, cached: CachedWheel, tmp_path: Path) -> None:
    """For an existing folder, or a path that ends in a separator, link() uses the wheel's file name."""
    folder = tmp_path / "out"
    if form != "new folder with a separator":
        folder.mkdir()
    cache.link(cached, {"folder": folder, "folder text": str(folder)}.get(form, f"{folder}{os.sep}"))
    assert [path.name for path in folder.iterdir()] == [cached.filename]


@pytest.mark.parametrize("mode", ["auto", "hardlink", "copy"])
def test_link_again_changes_nothing(mode: str, cache: Cache, cached: CachedWheel, wheel: Wheel, tmp_path: Path) -> None:
    """A target with the same bytes is a success, and is not changed, in whichever mode it was created."""
    for number, first in enumerate(["hardlink", "copy", "by hand"]):
        target = tmp_path / "out" / f"{number}.whl"
        target.parent.mkdir(exist_ok=True)
        if first == "by hand":
            target.write_bytes(wheel.data)
        else:
            cache.link(cached, target, mode=first)
        before = target.stat()
        assert cache.link(cached, target, mode=mode) in {LinkMode.HARDLINK, LinkMode.COPY}
        assert (target.stat().st_ino, target.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert len(list((tmp_path / "out").iterdir())) == 3


@pytest.mark.parametrize("mode", ["auto", "clone", "hardlink", "copy"])
@pytest.mark.parametrize("content", [b"", b"mine", b"x" * 10_000])
def test_link_never_replaces(mode: str, content: bytes, cache: Cache, cached: CachedWheel, tmp_path: Path) -> None:
    """A target with other bytes raises FileExistsError with its path, and is not changed."""
    target = tmp_path / "out" / "demo.whl"
    target.parent.mkdir()
    target.write_bytes(content)
    before = listing(target.parent)
    with pytest.raises(OSError) as caught:
        cache.link(cached, target, mode=mode)
    if not (mode == "clone" and isinstance(caught.value, CommitError)):  # refused before the target was read
        assert type(caught.value) is FileExistsError
        assert caught.value.filename == str(target)
    assert listing(target.parent) == before
    assert target.read_bytes() == content


def test_link_of_a_removed_wheel_is_file_not_found(cache: Cache, cached: CachedWheel, tmp_path: Path) -> None:
    """A removed wheel raises FileNotFoundError with its path, and no folder is created."""
    cached.path.unlink()
    with pytest.raises(FileNotFoundError) as caught:
        cache.link(cached, tmp_path / "out" / "demo.whl")
    assert caught.value.filename == str(cached.path)
    assert not (tmp_path / "out").exists()


def test_link_below_a_file_is_a_commit_error(cache: Cache, cached: CachedWheel, tmp_path: Path) -> None:
    """A file in place of the target's folder raises CommitError with its path."""
    (tmp_path / "out").write_bytes(b"mine")
    with pytest.raises(CommitError) as caught:
        cache.link(cached, tmp_path / "out" / "demo.whl")
    assert str(tmp_path / "out") in str(caught.value)
    assert (tmp_path / "out").read_bytes() == b"mine"


@pytest.mark.parametrize("mode", ["symlink", "", "Copy", None])
def test_an_unknown_mode_is_a_value_error(mode, cache: Cache, cached: CachedWheel, tmp_path: Path) -> None:
    """An invalid mode raises ValueError before a folder is created."""
    with pytest.raises(ValueError):
        cache.link(cached, tmp_path / "out" / "demo.whl", mode=mode)
    assert not (tmp_path / "out").exists()


def test_a_relative_target_is_in_the_working_directory(
    cache: Cache, cached: CachedWheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative target is resolved against the current working directory."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    cache.link(cached, "demo.whl")
    assert (tmp_path / "here" / "demo.whl").exists()


@not_on_windows("making a symbolic link needs a right that most Windows users lack")
def test_link_into_a_symlinked_folder(cache: Cache, cached: CachedWheel, tmp_path: Path) -> None:
    """A target folder may be a symbolic link."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    cache.link(cached, tmp_path / "link")
    assert [path.name for path in (tmp_path / "real").iterdir()] == [cached.filename]


# Read-only and layers


def test_a_read_only_cache_is_never_written(
    machine: Machine, server: Server, source: Path, wheel: Wheel, tmp_path
) -> None:
    """A read-only cache serves hits, is not changed, not even in its time stamps, and refuses writing methods."""
    folder = tmp_path / "cache"
    with machine.cache(folder) as cache:
        cache.put(source)
    machine.reboot()
    before = listing(folder)
    other = Wheel(wheel_filename("other"), make_wheel("other"))
    with machine.cache(folder, read_only=True) as cache:
        found = cache.get(wheel.digest)
        assert found is not None
        assert cache.fetch(wheel.on(server), hashes=wheel.digest).status is Status.HIT
        assert list(cache.entries()) == [found]
        assert cache.stats().wheels == 1
        assert cache.link(found, tmp_path / "out" / "demo.whl", mode="copy") is LinkMode.COPY
        with pytest.raises(ReadOnlyError) as caught:
            cache.fetch(other.on(server), hashes=other.digest)
        assert caught.value.path == str(folder)
        with pytest.raises(ReadOnlyError):
            cache.fetch(other.on(server))
        with pytest.raises(ReadOnlyError):
            cache.put(source)
    assert listing(folder) == before
    assert server.count() == 0


def test_a_damaged_wheel_of_a_read_only_cache_is_a_miss(machine: Machine, source: Path, wheel: Wheel, tmp_path) -> None:
    """A damaged wheel that cannot be quarantined is not returned."""
    folder = tmp_path / "cache"
    with machine.cache(folder) as cache:
        path = cache.put(source).path
    path.write_bytes(wheel.data[::-1])
    before = listing(folder)
    with machine.cache(folder, read_only=True) as cache:
        assert cache.get(wheel.digest) is None
        assert list(cache.entries()) == []
    assert listing(folder) == before


def test_layers_are_looked_up_in_order(
    machine: Machine, server: Server, wheel: Wheel, other_wheel: Wheel, tmp_path
) -> None:
    """Layers are searched in order after the cache itself, without a download and without copying."""
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder, wheels in zip(folders, [[wheel], [wheel, other_wheel]], strict=True):
        with machine.cache(folder) as cache:
            for each in wheels:
                cache.put(io.BytesIO(each.data), filename=each.filename)
    before = [listing(folder) for folder in folders]
    machine.reboot()
    with machine.cache(tmp_path / "cache", layers=folders) as cache:
        found = cache.fetch(wheel.on(server), hashes=wheel.digest)
        assert found.status is Status.LAYER
        assert found.path.is_relative_to(folders[0])
        found = cache.get(other_wheel.digest)
        assert found is not None
        assert found.status is Status.LAYER
        assert found.path.is_relative_to(folders[1])
        assert list(cache.entries()) == []
        cache.link(found, tmp_path / "out" / "", mode="copy")
        third = Wheel(wheel_filename("third"), make_wheel("third"))
        assert cache.fetch(third.on(server), hashes=third.digest).path.is_relative_to(cache.path)
    assert [listing(folder) for folder in folders] == before
    assert server.count() == 1


def test_the_cache_precedes_its_layers(machine: Machine, source: Path, wheel: Wheel, tmp_path: Path) -> None:
    """A wheel in both the cache and a layer is returned from the cache."""
    for folder in ("layer", "cache"):
        with machine.cache(tmp_path / folder) as cache:
            cache.put(source)
    with machine.cache(tmp_path / "cache", layers=[tmp_path / "layer"]) as cache:
        found = cache.get(wheel.digest)
        assert found is not None
        assert found.status is Status.HIT


def test_a_layers_wheel_gets_the_requested_name(machine: Machine, source: Path, wheel: Wheel, tmp_path: Path) -> None:
    """A wheel that a layer has under another file name is copied to the cache under the requested one."""
    with machine.cache(tmp_path / "layer") as layer:
        layer.put(source)
    name = "demo-1.0-py2.py3-none-any.whl"
    with machine.cache(tmp_path / "cache", layers=[tmp_path / "layer"], offline=True) as cache:
        found = cache.fetch(f"https://example.org/{name}", hashes=wheel.digest)
        assert found.path.name == name
        assert found.path.read_bytes() == wheel.data


def test_a_damaged_wheel_of_a_layer_is_ignored(machine: Machine, server: Server, wheel: Wheel, tmp_path: Path) -> None:
    """A damaged wheel in a layer is not changed, and the wheel is fetched to the cache."""
    with machine.cache(tmp_path / "layer") as cache:
        path = cache.fetch(wheel.on(server), hashes=wheel.digest).path
    path.write_bytes(b"\0" * wheel.size)
    before = listing(tmp_path / "layer")
    with machine.cache(tmp_path / "cache", layers=[tmp_path / "layer"]) as cache:
        found = cache.fetch(wheel.on(server), hashes=wheel.digest)
        assert found.path.read_bytes() == wheel.data
        assert found.path.is_relative_to(cache.path)
    assert listing(tmp_path / "layer") == before


def test_another_hash_finds_a_wheel_of_a_layer(machine: Machine, server: Server, wheel: Wheel, tmp_path: Path) -> None:
    """The pointers of a layer map other strong hashes to its wheels."""
    hashes = f"sha512:{wheel.hex('sha512')}"
    with machine.cache(tmp_path / "layer") as cache:
        cache.fetch(wheel.on(server), hashes=hashes)
    with machine.cache(tmp_path / "cache", layers=[tmp_path / "layer"], offline=True) as cache:
        assert cache.fetch(wheel.on(server), hashes=hashes).status is Status.LAYER


@not_on_windows("permissions of folders are another matter there")
@pytest.mark.skipif(sys.platform != "win32" and os.geteuid() == 0, reason="nothing is read-only to root")
def test_a_folder_without_write_permission_serves_hits(machine: Machine, source: Path, wheel: Wheel, tmp_path) -> None:
    """A cache whose folders cannot be written still returns its wheels."""
    folder = tmp_path / "cache"
    with machine.cache(folder) as cache:
        path = cache.put(source).path
    machine.reboot()
    path.parent.chmod(0o500)
    try:
        with machine.cache(folder) as cache:
            assert cache.get(wheel.digest) is not None
    finally:
        path.parent.chmod(0o700)


def test_two_caches_do_not_mix(machine: Machine, source: Path, wheel: Wheel, tmp_path: Path) -> None:
    """Two caches in different folders share nothing."""
    with machine.cache(tmp_path / "one") as one, machine.cache(tmp_path / "two") as two:
        found = one.put(source)
        assert two.get(wheel.digest) is None
        assert two.link(found, tmp_path / "out.whl", mode="copy") is LinkMode.COPY
        assert "v1/tally.log" not in files_in(two.path)
        assert dataclasses.replace(found, status=Status.HIT) == found


# Invalid arguments


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda cache, wheel, tmp: cache.link("demo-1.0-py3-none-any.whl", tmp), "not str"),
        (lambda cache, wheel, tmp: cache.unpack(wheel.path, tmp), "as returned by fetch, put, get and entries"),
        (lambda cache, wheel, tmp: cache.export(tmp, wheel), "not one wheel"),
        (lambda cache, wheel, tmp: cache.export(tmp, [wheel.path]), "as returned by fetch, put, get and entries"),
        (lambda cache, wheel, tmp: cache.fetch_all(wheel.filename), "must be a list of requests"),
        (lambda cache, wheel, tmp: cache.fetch_all(WheelRequest("https://example.org/")), "must be a list of requests"),
        (lambda cache, wheel, tmp: cache.fetch_all([{"url": "https://me:secret@example.org/"}]), "not dict"),
        (lambda cache, wheel, tmp: cache.put(b"PK", filename=wheel.filename), "not bytes"),
        (lambda cache, wheel, tmp: cache.put(io.StringIO("PK"), filename=wheel.filename), "must be open in binary"),
        (lambda cache, wheel, tmp: cache.get(5), "not int"),
    ],
)
def test_an_argument_of_another_type_is_a_type_error(
    call, says, cache: Cache, cached: CachedWheel, tmp_path: Path
) -> None:
    """An argument of another type raises TypeError, which says what is expected and shows no secret."""
    with pytest.raises(TypeError, match=says) as caught:
        call(cache, cached, tmp_path / "dest")
    assert "secret" not in str(caught.value)
    assert not (tmp_path / "dest").exists()


def test_fetching_a_path_suggests_put(cache: Cache) -> None:
    """Fetching a path raises ValueError, which suggests put."""
    with pytest.raises(ValueError, match="put"):
        cache.fetch("wheels/demo-1.0-py3-none-any.whl")


def test_the_error_of_an_invalid_file_names_the_file(cache: Cache, wheel: Wheel, tmp_path: Path) -> None:
    """The error for a local file that is not a wheel has the path of that file, and does not mention a URL."""
    source = tmp_path / wheel.filename
    source.write_bytes(b"not a wheel")
    with source.open("rb") as file:
        for given, path in ((source, str(source)), (file, str(source)), (io.BytesIO(b"not a wheel"), None)):
            with pytest.raises(InvalidWheelError) as caught:
                cache.put(given, filename=wheel.filename)
            assert caught.value.path == path
            assert "URL" not in caught.value.advice
    with pytest.raises(InvalidWheelError) as caught:
        cache.fetch(source.as_uri())
    assert "URL" not in caught.value.advice
