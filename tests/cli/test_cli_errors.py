"""Each failure is one line and an exit code, and progress is shown on terminals only."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest
from ctrl_c import POPEN_OPTIONS, send_ctrl_c
from marks import any_system
from rich.filesize import decimal
from server import Exchange, Server, status
from shell import APP, LIB, OLD_LIB, Shell
from simple_index import Index

import wheelcache
from wheelcache import Cache
from wheelcache.cli import main
from wheelcache.cli._output import format_seconds
from wheelcache.cli.resolve.pip import PipRun, pip_error

if sys.platform != "win32":
    import termios


def test_one_wheel_that_fails_does_not_stop_the_others(shell: Shell, index: Index):
    """A missing URL and wrong bytes are a line each, and the third wheel is fetched."""
    gone = index.server.url(f"/gone/{APP.filename}")
    wrong = index.wheel_url(OLD_LIB).replace(OLD_LIB.sha256, "0" * 64)
    ran = shell.fetch(gone, wrong, index.wheel_url(LIB))
    assert ran.code == 1
    assert ran.rows == {APP.filename: "failed", OLD_LIB.filename: "failed", LIB.filename: "downloaded"}
    first, second = ran.err.splitlines()
    assert first.startswith(f"error: download {gone}: ")
    assert "404" in first
    assert f"sha256: expected {'0' * 64}, got {OLD_LIB.sha256}" in second


def test_a_url_that_is_not_a_wheel_does_not_stop_the_others(shell: Shell, index: Index):
    """A bad file name and a bad URL are a line each, in the order of the arguments. The wheel is fetched."""
    ran = shell.fetch("https://example.org/archive.zip", index.wheel_url(LIB), "https:///nowhere.whl")
    assert ran.code == 1
    assert ran.rows == {LIB.filename: "downloaded", "nowhere.whl": "failed"}
    assert "archive.zip" in ran.out
    first, second = ran.err.splitlines()
    assert "archive.zip" in first
    assert "nowhere.whl" in second


@any_system
def test_errors_are_in_the_json_too(shell: Shell, index: Index):
    """The JSON contains the kind, message and request of each error, and the fetched wheels."""
    wrong = index.wheel_url(OLD_LIB).replace(OLD_LIB.sha256, "0" * 64)
    ran = shell.fetch(wrong, index.wheel_url(LIB), "no-such-project", "--json")
    assert ran.code == 1
    assert [wheel["filename"] for wheel in ran.json["wheels"]] == [LIB.filename]
    by_pip, by_hash = ran.json["errors"]
    assert (by_pip["error"], by_pip["requirement"], by_pip["url"]) == ("PipError", "no-such-project", None)
    assert (by_hash["error"], by_hash["url"]) == ("HashMismatchError", wrong.partition("#")[0])
    assert ran.err.splitlines() == [f"error: {error['message']}" for error in ran.json["errors"]]


@any_system
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no-such-project"], "No matching distribution found for no-such-project"),
        (["demo-lib<2", "demo-lib>=2"], "(The user requested demo-lib<2, The user requested demo-lib>=2)"),
        (["this is no requirement"], "Invalid requirement"),
        (["-r", "nowhere.txt"], "Could not open requirements file"),
    ],
    ids=["unknown", "conflict", "nonsense", "no file"],
)
def test_an_error_of_pip_is_one_line(shell: Shell, index: Index, arguments: list[str], said: str):
    """The line contains pip's error message, and nothing else of its output."""
    ran = shell.fetch(*arguments)
    assert (ran.code, ran.err.count("\n")) == (1, 1)
    assert ran.err.startswith("error: pip: ")
    assert said in ran.err


# As printed by pip 23.2.
_GIT = """\
  error: subprocess-exited-with-error

  \N{MULTIPLICATION SIGN} git clone --quiet http://127.0.0.1/x.git build/foo did not run successfully.
  │ exit code: 128
  ╰─> See above for output.

  note: This error originates from a subprocess, and is likely not a problem with pip.
error: subprocess-exited-with-error

\N{MULTIPLICATION SIGN} git clone --quiet http://127.0.0.1/x.git build/foo did not run successfully.
│ exit code: 128
╰─> See above for output.

note: This error originates from a subprocess, and is likely not a problem with pip.
"""
_GIT_LOG = """\
  Running command git clone --quiet http://127.0.0.1/x.git build/foo
  fatal: repository 'http://127.0.0.1/x.git/' not found
  ERROR: [present-rich] git clone --quiet http://127.0.0.1/x.git build/foo exited with 128
  [bold magenta]cwd[/]: \\[inherit]
ERROR: [present-rich] git clone --quiet http://127.0.0.1/x.git build/foo exited with 128
"""
_GIT_SAID = (
    "git clone --quiet http://127.0.0.1/x.git build/foo did not run successfully. "
    "(fatal: repository 'http://127.0.0.1/x.git/' not found)"
)


