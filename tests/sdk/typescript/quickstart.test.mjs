// The quickstart as the SDK's users write it, then what a stream promises: checks 13, 47 to 51, 55.

import assert from "node:assert/strict";
import { test } from "node:test";

import Anthropic from "@anthropic-ai/sdk";
import { accumulateManagedAgentsEvent } from "@anthropic-ai/sdk/lib/sessions/accumulate";

import { Session, ofType, only, text, types } from "./support.mjs";

test("quickstart: agent, environment, session, stream, a command whose effect is visible", async () => {
  const client = new Anthropic();
  const agent = await client.beta.agents.create({
    name: "Coding assistant",
    model: "claude-opus-5-5",
    system: "You are a helpful coding assistant.",
    tools: [{ type: "agent_toolset_20260401" }],
  });
  assert.equal(agent.version, 1);
  assert.equal(agent.model.id, "claude-opus-5-5");
  const environment = await client.beta.environments.create({
    name: "quickstart",
    config: { type: "cloud", networking: { type: "unrestricted" } },
  });
  const session = await client.beta.sessions.create({
    agent: agent.id,
    environment_id: environment.id,
    title: "Quickstart session",
  });
  assert.equal(session.status, "idle");

  const say = async (words) => {
    const stream = await client.beta.sessions.events.stream(session.id);
    await client.beta.sessions.events.send(session.id, {
      events: [{ type: "user.message", content: [{ type: "text", text: words }] }],
    });
    const events = [];
    for await (const event of stream) {
      events.push(event);
      if (event.type === "session.status_idle") break;
    }
    return events;
  };

  const events = await say("echo 'print(6 * 7)' > /workspace/answer.py && echo written #bash");
  assert.deepEqual(
    types(events).filter((type) => type !== "user.message"),
    [
      "session.status_running",
      "session.thread_status_running",
      "span.model_request_start",
      "agent.tool_use",
      "span.model_request_end",
      "agent.tool_result",
      "span.model_request_start",
      "agent.message",
      "span.model_request_end",
      "session.thread_status_idle",
      "session.usage",
      "session.status_idle",
    ],
  );
  assert.equal(only(events, "agent.tool_use").name, "bash");
  assert.equal(text(only(events, "agent.tool_result")), "written\n");
  assert.equal(events.at(-1).stop_reason.type, "end_turn");
  assert.equal(text(only(await say("cat /workspace/answer.py #bash"), "agent.tool_result")), "print(6 * 7)\n");
  assert.equal((await client.beta.sessions.retrieve(session.id)).status, "idle");
});

test("49, 50: usage directly before every rest, every model request ends once", async () => {
  const session = await Session.create();
  await session.say("hello");
  await session.bash("echo hello");
  await session.say("fail once");
  const events = await session.list();
  const rests = events.flatMap((event, at) => (event.type === "session.status_idle" ? [at] : []));
  assert.equal(rests.length, 3);
  for (const at of rests) assert.equal(events[at - 1].type, "session.usage");
  const starts = ofType(events, "span.model_request_start").map((event) => event.id);
  const ends = ofType(events, "span.model_request_end").map((event) => event.model_request_start_id);
  assert.equal(starts.length, 5);
  assert.deepEqual(ends, starts);
});

test("51, 55: previews lead to the message, and only to the stream", async () => {
  const session = await Session.create();
  const events = await session.say("speak in pieces", { event_deltas: ["agent.message"] });
  const final = only(events, "agent.message");
  const deltas = ofType(events, "event_delta");
  assert(deltas.length > 5);
  assert(deltas.every((delta) => delta.event_id === final.id));
  assert(events.indexOf(only(events, "event_start")) < events.indexOf(deltas[0]));
  assert(events.indexOf(deltas.at(-1)) < events.indexOf(final));
  let snapshot;
  for (const event of events) {
    snapshot = accumulateManagedAgentsEvent(snapshot, event);
    if (event.type === "event_delta") assert(text(final).startsWith(text(snapshot)));
  }
  assert.equal(text(snapshot), text(final));
  const streamed = events.filter((event) => !event.type.startsWith("event_")).map((event) => event.id);
  const listed = (await session.list()).map((event) => event.id);
  assert.deepEqual([...new Set(streamed)].sort(), listed.sort());
});

test("a failure for good is told and ends the turn", async () => {
  const session = await Session.create();
  const events = await session.say("fail for good");
  assert.equal(only(events, "session.error").error.retry_status.type, "exhausted");
  assert.equal(events.at(-1).stop_reason.type, "retries_exhausted");
});
