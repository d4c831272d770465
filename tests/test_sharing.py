"""Shared, private and read-only caches: modes follow the folder, and nothing is written to a read-only cache."""

from __future__ import annotations

import io
import os
import pickle
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from folders import files_in, listing
from installer import install
from installer.destinations import SchemeDictionaryDestination
from machines import Machine
from marks import not_on_windows
from wheels import Wheel, make_wheel, wheel_filename

from wheelcache import (
    Cache,
    Cause,
    CommitError,
    DownloadError,
    LinkDestination,
    LinkMode,
    OfflineError,
    ReadOnlyError,
    Status,
    TreeSource,
)
from wheelcache._os.files import native

pytestmark = not_on_windows("Windows has no such modes: folders hand down their access lists")

PROJECT = Path(__file__).parents[1]
ANNE, BERT, TEAM = 41_001, 41_002, 41_100


def modes(root: Path) -> tuple[set[int], set[int]]:
    """Return the permissions of all files and of all folders below a folder."""
    paths = list(root.rglob("*"))
    return (
        {stat.S_IMODE(path.lstat().st_mode) for path in paths if path.is_file()},
        {stat.S_IMODE(path.lstat().st_mode) for path in paths if path.is_dir()},
    )


needs_root = pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() != 0, reason="only root can be two users in one test"
)


@pytest.fixture
def umask() -> Iterator[None]:
    """Set the usual umask during the test."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def use(root: Path, wheel: Wheel, folder: Path) -> None:
    """Create files of every kind: an entry, a pointer, a lock, a quarantined file, the counters."""
    source = folder / wheel.filename
    source.write_bytes(wheel.data)
    with Cache(root) as cache:
        found = cache.put(source, hashes=f"sha512:{wheel.hex('sha512')}")
        found.path.write_bytes(b"damaged")
        assert cache.fetch(source.as_uri(), hashes=wheel.digest).status is Status.REPAIRED
        cache.prune()


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize(
    ("root_mode", "file_mode", "folder_mode"),
    [(0o2775, 0o664, 0o2775), (0o2770, 0o660, 0o2770), (0o700, 0o600, 0o700), (0o755, 0o644, 0o755)],
    ids=oct,
)
def test_modes_follow_the_folder(
    tmp_path: Path, wheel: Wheel, root_mode: int, file_mode: int, folder_mode: int
) -> None:
    """Files in a group's folder are writable for the group despite the umask. Files in a private folder are private."""
    root = tmp_path / "cache"
    root.mkdir()
    root.chmod(root_mode)
    use(root, wheel, tmp_path)
    assert modes(root) == ({file_mode}, {folder_mode})


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize(
    ("mask", "file_mode", "folder_mode"), [(0o002, 0o644, 0o755), (0o000, 0o644, 0o755), (0o077, 0o600, 0o700)]
)
def test_the_group_cannot_write_into_a_folder_that_is_not_writable_for_it(
    tmp_path: Path, wheel: Wheel, mask: int, file_mode: int, folder_mode: int
) -> None:
    """A generous umask does not let others write into the cache, and a strict umask still counts."""
    root = tmp_path / "cache"
    root.mkdir()
    root.chmod(0o755)
    os.umask(mask)
    use(root, wheel, tmp_path)
    assert modes(root) == ({file_mode}, {folder_mode})


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize(
    ("root_mode", "file_mode", "folder_mode"), [(0o500, 0o600, 0o700), (0o2575, 0o664, 0o2775)], ids=oct
)
def test_a_folder_that_was_read_only_for_a_while_leaves_none_that_stay_so(
    tmp_path: Path, wheel: Wheel, root_mode: int, file_mode: int, folder_mode: int
) -> None:
    """Files that are created while a folder is read-only for its owner are still writable for the owner."""
    root = tmp_path / "cache"
    # These folders exist already, so that the read-only folder is not written to.
    for name in ("v1", "v1/wheels", "v1/tmp"):
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name).chmod(folder_mode)
    root.chmod(root_mode)
    try:
        put(root, wheel)
        assert modes(root / "v1") == ({file_mode}, {folder_mode})
    finally:
        root.chmod(folder_mode)


@pytest.mark.usefixtures("umask")
def test_what_goes_out_has_the_modes_of_its_user(tmp_path: Path, wheel: Wheel) -> None:
    """A copy outside of the cache has the permissions of any file of this user, not those of the cache."""
    root = tmp_path / "cache"
    root.mkdir()
    root.chmod(0o2770)
    use(root, wheel, tmp_path)
    with Cache(root) as cache:
        cache.link(next(cache.entries()), tmp_path / "out" / "copy.whl", mode="copy")
    assert stat.S_IMODE((tmp_path / "out" / "copy.whl").stat().st_mode) == 0o644


