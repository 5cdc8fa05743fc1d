// One scenario a feature: what a client does, what comes of it, and which histories it leaves.

import { defineSearchAttributeKey } from '@temporalio/common';
import { leftOpen } from './activities.mjs';
import { again, happened, outcome } from './stage.mjs';

const color = defineSearchAttributeKey('Color', 'KEYWORD');
const size = defineSearchAttributeKey('Size', 'INT');
const taskCompleted = 'workflowTaskCompleted';

const pending = async (handle) => (await handle.describe()).raw.pendingActivities;

const simple = {
  activity_local_activity_and_timer: ['Greet', 'you'],
  activity_retries: ['Stumble'],
  continues_as_new_plainly: ['HopPlainly', 1],
  ...Object.fromEntries(
    ['activity', 'start-to-close', 'schedule-to-start', 'heartbeat', 'itself'].map((how) => [`fails_by_${how}`, ['Fail', how]])
  ),
};

const families = {
  a_child_completes: ['Greet', 'TERMINATE', true],
  a_child_fails: ['Fail', 'TERMINATE', true],
  a_child_is_terminated_with_its_parent: ['Patient', 'TERMINATE', false],
  a_child_is_abandoned: ['Patient', 'ABANDON', false],
  a_child_is_cancelled_with_its_parent: ['Patient', 'REQUEST_CANCEL', false],
};

async function leavesOpen(stage) {
  const handle = await stage.start('Open');
  while (!leftOpen.has(handle.workflowId)) await again();
  return handle;
}

