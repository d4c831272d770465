"""Prune, remove and clear: which entries are removed, in which order, and which are kept."""

from __future__ import annotations

import hashlib
import io
import os
import random
import re
import shutil
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
from faulty import Doing, FaultyFiles, FileCall, Plan, Refuse, Refusing, os_error
from folders import blobs, files_in, quarantined, records
from folders import unfinished as unfinished_names
from machines import FakeClock, Machine
from wheels import Wheel, make_wheel, wheel_filename

from wheelcache import Cache, CachedWheel, PruneReport, ReadOnlyError
from wheelcache._cache import core_of
from wheelcache._fs.robustio import RobustIO
from wheelcache._fs.tempnames import OwnerTag, space_tag

DAY = 86_400.0
SIZE = 3000


def fill(machine: Machine, cache: Cache, folder: Path, count: int) -> list[CachedWheel]:
    """Put wheels into the cache, each more than a day after the one before."""
    found = []
    for number in range(count):
        source = folder / wheel_filename(f"p{number}")
        source.write_bytes(make_wheel(f"p{number}", size=SIZE))
        found.append(cache.put(source))
        machine.clock.advance(DAY + 1)
    return found


def digests(wheels: object) -> list[str]:
    return [wheel.digest for wheel in wheels]  # type: ignore[attr-defined]


def size_of_tally(machine: Machine, cache: Cache) -> int:
    """Return the size of the cache as another process estimates it."""
    with machine.cache(cache.path) as other:
        return core_of(other).counters.size(RobustIO(core_of(other).begin()))


def test_the_least_recently_used_go_first_and_whole(machine: Machine, cache: Cache, tmp_path: Path) -> None:
    """Pruning to half the size removes the least recently used half completely. Uses by other objects count."""
    wheels = fill(machine, cache, tmp_path, 10)
    with machine.cache(cache.path) as other:
        assert other.get(wheels[0].digest) is not None
    machine.clock.advance(DAY)
    report = cache.prune(max_size=5 * SIZE)
    assert digests(report.removed) == digests(wheels[1:6])
    assert (report.freed, report.skipped, report.swept, report.dry_run) == (5 * SIZE, (), (), False)
    left = [wheels[0], *wheels[6:]]
    assert sorted(digests(cache.entries())) == sorted(digests(left))
    assert {path.parent for path in (cache.path / "v1/wheels").glob("*/*/*")} == {wheel.path.parent for wheel in left}
    assert all(Path(wheel).read_bytes() for wheel in left)


def test_a_dry_run_says_what_a_run_does(machine: Machine, cache: Cache, tmp_path: Path) -> None:
    """The plan names the same wheels and bytes, changes no file, and works on a read-only cache."""
    fill(machine, cache, tmp_path, 4)
    before = files_in(cache.path)
    with machine.cache(cache.path, read_only=True) as looking:
        plan = looking.prune(max_size=2 * SIZE, dry_run=True)
    assert plan.dry_run
    assert files_in(cache.path) == before
    done = cache.prune(max_size=2 * SIZE)
    assert (plan.removed, plan.freed) == (done.removed, done.freed)


def test_ages_are_seconds_or_a_timedelta(machine: Machine, cache: Cache, tmp_path: Path) -> None:
    """Wheels not used for that long are removed, and the others kept."""
    wheels = fill(machine, cache, tmp_path, 6)
    assert digests(cache.prune(max_age=timedelta(days=5)).removed) == digests(wheels[:2])
    assert digests(cache.prune(max_age=2 * DAY).removed) == digests(wheels[2:5])
    assert cache.prune(max_age=2 * DAY).removed == ()


def test_use_is_marked_once_a_day_and_never_by_looking(machine: Machine, cache: Cache, tmp_path: Path) -> None:
    """The first hit of a day makes one more file operation. entries() and verify() keep the order."""
    old, young = fill(machine, cache, tmp_path, 2)
    machine.clock.advance(3 * DAY)
    machine.reboot()
    with machine.cache(cache.path) as other:
        assert len(list(other.entries())) == 2
        assert other.verify().ok
    with machine.cache(cache.path) as other:
        machine.files.forget()
        assert other.get(old.digest) is not None
        assert other.get(old.digest) is not None
        assert len(machine.files.calls("touch")) == 1
    with machine.cache(cache.path) as other:
        machine.files.forget()
        assert other.get(old.digest) is not None
        assert [name for name, _ in machine.files.log] == ["scan", "read_small_with_mtime", "stat"]
    assert digests(cache.prune(max_size=SIZE).removed) == [young.digest]


def test_a_mark_from_the_future_ages_from_now_on(machine: Machine, cache: Cache, tmp_path: Path) -> None:
    """A use in the future is reset to now, so the wheel is removed in its turn. A dry run does not reset it."""
    wheels = fill(machine, cache, tmp_path, 3)
    marker = Path(f"{cache.unpack(wheels[0]).path}.json")
    marks = [wheels[0].path.with_suffix(".json"), marker]
    for mark in marks:
        os.utime(mark, (machine.clock.now() + 3650 * DAY,) * 2)
    assert cache.prune(dry_run=True).removed == ()
    assert all(mark.stat().st_mtime > machine.clock.now() + 3649 * DAY for mark in marks)
    assert cache.prune(max_age=30 * DAY).removed == ()
    machine.clock.advance(20 * DAY)
    with machine.cache(cache.path) as other:
        assert other.get(wheels[1].digest) is not None
    machine.clock.advance(11 * DAY)
    assert digests(cache.prune(max_size=SIZE).removed) == digests([wheels[2], wheels[0]])


