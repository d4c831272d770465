"""The README: its examples of downloading run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from server import Server
from wheels import Wheel, make_wheel, wheel_filename

README = Path(__file__).parents[1] / "README.md"
EXAMPLES = re.findall(
    r"```python\n(.*?)```", README.read_text(encoding="utf-8").partition("## Downloading")[2], re.DOTALL
)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: re.findall(r"\w*Cache\w*", example)[-1])
def test_an_example_runs(example: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An example has all that it uses, and ends with the wheel in the cache."""
    monkeypatch.setenv("WHEELCACHE_DIR", str(tmp_path / "cache"))
    wheel = Wheel(wheel_filename("six", "1.17.0").replace("py3", "py2.py3"), make_wheel("six", "1.17.0"))
    server.serve(f"/packages/{wheel.filename}", wheel.data)
    exec(example.replace("https://example.org", server.origin), {})
    assert [path.read_bytes() for path in (tmp_path / "cache").rglob(wheel.filename)] == [wheel.data]


def test_there_are_examples() -> None:
    """What is looked for is there."""
    assert len(EXAMPLES) == 2
