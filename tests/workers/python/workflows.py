"""What the worker of the scenarios runs: each workflow uses a few features of the SDK, and nothing that differs between
runs."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.common import RetryPolicy, SearchAttributeKey
from temporalio.exceptions import ApplicationError

SOON = timedelta(milliseconds=10)
LONG = timedelta(seconds=20)
COLOR = SearchAttributeKey.for_keyword("Color")
SIZE = SearchAttributeKey.for_int("Size")
# Tokens of activities that somebody else completes, by workflow id.
left_open: dict[str, bytes] = {}


@activity.defn
async def greet(name: str) -> str:
    return f"hello {name}"


@activity.defn
async def fail_twice() -> str:
    attempt = activity.info().attempt
    activity.heartbeat(attempt)
    if attempt < 3:
        raise ApplicationError(f"attempt {attempt}", attempt, type="Stumbled")
    return f"after {attempt}, last heartbeat {activity.info().heartbeat_details}"


@activity.defn
async def fail() -> None:
    raise ApplicationError("for good", {"a": 1}, type="Final", non_retryable=True)


@activity.defn
async def sleep_until_cancelled() -> None:
    while True:
        activity.heartbeat("still here")
        await asyncio.sleep(0.05)


@activity.defn
async def never_return() -> None:
    await asyncio.sleep(60)


@activity.defn
async def leave_open() -> str:
    left_open[activity.info().workflow_id or ""] = activity.info().task_token
    activity.raise_complete_async()


ACTIVITIES = [greet, fail_twice, fail, sleep_until_cancelled, never_return, leave_open]


def once(**more) -> dict:
    return {"start_to_close_timeout": LONG, "retry_policy": RetryPolicy(maximum_attempts=1), **more}


@workflow.defn
class Greet:
    @workflow.run
    async def run(self, name: str) -> list[str]:
        first = await workflow.execute_activity(greet, name, **once())
        second = await workflow.execute_local_activity(greet, first, **once())
        await asyncio.sleep(0.01)
        return [first, second]


@workflow.defn
class Many:
    @workflow.run
    async def run(self, count: int) -> list[str]:
        calls = [workflow.execute_activity(greet, str(n), **once(activity_id=f"a{n}")) for n in range(count)]
        return list(await asyncio.gather(*calls))


@workflow.defn
class Stumble:
    @workflow.run
    async def run(self) -> str:
        policy = RetryPolicy(initial_interval=SOON, maximum_attempts=5)
        return await workflow.execute_activity(fail_twice, start_to_close_timeout=LONG, retry_policy=policy)


@workflow.defn
class Fail:
    @workflow.run
    async def run(self, how: str) -> None:
        if how == "activity":
            await workflow.execute_activity(fail, **once())
        if how == "start-to-close":
            await workflow.execute_activity(never_return, **once() | {"start_to_close_timeout": timedelta(seconds=1)})
        if how == "heartbeat":
            await workflow.execute_activity(never_return, **once(heartbeat_timeout=timedelta(seconds=1)))
        if how == "schedule-to-start":
            brief = once(task_queue="nobody", schedule_to_start_timeout=timedelta(seconds=1))
            await workflow.execute_activity(never_return, **brief)
        raise ApplicationError("the workflow's own", "detail", type=how)


@workflow.defn
class Open:
    @workflow.run
    async def run(self) -> str:
        return await workflow.execute_activity(leave_open, **once())


@workflow.defn
class Cancelled:
    @workflow.run
    async def run(self) -> None:
        cancel = workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED
        brief = once(heartbeat_timeout=timedelta(seconds=5), cancellation_type=cancel)
        await workflow.execute_activity(sleep_until_cancelled, **brief)


@workflow.defn
class Mailbox:
    """Signals, queries, updates, and a wait with an end."""

    def __init__(self) -> None:
        self.mail: list[str] = []

    @workflow.run
    async def run(self) -> list[str]:
        await workflow.wait_condition(lambda: "stop" in self.mail, timeout=timedelta(hours=1))
        await workflow.wait_condition(workflow.all_handlers_finished)
        return self.mail

    @workflow.signal
    def post(self, text: str) -> None:
        self.mail.append(text)

    @workflow.query
    def read(self) -> list[str]:
        return self.mail

    @workflow.update
    async def deliver(self, text: str) -> int:
        self.mail.append(await workflow.execute_activity(greet, text, **once()))
        return len(self.mail)

    @deliver.validator
    def refuse(self, text: str) -> None:
        if not text:
            raise ApplicationError("nothing to deliver", type="Empty")


@workflow.defn
class Patient:
    """Waits for ever, and says how it was ended."""

    @workflow.run
    async def run(self) -> None:
        await workflow.wait_condition(lambda: False)


@workflow.defn
class Hop:
    @workflow.run
    async def run(self, left: int) -> int:
        if left > 0:
            workflow.continue_as_new(left - 1, memo={"left": left})
        return workflow.info().attempt


@dataclass
class Family:
    child: str
    policy: int
    waits: bool


@workflow.defn
class Parent:
    @workflow.run
    async def run(self, family: Family) -> str:
        policy = workflow.ParentClosePolicy(family.policy)
        name = f"{workflow.info().workflow_id}-child"
        args = {"Greet": ["child"], "Fail": ["child"], "Patient": []}[family.child]
        child = await workflow.start_child_workflow(family.child, args=args, id=name, parent_close_policy=policy)
        return str(await child) if family.waits else "left it"


@workflow.defn
class Reach:
    """Signals and cancels another workflow."""

    @workflow.run
    async def run(self, other: str) -> list[str]:
        said = []
        handle = workflow.get_external_workflow_handle(other)
        await handle.signal("post", "from a workflow")
        await handle.cancel()
        try:
            await workflow.get_external_workflow_handle("nobody-of-that-name").signal("post", "to nobody")
        except ApplicationError as error:
            said.append(f"{error.type}: {error.message}")
        return said


@workflow.defn
class Colours:
    @workflow.run
    async def run(self) -> str:
        workflow.upsert_search_attributes([COLOR.value_set("red"), SIZE.value_set(7)])
        workflow.upsert_memo({"kept": "for later"})
        if workflow.patched("second thoughts"):
            workflow.upsert_search_attributes([SIZE.value_unset()])
        return str(workflow.info().typed_search_attributes.get(COLOR))


@workflow.defn
class Again:
    """Fails until its own retry policy has started it often enough."""

    @workflow.run
    async def run(self) -> int:
        attempt = workflow.info().attempt
        if attempt < 3:
            raise ApplicationError(f"run {attempt}", type="Again")
        return attempt


WORKFLOWS = [Greet, Many, Stumble, Fail, Open, Cancelled, Mailbox, Patient, Hop, Parent, Reach, Colours, Again]
