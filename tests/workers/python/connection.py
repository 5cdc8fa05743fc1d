"""A client whose SDK keeps quiet: what it logs goes to the standard output, where figures and outputs are."""

from datetime import timedelta

from temporalio.client import Client
from temporalio.runtime import Runtime, TelemetryConfig


async def connect(address: str, heartbeats: timedelta = timedelta(minutes=1)) -> Client:
    """`heartbeats`: how often workers say that they are there."""
    # The process's own one, as it must outlive every worker.
    Runtime.set_default(Runtime(telemetry=TelemetryConfig(logging=None), worker_heartbeat_interval=heartbeats))
    return await Client.connect(address)
