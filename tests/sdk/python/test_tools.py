"""Tools: conformance checks 63 to 72."""

from __future__ import annotations

import anthropic
import anyio
import pytest
from anthropic import beta_async_tool, beta_tool

from support import (
    TOOLSET,
    WEATHER,
    confirmation,
    custom_result,
    is_idle,
    message,
    of_type,
    only,
    text,
    toolset,
    types,
)


def blockers(events):
    """The ids on which the last rest waits."""
    rest = events[-1].stop_reason
    assert rest.type == "requires_action", rest
    return rest.event_ids


def test_63_a_custom_tool_is_answered_by_the_client(make_session):
    session = make_session(tools=[WEATHER])
    events = session.say("what is the weather of Paris")
    call = only(events, "agent.custom_tool_use")
    assert (call.name, call.input) == ("get_weather", {"city": "Paris"})
    assert blockers(events) == [call.id]
    events = session.turn(custom_result(call.id, "rain"))
    result = of_type(events, "user.custom_tool_result")[-1]
    assert result.custom_tool_use_id == call.id and result.processed_at is not None
    assert text(only(events, "agent.message")) == "Result: rain"
    assert events[-1].stop_reason.type == "end_turn"
    assert "session.status_running" in types(events)


def test_63_a_custom_tool_beside_a_command(make_session):
    session = make_session(tools=[TOOLSET, WEATHER])
    events = session.say("weather and a command")
    call = only(session.list(), "agent.custom_tool_use")
    assert blockers(events) == [call.id]
    assert text(only(session.list(), "agent.tool_result")) == "beside\n"
    events = session.turn(custom_result(call.id, "rain"))
    assert "rain" in text(only(events, "agent.message")) and "beside" in text(only(events, "agent.message"))


def test_63_messages_wait_until_the_call_is_answered(make_session):
    session = make_session(tools=[WEATHER])
    session.say("what is the weather of Paris")
    with pytest.raises(anthropic.BadRequestError):
        session.send(message("never mind"))
    events = session.interrupt()
    assert events[-1].stop_reason.type == "end_turn"
    assert text(only(session.say("never mind"), "agent.message")) == "As you wish."


def test_64_one_answer_of_two_leaves_the_other(make_session):
    session = make_session(tools=[WEATHER])
    events = session.say("compare the weather")
    paris, rome = of_type(events, "agent.custom_tool_use")
    assert sorted(blockers(events)) == sorted([paris.id, rome.id])
    events = session.turn(custom_result(rome.id, "sun"))
    assert blockers(events) == [paris.id]
    assert not of_type(events, "span.model_request_start")
    events = session.turn(custom_result(paris.id, "rain"))
    assert sorted(text(only(events, "agent.message")).removeprefix("Result: ").split("\n")) == ["rain", "sun"]
    assert events[-1].stop_reason.type == "end_turn"


def test_64_both_answers_in_one_request(make_session):
    session = make_session(tools=[WEATHER])
    calls = of_type(session.say("compare the weather"), "agent.custom_tool_use")
    events = session.turn(*(custom_result(call.id, call.input["city"]) for call in calls))
    assert text(only(events, "agent.message")) == "Result: Paris\nRome"


def test_65_a_tool_that_asks_runs_when_allowed(make_session):
    session = make_session(tools=[toolset("always_ask")])
    events = session.say("echo allowed > /workspace/f; cat /workspace/f #bash")
    call = only(events, "agent.tool_use")
    assert (call.name, call.evaluated_permission) == ("bash", "ask")
    assert call.evaluation.type == "always_ask"
    assert blockers(events) == [call.id]
    assert not of_type(events, "agent.tool_result")
    events = session.turn(confirmation(call.id, "allow"))
    result = only(events, "agent.tool_result")
    assert (result.tool_use_id, text(result)) == (call.id, "allowed\n")
    assert not result.is_error
    assert events[-1].stop_reason.type == "end_turn"


def test_65_a_tool_that_asks_does_not_run_when_denied(make_session):
    session = make_session(tools=[toolset("always_ask")])
    call = only(session.say("echo done > /workspace/f #bash"), "agent.tool_use")
    events = session.turn(confirmation(call.id, "deny", "not on a Sunday"))
    result = only(events, "agent.tool_result")
    assert result.tool_use_id == call.id and result.is_error
    assert "not on a Sunday" in text(result)
    assert "not on a Sunday" in text(only(events, "agent.message"))
    call = only(session.say("cat /workspace/f #bash"), "agent.tool_use")
    events = session.turn(confirmation(call.id, "allow"))
    assert "No such file" in text(only(events, "agent.tool_result"))


