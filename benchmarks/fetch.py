"""Measure the cost of downloading one wheel of 190 MB, and 80 wheels of 247 MB in total, from loopback.

python benchmarks/fetch.py [rounds] [--no-others]

Each tool downloads into an empty folder, and verifies sha256 if it can. The figures are medians of interleaved rounds.
Libraries, including wheelcache, are timed inside the process, after the imports. Commands are timed as a whole. The
last column is the ratio to ``curl`` (8 parallel downloads for the 80 wheels) followed by ``openssl dgst``. ``pip
download`` and ``uv`` also read the metadata of the wheel. uv also unpacks the wheel.
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
from pathlib import Path

HERE = Path(__file__).parent
LARGE = 190_000_000
SET = [int(3_087_500 * (0.1 + 1.8 * number / 79)) for number in range(80)]
# The Python of an environment with pooch and huggingface_hub, if they are to be compared.
OTHERS = os.environ.get("WHEELCACHE_BENCH_PYTHON", sys.executable)

OURS = """
import json, sys, time, resource
# Imports of the first download count as interpreter start, which is not measured.
import wheelcache, httpx, httpcore, filelock, packaging.utils
import wheelcache._fetch.download, wheelcache._fetch.batch, wheelcache._fetch.partial, wheelcache._store.commit
from wheelcache import Cache, WheelRequest
requests = [WheelRequest(*each) for each in json.load(open(sys.argv[1]))]
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with Cache(sys.argv[2]) as cache:
    start = time.perf_counter()
    cache.fetch_all(requests)
    seconds = time.perf_counter() - start
print(json.dumps([seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) / 1024]))
"""
HTTPX = """
import json, sys, time, hashlib, httpx, os
from concurrent.futures import ThreadPoolExecutor
def get(each):
    url, digest, size = each
    running = hashlib.sha256()
    with open(os.path.join(sys.argv[2], url.rpartition("/")[2]), "wb", 0) as file:
        with client.stream("GET", url) as response:
            for chunk in response.iter_raw():
                running.update(chunk)
                file.write(chunk)
    assert "sha256:" + running.hexdigest() == digest
import httpcore
requests = json.load(open(sys.argv[1]))
start = time.perf_counter()
with httpx.Client() as client, ThreadPoolExecutor(8) as pool:
    list(pool.map(get, requests))
    print(json.dumps([time.perf_counter() - start, 0]))
"""
POOCH = """
import json, sys, time, pooch
pooch.get_logger().setLevel("ERROR")
requests = json.load(open(sys.argv[1]))
start = time.perf_counter()
for url, digest, size in requests:
    pooch.retrieve(url, known_hash=digest, path=sys.argv[2])
print(json.dumps([time.perf_counter() - start, 0]))
"""
HUGGINGFACE = """
import json, sys, time, os
from concurrent.futures import ThreadPoolExecutor
from huggingface_hub.file_download import http_get
def get(each):
    with open(os.path.join(sys.argv[2], each[0].rpartition("/")[2]), "wb") as file:
        http_get(each[0], file, expected_size=each[2], displayed_filename="x")
requests = json.load(open(sys.argv[1]))
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
with ThreadPoolExecutor(8) as pool:
    start = time.perf_counter()
    list(pool.map(get, requests))
    print(json.dumps([time.perf_counter() - start, 0]))
"""


def make_wheels(folder: Path) -> dict[str, list[tuple[str, str, int]]]:
    """Write incompressible wheels of these sizes."""
    sys.path.insert(0, str(HERE.parent / "tests" / "support"))
    from wheels import make_wheel, sha256, wheel_filename

    found: dict[str, list[tuple[str, str, int]]] = {"one": [], "set": []}
    for kind, sizes in (("one", [LARGE]), ("set", SET)):
        for number, size in enumerate(sizes):
            name = wheel_filename(f"{kind}{number}")
            data = make_wheel(f"{kind}{number}", size=size)
            (folder / name).write_bytes(data)
            found[kind].append((name, sha256(data), size))
    return found


def python(code: str, executable: str = sys.executable):
    def run(requests: Path, target: Path, port: int) -> list[float]:
        done = subprocess.run([executable, "-c", code, requests, target], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr[-500:])
        return json.loads(done.stdout.splitlines()[-1])

    return run


def shell(line: str):
    def run(requests: Path, target: Path, port: int) -> list[float]:
        urls = [each[0] for each in json.loads(requests.read_text())]
        (target / "urls").write_text("\n".join(urls))
        names = " ".join(url.rpartition("/")[2].split("-")[0] + "==1.0" for url in urls)
        command = line.format(names=names, index=f"http://127.0.0.1:{port}/", python=sys.executable)
        start = time.perf_counter()
        done = subprocess.run(command, shell=True, cwd=target, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr[-500:])
        return [time.perf_counter() - start, 0]

    return run


CURL = (
    'xargs -P 8 -n 10 sh -c \'curl -sf --remote-name-all "$@" && for url; do openssl dgst -sha256 "${{url##*/}}";'
    " done' sh < urls"
)
TOOLS = {
    "curl | openssl": shell(CURL),
    "wheelcache": python(OURS),
    "httpx loop": python(HTTPX),
}
OTHER_TOOLS = {
    "aria2c": shell("aria2c -q -j8 -i urls && openssl dgst -sha256 *.whl"),
    "pip download": shell(
        "{python} -m pip download -q --no-deps --no-cache-dir --disable-pip-version-check --no-index"
        " --trusted-host 127.0.0.1 --find-links {index} {names}"
    ),
    "uv": shell("uv pip install -q --no-deps --no-index --cache-dir cache --target out --find-links {index} {names}"),
    "pooch": python(POOCH, OTHERS),
    "huggingface_hub": python(HUGGINGFACE, OTHERS),
}


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 and sys.argv[1].isdigit() else 5
    tools = TOOLS if "--no-others" in sys.argv else TOOLS | OTHER_TOOLS
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as scratch:
        folder = Path(scratch, "files")
        folder.mkdir()
        wheels = make_wheels(folder)
        for delay in (0.0, 0.03):
            command = [sys.executable, HERE / "fileserver.py", folder, str(delay)]
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
                port = int(server.stdout.readline())
                for kind in wheels:
                    measure(f"{kind}, {delay * 1000:.0f} ms", tools, rounds, wheels[kind], port, Path(scratch))
                server.stdin.close()


def measure(title: str, tools: dict, rounds: int, wheels: list, port: int, scratch: Path) -> None:
    requests = scratch / "requests.json"
    requests.write_text(json.dumps([(f"http://127.0.0.1:{port}/{name}", *rest) for name, *rest in wheels]))
    found: dict[str, list[list[float]]] = {name: [] for name in tools}
    for _ in range(rounds):
        for name, run in tools.items():
            target = scratch / "target"
            target.mkdir()
            try:
                found[name].append(run(requests, target, port))
            except RuntimeError as error:
                print(f"{name}: {error}")
            shutil.rmtree(target)
    print(f"\n{title:<18} {'seconds':>8} {'ratio':>6} {'MB more':>8}")
    base = statistics.median(seconds for seconds, _ in found["curl | openssl"])
    for name, runs in found.items():
        if runs:
            seconds = statistics.median(seconds for seconds, _ in runs)
            memory = max(memory for _, memory in runs)
            more = f"{memory:8.1f}" if memory else ""
            print(f"{name:<18} {seconds:8.2f} {seconds / base:6.2f} {more}")


if __name__ == "__main__":
    main()
