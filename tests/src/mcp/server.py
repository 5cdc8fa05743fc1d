"""A server with a few tools: PORT (0 for any) COUNTER TOKEN (empty for none). Prints its port when it listens."""

import socket
import sys

import uvicorn
from fastmcp import FastMCP
from fastmcp.exceptions import ToolError
from fastmcp.server.auth.providers.jwt import StaticTokenVerifier
from fastmcp.server.dependencies import get_http_request

port, counter, token = sys.argv[1:]
auth = StaticTokenVerifier(tokens={token: {"client_id": "steadyhand", "scopes": []}}) if token else None
server = FastMCP("counterpart", auth=auth)


@server.tool
def add(a: int, b: int) -> int:
    """Add two numbers"""
    return a + b


@server.tool
def count() -> str:
    """Leave a line in a file"""
    with open(counter, "a") as file:
        file.write("called\n")
    return "counted"


@server.tool
def show_authorization() -> str:
    """Give back what the request was authorized with"""
    return "authorization: " + get_http_request().headers.get("authorization", "none")


@server.tool
def fail() -> str:
    """Fail"""
    raise ToolError("as it was told to")


listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("127.0.0.1", int(port)))
listener.listen()
print(listener.getsockname()[1], flush=True)
uvicorn.Server(uvicorn.Config(server.http_app(path="/mcp"), log_level="error")).run(sockets=[listener])