@pytest.fixture
def shared(umask: None, wheel: Wheel) -> Iterator[Path]:
    """Yield a folder that other users can access, unlike the folder of pytest."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    # Imports all modules, since the other users may not have access to the folders of this Python.
    use(folder / "first", wheel, folder)
    with Cache(folder / "first") as cache:
        assert cache.verify().ok
        cache.remove("demo")
    yield folder
    shutil.rmtree(folder)


def run_as(user: int, action: Callable[[], object], *groups: int) -> object:
    """Perform an action as a user of these groups, in another process, and return its result."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups(groups)
            os.setgid(user)
            os.setuid(user)
            result: object = action()
        except BaseException:
            result = traceback.format_exc()
        os.write(writer, pickle.dumps(result))
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as file:
        result = pickle.load(file)
    os.waitpid(child, 0)
    return result


def put(root: Path, wheel: Wheel) -> object:
    with Cache(root) as cache:
        return cache.put(io.BytesIO(wheel.data), filename=wheel.filename, hashes=f"sha512:{wheel.hex('sha512')}").status


def use_all(root: Path) -> object:
    with Cache(root) as cache:
        return sorted(found.filename for wheel in cache.entries() if (found := cache.get(wheel.digest)) is not None)


def prune_all(root: Path) -> tuple[int, list[str]]:
    with Cache(root) as cache:
        report = cache.prune(max_size=0)
        return len(report.removed), [skipped.reason for skipped in report.skipped]


def long_ago(root: Path) -> None:
    """Set old time stamps, so that every mark of use is due and every record must be renewed."""
    for path in root.rglob("*"):
        os.utime(path, (1, 1))


@needs_root
def test_two_users_share_a_cache(shared: Path) -> None:
    """Each of two users can use, mark, repair and prune the wheels of the other."""
    root = shared / "cache"
    root.mkdir()
    os.chown(root, 0, TEAM)
    root.chmod(0o2775)
    wheels = [Wheel(wheel_filename(name), make_wheel(name, size=4000)) for name in ("anne", "bert")]
    for user, wheel in zip((ANNE, BERT), wheels, strict=True):
        assert run_as(user, lambda wheel=wheel: put(root, wheel), TEAM) is Status.ADDED
    assert {path.stat().st_gid for path in root.rglob("*")} == {TEAM}
    assert modes(root) == ({0o664}, {0o2775})
    long_ago(root)
    assert run_as(BERT, lambda: use_all(root), TEAM) == [wheel.filename for wheel in wheels]
    assert all(path.stat().st_mtime > 1 for path in root.rglob("v1/wheels/**/*.json"))
    for path in root.rglob("*.whl"):
        path.write_bytes(b"damaged")
    for user, wheel in zip((BERT, ANNE), wheels, strict=True):
        assert run_as(user, lambda wheel=wheel: put(root, wheel), TEAM) is Status.ADDED
    assert run_as(ANNE, lambda: prune_all(root), TEAM) == (2, [])


def fetch_by_url(root: Path, wheel: Wheel, token: str | None) -> object:
    """Fetch a wheel without a hash from a server that requires a token; return the status of the wheel or response."""

    def answer(request: httpx.Request) -> httpx.Response:
        if request.headers.get("Authorization") != "Bearer secret":
            return httpx.Response(401)
        return httpx.Response(200, headers={"Cache-Control": "max-age=3600"}, content=wheel.data)

    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    with (
        httpx.Client(transport=httpx.MockTransport(answer), headers=headers) as client,
        Cache(root, client=client) as cache,
    ):
        try:
            return cache.fetch(f"https://example.org/{wheel.filename}").status
        except DownloadError as error:
            return error.status


@needs_root
def test_a_private_response_is_only_for_its_user(shared: Path, wheel: Wheel) -> None:
    """A response to a login is a hit for its user, and for no other member of the group, root included."""
    # All modules of the HTTP library are imported here and now.
    assert fetch_by_url(shared / "second", wheel, "secret") is Status.DOWNLOADED
    root = shared / "cache"
    root.mkdir()
    os.chown(root, 0, TEAM)
    root.chmod(0o2775)
    assert run_as(ANNE, lambda: fetch_by_url(root, wheel, "secret"), TEAM) is Status.DOWNLOADED
    assert run_as(ANNE, lambda: fetch_by_url(root, wheel, None), TEAM) is Status.HIT
    assert run_as(BERT, lambda: fetch_by_url(root, wheel, None), TEAM) == 401
    assert fetch_by_url(root, wheel, None) == 401
    assert run_as(BERT, lambda: fetch_by_url(root, wheel, "secret"), TEAM) is Status.DOWNLOADED
    assert run_as(ANNE, lambda: fetch_by_url(root, wheel, None), TEAM) is Status.HIT


