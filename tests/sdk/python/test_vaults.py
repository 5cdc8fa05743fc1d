"""Conformance checks 81 to 84: vaults and credentials."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import pytest

CANARY = "canary-value"


@pytest.fixture
def vault(client: anthropic.Anthropic) -> Iterator[Any]:
    vault = client.beta.vaults.create(display_name="tests", metadata={"of": "tests"})
    yield vault
    client.beta.vaults.delete(vault.id)


@pytest.fixture
def credentials(client: anthropic.Anthropic) -> Any:
    return client.beta.vaults.credentials


def bearer(url: str = "https://mcp.example.com/sse") -> dict[str, Any]:
    return {"type": "static_bearer", "mcp_server_url": url, "token": CANARY}


def oauth() -> dict[str, Any]:
    return {
        "type": "mcp_oauth",
        "mcp_server_url": "https://oauth.example.com",
        "access_token": CANARY,
        "expires_at": "2099-01-01T00:00:00Z",
        "refresh": {
            "client_id": "client",
            "token_endpoint": "https://id.example.com/token",
            "token_endpoint_auth": {"type": "client_secret_basic", "client_secret": CANARY},
            "refresh_token": CANARY,
        },
    }


def variable(**more: Any) -> dict[str, Any]:
    networking = {"type": "limited", "allowed_hosts": ["api.example.com"]}
    return {
        "type": "environment_variable",
        "secret_name": "API_TOKEN",
        "secret_value": CANARY,
        "networking": networking,
        **more,
    }


def refused(call: Callable[..., Any], *args: Any, **params: Any) -> str:
    with pytest.raises(anthropic.BadRequestError) as caught:
        call(*args, **params)
    return str(caught.value.body)


def test_81_no_secret_comes_back(client, http, vault, credentials):
    said = []
    for auth in [bearer(), oauth(), variable()]:
        made = credentials.create(vault.id, auth=auth, display_name=auth["type"])
        assert (made.type, made.vault_id, made.auth.type) == ("vault_credential", vault.id, auth["type"])
        said += [made, credentials.retrieve(made.id, vault_id=vault.id)]
        update = {"type": auth["type"], {"static_bearer": "token", "mcp_oauth": "access_token"}.get(
            auth["type"], "secret_value"): CANARY + "-2"}
        said.append(credentials.update(made.id, vault_id=vault.id, auth=update))
        said.append(credentials.mcp_oauth_validate(made.id, vault_id=vault.id))
    listed = list(credentials.list(vault.id))
    assert [credential.display_name for credential in listed] == ["environment_variable", "mcp_oauth", "static_bearer"]
    said += listed
    said.append(http.post(f"/v1/vaults/{vault.id}/credentials", json={"auth": {"type": CANARY}}).text)
    said.append(http.post(f"/v1/vaults/{vault.id}/credentials", json={"auth": CANARY}).text)
    said.append(refused(credentials.create, vault.id, auth={**bearer("no url")}))
    assert CANARY not in "".join(one if isinstance(one, str) else one.to_json() for one in said)


def test_82_a_second_credential_for_a_server_is_a_conflict(vault, credentials):
    first = credentials.create(vault.id, auth=bearer("https://mcp.example.com/sse"))
    with pytest.raises(anthropic.ConflictError) as caught:
        credentials.create(vault.id, auth=bearer("HTTPS://MCP.example.com:443/sse/"))
    assert caught.value.body["error"]["type"] == "conflict_error"
    credentials.delete(first.id, vault_id=vault.id)
    credentials.create(vault.id, auth=bearer("https://mcp.example.com/sse"))


def test_83_archiving_frees_the_key_and_cascades(client, vault, credentials):
    first = credentials.create(vault.id, auth=bearer())
    assert credentials.archive(first.id, vault_id=vault.id).archived_at is not None
    second = credentials.create(vault.id, auth=bearer())
    assert [one.id for one in credentials.list(vault.id)] == [second.id]
    assert [one.id for one in credentials.list(vault.id, include_archived=True)] == [second.id, first.id]
    assert client.beta.vaults.archive(vault.id).archived_at is not None
    assert credentials.retrieve(second.id, vault_id=vault.id).archived_at is not None
    assert vault.id not in [one.id for one in client.beta.vaults.list()]
    refused(credentials.create, vault.id, auth=bearer("https://other.example.com"))


def test_83_an_archived_vault_opens_no_session(client, environment, make_agent, vault):
    agent = make_agent().id
    session = client.beta.sessions.create(agent=agent, environment_id=environment.id, vault_ids=[vault.id])
    assert session.vault_ids == [vault.id]
    client.beta.vaults.archive(vault.id)
    refused(client.beta.sessions.create, agent=agent, environment_id=environment.id, vault_ids=[vault.id])


def test_84_where_a_value_is_put(vault, credentials):
    made = credentials.create(vault.id, auth=variable())
    assert (made.auth.injection_location.header, made.auth.injection_location.body) == (True, True)
    update = {"type": "environment_variable", "injection_location": {"body": False}}
    changed = credentials.update(made.id, vault_id=vault.id, auth=update)
    assert (changed.auth.injection_location.header, changed.auth.injection_location.body) == (True, False)
    update["injection_location"] = {"header": False}
    assert "header or body" in refused(credentials.update, made.id, vault_id=vault.id, auth=update)
    neither = variable(secret_name="OTHER", injection_location={"header": False, "body": False})
    refused(credentials.create, vault.id, auth=neither)


def test_84_metadata_and_names_are_patched(client, vault):
    changed = client.beta.vaults.update(vault.id, display_name="renamed", metadata={"of": None, "for": "tests"})
    assert (changed.display_name, changed.metadata) == ("renamed", {"for": "tests"})
    assert client.beta.vaults.retrieve(vault.id) == changed
    with pytest.raises(anthropic.NotFoundError):
        client.beta.vaults.retrieve("vlt_unknown")