def test_65_what_is_allowed_says_so(session):
    call = only(session.say("echo hello #bash"), "agent.tool_use")
    assert call.evaluated_permission == "allow"
    assert call.evaluation.type == "always_allow"


def test_auto_is_what_a_model_judges(make_session):
    session = make_session(tools=[toolset(policy="auto")])

    def judged(command, permission, **said):
        events = session.say(f"{command} #bash")
        use = only(events, "agent.tool_use")
        assert use.evaluated_permission == permission
        assert use.to_dict()["evaluation"] == {"type": "auto", "evaluated_permission": {"type": permission, **said}}
        return use, events

    _, events = judged("echo fine", "allow")
    assert text(only(events, "agent.tool_result")) == "fine\n"

    use, events = judged("echo perhaps", "ask", reason_code="indeterminate")
    assert blockers(events) == [use.id]
    events = session.turn(confirmation(use.id, "allow"))
    assert text(only(events, "agent.tool_result")) == "perhaps\n"

    # Last: a judge is shown what was said before, too.
    use, events = judged("echo never; true || rm -rf /", "deny", reason_code="high_risk")
    result = only(events, "agent.tool_result")
    assert result.is_error and "bash" in text(result) and "never" not in text(result)
    assert events[-1].stop_reason.type == "end_turn"
    with pytest.raises(anthropic.BadRequestError):
        session.send(confirmation(use.id, "allow"))


def test_66_what_did_not_ask_cannot_be_confirmed(make_session):
    session = make_session(tools=[TOOLSET, WEATHER])
    command = only(session.say("echo hello #bash"), "agent.tool_use")
    with pytest.raises(anthropic.BadRequestError):
        session.send(confirmation(command.id, "allow"))
    custom = only(session.say("weather of Paris"), "agent.custom_tool_use")
    with pytest.raises(anthropic.BadRequestError):
        session.send(confirmation(custom.id, "allow"))
    assert session.get().status == "idle"
    assert text(only(session.turn(custom_result(custom.id, "rain")), "agent.message")) == "Result: rain"


def test_67_only_open_calls_take_a_result(make_session):
    session = make_session(tools=[TOOLSET, WEATHER])
    first = only(session.say("weather of Paris"), "agent.custom_tool_use")
    with pytest.raises(anthropic.BadRequestError):
        session.send(custom_result("sevt_none", "rain"))
    session.turn(custom_result(first.id, "rain"))
    with pytest.raises(anthropic.BadRequestError) as refused:
        session.send(custom_result(first.id, "sun"))
    assert refused.value.response.headers["x-should-retry"] == "false"
    command = only(session.say("echo hello #bash"), "agent.tool_use")
    result = {"type": "user.tool_result", "tool_use_id": command.id, "content": [{"type": "text", "text": "x"}]}
    for wrong in (result, custom_result(command.id, "x")):
        with pytest.raises(anthropic.BadRequestError):
            session.send(wrong)
    before = session.list()
    assert [event.type for event in before].count("user.custom_tool_result") == 1


def test_68_a_reason_goes_with_a_denial_only(make_session):
    session = make_session(tools=[toolset("always_ask")])
    call = only(session.say("echo hello #bash"), "agent.tool_use")
    with pytest.raises(anthropic.BadRequestError):
        session.send(confirmation(call.id, "allow", "because"))
    with pytest.raises(anthropic.BadRequestError):
        session.send(confirmation(call.id, "perhaps"))
    assert not of_type(session.list(), "user.tool_confirmation")
    events = session.turn(confirmation(call.id, "allow"))
    assert text(only(events, "agent.tool_result")) == "hello\n"


def test_69_the_shell_keeps_its_state_until_it_is_restarted(session):
    session.bash("mkdir -p /workspace/here && cd /workspace/here && export COLOUR=blue")
    assert text(session.bash("echo $PWD $COLOUR")) == "/workspace/here blue\n"
    restarted = only(session.say("restart the shell"), "agent.tool_result")
    assert text(restarted) == "bash session restarted"
    assert text(session.bash("echo $PWD ${COLOUR:-none}; ls")) == "/workspace none\nhere\n"


def test_69_a_command_that_fails_is_an_error_with_its_output(session):
    result = session.bash("echo out; echo err >&2; (exit 3)\n")
    assert result.is_error
    assert "out\nerr\n" in text(result)
    assert session.get().status == "idle"


