"""A client whose SDK keeps quiet: what it logs goes to the standard output, where figures and outputs are."""

from temporalio.client import Client
from temporalio.runtime import Runtime, TelemetryConfig


async def connect(address: str) -> Client:
    return await Client.connect(address, runtime=Runtime(telemetry=TelemetryConfig(logging=None)))
