"""Conformance checks 73 to 80: the work queue of self-hosted environments, and the official worker on it."""

from __future__ import annotations

import base64
import json
import signal
from typing import Any

import anthropic
import pytest

from shop import Shop, finished
from support import confirmation, eventually, message, of_type, only, text, toolset, types


def token_of(item: Any) -> str:
    payload = base64.urlsafe_b64decode(item.secret + "=" * (-len(item.secret) % 4))
    return json.loads(payload)["sessions_token"]


def taken(shop: Shop) -> Any:
    item = shop.queue.poll(shop.id)
    shop.queue.ack(item.id, environment_id=shop.id)
    return item


def test_10_acknowledging_takes_a_json_content_type_and_an_empty_body(shop):
    shop.session()
    item = shop.queue.poll(shop.id)
    assert shop.queue.ack(item.id, environment_id=shop.id).state == "starting"


def test_73_an_empty_poll_is_none(shop):
    assert shop.queue.poll(shop.id) is None
    assert shop.queue.poll(shop.id, block_ms=999, anthropic_worker_id="w") is None


def test_74_the_secret_is_shown_once(shop):
    session = shop.session()
    item = shop.queue.poll(shop.id)
    assert (item.data.type, item.data.id, item.state) == ("session", session.id, "queued")
    assert shop.work.retrieve(item.id, environment_id=shop.id).secret is None
    assert shop.queue.ack(item.id, environment_id=shop.id).secret is None
    assert all(listed.secret is None for listed in shop.work.list(shop.id))
    with anthropic.Anthropic(api_key=token_of(item), max_retries=0) as holder:
        assert holder.beta.sessions.retrieve(session.id).id == session.id
        with pytest.raises(anthropic.PermissionDeniedError):
            holder.beta.sessions.list()
        with pytest.raises(anthropic.NotFoundError):
            holder.beta.sessions.retrieve(shop.session().id)


def test_75_the_official_worker_serves_a_session(shop):
    shop.worker(max_idle=1)
    session = shop.session()
    session.send(message("echo hello from $(basename $PWD) #bash"))
    turn = finished(session, results=1)
    result = only(turn, "user.tool_result")
    assert (text(result).strip(), result.is_error) == (f"hello from {shop.folder.name}", False)
    assert result.tool_use_id == only(turn, "agent.tool_use").id
    assert "agent.tool_result" not in types(turn)
    assert turn[-1].stop_reason.type == "end_turn"
    # It leaves when there is nothing more to do, and takes the item along.
    [item] = eventually(lambda: shop.items(session), lambda items: items[0].state == "stopped")
    assert (item.state, item.stopped_at is None, item.latest_heartbeat_at is None) == ("stopped", False, False)
    # A message wakes the session up for a worker again.
    session.send(message("echo once more #bash"))
    turn = finished(session, results=2)
    assert text(of_type(turn, "user.tool_result")[-1]).strip() == "once more"
    assert len(shop.items(session)) == 2


def test_75_several_calls_of_several_sessions_are_served_by_several_workers(shop):
    for _ in range(2):
        shop.worker(max_idle=1)
    sessions = [shop.session(initial_events=[message("two at once")]) for _ in range(3)]
    for session in sessions:
        events = finished(session, results=2)
        calls = {event.id for event in of_type(events, "agent.tool_use")}
        results = of_type(events, "user.tool_result")
        assert len(results) == 2 and {result.tool_use_id for result in results} == calls


def test_75_a_call_that_asks_is_run_once_it_is_confirmed(shop):
    shop.worker()
    session = shop.session(tools=[toolset(policy="always_ask")])
    [use] = of_type(session.say("echo confirmed #bash"), "agent.tool_use")
    assert use.evaluated_permission == "ask"
    session.send(confirmation(use.id, "allow"))
    assert text(only(finished(session, results=1), "user.tool_result")).strip() == "confirmed"


