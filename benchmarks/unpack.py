"""Compare warm installs of many wheels, and the first unpacking of a large wheel, with other tools.

python benchmarks/unpack.py [folder]

The wheels are downloaded once by pip, with its own configuration, into ``folder``, by default in the user's cache
directory. All measurements use the volume of that folder. Each figure is the median of whole processes that run in
turns. Tools that are not installed (uv, bsdtar, unzip) are skipped. If ``zlib-ng`` is installed, wheelcache uses it.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import platformdirs

ROUNDS = 7
MANY = 80
REQUIREMENTS = """
    numpy scipy pandas polars botocore boto3 ruff django matplotlib scikit-learn sympy networkx jupyterlab sqlalchemy
    babel setuptools sphinx mypy pylint hypothesis aiohttp fastapi cryptography pillow lxml statsmodels ansible-core
    black pip rich trio docutils faker
"""
# Each of these has thousands of tiny files in as many folders. Together, they would take a quarter of the total time.
LEFT_OUT = {"plotly", "jedi", "statsmodels", "sympy", "mypy", "babel", "jupyterlab", "ansible_core", "faker"}
LARGE = "tensorflow-cpu"

INSTALL = """
import sys
from wheelcache import Cache
with Cache(sys.argv[1]) as cache:
    for line in open(sys.argv[2]):
        cache.unpack(cache.get(line.strip()), sys.argv[3], mode=sys.argv[4])
"""
PUT = """
import sys
from wheelcache import Cache
with Cache(sys.argv[1]) as cache:
    for path in sys.argv[3:]:
        wheel = cache.put(path)
        cache.unpack(wheel, None if sys.argv[2] == "-" else sys.argv[2])
"""
# The minimum, which is linking without any check.
BARE = """
import json, os, sys
made = set()
for root, names in json.load(open(sys.argv[1])):
    for name in names:
        folder = f"{sys.argv[2]}/{name}".rpartition("/")[0]
        if folder not in made:
            os.makedirs(folder, exist_ok=True)
            made.add(folder)
        os.link(f"{root}/{name}", f"{sys.argv[2]}/{name}")
"""
INSTALLER = """
import sys
from installer import install
from installer.destinations import SchemeDictionaryDestination
from installer.sources import WheelFile
target = sys.argv[1]
schemes = dict(purelib=target, platlib=target, scripts=target + "/bin", headers=target + "/include", data=target)
for path in sys.argv[2:]:
    with WheelFile.open(path) as source:
        install(source, SchemeDictionaryDestination(schemes, sys.executable, "posix", overwrite_existing=True), {})
"""


def download(folder: Path) -> tuple[list[Path], Path]:
    """Return many wheels and a large one, and download the missing ones."""
    for name, requirements, options in (("wheels", REQUIREMENTS.split(), []), ("big", [LARGE], ["--no-deps"])):
        if not (folder / name).is_dir():
            pip = [sys.executable, "-m", "pip", "download", "-q", "--only-binary", ":all:", *options]
            subprocess.run([*pip, "-d", folder / name, *requirements], check=True)
    wheels = [path for path in (folder / "wheels").glob("*.whl") if path.name.partition("-")[0] not in LEFT_OUT]
    wheels.sort(key=lambda path: -path.stat().st_size)
    return wheels[:MANY], next((folder / "big").glob("*.whl"))


def run(*command: object, **environment: str) -> None:
    """Run a command, and print its output if it fails."""
    # pip compiles an installed package. A checkout is compiled at its first import, unless this variable prevents it.
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [str(part) for part in command],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**inherited, **environment},
    )
    if done.returncode:
        raise SystemExit(f"{command[:4]}: {done.stdout.decode(errors='replace')[-2000:]}")


def side_by_side(
    title: str, works: dict[str, Callable[[Path], None]], scratch: Path, rounds: int = ROUNDS, *, large: bool = False
) -> None:
    """Run the tools in turns, each into a new folder. Print the medians and their ratios to that of uv."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    # Links are deleted only after all measurements. For over a minute, ext4 skips inodes that were just deleted
    # (recently_deleted() in fs/ext4/ialloc.c of Linux). This makes mkdir many times slower for the next tool. Large
    # wheels are deleted at once, since a round takes gigabytes, and mkdir takes a small part of the time.
    with tempfile.TemporaryDirectory(dir=scratch) as targets:
        for number in range(rounds + 1):
            for name, work in works.items():
                target = Path(targets, f"{name}-{number}")
                start = time.perf_counter()
                work(target)
                if number:  # the first round fills the caches of the system
                    seconds[name].append(time.perf_counter() - start)
                if large:
                    shutil.rmtree(target)
                    shutil.rmtree(empty(target), ignore_errors=True)
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    base = medians.get("uv") or min(medians.values())
    print(title)
    for name, median in sorted(medians.items(), key=lambda item: item[1]):
        print(f"  {name:28} {median * 1e3:8.0f} ms   {median / base:5.2f}")


