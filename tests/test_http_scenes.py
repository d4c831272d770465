"""Test that every route of HTTP has the same results, errors and requests in every scene."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from folders import assert_nothing_came, blobs, unfinished
from http_scenes import bodies, metadata, redirects, sources, statuses, transport
from http_scenes.routes import ROUTES, Outcome, Route
from http_scenes.scene import METADATA, WHEEL, Scene, Stage, fail_unknown_hosts
from marks import any_system
from scenarios import quick_folder

from wheelcache import Cache, WheelCacheError

SCENES = [*bodies.SCENES, *statuses.SCENES, *redirects.SCENES, *sources.SCENES, *metadata.SCENES]
# httpx leaves asynchronous generators open if a body is not read to its end, and only trio warns of that.
MARKS = pytest.mark.filterwarnings("ignore:Async generator 'http:ResourceWarning")


def marks_of(route: Route, scene: Scene) -> list[pytest.MarkDecorator]:
    """Return the marks of a scene on a route."""
    # Under Windows, one route runs each scene: our own client, or the caller's if the scene needs its settings.
    is_repeated = not route.is_own and not scene.client.needs_caller
    return [*([MARKS] if route.leaves_generators else []), *([any_system] if is_repeated else [])]


def test_the_names_of_scenes_differ() -> None:
    """Each scene has a name of its own, so that a failure names one scene."""
    names = [scene.name for scene in SCENES]
    assert len(names) == len(set(names))


@pytest.fixture
def folder() -> Iterator[Path]:
    """Yield a folder in memory, since thousands of caches are created."""
    with quick_folder() as folder:
        yield folder


@pytest.mark.parametrize(
    ("route", "scene"),
    [
        pytest.param(
            route,
            scene.by(route.library),
            id=f"{route.name}-{scene.name}",
            marks=marks_of(route, scene),
        )
        for route in ROUTES
        for scene in SCENES
        if route.can_run(scene)
    ],
)
def test_every_route_has_the_same_outcome(
    route: Route, scene: Scene, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The statuses, errors, requests and files in the cache are those of the table."""
    fail_unknown_hosts(monkeypatch)
    with Stage(folder) as stage:
        stage.set(scene)
        outcomes = route.run(scene, stage, monkeypatch)
        assert [describe(stage, outcome) for outcome in outcomes] == [
            stage.normalize(stage.fill(outcome)) for outcome in scene.outcomes
        ]
        if outcomes[-1].error is not None:
            check_attempts(stage, scene, outcomes[-1].error)
        check_requests(stage, scene)
        assert sum(stage.machine.clock.slept) >= scene.waits
    check_cache(scene, folder, is_success=outcomes[-1].wheel is not None)


@pytest.mark.parametrize(
    ("route", "scene"),
    [
        pytest.param(route, scene, id=f"{route.name}-{scene.name}", marks=MARKS if route.backend == "trio" else ())
        for route in transport.ROUTES
        for scene in transport.SCENES
    ],
)
def test_every_client_with_a_cache_transport_has_the_same_outcome(
    route: transport.TransportRoute, scene: Scene, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The responses, requests and files in the cache are those of the table."""
    fail_unknown_hosts(monkeypatch)
    with Stage(folder) as stage:
        stage.set(scene)
        outcomes = route.run(scene, stage)
        assert outcomes == scene.outcomes
        check_targets(stage, scene)
    check_cache(scene, folder, is_success="the wheel" in outcomes[-1])


def describe(stage: Stage, outcome: Outcome) -> str:
    """Return an outcome in the words of the table."""
    if outcome.error is not None:
        return stage.normalize(f"{type(outcome.error).__name__}: {outcome.error}")
    if outcome.metadata is not None:
        return "metadata" if outcome.metadata == METADATA else repr(outcome.metadata)
    return "stopped" if outcome.wheel is None else str(outcome.wheel.status)


def check_attempts(stage: Stage, scene: Scene, error: WheelCacheError) -> None:
    """Check that the error lists every attempt."""
    tried = [stage.normalize(line) for line in error.tried]
    if scene.tried is not None:
        assert tried == [stage.normalize(stage.fill(line)) for line in scene.tried]
        return
    problem, _, redirected = stage.normalize(error.problem).partition(", redirected to ")
    assert tried == [f"{redirected or stage.normalize(error.url or '')}: {problem}"] * error.attempts


def check_requests(stage: Stage, scene: Scene) -> None:
    """Check the requests that the servers received."""
    assert {request.headers["accept-encoding"] for request in stage.requests()} <= {"identity"}
    check_targets(stage, scene)


def check_targets(stage: Stage, scene: Scene) -> None:
    """Check the number of requests, or their targets."""
    targets = [request.target for request in stage.requests()]
    if not isinstance(scene.requests, int):
        assert targets == [stage.fill(target) for target in scene.requests]
    elif scene.requests < 0:
        assert len(targets) >= -scene.requests
    else:
        assert len(targets) == scene.requests


def check_cache(scene: Scene, folder: Path, *, is_success: bool) -> None:
    """Check that the cache contains the wheels of the scene, and nothing unfinished."""
    stored = scene.stored if scene.stored is not None else [WHEEL] if is_success else []
    with Cache(folder) as cache:
        assert sorted(path.read_bytes() for path in blobs(cache)) == sorted(wheel.data for wheel in stored)
        if scene.keeps_partial:
            assert all(name.startswith("v1/partial/") for name in unfinished(cache))
        elif stored:
            assert unfinished(cache) == []
        else:
            assert_nothing_came(cache)
