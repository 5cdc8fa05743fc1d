"""One scenario a feature: what a client does, what comes of it, and which histories it leaves."""

from collections.abc import Awaitable, Callable
from datetime import timedelta

from temporalio.api.enums.v1 import EventType
from temporalio.client import (
    Client,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowUpdateFailedError,
)
from temporalio.common import (
    RetryPolicy,
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError

import workflows as w

QUEUE = "workers"
Scenario = Callable[["Stage"], Awaitable[object]]
SCENARIOS: dict[str, Scenario] = {}


def scenario(function: Scenario) -> Scenario:
    SCENARIOS[function.__name__] = function
    return function


class Stage:
    """A client, and the workflows that a scenario started with it."""

    def __init__(self, client: Client, name: str) -> None:
        self.client, self.name, self.runs = client, name, []

    async def start(self, run, *args, suffix: str = "", **options) -> WorkflowHandle:
        options.setdefault("task_timeout", timedelta(seconds=5))
        handle = await self.client.start_workflow(run, args=args, id=self.id(suffix), task_queue=QUEUE, **options)
        self.runs.append((handle.id, handle.result_run_id or handle.first_execution_run_id))
        return handle

    def id(self, suffix: str = "") -> str:
        return self.name + suffix

    def also(self, workflow_id: str, run_id: str | None = None) -> None:
        """Compares the history of this run too."""
        self.runs.append((workflow_id, run_id))


async def outcome(result: Awaitable) -> object:
    """What a workflow gave, or the chain of failures that it ended with."""
    try:
        return await result
    except (WorkflowFailureError, WorkflowUpdateFailedError) as error:
        chain, cause = [], error.cause
        while cause is not None:
            chain.append(f"{type(cause).__name__}: {cause}")
            cause = getattr(cause, "cause", None)
        return chain


async def happened(handle: WorkflowHandle, kind: str, times: int = 1) -> None:
    """Waits until so many events of a kind stand in history."""
    wanted = EventType.Value(f"EVENT_TYPE_{kind}")
    async for event in handle.fetch_history_events(wait_new_event=True):
        times -= event.event_type == wanted
        if times == 0:
            return
    raise AssertionError(f"{handle.id} ended without {kind}")


async def started(handle: WorkflowHandle) -> bool:
    """Whether a worker has an activity of the workflow; that is no event, so it has to be asked for."""
    described = (await handle.describe()).raw_description
    return any(pending.last_started_time.seconds for pending in described.pending_activities)


@scenario
async def activity_local_activity_and_timer(stage: Stage) -> object:
    return await outcome((await stage.start(w.Greet.run, "you")).result())


@scenario
async def many_activities(stage: Stage) -> object:
    handle = await stage.start(w.Many.run, 5)
    result = await outcome(handle.result())
    # Which of them ends first is anybody's guess.
    stage.runs.clear()
    return result


@scenario
async def activity_retries(stage: Stage) -> object:
    return await outcome((await stage.start(w.Stumble.run)).result())


def failing(how: str) -> None:
    async def fails(stage: Stage) -> object:
        return await outcome((await stage.start(w.Fail.run, how)).result())

    fails.__name__ = f"fails_by_{how}"
    scenario(fails)


for how in ["activity", "start-to-close", "schedule-to-start", "heartbeat", "itself"]:
    failing(how)


@scenario
async def activity_heartbeats(stage: Stage) -> object:
    handle = await stage.start(w.Cancelled.run)

    async def details() -> list:
        pending = (await handle.describe()).raw_description.pending_activities
        beats = [activity.heartbeat_details.payloads for activity in pending]
        return [await stage.client.data_converter.decode(beat) for beat in beats if beat]

    while not (said := await details()):
        pass
    await handle.cancel()
    return [said, await outcome(handle.result())]


@scenario
async def activity_completed_by_somebody_else(stage: Stage) -> object:
    handle = await stage.start(w.Open.run)
    while handle.id not in w.left_open:
        await handle.describe()
    activity = stage.client.get_async_activity_handle(task_token=w.left_open[handle.id])
    await activity.heartbeat("soon")
    await activity.complete("done from outside")
    return await outcome(handle.result())


@scenario
async def activity_failed_by_id(stage: Stage) -> object:
    handle = await stage.start(w.Open.run)
    while handle.id not in w.left_open:
        await handle.describe()
    activity = stage.client.get_async_activity_handle(workflow_id=handle.id, run_id=None, activity_id="1")
    await activity.fail(ValueError("broken outside"))
    return await outcome(handle.result())


@scenario
async def cancelled_while_an_activity_runs(stage: Stage) -> object:
    handle = await stage.start(w.Cancelled.run)
    while not await started(handle):
        pass
    await handle.cancel()
    return await outcome(handle.result())


@scenario
async def signals_and_queries(stage: Stage) -> object:
    handle = await stage.start(w.Mailbox.run)
    await happened(handle, "WORKFLOW_TASK_COMPLETED")
    await handle.signal(w.Mailbox.post, "a")
    await happened(handle, "WORKFLOW_TASK_COMPLETED", 2)
    running = await handle.query(w.Mailbox.read)
    await handle.signal(w.Mailbox.post, "stop")
    result = await outcome(handle.result())
    return [running, result, await handle.query(w.Mailbox.read)]


@scenario
async def signal_with_start(stage: Stage) -> object:
    handle = await stage.start(w.Mailbox.run, start_signal="post", start_signal_args=["stop"])
    return await outcome(handle.result())


@scenario
async def updates(stage: Stage) -> object:
    handle = await stage.start(w.Mailbox.run)
    await happened(handle, "WORKFLOW_TASK_COMPLETED")
    first = await outcome(handle.execute_update(w.Mailbox.deliver, "x", id="u1"))
    again = await outcome(handle.execute_update(w.Mailbox.deliver, "x", id="u1"))
    refused = await outcome(handle.execute_update(w.Mailbox.deliver, "", id="u2"))
    await handle.signal(w.Mailbox.post, "stop")
    result = await outcome(handle.result())
    # A server leaves no trace of what was refused; the engine leaves the events of its task (docs/engine.md).
    stage.runs.clear()
    return [first, again, refused, result]


@scenario
async def an_accepted_update(stage: Stage) -> object:
    handle = await stage.start(w.Mailbox.run)
    await happened(handle, "WORKFLOW_TASK_COMPLETED")
    first = await outcome(handle.execute_update(w.Mailbox.deliver, "x", id="u1"))
    await handle.signal(w.Mailbox.post, "stop")
    return [first, await outcome(handle.result())]


@scenario
async def cancelled(stage: Stage) -> object:
    handle = await stage.start(w.Patient.run)
    await happened(handle, "WORKFLOW_TASK_COMPLETED")
    await handle.cancel()
    return await outcome(handle.result())


@scenario
async def terminated(stage: Stage) -> object:
    handle = await stage.start(w.Patient.run)
    await happened(handle, "WORKFLOW_TASK_COMPLETED")
    await handle.terminate("a detail", reason="enough")
    return await outcome(handle.result())


@scenario
async def run_timeout(stage: Stage) -> object:
    handle = await stage.start(w.Patient.run, run_timeout=timedelta(seconds=1))
    return await outcome(handle.result())


@scenario
async def continued_as_new(stage: Stage) -> object:
    handle = await stage.start(w.Hop.run, 2, memo={"first": True})
    result = await outcome(handle.result())
    stage.also(handle.id)
    return result


@scenario
async def a_workflow_with_a_retry_policy(stage: Stage) -> object:
    policy = RetryPolicy(initial_interval=timedelta(seconds=1), backoff_coefficient=1.0, maximum_attempts=4)
    handle = await stage.start(w.Again.run, retry_policy=policy)
    result = await outcome(handle.result())
    stage.also(handle.id)
    return result


def family(name: str, child: str, policy: int, waits: bool) -> None:
    async def plays(stage: Stage) -> object:
        handle = await stage.start(w.Parent.run, w.Family(child, policy, waits))
        result = await outcome(handle.result())
        of_child = stage.client.get_workflow_handle(stage.id("-child"))
        if waits or policy != 2:
            if waits:
                stage.also(of_child.id)
            # One that nobody waits for may have been given its first task by then, or not.
            return [result, await outcome(of_child.result())]
        status = (await of_child.describe()).status
        await of_child.terminate()
        return [result, str(status)]

    plays.__name__ = name
    scenario(plays)


family("a_child_completes", "Greet", 1, True)
family("a_child_fails", "Fail", 1, True)
family("a_child_is_terminated_with_its_parent", "Patient", 1, False)
family("a_child_is_abandoned", "Patient", 2, False)
family("a_child_is_cancelled_with_its_parent", "Patient", 3, False)


@scenario
async def another_workflow_is_signalled_and_cancelled(stage: Stage) -> object:
    other = await stage.start(w.Mailbox.run, suffix="-other")
    await happened(other, "WORKFLOW_TASK_COMPLETED")
    handle = await stage.start(w.Reach.run, other.id)
    result = [await outcome(handle.result()), await outcome(other.result())]
    # Whether the other one sees both in one task is anybody's guess.
    stage.runs.remove((other.id, other.result_run_id))
    return result


@scenario
async def attributes_memo_and_patches(stage: Stage) -> object:
    given = TypedSearchAttributes([SearchAttributePair(w.COLOR, "green"), SearchAttributePair(w.SIZE, 3)])
    handle = await stage.start(w.Colours.run, search_attributes=given, memo={"a": 1})
    result = await outcome(handle.result())
    described = await handle.describe()
    attributes = described.typed_search_attributes
    return [result, attributes.get(w.COLOR), attributes.get(w.SIZE), await described.memo(), str(described.status)]


@scenario
async def ids_are_used_again_or_not(stage: Stage) -> object:
    said = []

    async def tries(**policies) -> None:
        try:
            handle = await stage.start(w.Patient.run, **policies)
            described = await stage.client.get_workflow_handle(handle.id).describe()
            said.append(described.run_id == handle.result_run_id)
        except WorkflowAlreadyStartedError as error:
            said.append(f"{error.workflow_id == stage.id()} {error.workflow_type}")

    await tries()
    await tries()
    await tries(id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING)
    await tries(id_conflict_policy=WorkflowIDConflictPolicy.TERMINATE_EXISTING)
    await stage.client.get_workflow_handle(stage.id()).terminate()
    await tries(id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE)
    await tries(id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY)
    await stage.client.get_workflow_handle(stage.id()).terminate()
    stage.runs.clear()
    return said


@scenario
async def lists_and_counts(stage: Stage) -> object:
    for n, color in enumerate(["red", "green", "red"]):
        pairs = [SearchAttributePair(w.COLOR, f"{stage.id()}-{color}"), SearchAttributePair(w.SIZE, n)]
        await stage.start(w.Patient.run, suffix=f"-{n}", search_attributes=TypedSearchAttributes(pairs))
    mine = f"WorkflowId STARTS_WITH '{stage.id()}-'"

    async def found(query: str, count: int) -> list[str]:
        # A server shows in lists what it has indexed by then.
        while (await stage.client.count_workflows(query)).count != count:
            pass
        return sorted([run.id.removeprefix(stage.id()) async for run in stage.client.list_workflows(query)])

    said = [
        await found(mine, 3),
        await found(f"Color = '{stage.id()}-red'", 2),
        await found(f"{mine} AND Size > 0 AND ExecutionStatus = 'Running'", 2),
        await found(f"{mine} AND (Size = 0 OR Size IN (2, 3))", 2),
        await found(f"{mine} AND Size != 1 AND WorkflowType = 'Patient'", 2),
    ]
    try:
        [_ async for _ in stage.client.list_workflows("Nonsense = 'x'")]
    except RPCError as error:
        said.append([error.status.name])
    for n in range(3):
        await stage.client.get_workflow_handle(stage.id(f"-{n}")).terminate()
    stage.runs.clear()
    return said


@scenario
async def errors_of_the_service(stage: Stage) -> object:
    nobody = stage.client.get_workflow_handle("nobody-of-that-name")
    said = []
    for call in [nobody.describe, nobody.cancel, nobody.terminate, nobody.result]:
        try:
            await call()
        except RPCError as error:
            said.append(f"{call.__name__} {error.status.name}: {error.message}")
    return said
