"""Agents: conformance checks 13 to 26."""

from __future__ import annotations

import anthropic
import pytest

from support import MODEL, TOOLSET, WEATHER, toolset

SERVER = {"type": "url", "name": "docs", "url": "https://mcp.example.com/sse"}
MCP_TOOLSET = {"type": "mcp_toolset", "mcp_server_name": "docs"}


def test_13_a_bare_model_becomes_an_object_with_defaults(client):
    agent = client.beta.agents.create(name="a", model=MODEL)
    assert agent.model.id == MODEL
    assert agent.model.speed == "standard"
    assert agent.model.effort.type in {"low", "medium", "high", "xhigh", "max"}


def test_13_a_model_keeps_what_it_was_given(client):
    agent = client.beta.agents.create(name="a", model={"id": MODEL, "effort": "low", "speed": "fast"})
    assert (agent.model.effort.type, agent.model.speed) == ("low", "fast")
    assert client.beta.agents.retrieve(agent.id).model == agent.model


def test_14_a_new_agent_is_version_1(client):
    agent = client.beta.agents.create(name="a", model=MODEL)
    assert agent.id.startswith("agent_")
    assert (agent.type, agent.version, agent.archived_at) == ("agent", 1, None)
    assert agent.created_at == agent.updated_at
    assert client.beta.agents.retrieve(agent.id) == agent


def test_15_what_is_omitted_has_its_empty_value(client):
    agent = client.beta.agents.create(name="a", model=MODEL).to_dict()
    assert {name: agent[name] for name in ("tools", "mcp_servers", "skills")} == {
        "tools": [],
        "mcp_servers": [],
        "skills": [],
    }
    assert (agent["description"], agent["system"], agent["multiagent"]) == (None, None, None)
    assert agent["metadata"] == {}
    assert agent["execution_identity"] == {"type": "service_account"}


def test_16_a_toolset_is_enabled_and_allowed_by_default(make_agent):
    [tools] = make_agent(tools=[TOOLSET]).tools
    assert tools.default_config.enabled is True
    assert tools.default_config.permission_policy.type == "always_allow"


def test_16_a_tools_own_settings_stand_over_the_default(make_agent):
    [tools] = make_agent(tools=[toolset("always_ask", bash={"enabled": False}, read={})]).tools
    assert tools.default_config.permission_policy.type == "always_ask"
    configs = {config.name: config for config in tools.configs}
    assert configs["bash"].enabled is False
    assert configs["bash"].type == "bash"
    assert (configs["read"].enabled, configs["read"].permission_policy.type) == (True, "always_ask")


def test_17_an_mcp_toolset_asks_by_default(make_agent):
    agent = make_agent(tools=[MCP_TOOLSET], mcp_servers=[SERVER])
    [tools] = agent.tools
    assert tools.mcp_server_name == "docs"
    assert tools.default_config.enabled is True
    assert tools.default_config.permission_policy.type == "always_ask"
    assert tools.configs == []
    assert agent.mcp_servers[0].to_dict() == SERVER


@pytest.mark.parametrize(
    "params",
    [
        {"tools": [TOOLSET], "mcp_servers": [SERVER]},
        {"tools": [MCP_TOOLSET]},
        {"tools": [MCP_TOOLSET, MCP_TOOLSET], "mcp_servers": [SERVER]},
        {"tools": [MCP_TOOLSET], "mcp_servers": [SERVER, SERVER]},
    ],
    ids=["unreferenced server", "dangling toolset", "referenced twice", "name used twice"],
)
def test_18_servers_and_toolsets_must_match(make_agent, params):
    with pytest.raises(anthropic.BadRequestError) as refused:
        make_agent(**params)
    assert refused.value.type == "invalid_request_error"


@pytest.mark.parametrize(
    "tool",
    [
        WEATHER | {"name": "bash"},
        WEATHER | {"name": "mcp__x"},
        WEATHER | {"name": "with space"},
        WEATHER | {"description": ""},
        WEATHER | {"input_schema": {"type": "object", "oneOf": []}},
        toolset(teleport={"enabled": True}),
        {"type": "toolset_of_tomorrow"},
    ],
    ids=lambda tool: tool.get("name", tool["type"]),
)
def test_18_tools_that_cannot_be_are_refused(make_agent, tool):
    with pytest.raises(anthropic.BadRequestError):
        make_agent(tools=[TOOLSET, tool] if tool["type"] == "custom" else [tool])


def test_19_an_update_makes_the_next_version_and_keeps_what_it_omits(client, make_agent):
    agent = make_agent(system="Be brief.", description="d", metadata={"a": "1"}, tools=[TOOLSET, WEATHER])
    updated = client.beta.agents.update(agent.id, version=agent.version, name="renamed")
    assert updated.version == 2
    expected = agent.to_dict() | {"name": "renamed", "version": 2}
    actual = updated.to_dict()
    assert actual.pop("updated_at") > expected.pop("updated_at")
    assert actual == expected
    assert client.beta.agents.retrieve(agent.id) == updated


