// Scenarios of workers with versions, and of lists of workers: each has workers of its own.

import { again, happened, outcome } from './stage.mjs';

const namespace = 'default';

/** The workers of one scenario, with a task queue and a deployment of their own. */
class Deployment {
  constructor(stage) {
    Object.assign(this, { stage, name: stage.id(), service: stage.client.workflowService });
  }

  /** While `work` runs there is a worker of that version, which the server knows of with both of its queues. */
  async worker(buildId, work) {
    const version = { deploymentName: this.name, buildId };
    const workerDeploymentOptions = { useWorkerVersioning: true, version, defaultVersioningBehavior: 'PINNED' };
    return this.stage.with({ taskQueue: this.name, workerDeploymentOptions }, async () => {
      while ((await this.queues(version)) < 2) await again();
      return work();
    });
  }

  async queues(deploymentVersion) {
    try {
      const described = await this.service.describeWorkerDeploymentVersion({ namespace, deploymentVersion });
      return described.workerDeploymentVersionInfo.taskQueueInfos.length;
    } catch {
      return 0;
    }
  }

  async describe() {
    const described = await this.service.describeWorkerDeployment({ namespace, deploymentName: this.name });
    return described.workerDeploymentInfo;
  }

  /** The queues learn of a routing one by one: 1 says that not all of them have. */
  async routed() {
    while ((await this.describe()).routingConfigUpdateState === 1) await again();
  }

  async setCurrent(buildId) {
    await this.service.setWorkerDeploymentCurrentVersion({ namespace, deploymentName: this.name, buildId });
    await this.routed();
  }

  async setRamping(buildId, percentage) {
    await this.service.setWorkerDeploymentRampingVersion({ namespace, deploymentName: this.name, buildId, percentage });
    await this.routed();
  }

  start(workflow, suffix) {
    return this.stage.start(workflow, { suffix, taskQueue: this.name });
  }
}

async function finish(handle) {
  await handle.signal('go');
  return outcome(handle.result());
}

export const VERSIONS = {
  async versions_pinned_and_auto_upgrade(stage) {
    const deployment = new Deployment(stage);
    return deployment.worker('1', async () => {
      await deployment.setCurrent('1');
      const old = [await deployment.start('Stays', '-stays'), await deployment.start('Moves', '-moves')];
      for (const handle of old) await happened(handle, 'workflowTaskCompleted');
      return deployment.worker('2', async () => {
        await deployment.setCurrent('2');
        const fresh = await deployment.start('Stays', '-new');
        await happened(fresh, 'workflowTaskCompleted');
        const said = [];
        for (const handle of [...old, fresh]) said.push(await finish(handle));
        return said;
      });
    });
  },

  async versions_ramp_by_the_workflow_id(stage) {
    const deployment = new Deployment(stage);
    return deployment.worker('1', () => deployment.worker('2', async () => {
      await deployment.setCurrent('1');
      await deployment.setRamping('2', 50);
      const said = [];
      for (let n = 0; n < 12; n++) said.push(await (await deployment.start('Where', `-${n}`)).result());
      return said;
    }));
  },

  async workers_are_listed(stage) {
    const query = `TaskQueue="${stage.id()}"`;
    const list = async () => (await stage.client.workflowService.listWorkers({ namespace, query })).workers;
    const before = (await list()).length;
    return stage.with({ taskQueue: stage.id() }, async () => {
      let workers;
      // 1: it runs.
      while (!(workers = await list()).length || workers.some((worker) => worker.status !== 1)) await again();
      return [before, workers.map(({ workerIdentity, taskQueue, sdkName, sdkVersion }) =>
        [workerIdentity !== '', taskQueue, sdkName, sdkVersion])];
    });
  },
};
