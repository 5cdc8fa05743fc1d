"""Scenarios about the workers themselves: who is listed, and what a task queue says of them."""

from collections.abc import Awaitable, Callable

from temporalio.api.enums.v1 import DescribeTaskQueueMode, TaskQueueType, WorkerStatus
from temporalio.api.taskqueue.v1 import TaskQueue, TaskQueueStats
from temporalio.api.workflowservice.v1 import (
    CountWorkersRequest, DescribeTaskQueueRequest, DescribeTaskQueueResponse, ListWorkersRequest,
)
from temporalio.worker import Worker

from scenarios import Stage
from workflows import ACTIVITIES, WORKFLOWS

FLEET: dict[str, Callable[[Stage], Awaitable[object]]] = {}


def scenario(function: Callable[[Stage], Awaitable[object]]) -> Callable[[Stage], Awaitable[object]]:
    FLEET[function.__name__] = function
    return function


class Listed:
    """What a server lists of the workers of one queue."""

    def __init__(self, stage: Stage) -> None:
        self.service, self.namespace = stage.client.workflow_service, stage.client.namespace
        self.query = f'TaskQueue="{stage.id()}"'

    async def workers(self) -> list:
        request = ListWorkersRequest(namespace=self.namespace, query=self.query)
        return list((await self.service.list_workers(request)).workers)

    async def until(self, status: WorkerStatus.ValueType) -> list:
        while not (workers := await self.workers()) or any(worker.status != status for worker in workers):
            pass
        return workers

    async def count(self) -> int:
        return (await self.service.count_workers(CountWorkersRequest(namespace=self.namespace, query=self.query))).count


@scenario
async def workers_are_listed(stage: Stage) -> object:
    listed = Listed(stage)
    said: list[object] = [await listed.count()]
    async with Worker(stage.client, task_queue=stage.id(), workflows=WORKFLOWS, activities=ACTIVITIES):
        workers = await listed.until(WorkerStatus.WORKER_STATUS_RUNNING)
        said.append([[worker.worker_identity != "", worker.task_queue, worker.sdk_name, worker.sdk_version, worker.process_id != ""]
                     for worker in workers])
        said.append(await listed.count())
    # Those who left are in the list for a while, with another status.
    said.append([WorkerStatus.Name(worker.status) for worker in await listed.workers()])
    return said


@scenario
async def a_task_queue_says_who_polls_it(stage: Stage) -> object:
    service = stage.client.workflow_service

    async def pollers(kind: TaskQueueType.ValueType) -> list[str]:
        request = DescribeTaskQueueRequest(namespace=stage.client.namespace, task_queue=TaskQueue(name=stage.id()),
                                           task_queue_type=kind)
        return sorted({poller.identity for poller in (await service.describe_task_queue(request)).pollers})

    both = [TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW, TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY]
    said = [[await pollers(kind) for kind in both]]
    async with Worker(stage.client, task_queue=stage.id(), workflows=WORKFLOWS, activities=ACTIVITIES, identity="somebody"):
        while not all([await pollers(kind) for kind in both]):
            pass
        said.append([await pollers(kind) for kind in both])
    return said


@scenario
async def a_task_queue_says_what_waits_in_it(stage: Stage) -> object:
    service, queue = stage.client.workflow_service, TaskQueue(name=stage.id())

    async def described(**more) -> DescribeTaskQueueResponse:
        return await service.describe_task_queue(DescribeTaskQueueRequest(
            namespace=stage.client.namespace, task_queue=queue, report_stats=True, **more))

    def steady(stats: TaskQueueStats) -> list[object]:
        age = stats.approximate_backlog_age
        return [stats.approximate_backlog_count, age.seconds + age.nanos > 0, stats.tasks_add_rate > 0, stats.tasks_dispatch_rate > 0]

    async def said() -> list[object]:
        default = [steady((await described(task_queue_type=kind)).stats) for kind in (1, 2)]
        enhanced = await described(api_mode=DescribeTaskQueueMode.DESCRIBE_TASK_QUEUE_MODE_ENHANCED)
        infos = enhanced.versions_info[""].types_info
        return [default, {kind: steady(infos[kind].stats) for kind in sorted(infos)}]

    before = await said()
    for n in range(3):
        await stage.client.start_workflow("Nobody", id=f"{stage.id()}-{n}", task_queue=stage.id())
    # A server says what it knew for some seconds.
    while (await described(task_queue_type=1)).stats.approximate_backlog_count < 3:
        pass
    while (after := await said())[1][1][0] < 3:
        pass
    return [before, after]
