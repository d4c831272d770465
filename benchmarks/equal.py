"""Check that real wheels are unpacked with the same files, bytes and modes as by pypa/installer.

python benchmarks/equal.py [folder]

Uses the wheels that ``unpack.py`` downloaded. Copied files must be equal to those of installer. Hard-linked files must
be equal except for write permission, which files of the cache do not have. ``RECORD`` and generated scripts are
ignored, since they belong to an installation. Files in ``__pycache__`` are ignored, since installer skips them.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
import warnings
from pathlib import Path

import installer
import platformdirs
from installer.destinations import SchemeDictionaryDestination
from installer.sources import WheelFile

from wheelcache import Cache, LinkMode


def contents(folder: Path, mask: int) -> dict[str, tuple[bytes, int]]:
    """Return the bytes and the mode of every file, by relative path."""
    return {
        os.path.relpath(os.path.join(parent, name), folder): (
            Path(parent, name).read_bytes(),
            stat.S_IMODE(os.stat(os.path.join(parent, name)).st_mode) & mask,
        )
        for parent, _, names in os.walk(folder)
        for name in names
    }


def differences(cache: Cache, path: Path, scratch: Path) -> list[str]:
    """Return the files of one wheel that differ."""
    theirs, found = scratch / "theirs", []
    schemes = dict.fromkeys(("purelib", "platlib"), str(theirs / "lib"))
    schemes |= {name: str(theirs / name) for name in ("scripts", "data", "headers")}
    with WheelFile.open(path) as source, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        installer.install(source, SchemeDictionaryDestination(schemes, sys.executable, "posix"), {})
        record, data = f"{source.dist_info_dir}/RECORD", source.data_dir + "/"
    for mode, mask in ((LinkMode.COPY, 0o777), (LinkMode.HARDLINK, 0o555)):
        ours = scratch / mode
        cache.unpack(cache.put(path), ours, mode=mode)
        a, b = contents(theirs / "lib", mask), contents(ours, mask)
        moved = {name.removeprefix(data).partition("/")[2]: b.pop(name) for name in list(b) if name.startswith(data)}
        b = {name: file for name, file in b.items() if "__pycache__" not in name.split("/")}
        names = (a.keys() | b.keys()) - {record}
        found += [f"{mode} {name}" for name in names if a.get(name) != b.get(name, moved.get(name))]
    return found


def main() -> None:
    """Compare all wheels, and print the differences."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else platformdirs.user_cache_path("wheelcache-benchmarks"))
    wheels = sorted(folder.glob("*/*.whl"))
    equal = 0
    with tempfile.TemporaryDirectory(dir=folder) as scratch, Cache(Path(scratch, "cache")) as cache:
        for path in wheels:
            inside = Path(scratch, "one")
            wrong = differences(cache, path, inside)
            equal += not wrong
            for problem in wrong[:5]:
                print(f"{path.name}: {problem}")
            shutil.rmtree(inside)
    print(f"{equal} of {len(wheels)} wheels are equal")
    raise SystemExit(equal != len(wheels))


if __name__ == "__main__":
    main()