@needs_root
def test_a_cache_of_another_user_is_read_and_its_refusals_explained(shared: Path) -> None:
    """Without write permission, hits succeed, the error of a miss names the folder, and no call waits."""
    root = shared / "cache"
    root.mkdir()
    os.chown(root, ANNE, ANNE)
    wheel, new = (Wheel(wheel_filename(name), make_wheel(name, size=4000)) for name in ("old", "new"))
    assert run_as(ANNE, lambda: put(root, wheel)) is Status.ADDED
    long_ago(root)
    before = listing(root)
    assert run_as(BERT, lambda: use_all(root)) == [wheel.filename]

    def refused() -> object:
        try:
            return put(root, new)
        except CommitError as error:
            return error

    error = run_as(BERT, refused)
    assert isinstance(error, CommitError)
    assert error.cause is Cause.DENIED
    assert Path(error.path or "").is_relative_to(root)
    removed, reasons = run_as(BERT, lambda: prune_all(root))  # type: ignore[misc]
    assert removed == 0
    assert all("permission denied" in reason for reason in reasons)
    assert reasons
    assert listing(root) == before


@needs_root
def test_what_root_writes_belongs_to_the_folders_owner(shared: Path, wheel: Wheel) -> None:
    """Files that root writes with sudo belong to the owner of the folder, who can continue to use the cache."""
    root = shared / "cache"
    root.mkdir()
    os.chown(root, ANNE, TEAM)
    use(root, wheel, shared)
    assert {(path.stat().st_uid, path.stat().st_gid) for path in root.rglob("*")} == {(ANNE, TEAM)}
    assert run_as(ANNE, lambda: prune_all(root)) == (1, [])


@needs_root
def test_root_gives_away_nothing_that_was_there_before(shared: Path, wheel: Wheel) -> None:
    """If the folder's owner planted links to files and folders of root, root neither writes to them nor gives them."""
    root, secret, folder = shared / "cache", shared / "secret", shared / "folder"
    (root / "v1" / "wheels").mkdir(parents=True)
    for path in (root, root / "v1", root / "v1" / "wheels"):
        os.chown(path, ANNE, TEAM)
    secret.write_text("root's")
    secret.chmod(0o600)
    folder.mkdir()
    (root / "v1" / "tally.log").symlink_to(secret)
    (root / "v1" / "wheels" / wheel.hex()[:2]).symlink_to(folder)
    with pytest.raises(CommitError, match=re.escape(str(root / "v1" / "wheels" / wheel.hex()[:2]))) as caught:
        put(root, wheel)
    assert caught.value.cause is Cause.UNSAFE
    assert secret.read_text() == "root's"
    assert list(folder.iterdir()) == []
    assert {(path.stat().st_uid, path.stat().st_gid) for path in (secret, folder)} == {(0, 0)}
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600


@needs_root
def test_root_counts_in_the_tally_that_is_there(shared: Path, wheel: Wheel) -> None:
    """Root appends to the owner's counters, whose owner remains, but not to a hard link to another file."""
    root, own = shared / "cache", shared / "own"
    (root / "v1").mkdir(parents=True)
    os.chown(root, ANNE, TEAM)
    own.write_bytes(b"")
    tally = root / "v1" / "tally.log"
    os.link(own, tally)
    assert put(root, wheel) is Status.ADDED
    assert (own.stat().st_uid, own.stat().st_gid) == (0, 0)
    assert not own.read_bytes()
    own.unlink()
    os.chown(tally, ANNE, TEAM)
    assert prune_all(root) == (1, [])
    assert put(root, wheel) is Status.ADDED
    assert tally.read_bytes()
    assert (tally.stat().st_uid, tally.stat().st_gid) == (ANNE, TEAM)


