// What the tests share: building blocks of requests, and watching a session until something happens. The service is
// reached at ANTHROPIC_BASE_URL with ANTHROPIC_API_KEY, which the SDK reads by itself.

import assert from "node:assert/strict";

import Anthropic from "@anthropic-ai/sdk";

export const MODEL = "claude-opus-5-5";
export const TOOLSET = { type: "agent_toolset_20260401" };
export const WEATHER = {
  type: "custom",
  name: "get_weather",
  description: "The weather in a city.",
  input_schema: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
};
export const INTERRUPT = { type: "user.interrupt" };

export const client = new Anthropic({ timeout: 30_000, maxRetries: 0 });

export const message = (text) => ({ type: "user.message", content: [{ type: "text", text }] });

export const customResult = (id, text) => ({
  type: "user.custom_tool_result",
  custom_tool_use_id: id,
  content: [{ type: "text", text }],
});

/** All text of an event's content. */
export const text = (event) => event.content.map((block) => block.text ?? "").join("");

export const types = (events) => events.map((event) => event.type);

export const ofType = (events, type) => events.filter((event) => event.type === type);

/** The one event of that type. */
export function only(events, type) {
  const found = ofType(events, type);
  assert.equal(found.length, 1, `${found.length} ${type} in ${types(events)}`);
  return found[0];
}

export const isIdle = (event) => event.type === "session.status_idle";

/** Everything that an async iterable has. */
export async function collect(iterable) {
  const all = [];
  for await (const one of iterable) all.push(one);
  return all;
}

/** Reads until it holds: for the few things that no event announces. Resolves to the last that was read. */
export async function eventually(read, holds, ms = 20_000) {
  const end = Date.now() + ms;
  for (;;) {
    const value = await read();
    if (holds(value) || Date.now() > end) return value;
    await new Promise((wake) => setTimeout(wake, 50));
  }
}

/** An open stream of a session and everything that came on it. */
export class Stream {
  seen = [];
  #stream;
  #events;

  constructor(stream) {
    this.#stream = stream;
    this.#events = stream[Symbol.asyncIterator]();
  }

  /** Reads on to the first event that is it; resolves to what came since the last call. */
  async until(done) {
    const begin = this.seen.length;
    for (;;) {
      const { value, done: ended } = await this.#events.next();
      assert(!ended, `the stream ended, after ${types(this.seen)}`);
      this.seen.push(value);
      if (done(value)) return this.seen.slice(begin);
    }
  }

  close() {
    this.#stream.controller.abort();
  }
}

/** A session and the shortest way to say things to it. */
export class Session {
  static async create({ tools = [TOOLSET], ...params } = {}) {
    const agent = await client.beta.agents.create({ name: "tester", model: MODEL, tools });
    const environment = await client.beta.environments.create({ name: "tests" });
    const created = await client.beta.sessions.create({
      agent: agent.id,
      environment_id: environment.id,
      ...params,
    });
    return new Session(created);
  }

  constructor(created) {
    this.created = created;
    this.id = created.id;
  }

  get = () => client.beta.sessions.retrieve(this.id);

  send = async (...events) => (await client.beta.sessions.events.send(this.id, { events })).data;

  /** All pages. */
  list = (params) => collect(client.beta.sessions.events.list(this.id, params));

  stream = async (params) => new Stream(await client.beta.sessions.events.stream(this.id, params));

  /** Sends, and resolves to everything that comes on the stream up to the next rest. */
  async turn(events, params) {
    const stream = await this.stream(params);
    try {
      await this.send(...events);
      return await stream.until(isIdle);
    } finally {
      stream.close();
    }
  }

  say = (words, params) => this.turn([message(words)], params);

  /** Has the model run a command; resolves to the result's event. */
  bash = async (command) => only(await this.say(`${command} #bash`), "agent.tool_result");
}
