// The official EnvironmentWorker as a program of its own, to be killed: `node worker.mjs ENVIRONMENT KEY WORKDIR MAX_IDLE_S`.

import Anthropic from "@anthropic-ai/sdk";
import { EnvironmentWorker } from "@anthropic-ai/sdk/lib/environments/index.mjs";

const [environmentId, environmentKey, workdir, maxIdle] = process.argv.slice(2);
const ending = new AbortController();
process.on("SIGTERM", () => ending.abort());
const worker = new EnvironmentWorker({
  // The key of the client is not the worker's: every call of a worker has the environment's, or that of its item.
  client: new Anthropic({ apiKey: "none" }),
  environmentId,
  environmentKey,
  workdir,
  maxIdleMs: Number(maxIdle) * 1000,
});
await worker.run(ending.signal).catch((error) => {
  if (!ending.signal.aborted) throw error;
});
