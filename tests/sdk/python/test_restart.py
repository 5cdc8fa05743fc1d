"""A service that is killed in the middle of a turn: conformance check 62. The service is the test's own."""

from __future__ import annotations

import signal

import pytest

from service import Service
from support import Session, is_idle, is_type, message, of_type, only, text, types


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