def test_a_mark_that_cannot_be_made_is_no_matter(tmp_path: Path) -> None:
    """If the time stamp cannot be set, the hit is still a hit."""
    files = FaultyFiles()
    machine = Machine(files)
    with machine.cache(tmp_path / "cache") as cache:
        (wheel,) = fill(machine, cache, tmp_path, 1)
        files.plan = Refusing(Refuse("touch", "EPERM"))
        machine.clock.advance(2 * DAY)
        assert cache.get(wheel.digest) == wheel


def test_a_held_entry_is_kept_whole_and_reported(tmp_path: Path) -> None:
    """A wheel that cannot be deleted is skipped with the reason, without waiting, and is still a hit."""
    files = FaultyFiles()
    machine = Machine(files)
    with machine.cache(tmp_path / "cache") as cache:
        held, other, young = fill(machine, cache, tmp_path, 3)
        files.plan = Refusing(Refuse("unlink", 32, f"*{held.filename}"))
        report = cache.prune(max_size=SIZE)
        files.plan = Refusing()
        assert digests(report.removed) == [other.digest, young.digest]
        (skipped,) = report.skipped
        assert (skipped.path, skipped.digest) == (held.path, held.digest)
        assert "winerror 32" in skipped.reason
        assert machine.clock.slept == []
        assert cache.get(held.digest) == held


class BeingTakenAway(Plan):
    """Another prune removes an entry after the walk: its folder is refused twice, and then missing."""

    def __init__(self, wheel: CachedWheel) -> None:
        self.folder = wheel.path.parent
        self.scans = 0

    def before(self, call: FileCall) -> None:
        if call.operation != "scan" or Path(call.path) != self.folder:
            return
        self.scans += 1
        if self.scans in {2, 3}:
            raise os_error(32, call.path)
        if self.scans == 4:
            shutil.rmtree(self.folder)


def test_an_entry_that_another_prune_is_removing_counts_as_gone(tmp_path: Path) -> None:
    """An entry that is refused while another prune removes it does not cause a newer one to be removed."""
    files = FaultyFiles()
    machine = Machine(files)
    with machine.cache(tmp_path / "cache") as cache:
        leaving, old, young = fill(machine, cache, tmp_path, 3)
        files.plan = BeingTakenAway(leaving)
        report = cache.prune(max_size=young.size)
        assert digests(report.removed) == [old.digest]
        assert report.skipped == ()
        assert sum(machine.clock.slept) <= 0.1


def test_a_deleted_file_whose_name_stays_is_gone(tmp_path: Path) -> None:
    """A deleted wheel that is still open somewhere counts as gone: no newer one is removed in its place."""
    files = FaultyFiles()
    machine = Machine(files)
    with machine.cache(tmp_path / "cache") as cache:
        leaving, young = fill(machine, cache, tmp_path, 2)
        files.plan = Refusing(Refuse("unlink", 303, f"*{leaving.filename}"))
        report = cache.prune(max_size=young.size)
        assert (report.removed, report.freed, report.skipped) == ((), 0, ())
        files.plan = Refusing()
        assert cache.get(young.digest) == young


def test_held_folders_are_not_waited_for(tmp_path: Path) -> None:
    """Of folders that are held open, a few are read again after a moment. The others are skipped at once."""
    files = FaultyFiles()
    machine = Machine(files)
    with machine.cache(tmp_path / "cache") as cache:
        held = fill(machine, cache, tmp_path, 20)
        walked: set[str] = set()

        class Held(Plan):
            def before(self, call: FileCall) -> None:
                if call.operation == "scan" and call.path in walked:
                    raise os_error(32, call.path)
                walked.update({call.path} & {str(wheel.path.parent) for wheel in held})

        files.plan = Held()
        report = cache.prune(max_size=0)
        files.plan = Refusing()
        assert report.removed == ()
        assert [skipped.digest for skipped in report.skipped] == digests(held)
        assert sum(machine.clock.slept) <= 0.31
        assert sorted(digests(cache.entries())) == sorted(digests(held))


def test_keep_without_limits_leaves_what_a_lock_file_names(machine: Machine, cache: Cache, tmp_path: Path) -> None:
    """The wheels of lock files, digests and wheels are kept at any age. All others are removed."""
    wheels = fill(machine, cache, tmp_path, 6)
    cache.put(tmp_path / wheels[2].filename, hashes={"sha512": Wheel("", Path(wheels[2]).read_bytes()).hex("sha512")})
    sha512 = Wheel("", Path(wheels[2]).read_bytes()).hex("sha512")
    lock = tmp_path / "pylock.toml"
    lock.write_text(
        'lock-version = "1.0"\ncreated-by = "test"\n'
        + "".join(
            f'[[packages]]\nname = "p{number}"\nversion = "1.0"\n[[packages.wheels]]\n'
            f'url = "https://example.org/{wheel_filename(f"p{number}")}"\nhashes = {{{hashes}}}\n'
            for number, hashes in [
                (0, f'sha256 = "{wheels[0].digest.removeprefix("sha256:")}"'),
                (2, f'sha512 = "{sha512}"'),
                (9, f'sha256 = "{"0" * 64}"'),
            ]
        )
    )
    report = cache.prune(keep=[lock, wheels[3].digest, wheels[5]])
    assert digests(report.removed) == digests([wheels[1], wheels[4]])
    assert cache.prune(keep=lock, max_size=0).freed > 0
    assert sorted(digests(cache.entries())) == sorted(digests([wheels[0], wheels[2]]))