def test_20_a_stale_version_is_a_conflict_even_without_a_change(client, make_agent):
    agent = make_agent()
    client.beta.agents.update(agent.id, version=1, name="renamed")
    for change in [{"name": "again"}, {"name": "renamed"}, {}]:
        with pytest.raises(anthropic.ConflictError) as conflict:
            client.beta.agents.update(agent.id, version=1, **change)
        assert conflict.value.type == "conflict_error"
    assert client.beta.agents.retrieve(agent.id).version == 2


def test_21_an_update_without_effect_makes_no_version(client, make_agent):
    agent = make_agent(metadata={"a": "1"})
    same = client.beta.agents.update(
        agent.id, version=1, name=agent.name, model=MODEL, tools=[TOOLSET], metadata={"a": "1", "b": None}
    )
    assert same == agent


def test_22_system_is_cleared_and_name_is_not(client, make_agent):
    agent = make_agent(system="Be brief.", description="d")
    cleared = client.beta.agents.update(agent.id, version=1, system=None, description="")
    assert (cleared.system, cleared.description, cleared.version) == (None, None, 2)
    for cannot in [{"name": None}, {"model": None}, {"name": ""}]:
        with pytest.raises(anthropic.BadRequestError):
            client.beta.agents.update(agent.id, version=2, **cannot)
    assert client.beta.agents.retrieve(agent.id).version == 2


def test_22_lists_are_replaced_whole(client, make_agent):
    agent = make_agent(tools=[TOOLSET, WEATHER])
    replaced = client.beta.agents.update(agent.id, version=1, tools=[WEATHER])
    assert [tool.type for tool in replaced.tools] == ["custom"]
    assert client.beta.agents.update(agent.id, version=2, tools=None).tools == []


def test_23_metadata_is_merged_by_key(client, make_agent):
    agent = make_agent(metadata={"keep": "1", "change": "1", "drop": "1"})
    patched = client.beta.agents.update(agent.id, version=1, metadata={"change": "2", "drop": None, "add": "1"})
    assert patched.metadata == {"keep": "1", "change": "2", "add": "1"}


TOO_MUCH = {
    "17 pairs": {str(number): "x" for number in range(17)},
    "a key of 65 characters": {"k" * 65: "x"},
    "a value of 513 characters": {"k": "x" * 513},
}


@pytest.mark.parametrize("metadata", TOO_MUCH.values(), ids=TOO_MUCH)
def test_24_metadata_has_limits(make_agent, metadata):
    with pytest.raises(anthropic.BadRequestError) as refused:
        make_agent(metadata=metadata)
    assert refused.value.type == "invalid_request_error"


def test_24_metadata_at_its_limits_is_accepted(make_agent):
    metadata = {f"{number:064}": "é" * 512 for number in range(16)}
    assert make_agent(metadata=metadata).metadata == metadata


def test_25_an_old_version_can_be_read(client, make_agent):
    agent = make_agent(system="first")
    client.beta.agents.update(agent.id, version=1, system="second")
    assert client.beta.agents.retrieve(agent.id, version=1) == agent
    assert client.beta.agents.retrieve(agent.id, version=2).system == "second"
    with pytest.raises(anthropic.NotFoundError):
        client.beta.agents.retrieve(agent.id, version=3)


def test_26_versions_are_listed_once_each_newest_first(client, make_agent):
    agent = make_agent()
    for version in range(1, 6):
        client.beta.agents.update(agent.id, version=version, name=f"name {version + 1}")
    listed = list(client.beta.agents.versions.list(agent.id, limit=2))
    assert [one.version for one in listed] == [6, 5, 4, 3, 2, 1]
    assert [one.name for one in listed[:2]] == ["name 6", "name 5"]


def test_26_an_archived_agent_takes_no_more(client, make_agent, environment):
    agent, other = make_agent(), make_agent()
    archived = client.beta.agents.archive(agent.id)
    assert archived.archived_at is not None
    assert client.beta.agents.archive(agent.id).archived_at == archived.archived_at
    with pytest.raises(anthropic.BadRequestError):
        client.beta.agents.update(agent.id, version=agent.version, name="x")
    with pytest.raises(anthropic.BadRequestError):
        client.beta.sessions.create(agent=agent.id, environment_id=environment.id)
    since = agent.created_at
    ids = {one.id for one in client.beta.agents.list(limit=100, created_at_gte=since)}
    assert other.id in ids and agent.id not in ids
    everything = client.beta.agents.list(limit=100, created_at_gte=since, include_archived=True)
    assert {agent.id, other.id} <= {one.id for one in everything}
