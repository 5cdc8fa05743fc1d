"""Histories without what differs between two runs of the same scenario (ids, times, sizes), and without what the embedded
engine leaves out on purpose (docs/engine.md, "Not implemented")."""

import base64
import binascii
import re

# Whether they are set does not differ, their value does.
RANDOM = {
    "identity", "requestId", "runId", "originalExecutionRunId", "firstExecutionRunId", "continuedExecutionRunId",
    "newExecutionRunId", "historySizeBytes", "stackTrace", "namespaceId", "parentWorkflowNamespaceId", "eventTime",
    "taskId", "workflowExecutionExpirationTime", "protocolInstanceId", "acceptedRequestMessageId",
}
# Build ids from before 2025, points to reset to, and the groups that a user interface draws; a server makes runs that are
# continued at once wait for a second.
LEFT_OUT = {"workerVersion", "prevAutoResetPoints", "eventGroupMarkers", "firstWorkflowTaskBackoff"}
# In any order.
SETS = {"coreUsedFlags", "langUsedFlags"}
# What a local activity's marker says of when it was.
TIMES = re.compile(r'"(seconds|nanos)":\d+')
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def steady(events: list) -> list:
    """The events of a history as an SDK writes them as JSON."""
    return [_steady(event) for event in events]


def _steady(value):
    if isinstance(value, dict):
        if value.get("kind") == "TASK_QUEUE_KIND_STICKY":
            return {"kind": value["kind"]}
        kept = {key: inner for key, inner in value.items() if key not in LEFT_OUT}
        for flags in SETS & kept.keys():
            kept[flags] = sorted(kept[flags])
        return {key: "*" if key in RANDOM else _decoded(key, _steady(inner)) for key, inner in kept.items()}
    if isinstance(value, list):
        return [_steady(inner) for inner in value]
    return UUID.sub("*", value) if isinstance(value, str) else value


def _decoded(key: str, value):
    """What base64 hides, where it is text."""
    if key == "metadata" and isinstance(value, dict):
        # A server names the type of an attribute that loses its value too.
        return {name: _text(inner) for name, inner in value.items() if name != "type"}
    if key != "data" or not isinstance(value, str):
        return value
    return TIMES.sub("*", _text(value))


def _text(value: str) -> str:
    try:
        return UUID.sub("*", base64.b64decode(value, validate=True).decode())
    except (binascii.Error, UnicodeDecodeError):
        return value
