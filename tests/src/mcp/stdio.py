"""A server that speaks stdio, made with the official SDK. It runs inside a sandbox, beside the packages that it needs."""

import os
import sys

from mcp.server import MCPServer

server = MCPServer("inside")


def count_up(word: str) -> int:
    with open("/workspace/counter", "a") as file:
        file.write(f"{word}\n")
    with open("/workspace/counter") as file:
        return file.read().split().count(word)


@server.tool()
def add(a: int, b: int) -> str:
    """Add two numbers"""
    return str(a + b)


@server.tool()
def count(word: str) -> str:
    """Leave a word in a file"""
    return f"{word} {count_up(word)}"


@server.tool()
def wait(word: str) -> str:
    """Leave a word in a file, say so, and wait to be let go on"""
    count_up(word)
    for left in ("gate", "started"):
        if os.path.exists(left):
            os.remove(left)
    os.mkfifo("gate")
    open("started", "w").close()
    open("gate").readline()
    return "went on"


@server.tool()
def die() -> str:
    """End without an answer"""
    print("these are its last words", file=sys.stderr, flush=True)
    os._exit(3)


@server.tool()
def surroundings() -> str:
    """Which variables and folders there are"""
    folders = sorted(os.listdir("/run"))
    return f"{os.getcwd()} {os.environ['LEVEL']} {folders} {sorted(os.environ)}"


@server.tool()
def hidden() -> str:
    """What the agent may not use"""
    return "nobody should see this"


server.run("stdio")
