// A client, and the workflows that a scenario started with it; with what scenarios wait for.

import { Worker } from '@temporalio/worker';
import { WorkflowFailedError, WorkflowUpdateFailedError } from '@temporalio/client';
import * as activities from './activities.mjs';

export const QUEUE = 'typescript';

// Pauses between two questions to a server for what no history tells.
export const again = () => new Promise((resolve) => setTimeout(resolve, 20));

export class Stage {
  runs = [];

  constructor(client, connection, workflowBundle, name) {
    Object.assign(this, { client, connection, workflowBundle, name });
  }

  /** Not that of the same scenario in another language, which runs on the same server. */
  id(suffix = '') {
    return `typescript_${this.name}${suffix}`;
  }

  async start(workflow, { suffix, args = [], ...options } = {}) {
    const common = { workflowId: this.id(suffix), taskQueue: QUEUE, args, workflowTaskTimeout: '5s' };
    const handle = await this.client.workflow.start(workflow, { ...common, ...options });
    this.also(handle.workflowId, handle.firstExecutionRunId);
    return handle;
  }

  async signalWithStart(workflow, options) {
    const common = { workflowId: this.id(), taskQueue: QUEUE, workflowTaskTimeout: '5s' };
    const handle = await this.client.workflow.signalWithStart(workflow, { ...common, ...options });
    this.also(handle.workflowId, handle.signaledRunId);
    return handle;
  }

  /** Compares the history of this run too. */
  also(workflowId, runId) {
    this.runs.push([workflowId, runId]);
  }

  /** While `work` runs there is a worker on a queue of its own. */
  async with(options, work) {
    const worker = await Worker.create({
      connection: this.connection, workflowBundle: this.workflowBundle, activities, ...options,
    });
    return worker.runUntil(work);
  }
}

/** What a workflow gave, or the chain of failures that it ended with. */
export async function outcome(result) {
  try {
    return await result;
  } catch (error) {
    if (!(error instanceof WorkflowFailedError || error instanceof WorkflowUpdateFailedError)) throw error;
    const chain = [];
    for (let { cause } = error; cause; { cause } = cause) chain.push(`${cause.name}: ${cause.message}`);
    return chain;
  }
}

/** Waits until so many events of a kind stand in history. */
export async function happened({ client, workflowId }, field, times = 1) {
  const request = { namespace: 'default', execution: { workflowId }, waitNewEvent: true };
  let nextPageToken;
  do {
    const page = await client.workflowService.getWorkflowExecutionHistory({ ...request, nextPageToken });
    times -= page.history.events.filter((event) => event[`${field}EventAttributes`]).length;
    if (times <= 0) return;
    ({ nextPageToken } = page);
  } while (nextPageToken?.length);
  throw new Error(`${workflowId} ended without ${field}`);
}
