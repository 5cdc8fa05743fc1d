"""Scenarios of worker deployments: workers of two versions beside each other, and which of them a workflow is given to.
Every workflow says which build ran each of its parts."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

from temporalio import workflow
from temporalio.api.deployment.v1 import RoutingConfig, WorkerDeploymentInfo
from temporalio.api.enums.v1 import RoutingConfigUpdateState, WorkerDeploymentVersionStatus
from temporalio.api.workflowservice.v1 import (
    DescribeWorkerDeploymentRequest,
    DescribeWorkerDeploymentVersionRequest,
    SetWorkerDeploymentCurrentVersionRequest,
    SetWorkerDeploymentRampingVersionRequest,
)
from temporalio.api.deployment.v1 import WorkerDeploymentVersion as WireVersion
from temporalio.client import WorkflowHandle
from temporalio.common import PinnedVersioningOverride, VersioningBehavior, WorkerDeploymentVersion
from temporalio.service import RPCError
from temporalio.worker import Worker, WorkerDeploymentConfig

from scenarios import Stage, happened, outcome
from workflows import ACTIVITIES, greet, once

VERSIONS: dict[str, Callable[[Stage], Awaitable[object]]] = {}


def scenario(function: Callable[[Stage], Awaitable[object]]) -> Callable[[Stage], Awaitable[object]]:
    VERSIONS[function.__name__] = function
    return function


def build() -> str:
    version = workflow.info().get_current_deployment_version()
    return version.build_id if version else "none"


class Waits:
    """Says where it began, and where it ends once it is told to."""

    def __init__(self) -> None:
        self.told = False

    async def through(self) -> list[str]:
        began = build()
        await workflow.wait_condition(lambda: self.told)
        await workflow.execute_activity(greet, "you", **once())
        return [began, build()]

    @workflow.signal
    def go(self) -> None:
        self.told = True


@workflow.defn(versioning_behavior=VersioningBehavior.PINNED)
class Stays(Waits):
    @workflow.run
    async def run(self) -> list[str]:
        return await self.through()


@workflow.defn(versioning_behavior=VersioningBehavior.AUTO_UPGRADE)
class Moves(Waits):
    @workflow.run
    async def run(self) -> list[str]:
        return await self.through()


@workflow.defn(versioning_behavior=VersioningBehavior.PINNED)
class Where:
    @workflow.run
    async def run(self) -> str:
        return build()


VERSIONED = [Stays, Moves, Where]


class Deployment:
    """The workers of one scenario, with a task queue and a deployment of their own."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.name, self.service = stage, stage.id(), stage.client.workflow_service

    def version(self, build_id: str) -> WorkerDeploymentVersion:
        return WorkerDeploymentVersion(deployment_name=self.name, build_id=build_id)

    @asynccontextmanager
    async def worker(self, build_id: str) -> AsyncIterator[None]:
        """A worker of that version, which the server knows of with both of its queues."""
        config = WorkerDeploymentConfig(version=self.version(build_id), use_worker_versioning=True)
        async with Worker(self.stage.client, task_queue=self.name, workflows=VERSIONED, activities=ACTIVITIES,
                          deployment_config=config, disable_eager_activity_execution=True):
            while await self.queues(build_id) < 2:
                pass
            yield

    async def queues(self, build_id: str) -> int:
        version = WireVersion(deployment_name=self.name, build_id=build_id)
        request = DescribeWorkerDeploymentVersionRequest(namespace=self.stage.client.namespace, deployment_version=version)
        try:
            described = await self.service.describe_worker_deployment_version(request)
        except RPCError:
            return 0
        return len(described.worker_deployment_version_info.task_queue_infos)

    async def describe(self) -> WorkerDeploymentInfo:
        request = DescribeWorkerDeploymentRequest(namespace=self.stage.client.namespace, deployment_name=self.name)
        return (await self.service.describe_worker_deployment(request)).worker_deployment_info

    async def until(self, holds: Callable[[WorkerDeploymentInfo], bool]) -> WorkerDeploymentInfo:
        """A server knows some things later."""
        while not holds(described := await self.describe()):
            await asyncio.sleep(0.05)
        return described

    async def routed(self) -> None:
        """Until the queues know of the routing: they learn of it one by one."""
        await self.until(lambda d: d.routing_config_update_state
                         != RoutingConfigUpdateState.ROUTING_CONFIG_UPDATE_STATE_IN_PROGRESS)

    async def set_current(self, build_id: str) -> None:
        await self.service.set_worker_deployment_current_version(SetWorkerDeploymentCurrentVersionRequest(
            namespace=self.stage.client.namespace, deployment_name=self.name, build_id=build_id))
        await self.routed()

    async def set_ramping(self, build_id: str, percentage: float) -> None:
        await self.service.set_worker_deployment_ramping_version(SetWorkerDeploymentRampingVersionRequest(
            namespace=self.stage.client.namespace, deployment_name=self.name, build_id=build_id, percentage=percentage))
        await self.routed()

    async def start(self, run, suffix: str = "", **options) -> WorkflowHandle:
        handle = await self.stage.client.start_workflow(run, id=self.stage.id(suffix), task_queue=self.name,
                                                        task_timeout=timedelta(seconds=5), **options)
        self.stage.runs.append((handle.id, handle.result_run_id))
        return handle


