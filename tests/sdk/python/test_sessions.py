"""Sessions: conformance checks 33 to 46."""

from __future__ import annotations

import threading

import anthropic
import pytest

from support import MODEL, TOOLSET, WEATHER, custom_result, is_idle, is_type, message, of_type, only, text, types


def test_33_a_new_session_is_idle_and_shows_its_agent(client, make_agent, make_session):
    agent = make_agent(system="Be brief.", tools=[TOOLSET, WEATHER])
    session = make_session(agent=agent.id, title="t", metadata={"a": "1"})
    created = session.created
    assert created.id.startswith("sesn_")
    assert (created.type, created.status, created.title, created.metadata) == ("session", "idle", "t", {"a": "1"})
    assert (created.agent.type, created.agent.id, created.agent.version) == ("agent", agent.id, 1)
    assert [tool.to_dict() for tool in created.agent.tools] == [tool.to_dict() for tool in agent.tools]
    assert (created.agent.system, created.agent.name) == ("Be brief.", agent.name)
    assert created.agent.model.to_dict() == agent.model.to_dict()
    assert (created.resources, created.vault_ids, created.outcome_evaluations) == ([], [], [])
    assert (created.budget, created.deployment_id, created.archived_at) == (None, None, None)
    assert (created.usage.input_tokens, created.usage.output_tokens) == (0, 0)
    assert session.list() == []
    again = session.get()
    assert again.to_dict() == created.to_dict()


def test_33_what_it_needs_must_be_there(client, make_agent, environment):
    agent = make_agent()
    create = client.beta.sessions.create
    with pytest.raises(anthropic.APIStatusError) as refused:
        create(agent="agent_none", environment_id=environment.id)
    assert refused.value.status_code in {400, 404}
    with pytest.raises(anthropic.APIStatusError) as refused:
        create(agent=agent.id, environment_id="env_none")
    assert refused.value.status_code in {400, 404}
    with pytest.raises(anthropic.BadRequestError):
        create(agent=agent.id, environment_id=environment.id, metadata={"k" * 65: "x"})
    assert list(client.beta.sessions.list(agent_id=agent.id)) == []


def test_34_initial_events_come_first_and_start_work(make_session):
    session = make_session(initial_events=[message("take a moment"), message("and another")])
    assert session.created.status == "running"
    with session.stream() as stream:
        listed = session.list()
        assert [text(event) for event in listed[:2]] == ["take a moment", "and another"]
        if not any(is_idle(event) for event in listed):
            stream.until(is_idle)
    events = session.list()
    assert types(events)[:2] == ["user.message", "user.message"]
    assert [event.id for event in events[:2]] == [event.id for event in listed[:2]]
    assert only(events, "agent.message")


@pytest.mark.parametrize(
    "event",
    [
        {"type": "user.tool_confirmation", "tool_use_id": "sevt_x", "result": "allow"},
        {"type": "user.interrupt"},
        {"type": "agent.message", "content": []},
        {"type": "user.message", "content": [{"type": "redacted"}]},
    ],
    ids=lambda event: event["type"],
)
def test_35_a_wrong_initial_event_creates_nothing(client, make_agent, environment, event):
    agent = make_agent()
    with pytest.raises(anthropic.BadRequestError):
        client.beta.sessions.create(
            agent=agent.id, environment_id=environment.id, initial_events=[message("hello"), event]
        )
    assert list(client.beta.sessions.list(agent_id=agent.id, include_archived=True)) == []


def test_36_an_agent_is_named_pinned_or_overridden(client, make_agent, make_session):
    agent = make_agent(system="first", tools=[TOOLSET])
    client.beta.agents.update(agent.id, version=1, system="You are a pirate.")
    newest = make_session(agent=agent.id)
    assert (newest.created.agent.version, newest.created.agent.system) == (2, "You are a pirate.")
    pinned = make_session(agent={"type": "agent", "id": agent.id, "version": 1})
    assert (pinned.created.agent.version, pinned.created.agent.system) == (1, "first")
    overridden = make_session(
        agent={"type": "agent_with_overrides", "id": agent.id, "system": "other", "tools": [], "model": "claude-opus-5"}
    )
    snapshot = overridden.created.agent
    assert (snapshot.id, snapshot.version, snapshot.system, snapshot.tools) == (agent.id, 2, "other", [])
    assert snapshot.model.id == "claude-opus-5"
    unchanged = client.beta.agents.retrieve(agent.id)
    assert (unchanged.version, unchanged.system, unchanged.model.id) == (2, "You are a pirate.", MODEL)
    assert text(only(newest.say("who are you"), "agent.message")) == "a pirate"
    assert text(only(overridden.say("who are you"), "agent.message")) == "nobody in particular"
    assert text(only(overridden.say("which tools"), "agent.message")) == "bash is not offered"


