"""Events and streams: conformance checks 47 to 61."""

from __future__ import annotations

import itertools
import threading

import anthropic
import pytest
from anthropic.lib.sessions import accumulate_managed_agents_event

from support import INTERRUPT, Stream, is_idle, is_type, message, of_type, only, text, types

PREVIEWS = ["event_start", "event_delta"]


def check_rests(events):
    """Check 49: usage comes directly before every rest."""
    before = [one.type for one, next in itertools.pairwise(events) if is_idle(next)]
    assert before and set(before) == {"session.usage"}, types(events)


def check_spans(events):
    """Check 50: every request that starts ends once."""
    starts = [event.id for event in of_type(events, "span.model_request_start")]
    ends = [event.model_request_start_id for event in of_type(events, "span.model_request_end")]
    assert starts and ends == starts


def test_47_send_answers_with_the_events_and_their_ids(session):
    sent = session.send(message("one"), message("two"), message("three"))
    assert [text(event) for event in sent] == ["one", "two", "three"]
    assert all(event.id.startswith("sevt_") and event.processed_at is None for event in sent)
    assert len({event.id for event in sent}) == 3
    with session.stream() as stream:
        if not any(is_idle(event) for event in session.list()):
            stream.until(is_idle)
    assert [event.id for event in of_type(session.list(), "user.message")] == [event.id for event in sent]


def test_48_a_plain_turn(session):
    with session.stream() as stream:
        [sent] = session.send(message("hello"))
        events = stream.until(is_idle)
    turn = [event for event in events if event.type != "user.message"]
    assert types(turn) == [
        "session.status_running",
        "session.thread_status_running",
        "span.model_request_start",
        "agent.message",
        "span.model_request_end",
        "session.thread_status_idle",
        "session.usage",
        "session.status_idle",
    ]
    assert text(only(turn, "agent.message")) == "You said: hello"
    assert turn[-1].stop_reason.type == "end_turn" and turn[-1].stop_details is None
    echoes = of_type(events, "user.message")
    assert {event.id for event in echoes} == {sent.id} and echoes[-1].processed_at is not None
    # What the stream said is what a GET returns.
    assert session.get().status == "idle"
    usage = only(turn, "session.usage").usage
    assert usage.input_tokens > 0 and usage.output_tokens > 0
    assert session.get().usage.to_dict() == usage.to_dict()
    span = only(turn, "span.model_request_end").model_usage
    assert (span.input_tokens, span.output_tokens) == (usage.input_tokens, usage.output_tokens)


def test_49_usage_precedes_every_rest(session):
    session.say("hello")
    session.say("echo hello #bash")
    session.say("fail for good")
    session.say("never mind")
    session.begin("think for long", is_type("span.model_request_start"))
    session.interrupt()
    events = session.list()
    assert len(of_type(events, "session.status_idle")) == 5
    check_rests(events)


def test_50_every_model_request_ends_once(session):
    session.say("echo hello #bash")
    session.say("fail once")
    session.begin("think for long", is_type("span.model_request_start"))
    session.interrupt()
    events = session.list()
    assert len(of_type(events, "span.model_request_start")) == 5
    check_spans(events)


def test_51_the_list_has_what_the_stream_had_but_no_previews(session):
    events = session.turn(message("speak in pieces"), event_deltas=["agent.message", "agent.thinking"])
    events += session.say("echo hello #bash")
    listed = session.list()
    assert of_type(events, *PREVIEWS) and not of_type(listed, *PREVIEWS)
    streamed = {event.id for event in events if event.type not in PREVIEWS}
    assert streamed == {event.id for event in listed}


def test_52_a_queued_message_is_stamped_later_under_the_same_id(session):
    session.begin("take a moment", is_type("span.model_request_start"))
    with session.stream() as stream:
        [sent] = session.send(message("and this"))
        assert sent.processed_at is None
        waiting = session.list()[-1]
        assert (waiting.id, waiting.processed_at) == (sent.id, None)
        echoes = [event for event in stream.until(is_idle) if event.id == sent.id]
    assert [event.processed_at is None for event in echoes] == [True, False]
    [stamped] = [event for event in session.list() if event.id == sent.id]
    assert stamped.processed_at == echoes[-1].processed_at


