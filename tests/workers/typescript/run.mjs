// Plays every scenario against one server and writes what came of it: one JSON object, by scenario. Every history also
// replays.
//
//   run.mjs ADDRESS OUTPUT [SCENARIO ...]

import { writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { Client } from '@temporalio/client';
import proto from '@temporalio/proto';
import { bundleWorkflowCode, DefaultLogger, NativeConnection, Runtime, Worker } from '@temporalio/worker';
import * as activities from './activities.mjs';
import { SCENARIOS } from './scenarios.mjs';
import { QUEUE, Stage } from './stage.mjs';
import { VERSIONS } from './versions.mjs';

const { History } = proto.temporal.api.history.v1;
const ALL = { ...SCENARIOS, ...VERSIONS };
const PATIENCE_MS = 60_000;

function within(name, work) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${name} does not end`)), PATIENCE_MS);
  });
  return Promise.race([work, late]).finally(() => clearTimeout(timer));
}

async function play(stage) {
  process.stderr.write(`${stage.name} ...\n`);
  const outcome = await within(stage.name, ALL[stage.name](stage));
  const histories = [];
  for (const [workflowId, runId] of stage.runs) {
    const history = await stage.client.workflow.getHandle(workflowId, runId).fetchHistory();
    await Worker.runReplayHistory({ workflowBundle: stage.workflowBundle }, history, workflowId);
    histories.push(History.toObject(history, { enums: String, longs: String, bytes: String }).events);
  }
  return { outcome: outcome ?? null, histories };
}

const [address, output, ...names] = process.argv.slice(2);
const logger = new DefaultLogger('ERROR');
const logging = { filter: 'ERROR', forward: {} };
Runtime.install({ logger, telemetryOptions: { logging }, workerHeartbeatInterval: '1s' });
const workflowsPath = fileURLToPath(new URL('workflows.mjs', import.meta.url));
const workflowBundle = await bundleWorkflowCode({ workflowsPath, logger });
const connection = await NativeConnection.connect({ address });
// One connection for both: the client's own one is over JavaScript's gRPC.
const client = new Client({ connection });
const worker = await Worker.create({ connection, workflowBundle, activities, taskQueue: QUEUE });
await worker.runUntil(async () => {
  const played = {};
  for (const name of Object.keys(ALL).filter((name) => !names.length || names.includes(name))) {
    played[name] = await play(new Stage(client, connection, workflowBundle, name));
  }
  await writeFile(output, JSON.stringify(played, null, 1));
});
await connection.close();
