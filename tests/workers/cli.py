"""What the `temporal` CLI prints of a server, without what differs between two runs: ids, times, sizes.

    cli.py TEMPORAL ADDRESS
"""

import asyncio
import os
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).with_name("python")))

from temporalio.worker import Worker

from connection import connect
from workflows import ACTIVITIES, WORKFLOWS

QUEUE = "cli"
START = "workflow start --task-queue cli --task-timeout 5s"
COMMANDS = f"""
operator cluster health
operator namespace describe -n nowhere
{START} --type Mailbox --workflow-id mail --search-attribute Color="red" --memo a=1
workflow signal -w mail --name post --input "one"
workflow query -w mail --type read
workflow update execute -w mail --name deliver --input "two" --update-id u1
workflow update describe -w mail --update-id u1
{START} --type Mailbox --workflow-id mail
workflow describe -w mail
workflow signal -w mail --name post --input "stop"
workflow result -w mail
workflow show -w mail
workflow describe -w mail
workflow query -w mail --type read
workflow query -w mail --type nonsense
workflow signal -w mail --name post --input "late"
workflow execute --task-queue cli --type Greet --workflow-id greet --input "you"
workflow execute --task-queue cli --type Fail --workflow-id fail --input "itself"
{START} --type Patient --workflow-id cancelled
workflow cancel -w cancelled
workflow result -w cancelled
{START} --type Patient --workflow-id terminated
workflow terminate -w terminated --reason enough
workflow result -w terminated
workflow terminate -w terminated
workflow cancel -w terminated
workflow signal-with-start --signal-name post --signal-input "stop" --task-queue cli --type Mailbox --workflow-id sws
workflow result -w sws
workflow count --query WorkflowId="mail"
workflow list --query WorkflowId="mail"
workflow list --query Nonsense="mail"
workflow describe -w nobody
workflow describe -w nobody -r 01a20735-da5c-7b79-923f-4f63cade07c0
workflow describe -w nobody -r nonsense
workflow show -w nobody
workflow signal -w nobody --name s
workflow cancel -w nobody
workflow terminate -w nobody
workflow query -w nobody --type q
workflow update execute -w nobody --name u
workflow delete -w nobody
workflow delete -w terminated
task-queue describe --task-queue cli --disable-stats --task-queue-type workflow
task-queue describe --task-queue cli --disable-stats --task-queue-type activity
task-queue describe --task-queue cli --legacy-mode
task-queue describe --task-queue cli --legacy-mode --task-queue-type activity
task-queue describe --task-queue cli --disable-stats --task-queue-type workflow --select-build-id b1 --report-reachability
task-queue describe --task-queue cli --disable-stats --task-queue-type workflow --select-all-active
task-queue describe --task-queue idle --report-reachability --task-queue-type workflow
task-queue describe --task-queue idle --task-queue-type activity
task-queue describe --task-queue idle --legacy-mode
task-queue config get --task-queue idle --task-queue-type workflow
worker deployment list
worker deployment describe --name nothing
operator namespace create -n short --retention 1m
operator namespace create -n kept --retention 2h --description text
operator namespace create -n kept --retention 2h
operator namespace describe -n kept
activity complete --activity-id 1 -w nobody --result 1
"""
STEADY = [
    (re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "ID"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d\S*"), "TIME"),
    (re.compile(r"((a few seconds|\d+ \w+|an? \w+) (ago|from now)|\bnow\b)"), "AGO"),
    (re.compile(r"\b[\d.]+(ms|µs|s)\b"), "SPAN"),
    # What a server keeps of build ids from before 2025.
    (re.compile(r'BuildIds:(metadata:\{[^}]*\}\s+)+data:"(\\.|[^"\\])*" ?'), ""),
    # Where a namespace is, among several clusters.
    (re.compile(r"ReplicationConfig.State .*"), ""),
    (re.compile(r"\d+@\S+"), "WORKER"),
    (re.compile(r"((?:HistorySize|StateTransitionCount)\s+)\d+"), r"\1N"),
    (re.compile(r"127\.0\.0\.1:\d+"), "ADDRESS"),
    (re.compile(r"[ \t]+"), " "),
]


def steady(text: str) -> str:
    for pattern, instead in STEADY:
        text = pattern.sub(instead, text)
    return "\n".join(line.strip() for line in text.splitlines() if line.strip())


async def main(temporal: str, address: str) -> None:
    client = await connect(address)
    worker = Worker(client, task_queue=QUEUE, workflows=WORKFLOWS, activities=ACTIVITIES,
                    disable_eager_activity_execution=True)
    async with worker:
        for command in COMMANDS.strip().splitlines():
            process = await asyncio.create_subprocess_exec(
                temporal, "--address", address, *split(command), stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
            output, _ = await asyncio.wait_for(process.communicate(), 60)
            print(f"$ temporal {command}\n{steady(output.decode())}\nexit {process.returncode}\n")


def split(command: str) -> list[str]:
    """Words; what stands in quotation marks keeps them, as JSON and queries want."""
    return re.findall(r'(?:[^\s"]|"[^"]*")+', command)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
    # Threads of the SDK that tell of workers now and then crash in an interpreter that is being taken apart.
    sys.stdout.flush()
    os._exit(0)