@pytest.mark.parametrize("root_mode", [0o2775, 0o700, 0o755], ids=oct)
@pytest.mark.parametrize("operation", ["open_write", "open_append", "make_read_only"])
def test_a_link_in_the_cache_is_not_followed(tmp_path: Path, operation: str, root_mode: int) -> None:
    """A user who can write to the folder cannot cause writes to, changes of, or creation of files elsewhere."""
    root, own, missing = tmp_path / "cache", tmp_path / "own", tmp_path / "missing"
    root.mkdir()
    root.chmod(root_mode)
    own.write_text("mine")
    own.chmod(0o600)
    files = native().confined_to(str(root / "v1"))
    for number, target in enumerate((own, missing)):
        link = root / f"{number}.log"
        link.symlink_to(target)
        with pytest.raises(OSError, match=re.escape(str(link))):
            getattr(files, operation)(str(link), **{"executable": True} if operation == "make_read_only" else {})
    assert (own.read_text(), stat.S_IMODE(own.stat().st_mode)) == ("mine", 0o600)
    assert not missing.exists()


@pytest.mark.usefixtures("umask")
def test_a_planted_tally_costs_only_the_counting(tmp_path: Path, wheel: Wheel) -> None:
    """A link in place of the counters of a group's folder is not followed, and wheels are added and removed."""
    root, own = tmp_path / "cache", tmp_path / "own"
    (root / "v1").mkdir(parents=True)
    root.chmod(0o2775)
    own.write_text("mine")
    (root / "v1" / "tally.log").symlink_to(own)
    assert put(root, wheel) is Status.ADDED
    assert prune_all(root) == (1, [])
    assert own.read_text() == "mine"


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize(("root_mode", "file_mode"), [(0o2775, 0o664), (0o700, 0o600), (0o755, 0o644)], ids=oct)
def test_the_folder_itself_may_be_a_link(tmp_path: Path, wheel: Wheel, root_mode: int, file_mode: int) -> None:
    """A cache that is opened by a link to its folder works, and its files follow the modes of the folder."""
    root, link = tmp_path / "cache", tmp_path / "link"
    root.mkdir()
    root.chmod(root_mode)
    link.symlink_to(root)
    use(link, wheel, tmp_path)
    assert use_all(link) == [wheel.filename]
    assert modes(root) == ({file_mode}, {root_mode})
    assert (root / "v1" / "tally.log").stat().st_size > 0


HITS = """
import sys
from wheelcache import Cache
main, layer, digest, url, sha512 = sys.argv[1:]
read_only = layer == "-"
with Cache(main, read_only=read_only, layers=() if read_only else [layer], offline=True, verify="full") as cache:
    wheel = cache.fetch(url, hashes=digest)
    assert wheel.path.read_bytes()
    assert cache.get("sha512:" + sha512)
    assert cache.get("sha256:" + "0" * 64) is None
    if read_only:
        assert list(cache.entries()) and cache.stats().wheels == 1 and cache.verify().ok
        assert cache.prune(max_size=0, dry_run=True).removed
    print(wheel.status)
"""

WRITING = (
    "O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC", "O_APPEND", "mkdir", "unlink", "rename", "link(", "linkat", "symlink",
    "utime", "chmod", "chown", "truncate", "flock", "F_SETLK", "F_OFD_SETLK", "mknod", "setxattr", "rmdir",
)  # fmt: skip


def writes_below(trace: Path, folder: Path) -> list[str]:
    """Return the system calls of a trace that could change a file below a folder, by its path or an open file in it."""
    lines = [line for line in trace.read_text(errors="replace").splitlines() if str(folder) in line]
    assert lines, "the trace shows nothing of the folder"
    return [line for line in lines if any(word in line for word in WRITING) or " write" in line]


