// Checks 52, 58, 59, 61: what is sent while a session works.

import assert from "node:assert/strict";
import { test } from "node:test";

import { INTERRUPT, Session, isIdle, message, ofType, only, text } from "./support.mjs";

const isStart = (event) => event.type === "span.model_request_start";

test("58: an interrupt stops a model request", async () => {
  const session = await Session.create();
  const stream = await session.stream();
  await session.send(message("think for long"));
  await stream.until(isStart);
  const [interrupt] = await session.send(INTERRUPT);
  assert.equal(interrupt.processed_at ?? null, null);
  const events = await stream.until(isIdle);
  stream.close();
  assert.equal(events.at(-1).stop_reason.type, "end_turn");
  assert.notEqual(events.filter((event) => event.id === interrupt.id).at(-1).processed_at, null);
  assert.equal(ofType(stream.seen, "agent.message").length, 0);
  assert.equal((await session.get()).status, "idle");
});

test("58: an interrupt stops a tool", async () => {
  const session = await Session.create();
  const stream = await session.stream();
  await session.send(message("sleep 600 #bash"));
  await stream.until((event) => event.type === "agent.tool_use");
  await session.send(INTERRUPT);
  await stream.until(isIdle);
  stream.close();
  assert.equal(only(await session.list(), "agent.tool_result").is_error, true);
});

test("59: a message behind an interrupt is the next turn", async () => {
  const session = await Session.create();
  const stream = await session.stream();
  await session.send(message("think for long"));
  await stream.until(isStart);
  await session.send(INTERRUPT, message("never mind"));
  const events = await stream.until((event) => event.type === "agent.message");
  assert.equal(text(events.at(-1)), "As you wish.");
  await stream.until(isIdle);
  stream.close();
});

test("52, 61: messages sent while it runs are stamped later, and answered in order", async () => {
  const session = await Session.create();
  const stream = await session.stream();
  await session.send(message("take a moment"));
  await stream.until(isStart);
  const sent = [...(await session.send(message("first"))), ...(await session.send(message("second")))];
  assert(sent.every((event) => event.processed_at === null));
  await stream.until(isIdle);
  stream.close();
  const said = ofType(await session.list(), "user.message");
  assert.deepEqual(
    said.slice(1).map((event) => event.id),
    sent.map((event) => event.id),
  );
  assert(said.every((event) => event.processed_at !== null));
});