def test_keep_leaves_a_wheel_that_is_locked_as_an_archive(machine: Machine, cache: Cache, tmp_path: Path) -> None:
    """Tools lock a wheel given by URL or path as an archive. An archive that is not a wheel needs no hash."""
    wheels = fill(machine, cache, tmp_path, 3)
    sha256 = [wheel.digest.removeprefix("sha256:") for wheel in wheels]
    lock = tmp_path / "pylock.toml"
    lock.write_text(
        'lock-version = "1.0"\ncreated-by = "test"\n'
        + "".join(
            f'[[packages]]\nname = "p{number}"\n[packages.archive]\n{where}\nhashes = {{{hashes}}}\n'
            for number, where, hashes in [
                (0, f'url = "https://example.org/{wheels[0].filename}?token=1"', f'sha256 = "{sha256[0]}"'),
                (1, f"path = 'dist\\{wheels[1].filename}'", f'sha256 = "{sha256[1]}"'),
                (2, 'url = "https://example.org/p2-1.0.tar.gz"', f'md5 = "{"0" * 32}"'),
            ]
        )
    )
    assert digests(cache.prune(keep=lock).removed) == [wheels[2].digest]
    lock.write_text(lock.read_text().replace("sha256", "unknown"))
    with pytest.raises(
        ValueError, match=re.escape(f"{lock} has no strong hash (sha256 or better) for {wheels[0].filename}")
    ):
        cache.prune(keep=lock)


def lock_by_sha512(folder: Path, *wheels: tuple[str, str]) -> Path:
    """Write a lock file that names wheels by their sha512 alone."""
    lock = folder / "pylock.toml"
    lock.write_text(
        'lock-version = "1.0"\ncreated-by = "test"\n'
        + "".join(
            f'[[packages]]\nname = "{filename.partition("-")[0]}"\n[[packages.wheels]]\n'
            f'url = "https://example.org/{filename}"\nhashes = {{sha512 = "{sha512}"}}\n'
            for filename, sha512 in wheels
        )
    )
    return lock


def test_keep_finds_wheels_by_a_hash_that_they_did_not_come_by(machine: Machine, cache: Cache, tmp_path: Path) -> None:
    """Only wheels with a name from the lock file are hashed. The hash of an absent wheel keeps nothing."""
    wheels = fill(machine, cache, tmp_path, 4)
    sha512 = [Wheel("", Path(wheel).read_bytes()).hex("sha512") for wheel in wheels]
    lock = lock_by_sha512(tmp_path, (wheels[0].filename, sha512[0]), (wheel_filename("absent"), "0" * 128))
    machine.files.forget()
    assert digests(cache.prune(keep=lock, dry_run=True).removed) == digests(wheels[1:])
    assert machine.files.calls("open_read", ".whl") == [str(wheels[0].path)]
    report = cache.prune(keep=[lock, f"sha512:{sha512[2]}", "sha512:" + "1" * 128])
    assert digests(report.removed) == digests([wheels[1], wheels[3]])


def test_keep_finds_what_lost_its_pointer_by_its_record(machine: Machine, cache: Cache, tmp_path: Path) -> None:
    """A hash that was checked at the download is in the record, and found under any name without hashing."""
    (wheel,) = fill(machine, cache, tmp_path, 1)
    sha512 = Wheel("", Path(wheel).read_bytes()).hex("sha512")
    cache.put(wheel.path, filename=wheel_filename("other"), hashes={"sha512": sha512})
    shutil.rmtree(cache.path / "v1" / "urls")
    machine.files.forget()
    assert cache.prune(keep=lock_by_sha512(tmp_path, (wheel_filename("third"), sha512))).removed == ()
    assert machine.files.calls("open_read", ".whl") == []


def test_keep_leaves_what_cannot_be_read_to_tell(tmp_path: Path) -> None:
    """A wheel with a locked name that cannot be hashed may be the locked one, and is kept."""
    files = FaultyFiles()
    machine = Machine(files)
    with machine.cache(tmp_path / "cache") as cache:
        wheels = fill(machine, cache, tmp_path, 2)
        files.plan = Refusing(Refuse("open_read", 32, f"*{wheels[0].filename}"))
        report = cache.prune(keep=lock_by_sha512(tmp_path, (wheels[0].filename, "0" * 128)))
        assert digests(report.removed) == [wheels[1].digest]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_size": -1}, "max_size must be a number of bytes, not -1"),
        ({"max_size": 1.5}, "1.5"),
        ({"max_size": True}, "True"),
        ({"max_age": -1}, "max_age must be a non-negative number of seconds"),
        ({"max_age": float("nan")}, "nan"),
        ({"max_age": timedelta(days=-1)}, "days=-1"),
        ({"max_age": "30d"}, "30d"),
        ({"keep": ["sha256:123"]}, "64 hexadecimal digits, not '123'"),
        ({"keep": ["md5:" + "0" * 32]}, "md5 alone is too weak"),
        ({"keep": "no such file.toml"}, "no such file.toml"),
        ({"keep": "torn.toml"}, "torn.toml is not a valid pylock.toml: "),
        ({"keep": "other.toml"}, "other.toml is not a valid pylock.toml: "),
        ({"keep": "."}, "this is a folder, not a lock file"),
        ({"keep": ""}, "empty string"),
    ],
    ids=str,
)
def test_bad_limits_remove_nothing(
    machine: Machine,
    cache: Cache,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, object],
    said: str,
) -> None:
    """An invalid limit, digest or lock file is an error that names it, and nothing is removed."""
    fill(machine, cache, tmp_path, 2)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "torn.toml").write_text("[[packages")
    (tmp_path / "other.toml").write_text("[tool]\n")
    before = files_in(cache.path)
    with pytest.raises((ValueError, OSError)) as caught:
        cache.prune(**{"max_size": 0, **options})  # type: ignore[arg-type]
    assert said in str(caught.value)
    assert files_in(cache.path) == before