@any_system
@pytest.mark.parametrize(
    ("err", "log", "said"),
    [
        (_GIT, _GIT_LOG, _GIT_SAID),
        (_GIT, _GIT_LOG.replace(_GIT_LOG.splitlines()[1] + "\n", ""), _GIT_SAID.partition(" (")[0]),
        ("ERROR: Exception:\nTraceback\nValueError: no\n\nhint: See above for details.\n", "", "ValueError: no"),
        ("note: This is an issue with the package mentioned above, not pip.\n", "", "exit code 1"),
    ],
    ids=["git", "git without a word", "bug", "remark alone"],
)
def test_remarks_of_pip_do_not_hide_its_reason(err: str, log: str, said: str):
    """Notes and hints of pip are omitted, and the output of a failed program is taken from pip's log."""
    assert str(pip_error(PipRun(1, "", err, log))) == f"pip: {said}"


@any_system
def test_the_reason_why_a_build_fails_is_told(shell: Shell):
    """The error names the step that failed, and has the last line of the build's output."""
    project = shell.folder / "project"
    project.mkdir()
    project.joinpath("pyproject.toml").write_text(
        "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n"
    )
    project.joinpath("backend.py").write_text("raise RuntimeError('the compiler is not there')\n")
    shell.folder.joinpath("requirements.txt").write_text("./project\n")
    ran = shell.fetch("-r", "requirements.txt")
    assert (ran.code, ran.err.count("\n")) == (1, 1)
    assert "RuntimeError: the compiler is not there" in ran.err
    assert "note:" not in ran.err


@any_system
def test_an_index_that_fails_is_told_from_one_that_has_nothing(shell: Shell, server: Server):
    """If pip finds nothing because an index fails, the error gives the reason."""
    server.serve("/simple/demo-lib/", how=status(503))
    ran = shell.fetch("demo-lib", "-i", server.url("/simple/"))
    assert (ran.code, ran.err.count("\n")) == (1, 1)
    assert "503" in ran.err


@any_system
def test_source_is_refused_before_it_is_built(shell: Shell):
    """A folder, a source archive and a version control URL are refused without running their code."""
    project = shell.folder / "project"
    project.mkdir()
    project.joinpath("setup.py").write_text("import pathlib; pathlib.Path('built').touch()\n")
    shell.folder.joinpath("project-1.0.tar.gz").touch()
    ran = shell.fetch("./project", "project-1.0.tar.gz", "git+https://token@example.org/project.git")
    assert ran.code == 1
    assert [" is source code and not a wheel" in line for line in ran.err.splitlines()] == [True, True, True]
    assert "token" not in ran.err
    assert not project.joinpath("built").exists()


@any_system
def test_a_source_that_pip_chooses_does_not_stop_the_wheels(shell: Shell, index: Index):
    """A project folder in a requirements file is an error that names it. The rest is fetched."""
    project = shell.folder / "project"
    project.mkdir()
    project.joinpath("pyproject.toml").write_text(
        "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n"
    )
    project.joinpath("backend.py").write_text(
        "import pathlib\n"
        "def prepare_metadata_for_build_wheel(folder, config=None):\n"
        "    info = pathlib.Path(folder, 'project-1.dist-info')\n"
        "    info.mkdir()\n"
        "    info.joinpath('METADATA').write_text('Metadata-Version: 2.1\\nName: project\\nVersion: 1\\n')\n"
        "    return info.name\n"
    )
    shell.folder.joinpath("requirements.txt").write_text("./project\ndemo-lib\n")
    ran = shell.fetch("-r", "requirements.txt")
    assert ran.code == 1
    assert ran.rows == {LIB.filename: "downloaded"}
    assert (ran.err.count("\n"), "project==1: pip chose file:" in ran.err) == (1, True)