def test_53_lists_have_orders_filters_and_pages(session):
    for words in ["one", "two", "echo three #bash"]:
        session.say(words)
    events = session.list()
    ids = [event.id for event in events]
    assert len(set(ids)) == len(ids)
    stamps = [event.processed_at for event in events]
    assert stamps == sorted(stamps)
    assert [event.id for event in session.list(order="desc")] == ids[::-1]
    for limit in (1, 4, len(ids), 1000):
        assert [event.id for event in session.list(limit=limit)] == ids
        assert [event.id for event in session.list(limit=limit, order="desc")] == ids[::-1]
    wanted = ["user.message", "agent.message"]
    filtered = [event.id for event in of_type(events, *wanted)]
    assert [event.id for event in session.list(types=wanted)] == filtered
    assert [event.id for event in session.list(types=wanted, limit=2, order="desc")] == filtered[::-1]
    middle = events[len(events) // 2].processed_at
    later = [event.id for event in events if event.processed_at > middle]
    assert [event.id for event in session.list(created_at_gt=middle)] == later
    assert [event.id for event in session.list(created_at_lte=middle)] == ids[: len(ids) - len(later)]
    for wrong in [{"types": ["agent.dance"]}, {"limit": 0}, {"page": "x"}, {"order": "sideways"}]:
        with pytest.raises(anthropic.BadRequestError):
            session.list(**wrong)


def test_53_pages_hold_while_the_session_goes_on(session):
    session.say("one")
    page = session.client.beta.sessions.events.list(session.id, limit=5)
    seen = [event.id for event in page.data]
    session.say("two")
    while page.has_next_page():
        page = page.get_next_page()
        seen += [event.id for event in page.data]
    assert seen == [event.id for event in session.list()]


def test_54_a_stream_replays_nothing(session):
    session.say("hello")
    before = {event.id for event in session.list()}
    events = session.say("again")
    assert before.isdisjoint(event.id for event in events)
    assert text(only(events, "agent.message")) == "You said: again"


def test_55_previews_lead_to_the_message(session):
    events = session.turn(message("speak in pieces"), event_deltas=["agent.message", "agent.thinking"])
    final = only(events, "agent.message")
    about = [event for event in events if event.type == "event_delta" and event.event_id == final.id]
    [start] = [event for event in of_type(events, "event_start") if event.event.id == final.id]
    assert start.event.type == "agent.message"
    assert len(about) > 5
    order = [events.index(event) for event in (start, *about, final)]
    assert order == sorted(order)
    said = "".join(event.delta.content.text for event in about)
    assert text(final).startswith(said)
    thinking = only(events, "agent.thinking")
    assert [event.event.id for event in of_type(events, "event_start")] == [thinking.id, final.id]


def test_55_the_sdk_accumulates_previews(session):
    snapshot, grown = None, []
    for event in session.turn(message("speak in pieces"), event_deltas=["agent.message"]):
        assert event.type != "event_start" or event.event.type == "agent.message"
        snapshot = accumulate_managed_agents_event(snapshot, event)
        if event.type == "event_delta":
            grown.append(text(snapshot))
    final = text(snapshot)
    assert len(grown) > 5 and all(final.startswith(part) for part in grown)
    assert final == text(only(session.list(), "agent.message"))


def test_55_without_asking_there_are_none(session):
    events = session.say("speak in pieces")
    assert not of_type(events, *PREVIEWS)


def test_56_only_known_previews_can_be_asked_for(session):
    for wrong in (["agent.tool_use"], ["agent.message", "x"], [""]):
        with pytest.raises(anthropic.BadRequestError):
            session.client.beta.sessions.events.stream(session.id, event_deltas=wrong)


def test_57_pings_keep_an_idle_stream_alive(client, http, session):
    """Longer than the read timeout of the client, three times over."""
    patience = 20
    heard: list = []

    def listen(opened: threading.Event) -> None:
        with client.beta.sessions.events.stream(session.id, timeout=patience) as events:
            opened.set()
            heard.extend(Stream(iter(events)).until(is_idle))

    opened = threading.Event()
    listening = threading.Thread(target=listen, args=[opened], daemon=True)
    listening.start()
    assert opened.wait(patience)
    with http.stream("GET", f"/v1/sessions/{session.id}/events/stream", timeout=patience) as raw:
        assert raw.headers["content-type"].startswith("text/event-stream")
        lines = (line for line in raw.iter_lines() if line.startswith("event:"))
        assert list(itertools.islice(lines, 4)) == ["event: ping"] * 4
    session.send(message("hello"))
    listening.join(patience)
    assert not listening.is_alive() and text(only(heard, "agent.message")) == "You said: hello"


def test_58_an_interrupt_stops_a_model_request(session):
    with session.stream() as stream:
        session.send(message("think for long"))
        stream.until(is_type("span.model_request_start"))
        [interrupt] = session.send(INTERRUPT)
        events = stream.until(is_idle)
    assert events[-1].stop_reason.type == "end_turn"
    assert not of_type(stream.seen, "agent.message")
    stamped = [event for event in events if event.id == interrupt.id]
    assert stamped[-1].processed_at is not None
    assert session.get().status == "idle"
    check_spans(session.list())
    assert text(only(session.say("never mind"), "agent.message")) == "As you wish."


def test_58_an_interrupt_stops_an_answer_in_the_middle(session):
    with session.stream(event_deltas=["agent.message"]) as stream:
        session.send(message("speak for long"))
        stream.until(is_type("event_delta"))
        session.send(INTERRUPT)
        events = stream.until(is_idle)
    assert events[-1].stop_reason.type == "end_turn"
    check_spans(session.list())


def test_58_an_interrupt_stops_a_tool(session):
    with session.stream() as stream:
        session.send(message("echo begun; sleep 600; echo never > /workspace/never #bash"))
        stream.until(is_type("agent.tool_use"))
        session.send(INTERRUPT)
        events = stream.until(is_idle)
    assert events[-1].stop_reason.type == "end_turn"
    result = only(session.list(), "agent.tool_result")
    assert result.is_error
    assert "No such file" in text(session.bash("cat /workspace/never"))


def test_58_an_interrupt_while_idle_changes_nothing(session):
    session.say("hello")
    session.send(INTERRUPT)
    events = session.say("again")
    assert text(only(events, "agent.message")) == "You said: again"
    assert session.get().status == "idle"


def test_59_a_message_behind_an_interrupt_is_the_next_turn(session):
    with session.stream() as stream:
        session.send(message("think for long"))
        stream.until(is_type("span.model_request_start"))
        session.send(INTERRUPT, message("never mind"))
        events = stream.until(is_type("agent.message"))
        stream.until(is_idle)
    assert text(events[-1]) == "As you wish."
    listed = session.list()
    check_spans(listed)
    check_rests(listed)
    assert [event.stop_reason.type for event in of_type(listed, "session.status_idle")][-1] == "end_turn"


@pytest.mark.parametrize(
    "event",
    [
        {"type": "user.message", "content": [{"type": "redacted"}]},
        {"type": "user.message", "content": []},
        {"type": "user.message", "content": [{"type": "text"}]},
        {"type": "user.message"},
        {"type": "agent.message", "content": [{"type": "text", "text": "I said this"}]},
        {"type": "user.dance"},
        {},
    ],
    ids=str,
)
def test_60_events_that_cannot_be_sent_refuse_the_whole_request(session, event):
    with pytest.raises(anthropic.BadRequestError):
        session.send(message("hello"), event)
    assert session.list() == [] and session.get().status == "idle"


def test_61_messages_sent_while_running_are_taken_in_order(session):
    session.begin("take a moment", is_type("span.model_request_start"))
    with session.stream() as stream:
        sent = session.send(message("first")) + session.send(message("second"))
        stream.until(is_idle)
    events = session.list()
    assert [event.id for event in of_type(events, "user.message")][1:] == [event.id for event in sent]
    assert all(event.processed_at is not None for event in events)
    answers = [text(event) for event in of_type(events, "agent.message")]
    assert answers[0] == "You said: take a moment"
    # Either one after the other, or both in the turn that follows.
    rest = " ".join(answers[1:])
    assert rest.index("first") < rest.index("second")


def test_61_many_clients_at_once(make_session):
    session = make_session()
    with session.stream() as stream:
        sending = [threading.Thread(target=session.send, args=[message(f"word {n}")]) for n in range(12)]
        for thread in sending:
            thread.start()
        for thread in sending:
            thread.join()
        while session.get().status != "idle":
            stream.until(is_idle)
    events = session.list()
    said = sorted(text(event) for event in of_type(events, "user.message"))
    assert said == sorted(f"word {n}" for n in range(12))
    assert all(event.processed_at is not None for event in events)
    check_rests(events)
    check_spans(events)


def test_a_failure_that_passes_is_retried_in_sight(session):
    events = session.say("fail once")
    error = only(events, "session.error").error
    assert (error.type, error.retry_status.type) == ("model_overloaded_error", "retrying")
    course = types(events)
    assert course.index("session.error") < course.index("session.status_rescheduled")
    assert text(only(events, "agent.message")) == "It worked at the second try."
    assert events[-1].stop_reason.type == "end_turn"
    first, second = of_type(events, "span.model_request_end")
    assert first.is_error and not second.is_error


def test_an_answer_that_breaks_off_is_asked_for_again(session):
    events = session.turn(message("break off once"), event_deltas=["agent.message"])
    assert only(events, "session.error").error.retry_status.type == "retrying"
    assert text(only(events, "agent.message")).startswith("This time to the end")
    assert events[-1].stop_reason.type == "end_turn"


def test_a_failure_for_good_ends_the_turn_and_no_more(session):
    events = session.say("fail for good")
    error = only(events, "session.error").error
    assert (error.type, error.retry_status.type) == ("model_request_failed_error", "exhausted")
    assert events[-1].stop_reason.type == "retries_exhausted"
    assert text(only(session.say("never mind"), "agent.message")) == "As you wish."


def test_a_refusal_is_a_reason_to_stop(session):
    events = session.say("something forbidden")
    assert events[-1].stop_reason.type == "refusal"
    assert events[-1].stop_details.type == "refusal"