def test_a_cache_keeps_to_its_size(machine: Machine, tmp_path: Path) -> None:
    """With max_size, a new wheel causes the oldest ones to be removed, and is never removed itself."""
    with machine.cache(tmp_path / "cache", max_size=5 * SIZE) as cache:
        wheels = fill(machine, cache, tmp_path, 20)
        assert cache.stats().wheel_bytes <= 5 * SIZE
        assert cache.get(wheels[-1].digest) is not None
        assert sorted(digests(cache.entries())) == sorted(digests(wheels[-cache.stats().wheels :]))
    with machine.cache(tmp_path / "tiny", max_size=SIZE // 2) as cache:
        (only,) = fill(machine, cache, tmp_path, 1)
        assert Path(only).exists()


def test_a_wheel_that_has_come_is_given_though_others_cannot_be_looked_at(tmp_path: Path) -> None:
    """The prune after a commit skips an entry that it cannot read, without an error."""
    files = FaultyFiles()
    machine = Machine(files)
    with machine.cache(tmp_path / "cache", max_size=2 * SIZE) as cache:
        wheels = fill(machine, cache, tmp_path, 2)
        source = tmp_path / wheels[1].filename
        cache.put(source, hashes="sha512:" + hashlib.sha512(source.read_bytes()).hexdigest())
        files.plan = Refusing(Refuse("scan stat", "EACCES", f"*{wheels[1].path.parent}"))
        third = make_wheel("other", size=SIZE)
        wheel = cache.put(io.BytesIO(third), filename=wheel_filename("other"))
        assert wheel.path.read_bytes() == third
        assert [skipped.path for skipped in cache.prune().skipped if skipped.path == wheels[1].path.parent]


def test_a_commit_under_the_limit_walks_nothing(machine: Machine, tmp_path: Path) -> None:
    """Until the estimate exceeds the limit, a commit reads no folder of entries."""
    with machine.cache(tmp_path / "cache", max_size=100 * SIZE) as cache:
        fill(machine, cache, tmp_path, 5)
        machine.files.forget()
        fill(machine, cache, tmp_path / ".", 6)
        assert machine.files.calls("scan", "wheels") == []


def test_the_estimate_follows_what_comes_and_goes(machine: Machine, cache: Cache, tmp_path: Path) -> None:
    """Every process adds to and subtracts from the estimate, and a prune corrects it after foreign deletions."""
    wheels = fill(machine, cache, tmp_path, 6)

    def estimate() -> int:
        return size_of_tally(machine, cache)

    assert estimate() == 6 * SIZE
    cache.put(wheels[5], filename=wheels[5].filename)  # it is there
    assert estimate() == 6 * SIZE
    cache.prune(max_size=4 * SIZE)
    assert estimate() == 4 * SIZE
    wheels[5].path.unlink()
    cache.prune()
    assert estimate() == 3 * SIZE
    cache.remove("p4")
    assert estimate() == 2 * SIZE
    cache.clear()
    assert estimate() == 0


def test_two_walks_correct_the_estimate_once(tmp_path: Path) -> None:
    """If one prune runs while another walks, the difference that both find is applied once."""
    files = FaultyFiles()
    machine = Machine(files)
    with machine.cache(tmp_path / "cache") as cache, machine.cache(cache.path) as other:
        wheels = fill(machine, cache, tmp_path, 6)
        for _ in range(3):
            wheels.pop().path.unlink()
            files.plan = Doing("scan", lambda call: other.prune(), path="*wheels")
            cache.prune()
            assert files.plan.done
            assert size_of_tally(machine, cache) == len(wheels) * SIZE


def test_a_wheel_added_during_a_walk_is_counted(tmp_path: Path) -> None:
    """The estimate includes a wheel that was added during a walk that did not see it."""
    files = FaultyFiles()
    machine = Machine(files)
    with machine.cache(tmp_path / "cache") as cache, machine.cache(cache.path) as other:
        fill(machine, cache, tmp_path, 3)
        data = make_wheel("other", size=SIZE)
        files.plan = Doing(
            "scan", lambda call: other.put(io.BytesIO(data), filename=wheel_filename("other")), path="*urls"
        )
        cache.prune(max_size=2 * SIZE)
        assert files.plan.done
        assert size_of_tally(machine, cache) == cache.stats().wheel_bytes == 3 * SIZE


def test_an_incomplete_walk_does_not_lower_the_estimate(tmp_path: Path) -> None:
    """A folder that cannot be read still counts."""
    files = FaultyFiles()
    machine = Machine(files)
    with machine.cache(tmp_path / "cache") as cache:
        fill(machine, cache, tmp_path, 3)
        files.plan = Refusing(Refuse("scan", 5, "*wheels"))
        assert cache.prune().skipped
        files.plan = Refusing()
        assert size_of_tally(machine, cache) == 3 * SIZE


def test_clear_subtracts_only_removed_wheels(tmp_path: Path) -> None:
    """A wheel that is held open is kept when the cache is cleared, and counts in the estimate."""
    files = FaultyFiles()
    machine = Machine(files)
    with machine.cache(tmp_path / "cache") as cache:
        wheels = fill(machine, cache, tmp_path, 3)
        files.plan = Refusing(Refuse("unlink", 32, f"*{wheels[1].filename}"))
        assert digests(cache.clear().skipped) == [wheels[1].digest]
        files.plan = Refusing()
        assert size_of_tally(machine, cache) == SIZE


def test_wheels_copied_from_a_layer_count(machine: Machine, tmp_path: Path) -> None:
    """Wheels that are copied from a layer under another name count towards the size limit."""
    with machine.cache(tmp_path / "layer") as layer:
        wheels = fill(machine, layer, tmp_path, 8)
    with machine.cache(tmp_path / "cache", layers=[layer.path], max_size=5 * SIZE) as cache:
        for wheel in wheels[:4]:
            assert cache.get(wheel.digest, filename=f"x{wheel.filename}") is not None
        assert size_of_tally(machine, cache) == cache.stats().wheel_bytes == 4 * SIZE
        for wheel in wheels[4:]:
            assert cache.get(wheel.digest, filename=f"x{wheel.filename}") is not None
        assert cache.stats().wheel_bytes <= 5 * SIZE


def test_a_second_name_counts_where_it_takes_room(tmp_path: Path) -> None:
    """A hard link takes no space, and a copy as much as the wheel itself."""
    files = FaultyFiles()
    machine = Machine(files)
    with machine.cache(tmp_path / "cache") as cache:
        (wheel,) = fill(machine, cache, tmp_path, 1)
        for plan, code in ((Refusing(), 1), (Refusing(Refuse("link", "EPERM")), 2)):
            files.plan = plan
            for _ in range(2):
                assert cache.get(wheel.digest, filename=wheel_filename(f"other{code}")) is not None
            assert size_of_tally(machine, cache) == cache.stats().wheel_bytes == code * SIZE


def test_a_wheel_that_gets_a_record_again_counts(machine: Machine, cache: Cache, tmp_path: Path) -> None:
    """A blob without a record does not count. Once the next fetch writes the record, it counts again."""
    (wheel,) = fill(machine, cache, tmp_path, 1)
    records(cache)[0].unlink()
    os.utime(wheel.path, (machine.clock.now(),) * 2)
    cache.prune()
    assert size_of_tally(machine, cache) == 0
    for _ in range(2):
        with machine.cache(cache.path) as other:
            other.fetch(f"https://example.org/{wheel.filename}", hashes=wheel.digest)
        assert size_of_tally(machine, cache) == cache.stats().wheel_bytes == SIZE


def test_a_negative_estimate_causes_a_walk(machine: Machine, tmp_path: Path) -> None:
    """If the estimate is negative, the next wheel causes a walk, and the cache keeps to its size."""
    with machine.cache(tmp_path / "cache", max_size=5 * SIZE) as cache:
        fill(machine, cache, tmp_path, 5)
        with (cache.path / "v1/tally.log").open("ab") as file:
            file.write(b"0 0 0 -%d\n" % (100 * SIZE))
        fill(machine, cache, tmp_path, 10)
        assert cache.stats().wheel_bytes <= 5 * SIZE


def test_one_process_prunes_for_the_limit_and_nobody_relies_on_it(machine: Machine, tmp_path: Path) -> None:
    """A process that finds another one pruning continues. If that one does not make progress, it prunes as well."""
    from wheelcache._fs.lock import FileLock

    with machine.cache(tmp_path / "cache", max_size=20 * SIZE) as cache:
        lock = FileLock(RobustIO(core_of(cache).begin()), core_of(cache).layout.lock("prune"))
        assert lock.try_acquire()
        fill(machine, cache, tmp_path, 22)
        assert cache.stats().wheel_bytes == 22 * SIZE
        fill(machine, cache, tmp_path, 23)
        assert cache.stats().wheel_bytes == 18 * SIZE
        lock.release()
        fill(machine, cache, tmp_path, 30)
        assert cache.stats().wheel_bytes <= 20 * SIZE
    assert unfinished_names(cache) == []


def test_a_long_tally_is_summed_up_and_nothing_is_lost(machine: Machine, cache: Cache, tmp_path: Path) -> None:
    """A long file is sealed and later merged into one line. Every sum in between is the same."""
    fill(machine, cache, tmp_path, 1)
    with (cache.path / "v1/tally.log").open("ab") as file:
        file.write(b"1 2 3 0\n" * 10_000 + b"torn 1\n1 1")
    seen = []
    for _ in range(4):
        stats = cache.stats()
        seen.append((stats.hits, stats.misses, stats.bytes_saved))
        cache.prune()
        machine.clock.advance(2 * 3600)
        assert size_of_tally(machine, cache) == SIZE
    assert seen == [(10_000, 20_000, 30_000)] * 4
    assert sum(path.stat().st_size for path in (cache.path / "v1").glob("tally*")) < 1000


def unfinished(
    cache: Cache,
    machine: Machine,
    folder: str,
    age: float,
    *,
    pid: int,
    boot: str | None = None,
    space: str | None = None,
) -> Path:
    """Create an unfinished file as a process of this number, boot and space would. An empty space is not stated."""
    stamp = OwnerTag.new(machine.clock.now() - age, boot or machine.boot).split("-")
    stamp[2] = str(pid)
    tag = "" if space == "" else f".{space_tag(space or machine.pid_namespace)}"
    path = cache.path / "v1" / folder / f"{'-'.join(stamp)}{tag}.tmp"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"12345")
    os.utime(path, (machine.clock.now() - age,) * 2)
    return path