def test_37_the_model_cannot_be_cleared(make_agent, make_session):
    with pytest.raises(anthropic.BadRequestError) as refused:
        make_session(agent={"type": "agent_with_overrides", "id": make_agent().id, "model": None})
    assert "agent_model_required" in str(refused.value.body)


def test_38_a_session_keeps_its_snapshot(client, make_agent, make_session):
    agent = make_agent(system="You are a pirate.")
    session = make_session(agent=agent.id)
    client.beta.agents.update(agent.id, version=1, system="You are a clerk.", tools=[], name="other")
    assert session.get().agent.to_dict() == session.created.agent.to_dict()
    assert text(only(session.say("who are you"), "agent.message")) == "a pirate"
    client.beta.agents.archive(agent.id)
    assert text(only(session.say("who are you"), "agent.message")) == "a pirate"


def test_39_an_update_tells_what_changed_and_no_more(client, make_session):
    session = make_session(title="before", metadata={"keep": "1", "drop": "1"})
    with session.stream() as stream:
        updated = client.beta.sessions.update(session.id, title="after")
        assert (updated.title, updated.metadata) == ("after", {"keep": "1", "drop": "1"})
        [event] = stream.until(is_type("session.updated"))
        assert event.to_dict(exclude_unset=True).keys() == {"id", "type", "processed_at", "title"}
        assert event.title == "after"
        updated = client.beta.sessions.update(session.id, metadata={"drop": None, "add": "2"})
        assert updated.metadata == {"keep": "1", "add": "2"}
        [event] = stream.until(is_type("session.updated"))
        assert event.to_dict(exclude_unset=True).keys() == {"id", "type", "processed_at", "metadata"}
        assert event.metadata == {"keep": "1", "add": "2"}
        client.beta.sessions.update(session.id, title="after", metadata={"add": "2"})
        client.beta.sessions.update(session.id, title=None)
        [event] = stream.until(is_type("session.updated"))
        assert event.title is None and "title" in event.to_dict(exclude_unset=True)
    now = session.get()
    assert (now.title, now.metadata) == (None, {"keep": "1", "add": "2"})
    assert len(of_type(session.list(), "session.updated")) == 3


def test_40_vaults_cannot_be_changed(client, session):
    with pytest.raises(anthropic.BadRequestError):
        client.beta.sessions.update(session.id, vault_ids=[])


def test_41_tools_can_be_changed_while_idle_only(client, make_session):
    session = make_session()
    session.begin("think for long", is_type("span.model_request_start"))
    with pytest.raises(anthropic.BadRequestError):
        client.beta.sessions.update(session.id, agent={"tools": []})
    session.interrupt()
    assert text(only(session.say("never mind"), "agent.message")) == "As you wish."
    assert text(only(session.say("which tools"), "agent.message")) == "bash is offered"
    with session.stream() as stream:
        updated = client.beta.sessions.update(session.id, agent={"tools": [WEATHER]})
        [event] = stream.until(is_type("session.updated"))
    assert [tool.type for tool in updated.agent.tools] == ["custom"]
    assert event.to_dict(exclude_unset=True).keys() == {"id", "type", "processed_at", "agent"}
    assert event.agent.tools[0].name == "get_weather"
    assert text(only(session.say("which tools"), "agent.message")) == "bash is not offered"
    assert client.beta.agents.retrieve(session.created.agent.id).tools[0].type == TOOLSET["type"]


def test_42_filters_and_order(client, make_agent, make_session):
    agent = make_agent()
    first, second, third = (make_session(agent=agent.id) for _ in range(3))
    other = make_session()

    def ids(**params):
        return [one.id for one in client.beta.sessions.list(**params)]

    assert ids(agent_id=agent.id) == [third.id, second.id, first.id]
    assert ids(agent_id=agent.id, order="asc") == [first.id, second.id, third.id]
    assert other.id in ids(limit=100) and other.id not in ids(agent_id=agent.id)
    client.beta.agents.update(agent.id, version=1, name="next")
    newer = make_session(agent=agent.id)
    assert ids(agent_id=agent.id, agent_version=2) == [newer.id]
    assert ids(agent_id=agent.id, agent_version=1) == [third.id, second.id, first.id]

    middle = second.created.created_at
    assert set(ids(agent_id=agent.id, created_at_gte=middle)) == {second.id, third.id, newer.id}
    assert set(ids(agent_id=agent.id, created_at_gt=middle)) == {third.id, newer.id}
    assert set(ids(agent_id=agent.id, created_at_lte=middle)) == {first.id, second.id}
    assert set(ids(agent_id=agent.id, created_at_lt=middle)) == {first.id}

    second.begin("think for long", is_type("span.model_request_start"))
    client.beta.sessions.archive(first.id)
    assert ids(agent_id=agent.id, statuses=["running"]) == [second.id]
    assert ids(agent_id=agent.id, statuses=["idle"]) == [newer.id, third.id]
    assert ids(agent_id=agent.id, statuses=["idle", "running"]) == [newer.id, third.id, second.id]
    assert first.id not in ids(agent_id=agent.id)
    assert first.id in ids(agent_id=agent.id, include_archived=True)
    assert ids(agent_id=agent.id, include_archived=True, statuses=["terminated"]) == [first.id]
    second.interrupt()
    assert ids(agent_id=agent.id, statuses=["running"]) == []


