// What the worker of the scenarios runs: each workflow uses a few features of the SDK, and nothing that differs between
// runs.

import {
  ActivityCancellationType, allHandlersFinished, ApplicationFailure, condition, continueAsNew, defineQuery, defineSignal,
  defineUpdate, getExternalWorkflowHandle, makeContinueAsNewFunc, patched, proxyActivities, proxyLocalActivities,
  setHandler, setWorkflowOptions, sleep, startChild, upsertMemo, upsertSearchAttributes, workflowInfo,
} from '@temporalio/workflow';
import { defineSearchAttributeKey } from '@temporalio/common';

const once = { startToCloseTimeout: '20s', retry: { maximumAttempts: 1 }, allowEagerDispatch: false };
const acts = proxyActivities(once);
const color = defineSearchAttributeKey('Color', 'KEYWORD');
const size = defineSearchAttributeKey('Size', 'INT');

export async function Greet(name) {
  const first = await acts.greet(name);
  const { startToCloseTimeout, retry } = once;
  const second = await proxyLocalActivities({ startToCloseTimeout, retry }).greet(first);
  await sleep(10);
  return [first, second];
}

export async function Many(count) {
  return Promise.all(Array.from({ length: count }, (_, n) => acts.greet(String(n))));
}

export async function Stumble() {
  return proxyActivities({ ...once, retry: { initialInterval: 10, maximumAttempts: 5 } }).failTwice();
}

export async function Fail(how) {
  switch (how) {
    case 'activity':
      await acts.fail();
      break;
    case 'start-to-close':
      await proxyActivities({ ...once, startToCloseTimeout: '1s' }).neverReturn();
      break;
    case 'schedule-to-start':
      await proxyActivities({ ...once, taskQueue: 'nobody', scheduleToStartTimeout: '1s' }).neverReturn();
      break;
    case 'heartbeat':
      await proxyActivities({ ...once, heartbeatTimeout: '1s' }).neverReturn();
      break;
  }
  throw ApplicationFailure.create({ message: "the workflow's own", type: how, details: ['detail'] });
}

export async function Open() {
  return acts.leaveOpen();
}

export async function Cancelled() {
  const cancellationType = ActivityCancellationType.WAIT_CANCELLATION_COMPLETED;
  await proxyActivities({ ...once, heartbeatTimeout: '5s', cancellationType }).sleepUntilCancelled();
}

// Signals, queries, updates, and a wait with an end.
export async function Mailbox() {
  const mail = [];
  setHandler(defineSignal('post'), (text) => void mail.push(text));
  setHandler(defineQuery('read'), () => mail);
  const deliver = async (text) => mail.push(await acts.greet(text));
  const validator = (text) => {
    if (!text) throw ApplicationFailure.create({ message: 'nothing to deliver', type: 'Empty' });
  };
  setHandler(defineUpdate('deliver'), deliver, { validator });
  await condition(() => mail.includes('stop'), '1h');
  await condition(allHandlersFinished);
  return mail;
}

// Waits for ever, and says how it was ended.
export async function Patient() {
  await condition(() => false);
}

export async function Hop(left) {
  if (left > 0) await makeContinueAsNewFunc({ memo: { left } })(left - 1);
  return left;
}

export async function HopPlainly(left) {
  if (left > 0) await continueAsNew(left - 1);
  return left;
}

export async function Parent(child, parentClosePolicy, waits) {
  const args = { Greet: ['child'], Fail: ['child'], Patient: [] }[child];
  const workflowId = `${workflowInfo().workflowId}-child`;
  const started = await startChild(child, { args, workflowId, parentClosePolicy });
  return waits ? String(await started.result()) : 'left it';
}

// Signals and cancels another workflow.
export async function Reach(other) {
  const handle = getExternalWorkflowHandle(other);
  await handle.signal('post', 'from a workflow');
  await handle.cancel();
  try {
    await getExternalWorkflowHandle('nobody-of-that-name').signal('post', 'to nobody');
    return 'it is there';
  } catch (error) {
    return `${error.name}: ${error.message}`;
  }
}

export async function Colours() {
  upsertSearchAttributes([{ key: color, value: 'red' }, { key: size, value: 7 }]);
  upsertMemo({ kept: 'for later' });
  if (patched('second thoughts')) upsertSearchAttributes([{ key: size, value: null }]);
  return workflowInfo().typedSearchAttributes.get(color);
}

// Fails until its own retry policy has started it often enough.
export async function Again() {
  const { attempt } = workflowInfo();
  if (attempt < 3) throw ApplicationFailure.create({ message: `run ${attempt}`, type: 'Again' });
  return attempt;
}

function build() {
  return workflowInfo().currentDeploymentVersion?.buildId ?? 'none';
}

// Says where it began, and where it ends once it is told to.
async function waits() {
  let told = false;
  setHandler(defineSignal('go'), () => void (told = true));
  const began = build();
  await condition(() => told);
  await acts.greet('you');
  return [began, build()];
}

setWorkflowOptions({ versioningBehavior: 'PINNED' }, Stays);
export async function Stays() {
  return waits();
}

setWorkflowOptions({ versioningBehavior: 'AUTO_UPGRADE' }, Moves);
export async function Moves() {
  return waits();
}

setWorkflowOptions({ versioningBehavior: 'PINNED' }, Where);
export async function Where() {
  return build();
}
