"""Transport: conformance checks 1 to 12."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any

import anthropic
import httpx2
import pytest

from support import MODEL, TOOLSET, message


def test_01_a_key_is_accepted_as_bearer_and_a_wrong_one_refused(client):
    client.beta.agents.list()
    with pytest.raises(anthropic.AuthenticationError) as refused:
        client.with_options(api_key="sk-wrong").beta.agents.list()
    assert refused.value.type == "authentication_error"
    assert refused.value.status_code == 401


def test_01_no_key_is_refused_everywhere(http):
    for method, path in [
        ("GET", "/v1/agents"),
        ("POST", "/v1/sessions"),
        ("GET", "/v1/sessions/sesn_x/events/stream"),
        ("GET", "/v1/files/file_x/content"),
    ]:
        answer = httpx2.request(method, http.base_url.join(path))
        assert answer.status_code == 401, path
        assert answer.json()["error"]["type"] == "authentication_error"


def test_02_a_key_is_accepted_as_x_api_key(client, http):
    headers = {"x-api-key": client.api_key, "anthropic-version": "2023-06-01"}
    answer = httpx2.get(http.base_url.join("/v1/agents"), headers=headers)
    assert answer.status_code == 200


def test_03_every_answer_carries_its_request_id(client, http, session):
    file = client.beta.files.upload(file=("a.txt", b"a"))
    answers = [
        http.get("/v1/agents"),
        http.get(f"/v1/sessions/{session.id}/events"),
        http.get("/v1/agents/agent_none"),
        http.get("/v1/nowhere"),
        http.put("/v1/agents"),
        http.post("/v1/agents", content=b"{"),
        http.get("/v1/agents", headers={"authorization": "Bearer wrong"}),
        http.get(f"/v1/files/{file.id}/content"),
    ]
    with http.stream("GET", f"/v1/sessions/{session.id}/events/stream") as stream:
        answers.append(stream)
    ids = [answer.headers["request-id"] for answer in answers]
    assert all(re.fullmatch(r"req_\w+", request_id) for request_id in ids), ids
    assert len(set(ids)) == len(ids)
    for answer in answers[2:-1]:
        assert answer.is_error and answer.json()["request_id"] == answer.headers["request-id"]
        assert answer.json()["type"] == "error"


def test_03_the_sdk_shows_the_request_id(client):
    assert client.beta.environments.create(name="e")._request_id.startswith("req_")
    with pytest.raises(anthropic.NotFoundError) as missing:
        client.beta.agents.retrieve("agent_none")
    assert missing.value.request_id.startswith("req_")
    assert missing.value.body["request_id"] == missing.value.request_id


def test_04_unknown_ids_are_not_found(client, session):
    beta = client.beta
    sessions, events = beta.sessions, beta.sessions.events
    calls = [
        lambda: beta.agents.retrieve("agent_none"),
        lambda: beta.agents.update("agent_none", name="x"),
        lambda: beta.agents.archive("agent_none"),
        lambda: beta.agents.versions.list("agent_none"),
        lambda: beta.environments.retrieve("env_none"),
        lambda: beta.environments.update("env_none", name="x"),
        lambda: beta.environments.archive("env_none"),
        lambda: beta.environments.delete("env_none"),
        lambda: sessions.retrieve("sesn_none"),
        lambda: sessions.update("sesn_none", title="x"),
        lambda: sessions.archive("sesn_none"),
        lambda: sessions.delete("sesn_none"),
        lambda: events.list("sesn_none"),
        lambda: events.send("sesn_none", events=[message("x")]),
        lambda: events.stream("sesn_none"),
        lambda: sessions.resources.list("sesn_none"),
        lambda: sessions.resources.retrieve("sesrsc_none", session_id=session.id),
        lambda: sessions.threads.list("sesn_none"),
        lambda: sessions.threads.retrieve("sthr_none", session_id=session.id),
        lambda: beta.files.retrieve_metadata("file_none"),
        lambda: beta.files.download("file_none"),
        lambda: beta.files.delete("file_none"),
    ]
    for number, call in enumerate(calls):
        with pytest.raises(anthropic.NotFoundError) as missing:
            call()
            pytest.fail(f"call {number} was answered")
        assert missing.value.type == "not_found_error", number


@pytest.mark.parametrize("body", [b"{", b"", b"[]", b"null", b'{"name": "\xff"}', b'{"name": 1}', b"{}x"])
def test_05_malformed_bodies_are_invalid_requests(http, session, body):
    for path in ["/v1/agents", "/v1/environments", "/v1/sessions", f"/v1/sessions/{session.id}/events"]:
        answer = http.post(path, content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 400, (path, body, answer.text)
        assert answer.json()["error"]["type"] == "invalid_request_error"


def test_06_an_unknown_path_is_not_found(http):
    for path in ["/v1/nowhere", "/v1/agents/agent_x/nowhere", "/"]:
        answer = http.get(path)
        assert answer.status_code == 404, path
        assert answer.headers["content-type"] == "application/json"
        assert answer.json()["type"] == "error"
        assert answer.json()["error"]["type"] == "not_found_error"


def test_07_a_body_over_the_limit_is_too_large(client, session):
    large = "x" * (33 * 1024 * 1024)
    with pytest.raises(anthropic.ContentTooLargeError) as refused:
        client.beta.agents.create(name="large", model=MODEL, system=large)
    assert refused.value.type == "request_too_large"
    with pytest.raises(anthropic.ContentTooLargeError):
        session.send(message(large))
    assert session.list() == []


@pytest.mark.parametrize("version", ["2026-10-21", "2023-06-01"])
def test_08_both_versions_are_accepted(client, version):
    client.with_options(default_headers={"anthropic-version": version}).beta.agents.list()


def test_09_unknown_query_keys_are_ignored(client, http, session):
    for path in ["/v1/agents", "/v1/environments", "/v1/sessions", "/v1/files", f"/v1/sessions/{session.id}/events"]:
        answer = http.get(path, params={"beta": "true", "colour": "blue"})
        assert answer.status_code == 200, (path, answer.text)
    created = client.beta.agents.create(name="q", model=MODEL, extra_query={"beta": "true", "colour": "blue"})
    assert created.name == "q"


def test_10_an_empty_body_is_no_body(http, make_agent, client, session):
    environment = client.beta.environments.create(name="e")
    json = {"content-type": "application/json"}
    for path in [
        f"/v1/agents/{make_agent().id}/archive",
        f"/v1/environments/{environment.id}/archive",
        f"/v1/sessions/{session.id}/archive",
    ]:
        answer = http.post(path, content=b"", headers=json)
        assert answer.status_code == 200, (path, answer.text)
        assert answer.json()["archived_at"] is not None
    answer = http.request("DELETE", f"/v1/sessions/{session.id}", content=b"", headers=json)
    assert answer.status_code == 200, answer.text


def test_11_all_times_are_rfc_3339_with_a_zone(client, http, session, environment):
    session.say("hello")
    file = client.beta.files.upload(file=("a.txt", b"a"), expires_in_seconds=3600)
    seen = set()

    def check(value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                if key.endswith("_at") and inner is not None:
                    assert datetime.fromisoformat(inner).utcoffset() is not None, (key, inner)
                    seen.add(key)
                check(inner)
        elif isinstance(value, list):
            for inner in value:
                check(inner)

    for path in [
        f"/v1/agents/{session.created.agent.id}",
        f"/v1/environments/{environment.id}",
        f"/v1/sessions/{session.id}",
        f"/v1/sessions/{session.id}/events",
        f"/v1/sessions/{session.id}/threads",
        f"/v1/files/{file.id}",
    ]:
        check(http.get(path).raise_for_status().json())
    assert seen == {"created_at", "updated_at", "processed_at", "expires_at"}


def test_12_a_conflict_is_not_repeated(client, make_agent):
    agent = make_agent()
    requests: list[httpx2.Request] = []
    counting = anthropic.DefaultHttpxClient(event_hooks={"request": [requests.append]})
    with anthropic.Anthropic(http_client=counting, max_retries=2) as counted:
        with pytest.raises(anthropic.ConflictError) as conflict:
            counted.beta.agents.update(agent.id, version=agent.version + 1, name="other")
    assert conflict.value.type == "conflict_error"
    assert len(requests) == 1


def test_02_08_09_the_curl_forms_of_the_docs(client, http):
    """As `curl` and the SDKs of before send them: x-api-key, the old version, a beta header, `?beta=true`."""
    headers = {
        "x-api-key": client.api_key,
        "anthropic-version": "2023-06-01",
        "anthropic-beta": "managed-agents-2026-04-01",
        "content-type": "application/json",
    }
    with httpx2.Client(base_url=http.base_url, headers=headers, timeout=30) as curl:

        def post(path: str, body: dict[str, Any]) -> Any:
            return curl.post(path, params={"beta": "true"}, json=body).raise_for_status().json()

        agent = post("/v1/agents", {"name": "curl", "model": {"id": MODEL}, "tools": [TOOLSET]})
        environment = post("/v1/environments", {"name": "curl", "config": {"type": "cloud"}})
        session = post("/v1/sessions", {"agent": agent["id"], "environment_id": environment["id"]})
        path = f"/v1/sessions/{session['id']}/events"
        said = []
        stream_headers = {"accept": "text/event-stream"}
        with curl.stream("GET", f"{path}/stream", params={"beta": "true"}, headers=stream_headers) as stream:
            [sent] = post(path, {"events": [message("echo from curl #bash")]})["data"]
            # As the docs do it: by the data lines alone.
            for line in stream.iter_lines():
                if line.startswith("data:"):
                    said.append(json.loads(line.removeprefix("data:")))
                    if said[-1]["type"] == "session.status_idle":
                        break
        listed = curl.get(path, params={"beta": "true", "limit": "1000"}).raise_for_status().json()["data"]
        assert listed[0]["id"] == sent["id"] and listed[-1]["type"] == "session.status_idle"
        assert {event["id"] for event in said} == {event["id"] for event in listed}
        assert curl.delete(f"/v1/sessions/{session['id']}").json()["type"] == "session_deleted"


def test_what_is_not_built_is_said_and_asked_for_once(client, environment, make_agent, session):
    requests: list[httpx2.Request] = []
    counting = anthropic.DefaultHttpxClient(event_hooks={"request": [requests.append]})
    agent = make_agent().id
    store = {"type": "memory_store", "memory_store_id": "memstore_01"}
    outcome = {"type": "user.define_outcome", "description": "d", "rubric": {"type": "text", "content": "r"}}
    budget = {"type": "limit", "max_list_cost": {"amount": "100", "currency": "USD"}}
    with anthropic.Anthropic(http_client=counting, max_retries=2) as counted:
        beta = counted.beta
        made = {"agent": agent, "environment_id": environment.id}
        calls = [
            lambda: beta.memory_stores.list(),
            lambda: beta.memory_stores.create(name="m"),
            lambda: beta.skills.list(),
            lambda: beta.deployments.list(),
            lambda: beta.dreams.list(),
            lambda: beta.user_profiles.list(),
            lambda: beta.models.list(),
            lambda: beta.agents.create(name="a", model=MODEL, skills=[{"type": "anthropic", "skill_id": "xlsx"}]),
            lambda: beta.agents.create(name="a", model=MODEL, multiagent={"type": "coordinator", "agents": [agent]}),
            lambda: beta.sessions.create(**made, budget=budget),
            lambda: beta.sessions.create(**made, resources=[store]),
            lambda: beta.sessions.create(**made, initial_events=[outcome]),
            lambda: beta.sessions.events.send(session.id, events=[outcome]),
        ]
        for number, call in enumerate(calls):
            with pytest.raises(anthropic.HTTPNotImplementedError) as refused:
                call()
                pytest.fail(f"call {number} was answered")
            error = refused.value.body["error"]
            assert (error["type"], error["details"]["error_code"]) == ("api_error", "not_implemented"), number
            assert len(requests) == number + 1, "it is not sent again"
    assert session.list() == []
