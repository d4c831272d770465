"""A link in place of a folder of the cache is an error that names it, unless a call can proceed without the folder."""

from __future__ import annotations

import errno
import io
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from folders import files_in, listing
from marks import not_on_windows
from server import Server
from wheels import Wheel, make_wheel, wheel_filename

from wheelcache import Cache, Cause, CommitError, ProgressEvent, Status

pytestmark = not_on_windows("tests/_os/test_confined_windows.py plants junctions")

OTHER = Wheel(wheel_filename("other"), make_wheel("other", size=40_000))


def put(cache: Cache, wheel: Wheel) -> Status:
    return cache.put(io.BytesIO(wheel.data), filename=wheel.filename, hashes=f"sha512:{wheel.hex('sha512')}").status


@pytest.fixture
def root(wheel: Wheel, tmp_path: Path) -> Path:
    """A cache folder with one wheel, its pointer and its tree."""
    with Cache(tmp_path / "cache") as cache:
        put(cache, wheel)
        cache.unpack(next(cache.entries()))
    return tmp_path / "cache"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder of another user that a link leads to."""
    outside = tmp_path / "outside"
    (outside / "inner").mkdir(parents=True)
    for folder in (outside, outside / "inner"):
        (folder / "precious").write_text("mine")
    return outside


def plant(root: Path, area: str, outside: Path) -> Path:
    """Replace a folder of the cache by a link, and return the link."""
    link = root / area
    shutil.rmtree(link, ignore_errors=True)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(outside)
    return link


WRITING: dict[str, tuple[str, Callable[[Cache, Server], object]]] = {
    "put, tmp": ("v1/tmp", lambda cache, _: put(cache, OTHER)),
    "put, wheels": ("v1/wheels", lambda cache, _: put(cache, OTHER)),
    "put, shard": (f"v1/wheels/{OTHER.hex()[:2]}", lambda cache, _: put(cache, OTHER)),
    "put, entry": (f"v1/wheels/{OTHER.hex()[:2]}/{OTHER.hex()[2:]}", lambda cache, _: put(cache, OTHER)),
    "fetch, wheels": ("v1/wheels", lambda cache, server: cache.fetch(OTHER.on(server), hashes=OTHER.digest)),
    "fetch, version": ("v1", lambda cache, server: cache.fetch(OTHER.on(server), hashes=OTHER.digest)),
    "unpack, trees": (
        "v1/trees",
        lambda cache, _: cache.unpack(cache.put(io.BytesIO(OTHER.data), filename=OTHER.filename)),
    ),
    "unpack, shard": (
        f"v1/trees/{OTHER.hex()[:2]}",
        lambda cache, _: cache.unpack(cache.put(io.BytesIO(OTHER.data), filename=OTHER.filename)),
    ),
}


@pytest.mark.parametrize("case", WRITING)
def test_an_unsafe_folder_is_named_by_the_error(root: Path, outside: Path, server: Server, case: str) -> None:
    """The error of a call that writes has the cause, the path of the link and the remedy, and nothing is written."""
    area, call = WRITING[case]
    link = plant(root, area, outside)
    before = listing(outside)
    with Cache(root) as cache, pytest.raises(CommitError) as caught:
        call(cache, server)
    error = caught.value
    assert error.cause is Cause.UNSAFE
    assert error.errno == errno.ELOOP
    assert Path(error.path or "").is_relative_to(link)
    assert f"{link} is a link" in str(error)
    assert "Delete it" in error.advice
    assert listing(outside) == before


@pytest.mark.parametrize("area", ["v1/urls", "v1/metadata", "v1/locks", "v1/partial", "v1/quarantine"])
def test_a_call_proceeds_without_a_folder_that_only_saves_work(
    root: Path, outside: Path, server: Server, area: str
) -> None:
    """Wheels are fetched, added and unpacked, and METADATA is read, if pointers, locks and the like are impossible."""
    plant(root, area, outside)
    before = listing(outside)
    with Cache(root) as cache:
        assert cache.fetch(OTHER.on(server), hashes={"sha256": OTHER.hex(), "sha512": OTHER.hex("sha512")})
        assert files_in(cache.unpack(next(cache.entries())).path)
        third = Wheel(wheel_filename("third"), make_wheel("third"))
        assert cache.metadata(third.on(server))
        assert put(cache, third) is Status.ADDED
    assert listing(outside) == before


def test_an_interrupted_download_is_not_kept_without_its_folder(root: Path, outside: Path, server: Server) -> None:
    """If the folder of partial downloads is unsafe, the bytes of a failed download are deleted."""
    plant(root, "v1/partial", outside)
    before = listing(outside), files_in(root)
    url = OTHER.on(server)

    def refuse(event: ProgressEvent) -> None:
        if event.done == OTHER.size:
            raise RuntimeError("stop")

    with Cache(root) as cache, pytest.raises(RuntimeError, match="stop"):
        cache.fetch(url, hashes=OTHER.digest, progress=refuse)
    after = files_in(root)
    after.pop("v1/tally.log", None)
    before[1].pop("v1/tally.log", None)
    assert (listing(outside), after) == before


def test_a_hit_needs_no_other_folder(root: Path, outside: Path, wheel: Wheel) -> None:
    """A wheel in a safe folder is returned, linked and unpacked whatever the other folders are."""
    for area in (f"v1/wheels/{OTHER.hex()[:2]}", f"v1/trees/{OTHER.hex()[:2]}", "v1/urls", "v1/tmp", "v1/locks"):
        plant(root, area, outside)
    with Cache(root, max_size=10**9) as cache:
        found = cache.fetch(f"https://example.org/{wheel.filename}", hashes=wheel.digest)
        assert found.status is Status.HIT
        cache.link(found, root.parent / "out" / "")
        assert files_in(cache.unpack(found, root.parent / "site").path)


@pytest.mark.parametrize("area", ["v1", "v1/wheels", "v1/trees", "v1/urls"])
def test_an_unsafe_layer_has_no_wheels(root: Path, outside: Path, server: Server, wheel: Wheel, area: str) -> None:
    """If the folder of a layer is a link, its wheels are fetched and unpacked without it."""
    plant(root, area, outside)
    before = listing(outside), listing(root)
    with Cache(root.parent / "main", layers=[root]) as cache:
        found = cache.fetch(wheel.on(server), hashes={"sha256": wheel.hex(), "sha512": wheel.hex("sha512")})
        assert found.status in {Status.DOWNLOADED, Status.LAYER}
        assert files_in(cache.unpack(found, root.parent / "site").path)
        assert cache.get(OTHER.digest) is None
    assert (listing(outside), listing(root)) == before


def test_an_unsafe_folder_does_not_hide_a_layer(root: Path, outside: Path, wheel: Wheel) -> None:
    """A wheel of a layer is returned if the folder of the wheel in the cache itself is a link."""
    main = root.parent / "main"
    with Cache(main) as cache:
        put(cache, OTHER)
    plant(main, f"v1/wheels/{wheel.hex()[:2]}", outside)
    with Cache(main, layers=[root]) as cache:
        assert cache.fetch(f"https://example.org/{wheel.filename}", hashes=wheel.digest).status is Status.LAYER
        with pytest.raises(CommitError, match="is a link"):
            cache.get(f"sha256:{wheel.hex()[:2]}{OTHER.hex()[2:]}")


@pytest.mark.parametrize("area", ["v1/urls", "v1/trees", "v1/metadata", "v1/locks", "v1/tmp", "v1/quarantine"])
@pytest.mark.parametrize("method", ["prune", "remove", "clear"])
def test_the_rest_is_removed_beside_an_unsafe_folder(
    root: Path, outside: Path, wheel: Wheel, area: str, method: str
) -> None:
    """A call that removes keeps and reports the link, removes the wheel, and changes nothing behind the link."""
    link = plant(root, area, outside)
    before = listing(outside)
    with Cache(root) as cache:
        report = {
            "prune": lambda: cache.prune(max_size=0),
            "remove": lambda: cache.remove(wheel.digest),
            "clear": cache.clear,
        }[method]()
        assert [removed.digest for removed in report.removed] == [wheel.digest]
        if method != "remove" or area in {"v1/urls", "v1/trees"}:
            assert link in {skipped.path for skipped in report.skipped}
    assert link.is_symlink()
    assert listing(outside) == before


def test_a_full_cache_is_pruned_beside_an_unsafe_folder(root: Path, outside: Path, server: Server) -> None:
    """A fetch that exceeds ``max_size`` removes old wheels and succeeds, although a folder is unsafe."""
    for area in ("v1/trees", "v1/urls", "v1/quarantine"):
        plant(root, area, outside)
    before = listing(outside)
    with Cache(root, max_size=45_000) as cache:
        assert cache.fetch(OTHER.on(server), hashes=OTHER.digest).status is Status.DOWNLOADED
        assert [found.filename for found in cache.entries()] == [OTHER.filename]
    assert listing(outside) == before


@pytest.mark.parametrize("area", ["v1", "v1/wheels", "v1/trees", "v1/urls", "v1/tmp", "v1/partial", "v1/quarantine"])
@pytest.mark.parametrize("repair", [False, True], ids=["verify", "repair"])
def test_an_unsafe_folder_is_a_problem(root: Path, outside: Path, area: str, repair: bool) -> None:
    """Verifying reports the link, and never changes anything behind it."""
    link = plant(root, area, outside)
    before = listing(outside)
    with Cache(root) as cache:
        assert link in {problem.path for problem in cache.verify(repair=repair).problems}
    assert listing(outside) == before
