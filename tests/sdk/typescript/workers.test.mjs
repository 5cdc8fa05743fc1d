// Check 76: the official EnvironmentWorker on a self-hosted environment.

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "node:test";

import Anthropic from "@anthropic-ai/sdk";
import { EnvironmentWorker } from "@anthropic-ai/sdk/lib/environments/index.mjs";

import { Session, client, collect, eventually, isIdle, message, ofType, only, text } from "./support.mjs";

async function shop() {
  const config = { type: "self_hosted" };
  const environment = await client.beta.environments.create({ name: "shop", config });
  const path = `/v1/steadyhand/environments/${environment.id}/keys`;
  const { key } = await client.post(path, { body: { name: "tests" } });
  return { id: environment.id, key };
}

const rests = (events) => isIdle(events.at(-1) ?? {}) && events.at(-1).stop_reason.type !== "requires_action";

test("76: a worker serves a session, leaves it, and comes back for the next message", async () => {
  const { id, key } = await shop();
  const workdir = await mkdtemp(path.join(tmpdir(), "worker-"));
  const ending = new AbortController();
  const worker = new EnvironmentWorker({
    client: new Anthropic({ apiKey: "none" }),
    environmentId: id,
    environmentKey: key,
    workdir,
    maxIdleMs: 1000,
  });
  const running = worker.run(ending.signal);
  try {
    const session = await Session.create({ environment_id: id });
    await session.send(message("echo hello from $(basename $PWD) #bash"));
    let events = await eventually(() => session.list(), rests, 40_000);
    const result = only(events, "user.tool_result");
    assert.equal(text(result).trim(), `hello from ${path.basename(workdir)}`);
    assert.equal(result.tool_use_id, only(events, "agent.tool_use").id);
    assert.equal(events.at(-1).stop_reason.type, "end_turn");

    const items = () => collect(client.beta.environments.work.list(id));
    const [item] = await eventually(items, ([newest]) => newest.state === "stopped", 40_000);
    assert.equal(item.state, "stopped");

    await session.send(message("two at once"));
    const isAnswered = (events) => rests(events) && ofType(events, "user.tool_result").length === 3;
    events = await eventually(() => session.list(), isAnswered, 40_000);
    assert.equal(ofType(events, "user.tool_result").length, 3);
    assert.equal((await items()).length, 2);
  } finally {
    ending.abort();
    await running.catch((error) => assert.equal(ending.signal.aborted, true, error));
    await rm(workdir, { recursive: true });
  }
});
