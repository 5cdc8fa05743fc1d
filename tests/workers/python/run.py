"""Plays every scenario against one server and writes what came of it: one JSON object, by scenario.

    run.py ADDRESS OUTPUT [SCENARIO ...]
"""

import asyncio
import json
import os
import sys
from datetime import timedelta

from temporalio.client import Client
from temporalio.worker import Replayer, Worker

from connection import connect
from fleet import FLEET
from scenarios import QUEUE, SCENARIOS, Stage
from versions import VERSIONED, VERSIONS
from workflows import ACTIVITIES, WORKFLOWS

# Those of versions and of the fleet have workers of their own.
ALL = SCENARIOS | VERSIONS | FLEET


async def play(client: Client, name: str) -> dict:
    stage = Stage(client, name)
    print(f"{name} ...", file=sys.stderr)
    said = await asyncio.wait_for(ALL[name](stage), 60)
    histories = [await client.get_workflow_handle(id, run_id=run).fetch_history() for id, run in stage.runs]
    for history in histories:
        await Replayer(workflows=WORKFLOWS + VERSIONED).replay_workflow(history)
    return {"outcome": said, "histories": [history.to_json_dict()["events"] for history in histories]}


async def main(address: str, output: str, names: list[str]) -> None:
    client = await connect(address, heartbeats=timedelta(seconds=1))
    worker = Worker(
        client,
        task_queue=QUEUE,
        workflows=WORKFLOWS,
        activities=ACTIVITIES,
        # An activity that is started with the task that wants it has its start in another place of the history.
        disable_eager_activity_execution=True,
    )
    async with worker:
        played = {name: await play(client, name) for name in ALL if not names or name in names}
    with open(output, "w", encoding="utf-8") as file:
        json.dump(played, file, indent=1, sort_keys=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
    # Threads of the SDK that tell of workers now and then crash in an interpreter that is being taken apart.
    sys.stderr.flush()
    os._exit(0)
