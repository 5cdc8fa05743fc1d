"""A self-hosted environment, and the official workers on it as programs of their own, to be killed."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import anthropic

from support import MODEL, TOOLSET, Session, eventually, is_idle, of_type, types

# How the worker of each SDK is started. That of TypeScript needs a node and its packages, which scripts/sdk has.
WORKERS = {
    "python": lambda: [sys.executable, str(Path(__file__).with_name("worker.py"))],
    "typescript": lambda: shlex.split(os.environ["STEADYHAND_SDK_TYPESCRIPT_WORKER"]),
}


class Shop:
    """A self-hosted environment: a key of it, workers, and sessions in it. `folder` is where the workers' tools run."""

    def __init__(self, client: anthropic.Anthropic, folder: Path) -> None:
        self.client = client
        self.folder = folder
        self.id = client.beta.environments.create(name="shop", config={"type": "self_hosted"}).id
        path = f"/v1/steadyhand/environments/{self.id}/keys"
        self.key: str = client.post(path, body={"name": "tests"}, cast_to=object)["key"]
        self.as_worker = client.with_options(api_key=self.key)
        self._workers: list[subprocess.Popen[bytes]] = []

    def reach(self, client: anthropic.Anthropic) -> None:
        """Goes on with a service that was started again."""
        self.client = client
        self.as_worker = client.with_options(api_key=self.key)

    @property
    def work(self) -> Any:
        """As an operator calls it."""
        return self.client.beta.environments.work

    @property
    def queue(self) -> Any:
        """As a worker calls it."""
        return self.as_worker.beta.environments.work

    def session(self, tools: list[Any] | None = None, **params: Any) -> Session:
        agent = self.client.beta.agents.create(name="tester", model=MODEL, tools=tools or [TOOLSET])
        made = self.client.beta.sessions.create(agent=agent.id, environment_id=self.id, **params)
        return Session(self.client, made)

    def worker(self, sdk: str = "python", max_idle: float = 60) -> subprocess.Popen[bytes]:
        command = [*WORKERS[sdk](), self.id, self.key, str(self.folder), str(max_idle)]
        where = {**os.environ, "ANTHROPIC_BASE_URL": str(self.client.base_url)}
        with open(self.folder / "worker.log", "ab") as log:
            worker = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=where)
        self._workers.append(worker)
        return worker

    def items(self, session: Session) -> list[Any]:
        """Newest first."""
        return [item for item in self.work.list(self.id) if item.data.id == session.id]

    def shorten_lease(self, session: Session) -> None:
        """Of a worker that is no more."""
        item = self.items(session)[0]
        self.queue.heartbeat(
            item.id,
            environment_id=self.id,
            expected_last_heartbeat=item.latest_heartbeat_at or "NO_HEARTBEAT",
            desired_ttl_seconds=10,
        )

    def close(self) -> None:
        for worker in self._workers:
            worker.kill()
            worker.wait(10)


def finished(session: Session, results: int, seconds: float = 75) -> list[Any]:
    """The events, once that many results are there and the session rests without asking for more."""

    def is_over(events: list[Any]) -> bool:
        last = events[-1] if events else None
        rests = last is not None and is_idle(last) and last.stop_reason.type != "requires_action"
        return rests and len(of_type(events, "user.tool_result")) >= results

    events = eventually(session.list, is_over, seconds)
    assert is_over(events), types(events)
    return events
