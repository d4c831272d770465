"""Measure the cost of a download: one wheel of 192 MB, and 80 wheels of 247 MB in total, from loopback.

python benchmarks/fetch.py [rounds] [--no-others]

Each wheel is downloaded over http and https, without latency and with 30 ms per request. Each tool downloads into an
empty folder in memory, and verifies sha256 if it can. ``pip download`` and ``uv`` do more: both read the metadata of
the wheel, and uv also unpacks it.

The tools take turns in each round. The ratio is the median of the ratios to ``curl`` (8 at once for the 80 wheels)
followed by ``openssl dgst`` in the same round, so that other work of the machine counts for all of them. Libraries,
including wheelcache, are timed inside the process, after the imports; commands are timed as a whole.

Tools that are not installed are skipped. WHEELCACHE_BENCH_PYTHON names the Python of an environment that contains
huggingface_hub and requests.
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
CERTIFICATE = HERE.parent / "tests" / "cli" / "loopback.pem"
SIZES = {"one": [192_000_000], "80": [int(3_087_500 * (0.1 + 1.8 * number / 79)) for number in range(80)]}
# The variables that name trusted certificates for the tools.
TRUST = ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "PIP_CERT")
DELAYS = (0.0, 0.03)
OTHERS = os.environ.get("WHEELCACHE_BENCH_PYTHON", sys.executable)

# The arguments are a JSON file with the requests, an empty folder, and the URL of the server.
Tool = Callable[[Path, Path, str], list[float]]


def library(name: str, executable: str = sys.executable) -> Tool:
    """Return a tool that downloads with a library, and reports its own seconds and megabytes."""

    def run(requests: Path, folder: Path, index: str) -> list[float]:
        return json.loads(output_of([executable, HERE / "downloads.py", name, requests, folder]))

    return run


def command(line: str) -> Tool:
    """Return a tool that is a command of a shell. It finds the URLs in the file ``urls``."""

    def run(requests: Path, folder: Path, index: str) -> list[float]:
        urls = [url for url, _, _ in json.loads(requests.read_text())[1:]]
        (folder / "urls").write_text("\n".join(urls))
        names = " ".join(url.rpartition("/")[2].split("-")[0] + "==1.0" for url in urls)
        script = line.format(names=names, index=index, python=sys.executable)
        start = time.perf_counter()
        output_of(["sh", "-c", script], folder)
        return [time.perf_counter() - start, 0.0]

    return run


def output_of(arguments: list[object], folder: Path | None = None) -> str:
    done = subprocess.run(list(map(str, arguments)), cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-500:])
    return done.stdout


REFERENCE = "curl | openssl"
CURL = (
    'xargs -P 8 -n 10 sh -c \'curl -sf --remote-name-all "$@" && for url; do openssl dgst -sha256 "${{url##*/}}";'
    " done' sh < urls"
)
TOOLS = {REFERENCE: command(CURL), "wheelcache": library("wheelcache"), "httpx loop": library("httpx")}
OTHER_TOOLS = {
    "requests loop": library("requests", OTHERS),
    "aria2c": command('aria2c -q -j8 -i urls --ca-certificate="$SSL_CERT_FILE" && openssl dgst -sha256 *.whl'),
    "huggingface_hub": library("huggingface_hub", OTHERS),
    "pip download": command(
        "{python} -m pip download -q --no-deps --no-cache-dir --disable-pip-version-check --no-index"
        " --trusted-host 127.0.0.1 --find-links {index} {names}"
    ),
    "uv": command(
        # uv does not accept a certificate that is its own authority.
        "uv pip install -q --no-deps --no-index --cache-dir cache --target out --allow-insecure-host 127.0.0.1"
        " --find-links {index} {names}"
    ),
}
# What a tool needs besides this Python: a command, or a module for the other Python.
COMMANDS = {"aria2c": "aria2c", "uv": "uv"}
MODULES = {"requests loop": "requests", "huggingface_hub": "huggingface_hub"}


def installed(tools: dict[str, Tool]) -> dict[str, Tool]:
    """Return the tools that are installed, and print the names of the others."""
    missing = [name for name, program in COMMANDS.items() if shutil.which(program) is None]
    for name, module in MODULES.items():
        if subprocess.run([OTHERS, "-c", f"import {module}"], capture_output=True).returncode:
            missing.append(name)
    for name in missing:
        print(f"{name} is not installed, and is skipped")
    return {name: tool for name, tool in tools.items() if name not in missing}


def make_wheels(folder: Path) -> dict[str, list[tuple[str, str, int]]]:
    """Write incompressible wheels, and return the name, hash and size of each. The first one is not measured."""
    sys.path.insert(0, str(HERE.parent / "tests" / "support"))
    from wheels import make_wheel, sha256, wheel_filename

    def make(name: str, size: int) -> tuple[str, str, int]:
        data = make_wheel(name, size=size)
        (folder / wheel_filename(name)).write_bytes(data)
        return wheel_filename(name), sha256(data), size

    return {
        kind: [make("first", 1 << 16)] + [make(f"w{kind}n{number}", size) for number, size in enumerate(sizes)]
        for kind, sizes in SIZES.items()
    }


@contextmanager
def server(folder: Path, delay: float, scheme: str) -> Iterator[str]:
    """Serve a folder, and yield its URL."""
    arguments = [sys.executable, HERE / "fileserver.py", folder, str(delay)]
    if scheme == "https":
        arguments.append(CERTIFICATE)
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield f"{scheme}://127.0.0.1:{int(process.stdout.readline())}/"
        process.stdin.close()


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 and sys.argv[1].isdigit() else 7
    tools = TOOLS if "--no-others" in sys.argv else installed(TOOLS | OTHER_TOOLS)
    os.environ |= dict.fromkeys(TRUST, str(CERTIFICATE))
    print_load()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as scratch:
        (folder := Path(scratch, "files")).mkdir()
        wheels = make_wheels(folder)
        for delay in DELAYS:
            for scheme in ("http", "https"):
                with server(folder, delay, scheme) as index:
                    for kind, found in wheels.items():
                        title = f"{kind}, {scheme}, {delay * 1000:.0f} ms"
                        measure(title, tools, rounds, found, index, Path(scratch))
    print_load()


def print_load() -> None:
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")


def measure(
    title: str, tools: dict[str, Tool], rounds: int, wheels: list[tuple[str, str, int]], index: str, scratch: Path
) -> None:
    requests = scratch / "requests.json"
    requests.write_text(json.dumps([(index + name, *rest) for name, *rest in wheels]))
    runs: dict[str, list[list[float]]] = {name: [] for name in tools}
    for _ in range(rounds):
        for name, run in tools.items():
            (target := scratch / "target").mkdir()
            try:
                runs[name].append(run(requests, target, index))
            except RuntimeError as error:
                print(f"{name} failed: {error}")
            shutil.rmtree(target)
    print(f"\n{title:<18} {'seconds':>8} {'ratio':>6} {'MB more':>8}")
    for name, found in runs.items():
        if len(found) == rounds:
            seconds = statistics.median(run[0] for run in found)
            ratio = statistics.median(run[0] / base[0] for run, base in zip(found, runs[REFERENCE], strict=True))
            memory = max(run[1] for run in found)
            print(f"{name:<18} {seconds:8.2f} {ratio:6.2f} {f'{memory:8.1f}' if memory else ''}", flush=True)


if __name__ == "__main__":
    main()
