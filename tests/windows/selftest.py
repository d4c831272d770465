"""Checks that the lab is what its README says: a Windows Python, on a file system that refuses as NT does.

tests/windows/python -m pytest tests/windows/selftest.py
"""

import asyncio
import contextlib
import ctypes
import functools
import http.server
import multiprocessing
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import filelock
import httpx
import pytest

SCANNER = os.environ["WHEELCACHE_SCANNER"]


@contextlib.contextmanager
def scanner(tmp_path, *arguments):
    """Runs the scanner until the block ends. Yields a function that waits for a line of its output."""
    log, stop = tmp_path / "scanner.log", tmp_path / "scanner.stop"

    def wait_for(line):
        deadline = time.monotonic() + 20
        while line not in log.read_text("utf-8").splitlines():
            assert time.monotonic() < deadline, log.read_text("utf-8")
            time.sleep(0.01)

    # A file, since a pipe that nobody reads would fill and stop the scanner.
    with log.open("wb") as out:
        process = subprocess.Popen([SCANNER, *arguments, "--stop-file", stop, "--seconds", "60"], stdout=out)
    try:
        yield wait_for
    finally:
        stop.touch()
        assert process.wait(20) == 0


@contextlib.contextmanager
def refused(winerror):
    with pytest.raises(OSError) as caught:
        yield
    assert caught.value.winerror == winerror


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"content")
    return path


def increment(path):
    with filelock.FileLock(f"{path}.lock"):
        path.write_text(str(int(path.read_text()) + 1))


def test_it_is_windows():
    assert (sys.platform, os.name, sys.version_info[:2]) == ("win32", "nt", (3, 11))
    assert ctypes.WinDLL("kernel32").GetCurrentProcessId() == os.getpid()
    assert Path(os.environ["TEMP"]).drive == "C:"


def test_tls_and_sockets():
    assert ssl.create_default_context().protocol == ssl.PROTOCOL_TLS_CLIENT
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        client.sendall(b"x")
        accepted, _ = server.accept()
        with accepted:
            assert accepted.recv(1) == b"x"


def test_http(file):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=file.parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        assert httpx.get(f"http://127.0.0.1:{server.server_port}/file").content == b"content"
        server.shutdown()
        thread.join()


def test_asyncio_subprocess():
    async def code():
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", "raise SystemExit(7)")
        return await process.wait()

    assert asyncio.run(code()) == 7


def test_subprocess_speaks_utf8():
    done = subprocess.run([sys.executable, "-c", "print('é漢')"], capture_output=True, check=True, encoding="utf-8")
    assert done.stdout == "é漢\n"


def test_spawned_processes_share_a_filelock(tmp_path):
    path = tmp_path / "count"
    path.write_text("0")
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=increment, args=(path,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert path.read_text() == "3"


def test_plain_open_refuses_rename_unlink_and_replace(file):
    other = file.with_name("other")
    other.touch()
    with file.open("rb"):
        with refused(32):
            os.rename(file, file.with_name("new"))
        with refused(32):
            os.unlink(file)
        with refused(5):
            os.replace(other, file)
    os.rename(file, file.with_name("new"))


def test_held_file_can_be_linked_and_copied(file):
    with file.open("rb"):
        os.link(file, file.with_name("link"))
        shutil.copyfile(file, file.with_name("copy"))
        with refused(32):
            os.unlink(file.with_name("link"))  # the share mode is the file's, not the name's
    assert file.stat().st_nlink == 2


def test_what_exists_is_not_renamed_onto(file):
    other = file.with_name("other")
    other.touch()
    with refused(183):
        os.rename(other, file)
    os.replace(other, file)
    folder = file.with_name("folder")
    folder.mkdir()
    with refused(5):
        os.replace(file, folder)


def test_read_only_is_not_unlinked(file):
    file.chmod(0o444)
    with refused(5):
        os.unlink(file)
    file.chmod(0o666)
    os.unlink(file)


def test_other_file_system(file):
    with refused(17):
        os.rename(file, r"Z:\dev\shm\wheelcache-selftest")


@pytest.mark.parametrize(
    ("share", "read", "rename"),
    [("none", False, False), ("r", True, False), ("rw", True, False), ("rwd", True, True)],
)
def test_hold(tmp_path, file, share, read, rename):
    with scanner(tmp_path, "hold", file, "--share", share, "--ms", "forever") as wait_for:
        wait_for(f"held {file}")
        with contextlib.nullcontext() if read else pytest.raises(PermissionError):
            file.read_bytes()
        os.link(file, file.with_name("link"))
        with contextlib.nullcontext() if rename else refused(32):
            os.rename(file, file.with_name("new"))


def test_hold_ends(tmp_path, file):
    with scanner(tmp_path, "hold", file, "--ms", "100") as wait_for:
        wait_for(f"released {file}")
        os.unlink(file)


def test_held_folder_is_not_renamed(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    with scanner(tmp_path, "hold", folder, "--ms", "forever") as wait_for:
        wait_for(f"held {folder}")
        with refused(32):
            os.rename(folder, tmp_path / "new")


def test_watch_holds_all_that_appears(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    with scanner(tmp_path, "watch", root, "--ms", "forever", "--only", "files") as wait_for:
        wait_for("ready")
        files = [root / f"{i}" / "deep" / f"{j}" for i in range(5) for j in range(20)]
        for path in files:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        for path in files:
            wait_for(f"held {path}")
        with refused(32):
            os.rename(files[0], root / "new")
    os.rename(files[0], root / "new")


def test_watch_waits_for_the_writer(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    with scanner(tmp_path, "watch", root, "--share", "r", "--ms", "forever") as wait_for:
        wait_for("ready")
        with (root / "file").open("wb") as file:
            time.sleep(0.2)
            file.write(b"late")
        wait_for(f"held {root / 'file'}")
