"""Plays every scenario against one server and writes what came of it: one JSON object, by scenario.

    run.py ADDRESS OUTPUT [SCENARIO ...]
"""

import asyncio
import json
import sys

from temporalio.client import Client
from temporalio.worker import Replayer, Worker

from connection import connect
from histories import steady
from scenarios import QUEUE, SCENARIOS, Stage
from workflows import ACTIVITIES, WORKFLOWS


async def play(client: Client, name: str) -> dict:
    stage = Stage(client, name)
    print(f"{name} ...", file=sys.stderr)
    said = await asyncio.wait_for(SCENARIOS[name](stage), 60)
    histories = [await client.get_workflow_handle(id, run_id=run).fetch_history() for id, run in stage.runs]
    for history in histories:
        await Replayer(workflows=WORKFLOWS).replay_workflow(history)
    return {"outcome": said, "histories": [steady(history) for history in histories]}


async def main(address: str, output: str, names: list[str]) -> None:
    client = await connect(address)
    worker = Worker(
        client,
        task_queue=QUEUE,
        workflows=WORKFLOWS,
        activities=ACTIVITIES,
        # An activity that is started with the task that wants it has its start in another place of the history.
        disable_eager_activity_execution=True,
    )
    async with worker:
        played = {name: await play(client, name) for name in names or SCENARIOS}
    with open(output, "w", encoding="utf-8") as file:
        json.dump(played, file, indent=1, sort_keys=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
