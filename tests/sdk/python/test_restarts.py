"""Restarts under load: kill -9 again and again while sessions work and clients listen, each of them reconnecting as it is
documented: open a stream, read the list, skip what was seen. Every event comes exactly once, in the order of the log.

STEADYHAND_RESTARTS says how often (`scripts/long restarts`).
"""

from __future__ import annotations

import os
import threading
from typing import Any

import anthropic
import httpx2
import pytest

from service import Service
from support import Session, is_idle, message, of_type, text

RESTARTS = int(os.environ.get("STEADYHAND_RESTARTS", "5"))
SESSIONS = 3
# Events between two kills, over all sessions: a few turns, cut at another place every time.
BETWEEN = 17
# For as long as nothing at all happens.
PATIENCE_S = 60
# What a client meets while the service is away. A request that was cut off may have been taken.
AWAY = (anthropic.APIConnectionError, anthropic.InternalServerError, httpx2.TransportError)


class Running:
    """The service, the clients of it, and how far everybody got. Its condition is notified of every event."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.changed = threading.Condition()
        # Set while there is a service to talk to.
        self.there = threading.Event()
        self.there.set()
        self.events = 0
        # Nothing new is said; and then, nobody listens any more.
        self.said_enough = False
        self.over = False
        self.failures: list[BaseException] = []

    def wait(self, holds: Any) -> None:
        """Until it holds; fails where nothing has happened for too long."""
        with self.changed:
            while not holds():
                before = self.events
                self.changed.wait_for(lambda: holds() or self.failures or self.events > before, PATIENCE_S)
                assert not self.failures, self.failures
                assert holds() or self.events > before, "nothing happens any more"

    def heard(self) -> None:
        with self.changed:
            self.events += 1
            self.changed.notify_all()

    def restart(self) -> None:
        self.there.clear()
        self.service.kill()
        self.service.start()
        self.there.set()

    def run(self, target: Any) -> threading.Thread:
        def guarded() -> None:
            try:
                target()
            except BaseException as failure:
                with self.changed:
                    self.failures.append(failure)
                    self.changed.notify_all()

        thread = threading.Thread(target=guarded)
        thread.start()
        return thread


class Talk:
    """A session that one thread talks to and another listens to."""

    def __init__(self, running: Running, session: Session) -> None:
        self._running = running
        self.created = session.created
        self.id = session.id
        # As they came, each once.
        self.events: list[Any] = []
        self._seen: set[str] = set()
        self.said: list[str] = []

    def _session(self) -> Session:
        return Session(self._running.service.client, self.created)

    def _take(self, event: Any) -> None:
        # Queued: it comes again once it is committed.
        if event.processed_at is not None and event.id not in self._seen:
            self._seen.add(event.id)
            self.events.append(event)
            self._running.heard()

    def answered(self) -> int:
        return len(of_type(self.events, "session.status_idle"))

    def listen(self) -> None:
        while not self._running.over:
            try:
                session = self._session()
                with session.stream() as stream:
                    for event in session.list():
                        self._take(event)
                    stream.until(lambda event: self._take(event) or self._running.over)
            except (*AWAY, AssertionError):
                # The stream broke off: there is a new service, or there will be.
                self._running.there.wait(PATIENCE_S)

    def talk(self) -> None:
        while not self._running.said_enough:
            words = f"turn {len(self.said)}"
            self._say(words)
            self.said.append(words)
            self._running.wait(lambda: self.answered() >= len(self.said))

    def _say(self, words: str) -> None:
        while True:
            try:
                session = self._session()
                # Was the last attempt taken, whose answer nobody saw?
                if not any(text(event) == words for event in of_type(session.list(), "user.message")):
                    session.send(message(words))
                return
            except AWAY:
                self._running.there.wait(PATIENCE_S)


@pytest.mark.timeout(600)
def test_62_every_event_comes_exactly_once_over_restarts_under_load(service):
    running = Running(service)
    talks = [Talk(running, service.session()) for _ in range(SESSIONS)]
    listeners = [running.run(talk.listen) for talk in talks]
    talkers = [running.run(talk.talk) for talk in talks]
    try:
        for _ in range(RESTARTS):
            goal = running.events + BETWEEN
            running.wait(lambda: running.events >= goal)
            running.restart()
        goal = running.events + BETWEEN
        running.wait(lambda: running.events >= goal)
        running.said_enough = True
        for thread in talkers:
            thread.join()
        running.over = True
        for talk in talks:
            # Its listener is done with the first event of it.
            Session(service.client, talk.created).say("good bye")
        for thread in listeners:
            thread.join(PATIENCE_S)
    finally:
        running.said_enough = running.over = True
    assert not running.failures, running.failures
    for talk in talks:
        listed = Session(service.client, talk.created).list()
        ids = [event.id for event in listed]
        assert len(set(ids)) == len(ids)
        heard = [event.id for event in talk.events]
        assert heard == ids[: len(heard)], "what was heard is the log, whole and in order"
        words = [text(event) for event in of_type(listed, "user.message")]
        assert words == [*talk.said, "good bye"]
        replies = [text(event) for event in of_type(listed, "agent.message")]
        assert replies == [f"You said: {said}" for said in words]
        assert len([event for event in listed if is_idle(event)]) == len(words)
    print(f"figures: {RESTARTS} restarts, {running.events} events heard, each once")