NOBODY = 2**22 + 1


def test_a_line_that_was_torn_counts_for_nothing(machine: Machine, cache: Cache, tmp_path: Path) -> None:
    """An incomplete line after a power cut does not affect the next one."""
    (wheel,) = fill(machine, cache, tmp_path, 1)
    with (cache.path / "v1/tally.log").open("ab") as file:
        file.write(b"99")
    with machine.cache(cache.path) as other:
        other.fetch(f"https://example.org/{wheel.filename}", hashes=wheel.digest)
    stats = cache.stats()
    assert (stats.hits, stats.bytes_saved) == (1, SIZE)


def test_leftovers_go_when_they_are_old_and_nobodys(machine: Machine, cache: Cache, tmp_path: Path) -> None:
    """Temporary files are removed after a day, partial downloads after a week, quarantine after a month."""
    fill(machine, cache, tmp_path, 1)
    old = [
        unfinished(cache, machine, "tmp", 1.1 * DAY, pid=NOBODY),
        unfinished(cache, machine, "tmp", 1.1 * DAY, pid=os.getpid(), boot="another"),
        unfinished(cache, machine, "tmp", 1.1 * DAY, pid=NOBODY, space=""),
        unfinished(cache, machine, "tmp", 1.1 * DAY, pid=os.getpid(), space="another"),
        unfinished(cache, machine, "partial", 7.1 * DAY, pid=NOBODY),
        unfinished(cache, machine, "quarantine", 31 * DAY, pid=os.getpid()),
    ]
    young = [
        unfinished(cache, machine, "tmp", 0.9 * DAY, pid=NOBODY),
        unfinished(cache, machine, "tmp", 9 * DAY, pid=os.getpid()),
        unfinished(cache, machine, "tmp", 9 * DAY, pid=os.getpid(), space=""),
        unfinished(cache, machine, "partial", 6.9 * DAY, pid=NOBODY),
        unfinished(cache, machine, "quarantine", 29 * DAY, pid=NOBODY),
    ]
    lock = cache.path / "v1" / "locks" / f"{0:032}.lock"
    lock.parent.mkdir(exist_ok=True)
    lock.touch()
    os.utime(lock, (1, 1))
    orphan = cache.path / "v1/wheels/00" / ("0" * 62) / wheel_filename()
    orphan.parent.mkdir(parents=True)
    orphan.write_bytes(b"1")
    os.utime(orphan, (1, 1))
    empty = cache.path / "v1/wheels/00" / ("1" * 62)
    empty.mkdir()
    os.utime(empty, (1, 1))
    old += [lock, orphan]
    plan = cache.prune(dry_run=True)
    assert all(path.exists() for path in [*old, empty])
    report = cache.prune()
    assert sorted(plan.swept) == sorted(report.swept) == sorted(old)
    assert report.removed == ()
    assert report.freed == 6 * 5 + 1
    assert not any(path.exists() for path in [*old, empty])
    assert all(path.exists() for path in young)