def test_43_pages_lead_forward_and_back(client, make_agent, make_session):
    agent = make_agent()
    made = [make_session(agent=agent.id).id for _ in range(4)]
    page = client.beta.sessions.list(agent_id=agent.id, limit=1)
    assert page.prev_page is None
    forward = [page]
    while page.has_next_page():
        page = page.get_next_page()
        forward.append(page)
    assert [one.id for page in forward for one in page.data] == made[::-1]
    back = [page]
    while page.prev_page:
        page = client.beta.sessions.list(agent_id=agent.id, limit=1, page=page.prev_page)
        back.append(page)
    assert [one.id for page in back for one in page.data] == made


def test_43_only_sessions_have_a_way_back(http, session):
    for path in ["/v1/agents", "/v1/environments", "/v1/files", f"/v1/sessions/{session.id}/events"]:
        assert "prev_page" not in http.get(path).raise_for_status().json(), path
    assert http.get("/v1/sessions").json()["prev_page"] is None


def test_44_a_cursor_keeps_its_order(client, make_agent, make_session):
    agent = make_agent()
    for _ in range(2):
        make_session(agent=agent.id)
    page = client.beta.sessions.list(agent_id=agent.id, limit=1)
    with pytest.raises(anthropic.BadRequestError):
        client.beta.sessions.list(agent_id=agent.id, limit=1, page=page.next_page, order="asc")
    with pytest.raises(anthropic.BadRequestError):
        client.beta.sessions.list(agent_id=agent.id, page="page_of_a_book")


def test_45_an_archived_session_keeps_its_log_and_takes_no_more(client, session):
    session.begin("think for long", is_type("span.model_request_start"))
    with pytest.raises(anthropic.BadRequestError):
        client.beta.sessions.archive(session.id)
    session.interrupt()
    with session.stream() as stream:
        archived = client.beta.sessions.archive(session.id)
        assert stream.until(is_type("session.status_terminated"))
        assert stream.rest() == []
    assert archived.status == "terminated" and archived.archived_at is not None
    assert session.get().to_dict() == archived.to_dict()
    before = session.list()
    assert types(before)[-1] == "session.status_terminated"
    for refused in [lambda: session.send(message("hello")), lambda: client.beta.sessions.update(session.id, title="x")]:
        with pytest.raises(anthropic.APIStatusError) as error:
            refused()
        assert error.value.status_code in {400, 409}
    assert session.list() == before
    assert client.beta.sessions.archive(session.id).archived_at == archived.archived_at


def test_46_a_deleted_session_is_gone(client, make_session):
    session = make_session()
    session.begin("think for long", is_type("span.model_request_start"))
    with pytest.raises(anthropic.BadRequestError):
        client.beta.sessions.delete(session.id)
    session.interrupt()
    session.say("never mind")
    session.say("echo kept > kept.txt #bash")
    heard: list = []
    with session.stream() as one, session.stream() as other:
        listening = threading.Thread(target=lambda: heard.extend(other.rest()))
        listening.start()
        deleted = client.beta.sessions.delete(session.id)
        assert (deleted.id, deleted.type) == (session.id, "session_deleted")
        assert types(one.rest())[-1] == "session.deleted"
        listening.join(timeout=30)
    assert types(heard)[-1] == "session.deleted"
    for gone in [session.get, session.list, lambda: session.send(message("hello"))]:
        with pytest.raises(anthropic.NotFoundError):
            gone()
    assert session.id not in {one.id for one in client.beta.sessions.list(limit=100, include_archived=True)}


def test_46_a_session_that_waits_for_an_answer_is_idle(client, make_session):
    session = make_session(tools=[WEATHER])
    session.say("what is the weather of Paris")
    assert session.get().status == "idle"
    call = only(session.list(), "agent.custom_tool_use")
    session.turn(custom_result(call.id, "rain"))
    assert client.beta.sessions.delete(session.id).id == session.id
