// What workflows of the scenarios have done for them.

import { activityInfo, CompleteAsyncError, heartbeat, sleep } from '@temporalio/activity';
import { ApplicationFailure } from '@temporalio/common';

// Tokens of activities that somebody else completes, by workflow id.
export const leftOpen = new Map();

export async function greet(name) {
  return `hello ${name}`;
}

export async function failTwice() {
  const { attempt, heartbeatDetails } = activityInfo();
  heartbeat(attempt);
  if (attempt < 3) {
    throw ApplicationFailure.create({ message: `attempt ${attempt}`, type: 'Stumbled', details: [attempt] });
  }
  return `after ${attempt}, last heartbeat ${heartbeatDetails}`;
}

export async function fail() {
  throw ApplicationFailure.nonRetryable('for good', 'Final', { a: 1 });
}

export async function sleepUntilCancelled() {
  for (;;) {
    heartbeat('still here');
    await sleep(50);
  }
}

// Does not hear that it is cancelled, so that what ends it is its timeout.
export async function neverReturn() {
  await new Promise((resolve) => setTimeout(resolve, 5_000).unref());
}

export async function leaveOpen() {
  leftOpen.set(activityInfo().workflowExecution.workflowId, activityInfo().taskToken);
  throw new CompleteAsyncError();
}
