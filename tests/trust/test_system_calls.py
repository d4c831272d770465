"""The system calls of the library: in the cache, each resolves one name in an open folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("strace traces Linux only", allow_module_level=True)

from planted import CALLS
from traces import TRACED, PathUse, changing_paths

SUPPORT = Path(__file__).parents[1] / "support"
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(SUPPORT), str(SUPPORT.parents[1])]),
    "PYTHONDONTWRITEBYTECODE": "1",
}
SWAP = """
import sys
from pathlib import Path
from planted import exchange
exchange(Path(sys.argv[1]), Path(sys.argv[2]), 1)
"""
SWAPPED = ["v1", "v1/wheels", "v1/trees"]


def trace(folder: Path) -> tuple[list[PathUse], list[str]]:
    """Make all calls on a cache in a folder. Return the changing paths there, and the calls that succeeded."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    output = folder / "trace"
    done = subprocess.run(
        ["strace", "-f", "-y", "-s", "4096", "-o", output, "-e", "trace=" + TRACED.replace("fchmodat2", "?fchmodat2"),
         sys.executable, SUPPORT / "children" / "traced.py", folder],
        env=ENVIRONMENT,
        capture_output=True,
        encoding="utf-8",
    )  # fmt: skip
    if "ptrace" in done.stderr:
        pytest.skip("strace may not trace here")
    assert done.returncode == 0, done.stderr
    uses = changing_paths(output.read_text(errors="surrogateescape"))
    return [use for use in uses if use.whole.startswith(str(folder))], done.stdout.splitlines()


def check(uses: list[PathUse], root: Path, outside: Path | None = None) -> None:
    """Fail if a path has several components below the cache folder, or is outside of it."""
    found = dict.fromkeys(
        use.line
        for use in uses
        if use.components_below(str(root)) > 1 or (outside is not None and use.whole.startswith(str(outside)))
    )
    if found:
        pytest.fail(f"{len(found)} system calls:\n" + "\n".join(list(found)[:50]), pytrace=False)


def test_each_call_resolves_one_name(tmp_path: Path) -> None:
    """No path below the cache folder has several components, in a call that changes it or that opens a folder."""
    uses, made = trace(tmp_path)
    assert made == list(CALLS)
    root = tmp_path / "cache"
    changed = {use.call for use in uses if use.whole.startswith(str(root)) and not use.opens_folder}
    assert {"mkdirat", "unlinkat"} <= changed or {"mkdir", "unlink"} <= changed
    check(uses, root)


@pytest.mark.parametrize("name", SWAPPED)
def test_each_call_resolves_one_name_while_folders_are_exchanged(tmp_path: Path, name: str) -> None:
    """While a folder and a link are exchanged, no call resolves several names, or changes anything outside."""
    root, outside = tmp_path / "cache", tmp_path / "outside"
    (root / name).mkdir(parents=True)
    outside.mkdir()
    (root / "aside").symlink_to(outside)
    with subprocess.Popen(
        [sys.executable, "-c", SWAP, root / name, root / "aside"], env=ENVIRONMENT, stdout=subprocess.PIPE
    ) as swapping:
        assert swapping.stdout is not None
        swapping.stdout.read(1)
        try:
            uses, _ = trace(tmp_path)
        finally:
            swapping.kill()
    check(uses, root, outside)
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize(
    ("line", "components"),
    [
        ('1 mkdir("/c/v1/wheels", 0777) = 0', [2]),
        ('1 mkdirat(5</c/v1>, "wheels", 0777) = 0', [1]),
        ('1 mkdirat(5</c/v1>, "wheels/aa", 0777 <unfinished ...>', [2]),
        ('1 openat(AT_FDCWD</>, "/c/v1/tally.log", O_WRONLY|O_CREAT|O_APPEND, 0666) = 3</c/v1/tally.log>', [2]),
        ('1 openat(AT_FDCWD</>, "/c/v1/tally.log", O_RDONLY) = 3</c/v1/tally.log>', []),
        ('1 openat(AT_FDCWD</>, "/c/v1/tmp", O_RDONLY|O_DIRECTORY) = 3</c/v1/tmp>', [2]),
        ('1 renameat2(5</c/v1/tmp>, "a,\\"b", 6</c/v1/wheels/aa>, "b", RENAME_NOREPLACE) = 0', [1, 1]),
        ("1 utimensat(3</c/v1/tmp/x>, NULL, [{tv_sec=1, tv_nsec=0}, UTIME_OMIT], 0) = 0", []),
        ('1 unlinkat(5</c/v1/trees/aa (deleted)>, "x/y", 0) = -1 ENOENT (No such file or directory)', [2]),
        ('1 linkat(AT_FDCWD</>, "/proc/self/fd/7", 5</c/v1/tmp>, "x", AT_SYMLINK_FOLLOW) = 0', [0, 1]),
        ('1 symlink("/c/v1/x", "/d/y/z") = 0', [0]),
        ("1 +++ exited with 0 +++", []),
    ],
)  # fmt: skip
def test_the_components_of_a_trace_are_counted(line: str, components: list[int]) -> None:
    """The parser reads descriptors, strings and unfinished calls of strace."""
    assert [use.components_below("/c") for use in changing_paths(line)] == components
