"""Conformance checks 75, 76, 79 and 80 with everything that can end: the unmodified workers of both SDKs, killed in the middle
of a call, followed by the other's; the service killed meanwhile; an item that is stopped.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from service import Service
from shop import Shop, finished
from support import eventually, message, of_type, text

BOTH = pytest.mark.parametrize("sdk", ["python", "typescript"])


@pytest.fixture
def shop(service: Service, tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(service.client, tmp_path)
    yield shop
    shop.close()


def killed(service: Service, shop: Shop) -> None:
    service.kill()
    service.start()
    shop.reach(service.client)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("sdk", "other"), [("python", "typescript"), ("typescript", "python")])
def test_79_worker_and_service_are_killed_in_a_call_and_the_other_sdks_worker_takes_over(service, shop, sdk, other):
    first = shop.worker(sdk)
    session = shop.session(initial_events=[message("two at once")])
    finished(session, results=2, seconds=90)
    session.send(message("if test -e begun; then echo taken over; else touch begun; sleep 5; fi #bash"))
    assert eventually((shop.folder / "begun").exists, bool, seconds=60)
    first.send_signal(signal.SIGKILL)
    first.wait(10)
    killed(service, shop)
    session.client = service.client
    [item] = shop.items(session)
    shop.shorten_lease(session)
    shop.worker(other)
    # The lease has to run out first.
    events = finished(session, results=3, seconds=90)
    results = of_type(events, "user.tool_result")
    assert text(results[-1]).strip() == "taken over"
    # One result for each call, whoever brought it.
    calls = [event.id for event in of_type(events, "agent.tool_use")]
    assert sorted(result.tool_use_id for result in results) == sorted(calls)
    assert shop.items(session)[0].id == item.id
    session.send(message("echo and on #bash"))
    assert text(of_type(finished(session, results=4, seconds=90), "user.tool_result")[-1]).strip() == "and on"


@pytest.mark.timeout(300)
@BOTH
def test_75_76_a_call_is_run_once_although_the_service_is_killed_in_it(service, shop, sdk):
    shop.worker(sdk)
    session = shop.session(initial_events=[message("echo run >> runs; touch begun; sleep 4; wc -l < runs #bash")])
    assert eventually((shop.folder / "begun").exists, bool, seconds=60)
    killed(service, shop)
    session.client = service.client
    events = finished(session, results=1, seconds=90)
    [result] = of_type(events, "user.tool_result")
    assert (text(result).strip(), result.is_error) == ("1", False)
    session.send(message("wc -l < runs #bash"))
    assert text(of_type(finished(session, results=2, seconds=90), "user.tool_result")[-1]).strip() == "1"


@pytest.mark.timeout(300)
@BOTH
def test_80_a_worker_lets_go_of_an_item_that_is_stopped_and_serves_the_next(shop, sdk):
    shop.worker(sdk)
    session = shop.session(initial_events=[message("echo before #bash")])
    finished(session, results=1, seconds=90)
    [item] = shop.items(session)
    assert shop.work.stop(item.id, environment_id=shop.id).state == "stopping"
    # It learns of it with its next heartbeat.
    newest = eventually(lambda: shop.items(session)[0], lambda newest: newest.state == "stopped", seconds=60)
    assert (newest.id, newest.state) == (item.id, "stopped")
    session.send(message("echo after #bash"))
    results = of_type(finished(session, results=2, seconds=90), "user.tool_result")
    assert [text(result).strip() for result in results] == ["before", "after"]
    assert shop.items(session)[0].id != item.id