def record_only(machine: Machine, cache: Cache, folder: Path) -> CachedWheel:
    """Leave the record of a damaged wheel that was moved into quarantine two days ago."""
    (wheel,) = fill(machine, cache, folder, 1)
    wheel.path.unlink()
    os.utime(wheel.path.parent, (machine.clock.now() - 2 * DAY,) * 2)
    return wheel


def test_the_record_of_a_damaged_wheel_stays_for_a_day(machine: Machine, cache: Cache, tmp_path: Path) -> None:
    """A record without a blob is kept for a day, in case the wheel is fetched again. Then it is a leftover."""
    wheel = record_only(machine, cache, tmp_path)
    os.utime(wheel.path.parent, (machine.clock.now() - 0.9 * DAY,) * 2)
    assert cache.prune().swept == ()
    assert len(records(cache)) == 1
    machine.clock.advance(0.2 * DAY)
    assert cache.prune().swept == (wheel.path.with_suffix(".json"),)
    assert not wheel.path.parent.exists()


def test_a_wheel_that_is_fetched_again_keeps_its_record(tmp_path: Path) -> None:
    """The sweep checks a lone record again before removing it, and finds that the wheel was fetched meanwhile."""
    files = FaultyFiles()
    machine = Machine(files)
    with machine.cache(tmp_path / "cache") as cache, machine.cache(cache.path) as other:
        wheel = record_only(machine, cache, tmp_path)
        source, folder = tmp_path / wheel.filename, wheel.path.parent
        files.plan = Doing("stat", lambda call: other.put(source), path=f"*{folder.name}", after=True)
        assert cache.prune().swept == ()
        assert files.plan.done
    with machine.cache(cache.path) as fresh:
        assert fresh.get(wheel.digest) == wheel


def test_a_blob_in_a_numbered_place_has_a_day_for_its_record(machine: Machine, cache: Cache, tmp_path: Path) -> None:
    """A blob in a numbered folder without a record is kept for a day, as one beside its record would be."""
    (wheel,) = fill(machine, cache, tmp_path, 1)
    placed = wheel.path.parent / "1" / wheel.filename
    placed.parent.mkdir()
    wheel.path.rename(placed)
    records(cache)[0].unlink()
    os.utime(placed, (machine.clock.now() - 0.9 * DAY,) * 2)
    assert cache.prune().swept == ()
    os.utime(placed, (machine.clock.now() - 1.1 * DAY,) * 2)
    assert cache.prune().swept == (placed,)


def test_a_lock_file_without_a_strong_hash_keeps_nobody_wrongly(machine: Machine, cache: Cache, tmp_path: Path) -> None:
    """A lock file that names a wheel by a weak hash only is an error, and nothing is removed."""
    wheels = fill(machine, cache, tmp_path, 2)
    lock = tmp_path / "pylock.toml"
    lock.write_text(
        'lock-version = "1.0"\ncreated-by = "test"\n[[packages]]\nname = "p0"\nversion = "1.0"\n[[packages.wheels]]\n'
        f'url = "https://example.org/{wheels[0].filename}"\nhashes = {{md5 = "{"0" * 32}"}}\n'
    )
    with pytest.raises(
        ValueError, match=re.escape(f"{lock} has no strong hash (sha256 or better) for {wheels[0].filename}")
    ):
        cache.prune(keep=lock)
    assert len(list(cache.entries())) == 2


LOCKED = '[[packages]]\nname = "demo"\n[[packages.wheels]]\nname = "demo-1.0-py3-none-any.whl"\nurl = "https://e/x"\n'


@pytest.mark.parametrize(
    "content",
    [
        LOCKED + 'hashes = {sha256 = "zz"}\n',
        LOCKED + f'hashes = {{sha256 = "{"a" * 64}", SHA256 = "{"b" * 64}"}}\n',
        f"x = {'9' * 5000}\npackages = []\n",
        f"x = {'[' * 5000}{']' * 5000}\npackages = []\n",
        "\0" * (64 << 20),
        f'[[packages]]\nname = "demo"\n[packages.archive]\nurl = "https://[e/"\nhashes = {{sha256 = "{"a" * 64}"}}\n',
    ],
    ids=["digits", "two values", "large number", "deep", "large", "url"],
)
def test_an_invalid_lock_file_is_an_error_with_its_path(
    machine: Machine, cache: Cache, tmp_path: Path, content: str
) -> None:
    """A lock file that cannot be parsed is a ValueError with its path, and nothing is removed."""
    fill(machine, cache, tmp_path, 1)
    lock = tmp_path / "pylock.toml"
    lock.write_text('lock-version = "1.0"\ncreated-by = "test"\n' + content)
    with pytest.raises(ValueError, match=re.escape(f"the lock file {lock} ")):
        cache.prune(keep=lock)
    assert len(list(cache.entries())) == 1