def test_without_pip_requirements_cannot_be_resolved_and_urls_can(shell: Shell, index: Index):
    """Without pip, a requirement is an error with advice, and a URL is fetched."""
    code = "import sys; sys.modules['pip'] = None; from wheelcache.cli import main; sys.exit(main(sys.argv[1:]))"
    ran = shell.run([sys.executable, "-c", code, "fetch", "demo-lib", index.wheel_url(LIB)])
    assert ran.code == 1
    assert ran.rows == {LIB.filename: "downloaded"}
    assert (ran.err.count("\n"), "has no pip" in ran.err) == (1, True)


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_the_extra_it_says_what_to_install(shell: Shell, missing: str):
    """Without the extra, the result is one line and exit code 2, not an ImportError."""
    code = f"import sys; sys.modules['{missing}'] = None; from wheelcache.cli import main; sys.exit(main())"
    ran = shell.run([sys.executable, "-c", code, "--version"])
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == (f"error: the command line requires {missing}: python -m pip install 'wheelcache[cli]'\n")


@pytest.mark.parametrize("arguments", [["fetch"], ["fetch", "--jobs", "0", "six"], ["nonsense"], ["--nonsense"]])
def test_a_wrong_command_line_is_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    """The message and a hint to the help are on stderr."""
    assert main(arguments) == 2
    assert "Error: " in capsys.readouterr().err


@any_system
@pytest.mark.parametrize("arguments", [["--help"], ["fetch", "--help"]])
def test_the_help_tells_the_exit_codes(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    """The help lists the exit codes."""
    assert main(arguments) == 0
    assert "\n    130  interrupted\n" in capsys.readouterr().out


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]):
    """--version prints the name and the version."""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"wheelcache {wheelcache.__version__}\n"


def test_a_folder_that_cannot_be_used_is_one_line(shell: Shell, index: Index):
    """A cache folder or --to folder below a file is an error of one line."""
    shell.folder.joinpath("file").write_text("")
    for option in ("--cache-dir", "--to"):
        ran = shell.fetch(index.wheel_url(LIB), option, os.path.join("file", "folder"), "--json")
        assert ran.code == 1
        assert len(ran.json["errors"]) == 1
        assert (ran.err.count("\n"), ran.err.startswith("error: ")) == (1, True)


def test_a_file_of_another_kind_in_the_way_of_a_link_is_left_alone(shell: Shell, index: Index):
    """An existing file with other bytes is kept, the exit code is 1, and the wheel is in the cache."""
    target = shell.folder / "out" / LIB.filename
    target.parent.mkdir()
    target.write_text("mine")
    ran = shell.fetch(index.wheel_url(LIB), "--to", "out")
    assert ran.code == 1
    assert str(target) in ran.err
    assert target.read_text() == "mine"


def test_the_help_and_a_hit_import_no_more_than_they_need(shell: Shell, index: Index):
    """The help imports neither rich nor httpx, and a run of hits does not import httpx."""
    shell.fetch(index.wheel_url(LIB))
    code = (
        "import sys; from wheelcache.cli import main; code = main(sys.argv[1:]);"
        "heavy = ('httpx', 'httpx2', 'rich.console', 'urllib.request', 'packaging.pylock');"
        "print([name for name in heavy if name in sys.modules])"
    )
    assert shell.run([sys.executable, "-c", code, "--help"]).out.endswith("\n[]\n")
    hit = shell.run([sys.executable, "-c", code, "fetch", index.wheel_url(LIB), "--json"])
    assert hit.out.endswith("\n[]\n")
    assert '"hit"' in hit.out


@any_system
def test_a_terminal_is_told_nothing_by_a_name(shell: Shell):
    """Control characters of a URL are escaped, not sent to the terminal."""
    ran = shell.fetch("file:///nowhere/%1B%5D0;x%07-1.0-py3-none-any.whl", "--offline")
    assert ran.code == 1
    assert "\\x1b" in ran.out
    assert "\x1b" not in ran.out + ran.err


@any_system
def test_times_are_read_by_people():
    """Milliseconds are used below a second, and one decimal place above."""
    assert [format_seconds(seconds) for seconds in (0.0001, 0.04, 0.9999, 12.34)] == [
        "<1 ms",
        "40 ms",
        "1.0 s",
        "12.3 s",
    ]


