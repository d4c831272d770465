"""Test that the workflows run fixed versions of actions, with the fewest permissions."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from marks import any_system

pytestmark = any_system

_FOLDER = Path(__file__).parents[1] / ".github" / "workflows"
_TEXTS = {path.name: path.read_text("utf-8") for path in sorted(_FOLDER.glob("*.yml"))}

each_workflow = pytest.mark.parametrize("text", _TEXTS.values(), ids=_TEXTS)


def test_every_workflow_is_found() -> None:
    """The folder contains the workflows for changes, for releases and for slow tests."""
    assert set(_TEXTS) >= {"ci.yml", "release.yml", "scheduled.yml"}


@each_workflow
def test_actions_are_pinned(text: str) -> None:
    """Each action is named by a full commit hash, with its version beside it."""
    actions = [line for line in re.findall(r"uses: (.*)", text) if not line.startswith("./")]
    assert all(re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action) for action in actions), actions


def test_one_version_of_each_action_is_used() -> None:
    """All workflows name the same commit of an action."""
    actions = set(re.findall(r"uses: ([\w./-]+)@(\w+)", "".join(_TEXTS.values())))
    assert len({name for name, _ in actions}) == len(actions)


@each_workflow
def test_a_checkout_leaves_no_credentials(text: str) -> None:
    """No later step finds the token of the workflow in the checkout."""
    checkouts = re.findall(r"uses: actions/checkout@.*\n +with:\n +persist-credentials: false\n", text)
    assert len(checkouts) == text.count("actions/checkout@")


@each_workflow
def test_a_workflow_can_only_read(text: str) -> None:
    """The permissions of a workflow allow it to read the repository, or nothing."""
    assert re.findall(r"^permissions:(?: \{\}|\n  contents: read)\n\n", text, re.MULTILINE)


def test_only_the_publishing_job_can_prove_its_identity() -> None:
    """The only permission to write is the one for trusted publishing, in a job that runs no command."""
    writing = re.findall(r"[\w-]+: write\b", "".join(_TEXTS.values()))
    publish = _TEXTS["release.yml"].partition("\n  publish:\n")[2]
    assert writing == ["id-token: write"]
    assert "id-token: write" in publish
    assert "environment: release" in publish
    assert " run:" not in publish