def test_a_lock_that_is_held_is_not_stale(machine: Machine, cache: Cache) -> None:
    """A lock that a process holds is kept, however old its file is."""
    from wheelcache._fs.lock import FileLock

    path = cache.path / "v1" / "locks" / f"{0:032}.lock"
    lock = FileLock(RobustIO(core_of(cache).begin()), str(path))
    assert lock.try_acquire()
    os.utime(path, (1, 1))
    assert cache.prune().swept == ()
    assert path.exists()
    lock.release()


def test_pointers_go_with_what_they_lead_to(machine: Machine, cache: Cache, tmp_path: Path) -> None:
    """The pointer of a removed wheel is removed with it. That of a kept wheel still works."""
    sources = [Wheel(wheel_filename(name), make_wheel(name, size=SIZE)) for name in ("a", "b")]
    for source in sources:
        (tmp_path / source.filename).write_bytes(source.data)
        cache.put(tmp_path / source.filename, hashes=f"sha512:{source.hex('sha512')}")
        machine.clock.advance(DAY + 1)
    assert len(cache.prune(max_size=SIZE).swept) == 1
    assert cache.get(f"sha512:{sources[0].hex('sha512')}") is None
    assert cache.get(f"sha512:{sources[1].hex('sha512')}") is not None
    assert len(list((cache.path / "v1/urls").rglob("*.json"))) == 1


def test_remove_takes_digests_projects_and_wheels(machine: Machine, cache: Cache, tmp_path: Path) -> None:
    """Every wheel of a project is removed, in any spelling of its name. The others are kept."""
    for filename in ("Foo_Bar-1.0-py3-none-any.whl", "foo.bar-2.0-py3-none-any.whl", "foo-1.0-py3-none-any.whl"):
        (tmp_path / filename).write_bytes(make_wheel(filename, size=None))
        cache.put(tmp_path / filename)
    wheels = fill(machine, cache, tmp_path, 3)
    assert len(cache.remove("FOO-bar").removed) == 2
    assert digests(cache.remove(wheels[0].digest, "p1").removed) == digests(wheels[:2])
    assert digests(cache.remove(wheels[2]).removed) == [wheels[2].digest]
    assert [wheel.filename for wheel in cache.entries()] == ["foo-1.0-py3-none-any.whl"]
    assert len(blobs(cache)) == len(records(cache)) == 1


def test_remove_takes_a_wheel_that_lost_its_record(machine: Machine, cache: Cache, tmp_path: Path) -> None:
    """A digest selects a blob without a record, too. It is reported as a leftover, not as a wheel."""
    wheel, other = fill(machine, cache, tmp_path, 2)
    wheel.path.with_suffix(".json").unlink()
    plan = cache.remove(wheel.digest, dry_run=True)
    report = cache.remove(wheel.digest)
    assert (report.removed, report.swept, report.freed) == ((), (wheel.path,), SIZE)
    assert (plan.removed, plan.swept, plan.freed) == (report.removed, report.swept, report.freed)
    assert blobs(cache) == [other.path]
    assert not wheel.path.parent.exists()


def test_a_wheel_in_a_numbered_place_goes_by_its_path(tmp_path: Path) -> None:
    """The report has the path of the wheel, and not that of the damaged file beside it."""
    files = FaultyFiles()
    machine = Machine(files)
    with machine.cache(tmp_path / "cache") as cache:
        (wheel,) = fill(machine, cache, tmp_path, 1)
        wheel.path.write_bytes(bytes(SIZE - 1))
        files.plan = Refusing(Refuse("rename", 32, f"*{wheel.filename}"))
        placed = cache.put(tmp_path / wheel.filename)
        files.plan = Refusing()
        assert placed.path.parent.name == "1"
        (gone,) = cache.remove("p0").removed
        assert (gone.path, gone.size) == (placed.path, SIZE)
        assert list((cache.path / "v1/wheels").glob("*/*")) == []


def test_two_names_of_one_wheel_go_one_by_one(cache: Cache, tmp_path: Path) -> None:
    """Removing a project removes its file name only, and counts the freed bytes. The other entry stays valid."""
    data = make_wheel()
    for name in ("one", "two"):
        (tmp_path / wheel_filename(name)).write_bytes(data)
        cache.put(tmp_path / wheel_filename(name))
    before = cache.stats().wheel_bytes
    report = cache.remove("one")
    assert [wheel.filename for wheel in report.removed] == [wheel_filename("one")]
    assert report.freed == before - cache.stats().wheel_bytes
    (left,) = cache.entries()
    assert (left.filename, left.path.read_bytes()) == (wheel_filename("two"), data)


@pytest.mark.parametrize(
    "name",
    [
        "nothing-here",
        "Nothing_1.0-py3-none-any.whl",
        "sha256:123",
        "sha256:" + "0" * 64,
        "md5:" + "0" * 32,
        "",
        "../p0",
        "sha257:00",
    ],
)
def test_an_unknown_name_removes_nothing(machine: Machine, cache: Cache, tmp_path: Path, name: str) -> None:
    """One unknown name among others is an error that names it, and nothing is removed."""
    wheels = fill(machine, cache, tmp_path, 2)
    before = files_in(cache.path)
    said = r"no wheel in this cache|hexadecimal|too weak|neither a digest|unknown hash"
    with pytest.raises(ValueError, match=said) as caught:
        cache.remove("p0", wheels[1].digest, name)
    assert name.partition(":")[0] in str(caught.value)
    assert files_in(cache.path) == before