def statuses(described: WorkerDeploymentInfo) -> dict[str, str]:
    return {
        summary.deployment_version.build_id: WorkerDeploymentVersionStatus.Name(summary.status)
        for summary in described.version_summaries
    }


def routing(config: RoutingConfig) -> list[object]:
    return [config.current_deployment_version.build_id, config.ramping_deployment_version.build_id,
            config.ramping_version_percentage]


async def finish(handle: WorkflowHandle) -> object:
    await handle.signal("go")
    return await outcome(handle.result())


@scenario
async def versions_pinned_and_auto_upgrade(stage: Stage) -> object:
    deployment = Deployment(stage)
    async with deployment.worker("1"):
        await deployment.set_current("1")
        stays, moves = await deployment.start(Stays.run, "-stays"), await deployment.start(Moves.run, "-moves")
        for handle in [stays, moves]:
            await happened(handle, "WORKFLOW_TASK_COMPLETED")
        async with deployment.worker("2"):
            await deployment.set_current("2")
            new = await deployment.start(Stays.run, "-new")
            await happened(new, "WORKFLOW_TASK_COMPLETED")
            said = [await finish(handle) for handle in [stays, moves, new]]
            described = await deployment.describe()
    return [said, sorted(statuses(described)), routing(described.routing_config)]


@scenario
async def versions_drain(stage: Stage) -> object:
    deployment = Deployment(stage)
    said = []
    async with deployment.worker("1"):
        said.append(statuses(await deployment.describe()))
        await deployment.set_current("1")
        stays = await deployment.start(Stays.run)
        await happened(stays, "WORKFLOW_TASK_COMPLETED")
        said.append(statuses(await deployment.describe()))
        async with deployment.worker("2"):
            await deployment.set_current("2")
            said.append(statuses(await deployment.describe()))
            said.append(await finish(stays))
            drained = WorkerDeploymentVersionStatus.Name(
                WorkerDeploymentVersionStatus.WORKER_DEPLOYMENT_VERSION_STATUS_DRAINED)
            said.append(statuses(await deployment.until(lambda d: statuses(d)["1"] == drained)))
    return said


@scenario
async def versions_ramp_by_the_workflow_id(stage: Stage) -> object:
    deployment = Deployment(stage)
    async with deployment.worker("1"), deployment.worker("2"):
        await deployment.set_current("1")
        await deployment.set_ramping("2", 50)
        config = routing((await deployment.describe()).routing_config)
        half = [await (await deployment.start(Where.run, f"-half-{n}")).result() for n in range(12)]
        await deployment.set_ramping("2", 100)
        all = [await (await deployment.start(Where.run, f"-all-{n}")).result() for n in range(3)]
    return [config, half, all]


@scenario
async def versions_overridden_at_the_start(stage: Stage) -> object:
    deployment = Deployment(stage)
    async with deployment.worker("1"), deployment.worker("2"):
        await deployment.set_current("1")
        override = PinnedVersioningOverride(version=deployment.version("2"))
        handle = await deployment.start(Where.run, versioning_override=override)
        return await outcome(handle.result())