def test_69_the_hand_has_no_network_and_no_keys(session):
    result = text(session.bash("env; (echo > /dev/tcp/127.0.0.1/80) 2>&1; ls /sys/class/net 2>&1"))
    assert "ANTHROPIC" not in result and "STEADYHAND" not in result
    refused = ("refused", "unreachable", "Network", "No such")
    assert any(word in result for word in refused), result


def test_70_reading_what_is_missing_is_an_error_for_the_model(session):
    events = session.say("read what is missing")
    result = only(events, "agent.tool_result")
    assert result.is_error
    assert text(only(events, "agent.message")).startswith("Result: ")
    assert events[-1].stop_reason.type == "end_turn"
    events = session.say("write a poem")
    wrote, read = of_type(events, "agent.tool_result")
    assert "wrote 17 bytes" in text(wrote) and not wrote.is_error
    assert "a rose is a rose" in text(read) and not read.is_error


def test_70_calls_of_one_answer_all_get_their_result(session):
    events = session.say("two at once")
    calls, results = of_type(events, "agent.tool_use"), of_type(events, "agent.tool_result")
    assert {result.tool_use_id for result in results} == {call.id for call in calls}
    assert len(calls) == len(results) == 2
    assert not any(result.is_error for result in results)


def test_71_a_disabled_tool_is_neither_offered_nor_run(make_session):
    session = make_session(tools=[toolset(bash={"enabled": False})])
    assert text(only(session.say("which tools"), "agent.message")) == "bash is not offered"
    events = session.say("echo hello #bash")
    call = only(events, "agent.tool_use")
    assert call.evaluated_permission == "deny" and call.evaluation is None
    result = only(events, "agent.tool_result")
    assert result.tool_use_id == call.id and result.is_error
    assert events[-1].stop_reason.type == "end_turn"
    with pytest.raises(anthropic.BadRequestError):
        session.send(confirmation(call.id, "allow"))


def test_72_a_server_that_is_down_is_told_and_the_turn_goes_on(make_agent, make_session):
    server = {"type": "url", "name": "docs", "url": "https://mcp.invalid/mcp"}
    toolset = {"type": "mcp_toolset", "mcp_server_name": "docs"}
    session = make_session(agent=make_agent(mcp_servers=[server], tools=[TOOLSET, toolset]).id)
    for turn in range(2):
        # It is tried again with each turn.
        events = session.say(f"echo turn {turn} #bash")
        error = only(events, "session.error").error
        assert (error.type, error.mcp_server_name) == ("mcp_connection_failed_error", "docs")
        assert text(only(events, "agent.tool_result")) == f"turn {turn}\n"
        assert events[-1].stop_reason.type == "end_turn"


def test_the_sdks_tool_runner_answers_custom_tools(make_session):
    """The SDK's own loop over stream, list and send, against a session that was begun before it came."""
    session = make_session(tools=[TOOLSET, WEATHER], initial_events=[message("compare the weather")])
    asked: list[str] = []

    @beta_async_tool(name="get_weather", description=WEATHER["description"], input_schema=WEATHER["input_schema"])
    async def get_weather(city: str) -> str:
        asked.append(city)
        return f"{city}: rain"

    async def run() -> list:
        async with anthropic.AsyncAnthropic(timeout=30) as client:
            runner = client.beta.sessions.events.tool_runner(session.id, tools=[get_weather], max_idle=0.5)
            return [call async for call in runner]

    calls = anyio.run(run)
    assert asked == ["Paris", "Rome"]
    assert [(call.name, call.posted, call.is_error) for call in calls] == [("get_weather", True, False)] * 2
    assert text(only(session.list(), "agent.message")) == "Result: Paris: rain\nRome: rain"
    assert session.get().status == "idle"


def test_the_sdks_tool_runner_reports_a_tool_that_fails(make_session):
    session = make_session(tools=[WEATHER], initial_events=[message("weather of Paris")])

    @beta_tool(name="get_weather", description=WEATHER["description"], input_schema=WEATHER["input_schema"])
    def get_weather(city: str) -> str:
        raise RuntimeError(f"no news from {city}")

    async def run() -> list:
        async with anthropic.AsyncAnthropic(timeout=30) as client:
            runner = client.beta.sessions.events.tool_runner(session.id, tools=[get_weather], max_idle=0.5)
            return [call async for call in runner]

    [call] = anyio.run(run)
    assert call.posted and call.is_error
    events = session.list()
    assert only(events, "user.custom_tool_result").is_error
    assert "no news from Paris" in text(only(events, "agent.message"))
    assert is_idle(events[-1])