def test_77_a_stale_heartbeat_is_refused_with_the_state(shop):
    shop.session()
    item = taken(shop)
    first = shop.queue.heartbeat(item.id, environment_id=shop.id, expected_last_heartbeat="NO_HEARTBEAT")
    assert (first.type, first.state, first.lease_extended) == ("work_heartbeat", "active", True)
    second = shop.queue.heartbeat(
        item.id, environment_id=shop.id, expected_last_heartbeat=first.last_heartbeat, desired_ttl_seconds=30
    )
    assert (second.ttl_seconds, second.last_heartbeat == first.last_heartbeat) == (30, False)
    for stale in ["NO_HEARTBEAT", first.last_heartbeat]:
        with pytest.raises(anthropic.PreconditionFailedError) as refused:
            shop.queue.heartbeat(item.id, environment_id=shop.id, expected_last_heartbeat=stale)
        details = refused.value.body["error"]["details"]
        assert details["error_code"] == "heartbeat_precondition_failed"
        assert details["current_state"] == {
            "state": "active",
            "last_heartbeat": second.last_heartbeat,
            "ttl_seconds": 30,
            "lease_extended": False,
        }


def test_78_an_item_that_was_not_acknowledged_is_handed_out_again(shop):
    shop.session()
    first = shop.queue.poll(shop.id)
    assert shop.queue.poll(shop.id) is None
    again = eventually(lambda: shop.queue.poll(shop.id, reclaim_older_than_ms=200), lambda item: item is not None)
    assert again.id == first.id and again.secret != first.secret
    with anthropic.Anthropic(api_key=token_of(first), max_retries=0) as late:
        with pytest.raises(anthropic.AuthenticationError):
            late.beta.sessions.retrieve(first.data.id)


def test_79_another_worker_takes_over_from_one_that_was_killed_and_no_call_is_lost(shop):
    command = "if test -e begun; then echo taken over; else touch begun; sleep 5; fi #bash"
    killed = shop.worker()
    session = shop.session(initial_events=[message(command)])
    assert eventually((shop.folder / "begun").exists, bool, seconds=50)
    killed.send_signal(signal.SIGKILL)
    killed.wait(10)
    [item] = shop.items(session)
    shop.shorten_lease(session)
    shop.worker(max_idle=1)
    events = finished(session, results=1)
    assert text(only(events, "user.tool_result")).strip() == "taken over"
    assert shop.items(session)[0].id == item.id


def test_79_a_worker_that_is_told_to_end_finishes_its_call_and_leaves_the_session_to_the_next(shop):
    leaving = shop.worker()
    session = shop.session(initial_events=[message("touch begun; sleep 3; echo finished #bash")])
    assert eventually((shop.folder / "begun").exists, bool, seconds=50)
    leaving.send_signal(signal.SIGTERM)
    assert leaving.wait(40) == 0
    shop.worker()
    assert text(only(finished(session, results=1), "user.tool_result")).strip() == "finished"
    session.send(message("echo from the next #bash"))
    results = of_type(finished(session, results=2), "user.tool_result")
    assert [text(result).strip() for result in results] == ["finished", "from the next"]
    left, now = reversed(shop.items(session))
    assert (left.state, now.state) == ("stopped", "active")


def test_80_stats_and_a_gentle_stop(shop):
    shop.session()
    other = shop.session()
    assert shop.queue.poll(shop.id, anthropic_worker_id="one").data.id != other.id
    stats = shop.work.stats(shop.id)
    assert (stats.depth, stats.pending, stats.workers_polling, stats.oldest_queued_at is None) == (1, 1, 1, False)
    item = taken(shop)
    beat = shop.queue.heartbeat(item.id, environment_id=shop.id, expected_last_heartbeat="NO_HEARTBEAT")
    assert shop.work.stop(item.id, environment_id=shop.id).state == "stopping"
    beat = shop.queue.heartbeat(item.id, environment_id=shop.id, expected_last_heartbeat=beat.last_heartbeat)
    assert beat.state == "stopping"
    assert shop.queue.stop(item.id, environment_id=shop.id, force=True).state == "stopped"
    with pytest.raises(anthropic.ConflictError):
        shop.queue.stop(item.id, environment_id=shop.id, force=True)
    assert shop.work.update(item.id, environment_id=shop.id, metadata={"why": "test"}).metadata == {"why": "test"}