export const SCENARIOS = {
  ...Object.fromEntries(Object.entries(simple).map(([name, [workflow, ...args]]) => [
    name, async (stage) => outcome((await stage.start(workflow, { args })).result()),
  ])),

  ...Object.fromEntries(Object.entries(families).map(([name, args]) => [name, async (stage) => {
    const [, policy, waits] = args;
    const result = await outcome((await stage.start('Parent', { args })).result());
    const child = stage.client.workflow.getHandle(stage.id('-child'));
    if (policy !== 'ABANDON') {
      // One that nobody waits for may have been given its first task by then, or not.
      if (waits) stage.also(child.workflowId);
      return [result, await outcome(child.result())];
    }
    const status = (await child.describe()).status.name;
    await child.terminate();
    return [result, status];
  }])),

  async many_activities(stage) {
    const result = await outcome((await stage.start('Many', { args: [5] })).result());
    // Which of them ends first is anybody's guess.
    stage.runs.length = 0;
    return result;
  },

  async activity_heartbeats(stage) {
    const handle = await stage.start('Cancelled');
    let beat;
    while (!(beat = (await pending(handle))[0]?.heartbeatDetails?.payloads?.[0])) await again();
    await handle.cancel();
    return [Buffer.from(beat.data).toString(), await outcome(handle.result())];
  },

  async activity_completed_by_somebody_else(stage) {
    const handle = await leavesOpen(stage);
    const token = leftOpen.get(handle.workflowId);
    await stage.client.activity.heartbeat(token, 'soon');
    await stage.client.activity.complete(token, 'done from outside');
    return outcome(handle.result());
  },

  async activity_failed_by_id(stage) {
    const handle = await leavesOpen(stage);
    const { workflowId } = handle;
    await stage.client.activity.fail({ workflowId, activityId: '1' }, new Error('broken outside'));
    return outcome(handle.result());
  },

  async cancelled_while_an_activity_runs(stage) {
    const handle = await stage.start('Cancelled');
    while (!(await pending(handle)).some((activity) => activity.lastStartedTime)) await again();
    await handle.cancel();
    return outcome(handle.result());
  },

  async signals_and_queries(stage) {
    const handle = await stage.start('Mailbox');
    await happened(handle, taskCompleted);
    await handle.signal('post', 'a');
    await happened(handle, taskCompleted, 2);
    const running = await handle.query('read');
    await handle.signal('post', 'stop');
    const result = await outcome(handle.result());
    return [running, result, await handle.query('read')];
  },

  async signal_with_start(stage) {
    const handle = await stage.signalWithStart('Mailbox', { signal: 'post', signalArgs: ['stop'] });
    return outcome(handle.result());
  },

  async updates(stage) {
    const handle = await stage.start('Mailbox');
    await happened(handle, taskCompleted);
    const send = (text, updateId) => outcome(handle.executeUpdate('deliver', { args: [text], updateId }));
    const said = [await send('x', 'u1'), await send('x', 'u1'), await send('', 'u2')];
    await handle.signal('post', 'stop');
    // A server leaves no trace of what was refused; the engine leaves the events of its task (docs/engine.md).
    stage.runs.length = 0;
    return [...said, await outcome(handle.result())];
  },

  async an_accepted_update(stage) {
    const handle = await stage.start('Mailbox');
    await happened(handle, taskCompleted);
    const first = await outcome(handle.executeUpdate('deliver', { args: ['x'], updateId: 'u1' }));
    await handle.signal('post', 'stop');
    return [first, await outcome(handle.result())];
  },

  async cancelled(stage) {
    const handle = await stage.start('Patient');
    await happened(handle, taskCompleted);
    await handle.cancel();
    return outcome(handle.result());
  },

  async terminated(stage) {
    const handle = await stage.start('Patient');
    await happened(handle, taskCompleted);
    await handle.terminate('enough');
    return outcome(handle.result());
  },

  async run_timeout(stage) {
    return outcome((await stage.start('Patient', { workflowRunTimeout: '1s' })).result());
  },

  async continued_as_new(stage) {
    const handle = await stage.start('Hop', { args: [2], memo: { first: true } });
    const result = await outcome(handle.result());
    stage.also(handle.workflowId);
    return result;
  },

  async a_workflow_with_a_retry_policy(stage) {
    const retry = { initialInterval: '1s', backoffCoefficient: 1, maximumAttempts: 4 };
    const handle = await stage.start('Again', { retry });
    const result = await outcome(handle.result());
    stage.also(handle.workflowId);
    return result;
  },

  async another_workflow_is_signalled_and_cancelled(stage) {
    const other = await stage.start('Mailbox', { suffix: '-other' });
    await happened(other, taskCompleted);
    // Whether the other one sees both in one task is anybody's guess.
    stage.runs.length = 0;
    const handle = await stage.start('Reach', { args: [other.workflowId] });
    return [await outcome(handle.result()), await outcome(other.result())];
  },

  async attributes_memo_and_patches(stage) {
    const typedSearchAttributes = [{ key: color, value: 'green' }, { key: size, value: 3 }];
    const handle = await stage.start('Colours', { typedSearchAttributes, memo: { a: 1 } });
    const result = await outcome(handle.result());
    const { typedSearchAttributes: found, memo, status } = await handle.describe();
    return [result, found.get(color), found.get(size) ?? null, memo, status.name];
  },

  async lists_and_counts(stage) {
    const { workflow } = stage.client;
    for (const [n, name] of ['red', 'green', 'red'].entries()) {
      const typedSearchAttributes = [{ key: color, value: stage.id(`-${name}`) }, { key: size, value: n }];
      await stage.start('Patient', { suffix: `-${n}`, typedSearchAttributes });
    }
    const mine = `WorkflowId STARTS_WITH '${stage.id('-')}'`;
    const queries = [
      [mine, 3],
      [`Color = '${stage.id('-red')}'`, 2],
      [`${mine} AND Size > 0 AND ExecutionStatus = 'Running'`, 2],
      [`${mine} AND (Size = 0 OR Size IN (2, 3))`, 2],
    ];
    const said = [];
    for (const [query, count] of queries) {
      // A server shows in lists what it has indexed by then.
      while ((await workflow.count(query)).count !== count) await again();
      const ids = [];
      for await (const run of workflow.list({ query })) ids.push(run.workflowId);
      said.push(ids.sort());
    }
    for (const n of [0, 1, 2]) await workflow.getHandle(stage.id(`-${n}`)).terminate();
    stage.runs.length = 0;
    return said;
  },

  async errors_of_the_service(stage) {
    const nobody = stage.client.workflow.getHandle('nobody-of-that-name');
    const said = [];
    for (const name of ['describe', 'cancel', 'terminate', 'result']) {
      await nobody[name]().catch((error) => said.push(`${name} ${error.name}: ${error.message}`));
    }
    return said;
  },
};
