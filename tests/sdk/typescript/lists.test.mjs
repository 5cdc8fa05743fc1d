// Checks 26, 42 to 44 and 53: lists and their pages.

import assert from "node:assert/strict";
import { test } from "node:test";

import Anthropic from "@anthropic-ai/sdk";

import { MODEL, Session, client, collect } from "./support.mjs";

const ids = (rows) => rows.map((row) => row.id);

test("26: every version once, newest first", async () => {
  const agent = await client.beta.agents.create({ name: "a", model: MODEL });
  for (let version = 1; version < 5; version++) {
    await client.beta.agents.update(agent.id, { version, name: `name ${version + 1}` });
  }
  const versions = await collect(client.beta.agents.versions.list(agent.id, { limit: 2 }));
  assert.deepEqual(
    versions.map((one) => one.version),
    [5, 4, 3, 2, 1],
  );
});

test("42, 43, 44: sessions of an agent, forward and back", async () => {
  const first = await Session.create();
  const agent_id = first.created.agent.id;
  const made = [first.id];
  for (let n = 0; n < 3; n++) {
    const { environment_id } = first.created;
    made.push((await client.beta.sessions.create({ agent: agent_id, environment_id })).id);
  }
  assert.deepEqual(ids(await collect(client.beta.sessions.list({ agent_id, order: "asc" }))), made);
  let page = await client.beta.sessions.list({ agent_id, limit: 1 });
  await assert.rejects(
    async () => client.beta.sessions.list({ agent_id, limit: 1, order: "asc", page: page.next_page }),
    Anthropic.BadRequestError,
  );
  const forward = ids(page.data);
  while (page.hasNextPage()) {
    page = await page.getNextPage();
    forward.push(...ids(page.data));
  }
  assert.deepEqual(forward, made.toReversed());
  const back = ids(page.data);
  while (page.prev_page) {
    page = await client.beta.sessions.list({ agent_id, limit: 1, page: page.prev_page });
    back.push(...ids(page.data));
  }
  assert.deepEqual(back, made);
});

test("53: events in both orders, by type, page by page", async () => {
  const session = await Session.create();
  await session.say("one");
  await session.bash("echo two");
  const all = ids(await session.list());
  assert(all.length > 15);
  for (const limit of [1, 4, 1000]) {
    assert.deepEqual(ids(await session.list({ limit })), all);
    assert.deepEqual(ids(await session.list({ limit, order: "desc" })), all.toReversed());
  }
  const messages = await session.list({ types: ["user.message", "agent.message"], limit: 1 });
  assert.deepEqual(
    messages.map((event) => event.type),
    ["user.message", "agent.message", "user.message", "agent.message"],
  );
});
