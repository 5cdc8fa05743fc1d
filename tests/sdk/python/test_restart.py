"""A service that is killed in the middle of a turn: conformance check 62. The service is the test's own."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import anthropic
import pytest

from support import MODEL, TOOLSET, Session, is_idle, is_type, message, of_type, only, text, types


class Service:
    """`steadyhand serve` on a data folder that outlives it. STEADYHAND_SDK_SERVE is the command but for its folders."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._command = [*shlex.split(os.environ["STEADYHAND_SDK_SERVE"]), "--listen", "127.0.0.1:0"]
        self._command += ["--data", str(folder / "data"), "--hands-dir", str(folder / "hands")]
        self._clients = contextlib.ExitStack()
        self.start()

    def start(self) -> None:
        with open(self._folder / "serve.log", "ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True
            )
        line = self._process.stdout.readline()
        assert line.startswith("listening on "), (line, (self._folder / "serve.log").read_text()[-2000:])
        address = line.removeprefix("listening on ").strip()
        key = (self._folder / "data" / "admin.key").read_text().strip()
        client = anthropic.Anthropic(base_url=address, api_key=key, timeout=30, max_retries=0)
        self.client = self._clients.enter_context(client)

    def stop(self, how: signal.Signals) -> int:
        self._process.send_signal(how)
        code = self._process.wait(30)
        self._process.stdout.close()
        return code

    def close(self) -> None:
        """Closes what clients left open: streams outlive the service that they came from."""
        self._clients.close()

    def kill(self) -> None:
        assert self.stop(signal.SIGKILL) == -signal.SIGKILL

    def session(self) -> Session:
        beta = self.client.beta
        agent = beta.agents.create(name="tester", model=MODEL, tools=[TOOLSET])
        environment = beta.environments.create(name="tests")
        return Session(self.client, beta.sessions.create(agent=agent.id, environment_id=environment.id))


@pytest.fixture
def service() -> Iterator[Service]:
    # The sandboxes run as users of their own, who may not pass through pytest's folders.
    folder = Path(tempfile.mkdtemp(dir=os.environ["STEADYHAND_SDK_FOLDER"]))
    folder.chmod(0o711)
    service = Service(folder)
    yield service
    assert service.stop(signal.SIGTERM) == 0, "a service that is told to end does so in good order"
    service.close()


def resume(service: Service, session: Session) -> tuple[Session, list]:
    """After a restart: opens a stream, reads the list, and waits for what is still to come."""
    session = Session(service.client, session.created)
    with session.stream() as stream:
        if not any(is_idle(event) for event in session.list()):
            stream.until(is_idle)
    return session, session.list()


def check_whole(events: list) -> None:
    ids = [event.id for event in events]
    assert len(set(ids)) == len(ids)
    assert all(event.processed_at is not None for event in events)
    starts = of_type(events, "span.model_request_start")
    ends = of_type(events, "span.model_request_end")
    assert [end.model_request_start_id for end in ends] == [start.id for start in starts]
    assert [event.stop_reason.type for event in of_type(events, "session.status_idle")] == ["end_turn"]
    assert types(events)[-2:] == ["session.usage", "session.status_idle"]


@pytest.mark.parametrize("moment", ["span.model_request_start", "session.status_running"])
def test_62_a_turn_killed_in_a_model_request_is_finished(service, moment):
    session = service.session()
    session.begin("take a moment", is_type(moment))
    before = session.list()
    service.kill()
    service.start()
    session, events = resume(service, session)
    check_whole(events)
    assert [event.id for event in events[: len(before)]] == [event.id for event in before]
    assert text(only(events, "agent.message")) == "You said: take a moment"


def test_62_a_turn_killed_while_a_tool_runs_is_finished_and_runs_it_once(service):
    session = service.session()
    session.begin("echo run >> /workspace/runs; sleep 3; wc -l < /workspace/runs #bash", is_type("agent.tool_use"))
    service.kill()
    service.start()
    session, events = resume(service, session)
    check_whole(events)
    result = only(events, "agent.tool_result")
    assert result.tool_use_id == only(events, "agent.tool_use").id
    assert (text(result), result.is_error) == ("1\n", False)
    assert text(session.bash("wc -l < /workspace/runs")) == "1\n"


def test_62_what_was_acknowledged_survives(service):
    session = service.session()
    agent = service.client.beta.agents.update(session.created.agent.id, version=1, name="renamed")
    [sent] = session.send(message("hello"))
    service.kill()
    service.start()
    session, events = resume(service, session)
    check_whole(events)
    assert only(events, "user.message").id == sent.id
    assert text(only(events, "agent.message")) == "You said: hello"
    assert service.client.beta.agents.retrieve(agent.id) == agent


def test_62_an_open_stream_ends_when_the_service_does(service):
    session = service.session()
    with session.stream() as stream:
        assert service.stop(signal.SIGTERM) == 0
        assert stream.rest() == []
    service.start()
