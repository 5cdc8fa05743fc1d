// Checks 63 to 67, and the SDK's own runner of custom tools.

import assert from "node:assert/strict";
import { test } from "node:test";

import Anthropic from "@anthropic-ai/sdk";
import { betaTool } from "@anthropic-ai/sdk/helpers/beta/json-schema";

import { Session, TOOLSET, WEATHER, client, collect, customResult, message, ofType, only, text } from "./support.mjs";

const waitsFor = (events) => {
  const reason = events.at(-1).stop_reason;
  assert.equal(reason.type, "requires_action");
  return reason.event_ids;
};

test("63: a custom tool is answered by the client", async () => {
  const session = await Session.create({ tools: [WEATHER] });
  const events = await session.say("weather of Paris");
  const call = only(events, "agent.custom_tool_use");
  assert.deepEqual(call.input, { city: "Paris" });
  assert.deepEqual(waitsFor(events), [call.id]);
  const rest = await session.turn([customResult(call.id, "rain")]);
  assert.equal(text(only(rest, "agent.message")), "Result: rain");
  assert.equal(rest.at(-1).stop_reason.type, "end_turn");
});

test("64: one answer of two leaves the other", async () => {
  const session = await Session.create({ tools: [WEATHER] });
  const [paris, rome] = ofType(await session.say("compare the weather"), "agent.custom_tool_use");
  assert.deepEqual(waitsFor(await session.turn([customResult(paris.id, "rain")])), [rome.id]);
  const rest = await session.turn([customResult(rome.id, "sun")]);
  assert.equal(rest.at(-1).stop_reason.type, "end_turn");
});

test("65: a tool that asks runs when it is allowed", async () => {
  const session = await Session.create({
    tools: [{ ...TOOLSET, default_config: { permission_policy: { type: "always_ask" } } }],
  });
  const events = await session.say("echo allowed #bash");
  const call = only(events, "agent.tool_use");
  assert.equal(call.evaluated_permission, "ask");
  assert.deepEqual(waitsFor(events), [call.id]);
  const rest = await session.turn([{ type: "user.tool_confirmation", tool_use_id: call.id, result: "allow" }]);
  assert.equal(text(only(rest, "agent.tool_result")), "allowed\n");
});

test("67: only open calls take a result", async () => {
  const session = await Session.create({ tools: [WEATHER] });
  const call = only(await session.say("weather of Paris"), "agent.custom_tool_use");
  await assert.rejects(session.send(customResult("sevt_none", "rain")), Anthropic.BadRequestError);
  await session.turn([customResult(call.id, "rain")]);
  await assert.rejects(session.send(customResult(call.id, "sun")), Anthropic.BadRequestError);
});

test("the SDK's tool runner answers custom tools", async () => {
  const session = await Session.create({
    tools: [TOOLSET, WEATHER],
    initial_events: [message("compare the weather")],
  });
  const asked = [];
  const weather = betaTool({
    name: "get_weather",
    description: WEATHER.description,
    inputSchema: WEATHER.input_schema,
    run: ({ city }) => {
      asked.push(city);
      return `${city}: rain`;
    },
  });
  const calls = await collect(
    client.beta.sessions.events.toolRunner(session.id, { tools: [weather], maxIdleMs: 500 }),
  );
  assert.deepEqual(asked, ["Paris", "Rome"]);
  assert.deepEqual(
    calls.map((call) => [call.name, call.posted, call.isError]),
    [
      ["get_weather", true, false],
      ["get_weather", true, false],
    ],
  );
  assert.equal(text(only(await session.list(), "agent.message")), "Result: Paris: rain\nRome: rain");
});
