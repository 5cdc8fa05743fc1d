"""The official EnvironmentWorker as a program of its own, to be killed: WORKDIR is where its tools run."""

from __future__ import annotations

import asyncio
import signal
import sys

import anthropic


async def main(environment_id: str, environment_key: str, workdir: str, max_idle: float) -> None:
    # The key of the client is not the worker's: every call of a worker has the environment's, or that of its item.
    async with anthropic.AsyncAnthropic(api_key="none") as client:
        worker = client.beta.environments.work.worker(
            environment_id=environment_id, environment_key=environment_key, workdir=workdir, max_idle=max_idle
        )
        running = asyncio.ensure_future(worker.run())
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
        try:
            await running
        except asyncio.CancelledError:
            pass


if __name__ == "__main__":
    _, environment_id, environment_key, workdir, max_idle = sys.argv
    asyncio.run(main(environment_id, environment_key, workdir, float(max_idle)))
