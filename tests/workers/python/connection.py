"""A client whose SDK keeps quiet: what it logs goes to the standard output, where figures and outputs are."""

from temporalio.client import Client
from temporalio.runtime import Runtime, TelemetryConfig


async def connect(address: str) -> Client:
    # The process's own one, as it must outlive every worker.
    Runtime.set_default(Runtime(telemetry=TelemetryConfig(logging=None)))
    return await Client.connect(address)
