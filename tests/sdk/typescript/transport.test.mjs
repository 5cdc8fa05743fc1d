// Checks 1, 3, 4, 7, 12 and 46: what the SDK makes of refusals, and the end of a stream.

import assert from "node:assert/strict";
import { test } from "node:test";

import Anthropic from "@anthropic-ai/sdk";

import { MODEL, Session, client, collect } from "./support.mjs";

test("1: a wrong key is refused", async () => {
  const stranger = new Anthropic({ apiKey: "sk-wrong", maxRetries: 0 });
  await assert.rejects(async () => stranger.beta.agents.list(), (error) => {
    assert(error instanceof Anthropic.AuthenticationError);
    assert.equal(error.type, "authentication_error");
    return true;
  });
});

test("3, 4: an error carries its request id", async () => {
  await assert.rejects(client.beta.sessions.retrieve("sesn_none"), (error) => {
    assert(error instanceof Anthropic.NotFoundError);
    assert.equal(error.type, "not_found_error");
    assert.match(error.requestID, /^req_/);
    assert.equal(error.error.request_id, error.requestID);
    return true;
  });
  const { request_id } = await client.beta.agents.list().withResponse();
  assert.match(request_id, /^req_/);
});

test("7: a body over the limit is too large", async () => {
  const system = "x".repeat(33 * 1024 * 1024);
  await assert.rejects(client.beta.agents.create({ name: "large", model: MODEL, system }), (error) => {
    assert.equal(error.status, 413);
    assert.equal(error.type, "request_too_large");
    return true;
  });
});

test("12: a conflict is not repeated", async () => {
  let requests = 0;
  const counting = new Anthropic({
    maxRetries: 2,
    fetch: (...args) => {
      requests += 1;
      return fetch(...args);
    },
  });
  const agent = await client.beta.agents.create({ name: "a", model: MODEL });
  await assert.rejects(
    counting.beta.agents.update(agent.id, { version: 9, name: "b" }),
    Anthropic.ConflictError,
  );
  assert.equal(requests, 1);
});

test("45, 46: streams end with the session", async () => {
  const session = await Session.create();
  await session.say("hello");
  const stream = await client.beta.sessions.events.stream(session.id);
  const heard = collect(stream);
  assert.equal((await client.beta.sessions.delete(session.id)).type, "session_deleted");
  assert.equal((await heard).at(-1).type, "session.deleted");
  await assert.rejects(session.get(), Anthropic.NotFoundError);
});
