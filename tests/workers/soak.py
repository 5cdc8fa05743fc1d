"""Mixed load on the embedded engine for a while: clients and workers of the Python SDK play the scenarios at random, all at
once, and now and then a session is run. Every outcome must be the one that the scenario has alone; memory and file handles
of the service must not grow once it is warm.

    soak.py STEADYHAND ADDRESS PID DATA SECONDS SEED
"""

import asyncio
import os
import random
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).with_name("python")))

from temporalio.client import Client
from temporalio.worker import Worker

from connection import connect
from scenarios import QUEUE, SCENARIOS, Stage
from workflows import ACTIVITIES, WORKFLOWS

AT_ONCE = 8
SAMPLE_S = 5
# Of memory and handles between the second and the last third: caches fill up slowly, leaks do not stop.
GROWTH_MAX = 1.1
HANDLES_MORE_MAX = 16


def resident_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024


def handles(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


class Soak:
    def __init__(self, client: Client, steadyhand: str, data: str, seconds: float, seed: int) -> None:
        self.client, self.steadyhand, self.data = client, steadyhand, data
        self.ends_at = time.monotonic() + seconds
        self.seed, self.played, self.sessions = seed, 0, 0
        self.expected: dict[str, str] = {}

    def goes_on(self) -> bool:
        return time.monotonic() < self.ends_at

    async def play(self, name: str) -> str:
        self.played += 1
        stage = Stage(self.client, f"{name}-{self.played}")
        said = await asyncio.wait_for(SCENARIOS[name](stage), 120)
        return str(said).replace(stage.name, name)

    async def clients(self, number: int) -> None:
        dice = random.Random(f"{self.seed} {number}")
        while self.goes_on():
            name = dice.choice(list(SCENARIOS))
            said = await self.play(name)
            assert said == self.expected[name], f"{name}: {said}, and alone {self.expected[name]}"

    async def session(self) -> None:
        while self.goes_on():
            process = await asyncio.create_subprocess_exec(
                self.steadyhand, "run", "hello", stdout=asyncio.subprocess.DEVNULL,
                env={**os.environ, "STEADYHAND_DATA": self.data})
            assert await process.wait() == 0, "a session ended without success"
            self.sessions += 1
            await asyncio.sleep(1)

    async def samples(self, pid: int) -> list[tuple[float, int]]:
        seen = []
        while self.goes_on():
            await asyncio.sleep(SAMPLE_S)
            seen.append((resident_mib(pid), handles(pid)))
        return seen


async def main(steadyhand: str, address: str, pid: int, data: str, seconds: float, seed: int) -> int:
    client = await connect(address)
    async with Worker(client, task_queue=QUEUE, workflows=WORKFLOWS, activities=ACTIVITIES):
        soak = Soak(client, steadyhand, data, seconds, seed)
        for name in SCENARIOS:
            soak.expected[name] = await soak.play(name)
        soak.ends_at = time.monotonic() + seconds
        clients = [soak.clients(number) for number in range(AT_ONCE)]
        samples, *_ = await asyncio.gather(soak.samples(pid), soak.session(), *clients)
    third = len(samples) // 3
    memory = [statistics.median(sample[0] for sample in part) for part in (samples[third:-third], samples[-third:])]
    opened = [statistics.median(sample[1] for sample in part) for part in (samples[third:-third], samples[-third:])]
    print(f"figures: {soak.played} scenarios, {soak.sessions} sessions, {seconds:.0f} s; "
          f"memory {memory[0]:.0f} then {memory[1]:.0f} MiB, handles {opened[0]:.0f} then {opened[1]:.0f}")
    return 0 if memory[1] <= memory[0] * GROWTH_MAX and opened[1] <= opened[0] + HANDLES_MORE_MAX else 1


if __name__ == "__main__":
    program, where, process_id, folder, how_long, dice_seed = sys.argv[1:]
    sys.exit(asyncio.run(main(program, where, int(process_id), folder, float(how_long), int(dice_seed))))
