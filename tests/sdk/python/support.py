"""What the tests share: building blocks of requests, and watching a session until something happens.

Nothing here knows anything of the service but its address; everything is said through the official SDK.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import anthropic

T = TypeVar("T")

MODEL = "claude-opus-5-5"
TOOLSET: dict[str, Any] = {"type": "agent_toolset_20260401"}
WEATHER: dict[str, Any] = {
    "type": "custom",
    "name": "get_weather",
    "description": "The weather in a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def toolset(policy: str | None = None, **tools: dict[str, Any]) -> dict[str, Any]:
    """The agent toolset with a policy for all tools, or with settings of single ones."""
    param: dict[str, Any] = dict(TOOLSET)
    if policy is not None:
        param["default_config"] = {"permission_policy": {"type": policy}}
    if tools:
        param["configs"] = [{"name": name, **config} for name, config in tools.items()]
    return param


def message(text: str) -> dict[str, Any]:
    return {"type": "user.message", "content": [{"type": "text", "text": text}]}


INTERRUPT: dict[str, Any] = {"type": "user.interrupt"}


def confirmation(tool_use_id: str, result: str, deny_message: str | None = None) -> dict[str, Any]:
    event = {"type": "user.tool_confirmation", "tool_use_id": tool_use_id, "result": result}
    if deny_message is not None:
        event["deny_message"] = deny_message
    return event


def custom_result(tool_use_id: str, text: str) -> dict[str, Any]:
    content = [{"type": "text", "text": text}]
    return {"type": "user.custom_tool_result", "custom_tool_use_id": tool_use_id, "content": content}


def text(event: Any) -> str:
    """All text of an event's content."""
    return "".join(block.text for block in event.content if block.type == "text")


def types(events: list[Any]) -> list[str]:
    return [event.type for event in events]


def of_type(events: list[Any], *names: str) -> list[Any]:
    return [event for event in events if event.type in names]


def only(events: list[Any], name: str) -> Any:
    """The one event of that type."""
    found = of_type(events, name)
    assert len(found) == 1, f"{len(found)} {name} in {types(events)}"
    return found[0]


def is_idle(event: Any) -> bool:
    return event.type == "session.status_idle"


def is_type(name: str) -> Callable[[Any], bool]:
    return lambda event: event.type == name


def eventually(read: Callable[[], T], holds: Callable[[T], bool], seconds: float = 20) -> T:
    """Reads until it holds: for the few things that no event announces. Returns the last that was read."""
    end = time.monotonic() + seconds
    while True:
        value = read()
        if holds(value) or time.monotonic() > end:
            return value
        time.sleep(0.05)


class Stream:
    """An open stream of a session and everything that came on it."""

    def __init__(self, events: Iterator[Any]) -> None:
        self._events = events
        self.seen: list[Any] = []

    def until(self, done: Callable[[Any], bool]) -> list[Any]:
        """Reads on to the first event that is it; returns what came since the last call."""
        begin = len(self.seen)
        for event in self._events:
            self.seen.append(event)
            if done(event):
                return self.seen[begin:]
        raise AssertionError(f"the stream ended, after {types(self.seen)}")

    def rest(self) -> list[Any]:
        """Everything to the end of the stream."""
        begin = len(self.seen)
        self.seen.extend(self._events)
        return self.seen[begin:]


class Session:
    """A session and the shortest way to say things to it."""

    def __init__(self, client: anthropic.Anthropic, created: Any) -> None:
        self.client = client
        self.created = created
        self.id: str = created.id

    @property
    def _events(self) -> Any:
        return self.client.beta.sessions.events

    def get(self) -> Any:
        return self.client.beta.sessions.retrieve(self.id)

    def send(self, *events: dict[str, Any]) -> list[Any]:
        return self._events.send(self.id, events=list(events)).data

    def list(self, **params: Any) -> list[Any]:
        """All pages."""
        return list(self._events.list(self.id, **params))

    @contextlib.contextmanager
    def stream(self, **params: Any) -> Iterator[Stream]:
        with self._events.stream(self.id, **params) as events:
            yield Stream(iter(events))

    def turn(self, *events: dict[str, Any], **params: Any) -> list[Any]:
        """Sends, and returns everything that comes on the stream up to the next rest."""
        with self.stream(**params) as stream:
            self.send(*events)
            return stream.until(is_idle)

    def say(self, words: str) -> list[Any]:
        return self.turn(message(words))

    def bash(self, command: str) -> Any:
        """Has the model run a command; returns the result's event."""
        return only(self.say(f"{command} #bash"), "agent.tool_result")

    def begin(self, words: str, when: Callable[[Any], bool]) -> None:
        """Says something and returns while it is being answered, once the event has come."""
        with self.stream() as stream:
            self.send(message(words))
            stream.until(when)

    def interrupt(self) -> list[Any]:
        return self.turn(INTERRUPT)
