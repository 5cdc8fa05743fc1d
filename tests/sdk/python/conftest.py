"""Fixtures. The service is reached at ANTHROPIC_BASE_URL with ANTHROPIC_API_KEY, which the SDK reads by itself."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import pytest

from service import Service
from shop import Shop
from support import MODEL, TOOLSET, Session


@pytest.fixture(scope="session")
def client() -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(timeout=30, max_retries=0) as client:
        yield client


@pytest.fixture(scope="session")
def http(client: anthropic.Anthropic) -> Iterator[httpx2.Client]:
    """For what the SDK would never send."""
    headers = {"authorization": f"Bearer {client.api_key}", "anthropic-version": "2026-10-21"}
    with httpx2.Client(base_url=str(client.base_url), headers=headers, timeout=30) as http:
        yield http


@pytest.fixture(scope="session")
def environment(client: anthropic.Anthropic) -> Any:
    return client.beta.environments.create(name="tests")


@pytest.fixture
def make_agent(client: anthropic.Anthropic) -> Callable[..., Any]:
    def make(**params: Any) -> Any:
        return client.beta.agents.create(**{"name": "tester", "model": MODEL, "tools": [TOOLSET], **params})

    return make


@pytest.fixture
def make_session(
    client: anthropic.Anthropic, environment: Any, make_agent: Callable[..., Any]
) -> Callable[..., Session]:
    """Makes a session; `tools` and `system` go to an agent of its own unless one is given."""

    def make(**params: Any) -> Session:
        of_agent = {name: params.pop(name) for name in ("tools", "system") if name in params}
        agent = params.pop("agent", None) or make_agent(**of_agent).id
        created = client.beta.sessions.create(**{"agent": agent, "environment_id": environment.id, **params})
        return Session(client, created)

    return make


@pytest.fixture
def session(make_session: Callable[..., Session]) -> Session:
    return make_session()


@pytest.fixture
def service() -> Iterator[Service]:
    # The sandboxes run as users of their own, who may not pass through pytest's folders.
    folder = Path(tempfile.mkdtemp(dir=os.environ["STEADYHAND_SDK_FOLDER"]))
    folder.chmod(0o711)
    service = Service(folder)
    yield service
    assert service.stop(signal.SIGTERM) == 0, "a service that is told to end does so in good order"
    service.close()


@pytest.fixture
def shop(client: anthropic.Anthropic, tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(client, tmp_path)
    yield shop
    shop.close()