@pytest.mark.skipif(shutil.which("strace") is None, reason="there is no strace on this machine")
@pytest.mark.parametrize("kind", ["read-only", "layer"])
def test_no_call_writes_to_what_is_only_read(tmp_path: Path, wheel: Wheel, kind: str) -> None:
    """Even if marks are due and records must be renewed, strace shows no write, lock or time stamp."""
    root, main, trace = tmp_path / "baked", tmp_path / "main", tmp_path / "trace"
    use(root, wheel, tmp_path)
    for path in root.rglob("*"):
        os.utime(path, (1, 1))
    before = listing(root)
    arguments = [root, "-"] if kind == "read-only" else [main, root]
    done = subprocess.run(
        ["strace", "-f", "-y", "-o", trace, "-e", "trace=%file,%desc", sys.executable, "-c", HITS, *arguments,
         wheel.digest, f"https://example.org/{wheel.filename}", wheel.hex("sha512")],
        env={**os.environ, "PYTHONPATH": str(PROJECT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        encoding="utf-8",
    )  # fmt: skip
    if "ptrace" in done.stderr:
        pytest.skip("strace may not trace here")
    assert (done.returncode, done.stdout) == (0, "hit\n" if kind == "read-only" else "layer\n"), done.stderr
    assert writes_below(trace, root) == []
    assert listing(root) == before


@pytest.mark.parametrize("kind", ["read-only", "layer"])
def test_what_goes_out_leaves_no_trace_in_what_is_only_read(tmp_path: Path, wheel: Wheel, kind: str) -> None:
    """Linking, exporting, unpacking and renaming create no hard link to a read-only cache, unless this is requested."""
    root, main, out = tmp_path / "baked", tmp_path / "main", tmp_path / "out"
    with Cache(root) as cache:
        cache.unpack(cache.put(io.BytesIO(wheel.data), filename=wheel.filename))

    def traces() -> dict[Path, tuple[int, int]]:
        return {path: (path.stat().st_nlink, path.stat().st_ctime_ns) for path in root.rglob("*") if path.is_file()}

    before = traces()
    with Cache(root, read_only=True) if kind == "read-only" else Cache(main, layers=[root], offline=True) as cache:
        found = cache.fetch(f"https://example.org/{wheel.filename}", hashes=wheel.digest)
        assert found.path.is_relative_to(root)
        cache.link(found, out / "a" / "")
        cache.export(out / "b", [found])
        cache.unpack(found, out / "c")
        schemes = dict.fromkeys(("purelib", "platlib", "scripts", "data", "headers"), str(out / "e"))
        inner = SchemeDictionaryDestination(schemes, sys.executable, "posix")
        install(TreeSource(cache, found), LinkDestination(inner), {})
        other = cache.fetch("https://example.org/other-1.0-py3-none-any.whl", hashes=wheel.digest)
        assert other.path.is_relative_to(root) == (kind == "read-only")
        assert traces() == before
        assert cache.link(found, out / "d" / "", mode="hardlink") is LinkMode.HARDLINK
    assert {name.rpartition("/")[2] for name in files_in(out)} >= {wheel.filename, "demo.py"}


def test_the_trace_would_show_a_write(tmp_path: Path, wheel: Wheel) -> None:
    """The search for writes finds the writes of a writable cache."""
    if shutil.which("strace") is None:
        pytest.skip("there is no strace on this machine")
    root, trace = tmp_path / "cache", tmp_path / "trace"
    use(root, wheel, tmp_path)
    for path in root.rglob("*.json"):
        os.utime(path, (1, 1))
    code = "import sys; from wheelcache import Cache; Cache(sys.argv[1]).get(sys.argv[2])"
    subprocess.run(
        ["strace", "-f", "-y", "-o", trace, "-e", "trace=%file,%desc", sys.executable, "-c", code, root, wheel.digest],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        check=True,
    )
    assert any("utime" in line for line in writes_below(trace, root))


@needs_root
def test_a_read_only_mount_is_enough(tmp_path: Path, wheel: Wheel) -> None:
    """On a read-only volume, all reading operations work, as a cache and as a layer."""
    root, main = tmp_path / "baked", tmp_path / "main"
    use(root, wheel, tmp_path)
    for path in root.rglob("*"):
        os.utime(path, (1, 1))
    script = (
        'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && ! touch "$1/x" 2>/dev/null && shift && exec "$@"'
    )
    for arguments in ([root, "-"], [main, root]):
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", script, "sh", root, sys.executable, "-c", HITS, *arguments, wheel.digest,
             f"https://example.org/{wheel.filename}", wheel.hex("sha512")],
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
            capture_output=True,
            encoding="utf-8",
        )  # fmt: skip
        if "unshare" in done.stderr or "mount:" in done.stderr:
            pytest.skip(f"no mounts here: {done.stderr.strip()}")
        assert done.returncode == 0, done.stderr


def test_read_only_and_offline_say_so(machine: Machine, cache: Cache, wheel: Wheel) -> None:
    """Operations that would write or download raise their own error, and change nothing."""
    before = files_in(cache.path)
    url = f"https://example.org/{wheel.filename}"
    with machine.cache(cache.path, read_only=True) as looking, pytest.raises(ReadOnlyError):
        looking.fetch(url, hashes=wheel.digest)
    with machine.cache(cache.path, offline=True) as offline, pytest.raises(OfflineError):
        offline.fetch(url, hashes=wheel.digest)
    assert files_in(cache.path) == before
