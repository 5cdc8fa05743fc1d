"""The client that MCP's conformance suite starts for a scenario: SERVER_URL. A session of the service at ANTHROPIC_BASE_URL has
an agent with this one MCP server, and its tool is called in a turn.

Who is to be authorized is so beforehand, by the OAuth client of MCP's SDK for Python: as with the official API, tokens are
got by whoever puts them into a vault. Fails where the session says that the server was not reached, did not let it in, or
refused the call.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anthropic
import httpx2
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider
from mcp.client.auth.extensions.client_credentials import (
    ClientCredentialsOAuthProvider,
    PrivateKeyJWTOAuthProvider,
    SignedJWTParameters,
)
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken

sys.path.append(str(Path(__file__).parents[1] / "sdk/python"))
from support import MODEL, Session, is_idle, message, of_type, text  # noqa: E402

NAME = "suite"
REDIRECT = "http://127.0.0.1:9/callback"
# As the suite names the document that says who this client is.
METADATA_URL = "https://conformance-test.local/client-metadata.json"


class Kept:
    """What the OAuth client knows of one server."""

    def __init__(self, client: OAuthClientInformationFull | None) -> None:
        self.tokens: OAuthToken | None = None
        self.client = client

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


def provider(scenario: str, url: str, context: dict[str, Any]) -> tuple[Kept, httpx2.Auth]:
    kept = Kept(None)
    if scenario == "auth/client-credentials-basic":
        return kept, ClientCredentialsOAuthProvider(url, kept, context["client_id"], context["client_secret"])
    if scenario == "auth/client-credentials-jwt":
        signed = SignedJWTParameters(
            issuer=context["client_id"],
            subject=context["client_id"],
            signing_key=context["private_key_pem"],
            signing_algorithm=context.get("signing_algorithm", "ES256"),
        )
        return kept, PrivateKeyJWTOAuthProvider(url, kept, context["client_id"], signed.create_assertion_provider())
    if "client_secret" in context:
        kept.client = OAuthClientInformationFull(
            redirect_uris=[REDIRECT],
            token_endpoint_auth_method="client_secret_basic",
            client_id=context["client_id"],
            client_secret=context["client_secret"],
        )
    came: list[dict[str, list[str]]] = []

    async def redirected(authorize: str) -> None:
        # The user's browser, and the user, who agrees.
        async with httpx2.AsyncClient() as browser:
            answer = await browser.get(authorize)
        came.append(parse_qs(urlsplit(answer.headers["location"]).query))

    async def called_back() -> AuthorizationCodeResult:
        query = came.pop()
        given = {name: query[name][0] for name in ("code", "state", "iss") if name in query}
        return AuthorizationCodeResult(**given)

    metadata = OAuthClientMetadata(client_name="steadyhand", redirect_uris=[REDIRECT])
    return kept, OAuthClientProvider(url, metadata, kept, redirected, called_back, client_metadata_url=METADATA_URL)


async def authorize(scenario: str, url: str, context: dict[str, Any]) -> str | None:
    """An access token, if the server asks for one."""
    kept, auth = provider(scenario, url, context)
    # Not the greeting, which a server may answer to everybody.
    hello = {"jsonrpc": "2.0", "id": 0, "method": "tools/list", "params": {}}
    headers = {"accept": "application/json, text/event-stream", "mcp-protocol-version": "2025-11-25"}
    async with httpx2.AsyncClient(auth=auth, timeout=20) as client:
        await client.post(url, json=hello, headers=headers)
    return kept.tokens and kept.tokens.access_token


def play(client: anthropic.Anthropic, url: str, token: str | None) -> list[str]:
    """One turn in a session with this server; what went wrong in it."""
    vaults = []
    if token is not None:
        vault = client.beta.vaults.create(display_name=NAME)
        auth = {"type": "mcp_oauth", "mcp_server_url": url, "access_token": token}
        client.beta.vaults.credentials.create(vault.id, auth=auth)
        vaults.append(vault.id)
    allow = {"permission_policy": {"type": "always_allow"}}
    agent = client.beta.agents.create(
        name=NAME,
        model=MODEL,
        mcp_servers=[{"type": "url", "name": NAME, "url": url}],
        tools=[{"type": "mcp_toolset", "mcp_server_name": NAME, "default_config": allow}],
    )
    environment = client.beta.environments.create(name=NAME)
    made = client.beta.sessions.create(agent=agent.id, environment_id=environment.id, vault_ids=vaults)
    session = Session(client, made)
    with session.stream() as stream:
        session.send(message("Do what there is to do."))
        events = stream.until(is_idle)
    problems = [event.error.message for event in of_type(events, "session.error")]
    results = of_type(events, "agent.mcp_tool_result")
    problems += [text(result) for result in results if result.is_error]
    print(json.dumps([event.to_dict() for event in events], indent=1, default=str))
    return problems


def main() -> int:
    url, scenario = sys.argv[1], os.environ["MCP_CONFORMANCE_SCENARIO"]
    context = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT", "{}"))
    token = asyncio.run(authorize(scenario, url, context)) if scenario.startswith("auth/") else None
    with anthropic.Anthropic(timeout=60, max_retries=0) as client:
        problems = play(client, url, token)
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


sys.exit(main())