def empty(target: Path) -> Path:
    """Return the cache folder of one round."""
    return target.with_name(f"{target.name}-cache")


def warm(wheels: list[Path], scratch: Path, mode: str) -> dict[str, Callable[[Path], None]]:
    """Return the tools that install many wheels from a cache that contains all of them."""
    cache, uv_cache, digests = scratch / "cache", scratch / "uv", scratch / "digests"
    run(sys.executable, "-c", PUT, cache, "-", *wheels)
    from wheelcache import Cache

    with Cache(cache) as opened:
        found = [opened.put(path) for path in wheels]
        digests.write_text("".join(f"{wheel.digest}\n" for wheel in found))
        trees = [opened.unpack(wheel) for wheel in found]
    listing = scratch / "listing"
    listing.write_text(json.dumps([(str(tree.path), tree.files) for tree in trees]))
    works: dict[str, Callable[[Path], None]] = {
        "wheelcache": lambda target: run(sys.executable, "-c", INSTALL, cache, digests, target, mode)
    }
    if mode == "hardlink":
        works["bare loop of mkdir and link"] = lambda target: run(sys.executable, "-c", BARE, listing, target)
    if shutil.which("uv"):
        uv = ["uv", "pip", "install", "-q", "--no-deps", "--offline", "--no-config", "--cache-dir", uv_cache]
        uv += ["--python", sys.executable, "--link-mode", mode, "--no-index"]
        run(*uv, "--target", scratch / "first", *wheels)
        shutil.rmtree(scratch / "first")
        works["uv"] = lambda target: run(*uv, "--target", target, *wheels)
    return works


def slow(wheels: list[Path]) -> dict[str, Callable[[Path], None]]:
    """Return the tools that unpack at each installation."""
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        "--no-compile",
        "--no-warn-conflicts",
    ]
    return {
        "installer": lambda target: run(sys.executable, "-c", INSTALLER, target, *wheels),
        "pip": lambda target: run(*pip, "--target", target, *wheels),
    }


def cold(large: Path, scratch: Path) -> dict[str, Callable[[Path], None]]:
    """Return the tools that unpack a large wheel, with an empty cache if the tool has one."""
    works: dict[str, Callable[[Path], None]] = {
        "wheelcache": lambda target: run(sys.executable, "-c", PUT, empty(target), target, large),
        "zipfile": lambda target: run(sys.executable, "-m", "zipfile", "-e", large, target),
        **slow([large]),
    }
    if shutil.which("uv"):
        uv = ["uv", "pip", "install", "-q", "--no-deps", "--offline", "--no-config", "--no-index"]
        uv += ["--python", sys.executable, "--link-mode", "hardlink"]
        works["uv"] = lambda target: run(*uv, "--cache-dir", empty(target), "--target", target, large)
    if shutil.which("unzip"):
        works["unzip"] = lambda target: run("unzip", "-q", large, "-d", target)
    if shutil.which("bsdtar"):
        works["bsdtar"] = lambda target: (target.mkdir(), run("bsdtar", "-xf", large, "-C", target))[1]
    return works


def main() -> None:
    """Measure, and print the results."""
    given = sys.argv[1] if len(sys.argv) > 1 else platformdirs.user_cache_path("wheelcache-benchmarks")
    folder = Path(given).absolute()
    wheels, large = download(folder)
    scratch = folder / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        for mode in ("hardlink", "copy"):
            side_by_side(f"warm, {len(wheels)} wheels, {mode}", warm(wheels, scratch, mode), scratch)
        side_by_side("the same, unpacked every time", slow(wheels), scratch, rounds=1, large=True)
        side_by_side(f"cold, {large.name}", cold(large, scratch), scratch, rounds=3, large=True)
    finally:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