class _Stalling:
    """A response that stalls, before its headers or in its body, until ``go_on`` is set."""

    def __init__(self, *, headers: bool = True) -> None:
        self.headers = headers
        self.begun = threading.Event()
        self.go_on = threading.Event()

    def __call__(self, exchange: Exchange) -> None:
        if self.headers:
            exchange.start(200, length=len(exchange.body))
            exchange.write(exchange.body[:100])
        self.begun.set()
        exchange.wait(self.go_on)
        if self.headers:
            exchange.write(exchange.body[100:])


def test_closed_streams_change_no_exit_code(shell: Shell, monkeypatch: pytest.MonkeyPatch):
    """Without stdout and stderr, as in a service, a command does its work without output."""
    monkeypatch.setenv("WHEELCACHE_DIR", str(shell.cache))
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["dir"]) == 0
    assert main(["info", "no-such-project"]) == 1
    assert main(["nonsense"]) == 2


def test_ctrl_c_ends_the_wait_for_headers_on_a_reused_connection(shell: Shell, server: Server):
    """The second wheel of a server stalls before its headers; Ctrl-C ends the command, and the first wheel remains."""
    stalling = _Stalling(headers=False)
    urls = [server.serve(f"/{APP.filename}", APP.data), server.serve(f"/{LIB.filename}", LIB.data, how=stalling)]
    with subprocess.Popen(
        [sys.executable, "-m", "wheelcache.cli", "fetch", "--jobs", "1", *urls],
        env=shell.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", **POPEN_OPTIONS,
    ) as process:  # fmt: skip
        assert stalling.begun.wait(60)
        send_ctrl_c(process)
        out, err = process.communicate(timeout=25)  # less than the timeout of a read
    assert (process.returncode, out, err.strip()) == (130, "", "error: interrupted")
    with Cache(shell.cache) as cache:
        assert [wheel.filename for wheel in cache.entries()] == [APP.filename]


@pytest.mark.parametrize("headers", [False, True], ids=["before the headers", "in the body"])
def test_ctrl_c_ends_it_at_once_and_leaves_nothing(shell: Shell, server: Server, headers: bool):
    """While servers stall, Ctrl-C ends the command with exit code 130 and one line, without a partial file."""
    stalling = [_Stalling(headers=headers) for _ in range(2)]
    urls = [
        server.serve(f"/{wheel.filename}", wheel.data, how=how) for wheel, how in zip((LIB, APP), stalling, strict=True)
    ]
    with subprocess.Popen(
        [sys.executable, "-m", "wheelcache.cli", "fetch", *urls],
        env=shell.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", **POPEN_OPTIONS,
    ) as process:  # fmt: skip
        assert all(each.begun.wait(60) for each in stalling)
        send_ctrl_c(process)
        out, err = process.communicate(timeout=25)  # less than the timeout of a read
    assert (process.returncode, out, err.strip()) == (130, "", "error: interrupted")
    left = [path.relative_to(shell.cache).parts for path in shell.cache.rglob("*") if path.is_file()]
    assert [parts for parts in left if {"partial", "tmp", "wheels", "locks"} & set(parts)] == []


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are POSIX's")
def test_a_terminal_shows_bars_and_then_the_table(shell: Shell, server: Server):
    """Bars are shown during a download, and a table for a narrow terminal is folded, never truncated."""
    stalling = _Stalling()
    url = server.serve(f"/{LIB.filename}", LIB.data, how=stalling)
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (20, 45))
    with subprocess.Popen(
        [sys.executable, "-m", "wheelcache.cli", "fetch", url],
        env=shell.environment | {"TERM": "xterm"}, stdin=theirs, stdout=theirs, stderr=theirs,
    ) as process:  # fmt: skip
        os.close(theirs)
        drawn = _read(ours, until="0/1 wheel")
        drawn += _read(ours, until=f"100 bytes/{decimal(len(LIB.data))}")
        stalling.go_on.set()
        end = _read(ours, until=None)
    os.close(ours)
    assert "demo_lib" in drawn
    assert process.returncode == 0
    table = end[end.index("status") :]
    assert LIB.filename in "".join(line.split("  ")[0].strip() for line in table.splitlines()[1:])
    assert "downloaded" in table
    assert "total" not in table


def _read(terminal: int, *, until: str | None) -> str:
    """Read the output of a program until it contains this text, or until the program has ended."""
    text = ""
    while until is None or until not in text:
        try:
            data = os.read(terminal, 4096)
        except OSError:  # Linux reports the end of a terminal's output as an error
            data = b""
        if not data:
            assert until is None, text
            break
        text += data.decode()
    return text
