"""A server that OAuth protects: LOG. Prints its port when it listens. The client `steadyhand` has a refresh token; each use
gives another one. A line in LOG for every refresh, with the refresh token."""

import socket
import sys

import uvicorn
from fastmcp import FastMCP
from fastmcp.server.auth.providers.in_memory import InMemoryOAuthProvider
from mcp.server.auth.provider import RefreshToken
from mcp.shared.auth import OAuthClientInformationFull

log = sys.argv[1]
listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen()
port = listener.getsockname()[1]


class Provider(InMemoryOAuthProvider):
    async def exchange_refresh_token(self, client, refresh_token, scopes):
        with open(log, "a") as file:
            file.write(f"{refresh_token.token}\n")
        return await super().exchange_refresh_token(client, refresh_token, scopes)


auth = Provider(base_url=f"http://127.0.0.1:{port}")
auth.clients["steadyhand"] = OAuthClientInformationFull(
    client_id="steadyhand",
    client_secret="CANARY-client-secret",
    redirect_uris=["http://127.0.0.1/none"],
    token_endpoint_auth_method="client_secret_post",
)
auth.refresh_tokens["CANARY-refresh"] = RefreshToken(token="CANARY-refresh", client_id="steadyhand", scopes=[])
server = FastMCP("counterpart", auth=auth)


@server.tool
def add(a: int, b: int) -> int:
    """Add two numbers"""
    return a + b


@server.tool
def expire() -> str:
    """Take back every access token"""
    auth.access_tokens.clear()
    return "expired"


@server.tool
def revoke() -> str:
    """Take back every token"""
    auth.access_tokens.clear()
    auth.refresh_tokens.clear()
    return "revoked"


print(port, flush=True)
uvicorn.Server(uvicorn.Config(server.http_app(path="/mcp"), log_level="error")).run(sockets=[listener])
