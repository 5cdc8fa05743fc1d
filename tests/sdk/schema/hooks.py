"""What the requests are about: ids that were made up are not found, so three of four are of things that are there.

Nothing here is checked; the checks are schemathesis' own.
"""

from __future__ import annotations

import functools
import uuid
import zlib
from typing import Any

import anthropic
import schemathesis

MODEL = "claude-opus-5-5"


@functools.cache
def there() -> dict[str, str]:
    """A thing of each kind, by the name of the parameter that names it."""
    with anthropic.Anthropic(timeout=30) as client:
        beta = client.beta
        agent = beta.agents.create(name="schema", model=MODEL)
        cloud = beta.environments.create(name="schema")
        own = beta.environments.create(name="schema", config={"type": "self_hosted"})
        message = {"type": "user.message", "content": [{"type": "text", "text": "hello"}]}
        session = beta.sessions.create(agent=agent.id, environment_id=cloud.id, initial_events=[message])
        served = beta.sessions.create(agent=agent.id, environment_id=own.id, initial_events=[message])
        work = next(iter(beta.environments.work.list(own.id)))
        assert work.data.id == served.id
        thread = next(iter(beta.sessions.threads.list(session.id)))
        vault = beta.vaults.create(display_name="schema")
        auth = {"type": "static_bearer", "mcp_server_url": "https://mcp.example.com", "token": "a token"}
        credential = beta.vaults.credentials.create(vault.id, auth=auth)
        file = beta.files.upload(file=("schema.txt", b"a file", "text/plain"))
        return {
            "agent_id": agent.id,
            "cloud_id": cloud.id,
            "environment_id": own.id,
            "work_id": work.id,
            "session_id": session.id,
            "thread_id": thread.id,
            "vault_id": vault.id,
            "credential_id": credential.id,
            "file_id": file.id,
            "harness": "loop",
        }


def passing(names: frozenset[str]) -> dict[str, str]:
    """Things that nobody else needs, for the parameters of one path. What is not made here is made up."""
    known = there()
    with anthropic.Anthropic(timeout=30) as client:
        beta = client.beta
        if "session_id" in names:
            session = beta.sessions.create(agent=known["agent_id"], environment_id=known["cloud_id"]).id
            thread = next(iter(beta.sessions.threads.list(session)))
            return {"session_id": session, "thread_id": thread.id}
        if "credential_id" in names:
            vault = beta.vaults.create(display_name="passing")
            auth = {"type": "static_bearer", "mcp_server_url": "https://mcp.example.com", "token": "a token"}
            return {"vault_id": vault.id, "credential_id": beta.vaults.credentials.create(vault.id, auth=auth).id}
        if "vault_id" in names:
            return {"vault_id": beta.vaults.create(display_name="passing").id}
        if "agent_id" in names:
            return {"agent_id": beta.agents.create(name="passing", model=MODEL).id}
        if "environment_id" in names:
            return {"environment_id": beta.environments.create(name=f"passing-{uuid.uuid4()}").id}
        if "file_id" in names:
            return {"file_id": beta.files.upload(file=("passing.txt", b"a file", "text/plain")).id}
    return {}


def is_real(value: Any) -> bool:
    return zlib.crc32(repr(value).encode()) % 4 != 0


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    if context.operation.label == "POST /v1/sessions" and isinstance(body, dict) and is_real(body):
        known = there()
        return {**body, "agent": known["agent_id"], "environment_id": known["cloud_id"]}
    return body


@schemathesis.hook
def map_path_parameters(context: Any, path_parameters: dict[str, Any] | None) -> dict[str, Any] | None:
    operation = context.operation
    if not path_parameters:
        return path_parameters
    # What is deleted or archived is made for that: the others are needed to the end, and schemathesis takes up what it saw in answers.
    ends = operation.method.upper() == "DELETE" or operation.path.endswith("/archive")
    is_needed = ends and any(value in there().values() for value in path_parameters.values())
    if not is_needed and not is_real(sorted(path_parameters.items())):
        return path_parameters
    known = passing(frozenset(path_parameters)) if ends else there()
    return {name: known.get(name, value) for name, value in path_parameters.items()}