def test_clear_takes_everything_but_what_is_in_use(machine: Machine, cache: Cache, tmp_path: Path) -> None:
    """Wheels, pointers, quarantine and leftovers of any age are removed. A running download is kept and reported."""
    wheels = fill(machine, cache, tmp_path, 3)
    mine = unfinished(cache, machine, "partial", 0, pid=os.getpid())
    other = unfinished(cache, machine, "partial", 0, pid=NOBODY)
    aside = unfinished(cache, machine, "quarantine", 0, pid=NOBODY)
    report = cache.clear()
    assert sorted(digests(report.removed)) == sorted(digests(wheels))
    assert [skipped.path for skipped in report.skipped] == [mine]
    assert set(report.swept) == {other, aside}
    assert list(cache.entries()) == []
    assert set(files_in(cache.path)) == {
        "CACHEDIR.TAG", ".gitignore", "v1/tally.log", mine.relative_to(cache.path).as_posix(),
    }  # fmt: skip
    assert cache.put(tmp_path / wheels[0].filename).path.exists()


@pytest.mark.parametrize("space", ["another", ""], ids=["of a container", "that does not say"])
@pytest.mark.parametrize("folder", ["partial", "tmp"])
def test_clear_leaves_what_a_process_out_of_sight_may_be_writing(
    machine: Machine, cache: Cache, folder: str, space: str
) -> None:
    """A process number that is unused here may be in use in another container of the same boot: its files are kept."""
    theirs = unfinished(cache, machine, folder, 0.9 * DAY, pid=NOBODY, space=space)
    given_up = unfinished(cache, machine, folder, 0.9 * DAY, pid=0, space="another")
    old = unfinished(cache, machine, folder, 1.1 * DAY, pid=NOBODY, space=space)
    report = cache.clear()
    assert [skipped.path for skipped in report.skipped] == [theirs]
    assert set(report.swept) == {given_up, old}


def test_a_wheel_that_is_copied_in_says_where_its_owner_can_be_seen(tmp_path: Path) -> None:
    """The temporary file of a copy may exist for minutes, and states the process space in its name."""
    files = FaultyFiles()
    machine = Machine(files)
    source = tmp_path / wheel_filename()
    source.write_bytes(make_wheel())
    stamps: list[OwnerTag | None] = []
    files.plan = Doing("rename", lambda call: stamps.append(OwnerTag.of(call.path)))
    with machine.cache(tmp_path / "cache") as cache:
        cache.put(source)
    assert [stamp and (stamp.pid, stamp.space) for stamp in stamps] == [(os.getpid(), space_tag(machine.pid_namespace))]


def test_a_read_only_cache_keeps_all(machine: Machine, cache: Cache, tmp_path: Path) -> None:
    """Every operation that removes something is refused."""
    fill(machine, cache, tmp_path, 1)
    with machine.cache(cache.path, read_only=True) as looking:
        for act in (looking.prune, looking.clear, lambda: looking.remove("p0"), lambda: looking.verify(repair=True)):
            with pytest.raises(ReadOnlyError):
                act()
    assert quarantined(cache) == []


def test_many_prunes_at_once_and_the_bytes_are_counted_once(tmp_path: Path) -> None:
    """Several prunes of one folder remove each wheel once, without an error."""
    import threading

    machine = Machine(clock=FakeClock(1_500_000_000.0))
    cache = machine.cache(tmp_path / "cache")
    wheels = fill(machine, cache, tmp_path, 30)
    reports: list[PruneReport] = []
    barrier = threading.Barrier(4)

    def prune() -> None:
        with Cache(cache.path) as mine:  # with the real clock: a fake one would stand still
            barrier.wait()
            reports.append(mine.prune(max_size=10 * SIZE))

    threads = [threading.Thread(target=prune) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reports) == 4
    removed = [wheel.digest for report in reports for wheel in report.removed]
    assert set(removed) == set(digests(wheels[:20]))
    # Wine reports success to every process that deletes an open file.
    if sys.platform != "win32":
        assert len(removed) == 20
        assert sum(report.freed for report in reports) == 20 * SIZE
    assert size_of_tally(machine, cache) == 10 * SIZE
    assert sorted(digests(cache.entries())) == sorted(digests(wheels[20:]))
    assert len(records(cache)) == 10
    cache.close()


def test_any_order_of_use_is_the_order_of_going(machine: Machine, cache: Cache, tmp_path: Path) -> None:
    """Wheels are removed in the order of their last use, at every size."""
    seed = int(time.time())
    chance = random.Random(seed)
    wheels = fill(machine, cache, tmp_path, 12)
    used = {wheel.digest: number for number, wheel in enumerate(wheels)}
    for moment in range(100, 130):
        wheel = chance.choice(wheels)
        assert cache.get(wheel.digest) is not None
        used[wheel.digest] = moment
        machine.clock.advance(DAY + 1)
    expected = sorted(used, key=lambda digest: used[digest])
    for left in range(11, -1, -1):
        report = cache.prune(max_size=left * SIZE)
        assert digests(report.removed) == expected[11 - left : 12 - left], seed


def test_metadata_that_was_kept_goes_after_a_month(machine: Machine, cache: Cache) -> None:
    """METADATA of absent wheels is kept for a month, and removed at once by clear()."""
    kept = Path(core_of(cache).layout.metadata("https://example.org/p-1.0-py3-none-any.whl"))
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"{}")
    now = machine.clock.now()
    os.utime(kept, (now - 29 * DAY, now - 29 * DAY))
    assert cache.prune().swept == ()
    assert cache.verify().problems == ()
    os.utime(kept, (now - 31 * DAY, now - 31 * DAY))
    assert cache.prune().swept == (kept,)
    assert not kept.exists()
    kept.write_bytes(b"{}")
    cache.clear()
    assert not kept.exists()
