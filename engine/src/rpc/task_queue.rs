//! DescribeTaskQueue, in both of its modes: who polls a queue, what waits in it, and where it goes. The mode called enhanced is
//! of the build ids of before 2025, which workers here cannot have: it knows the workers without a version, and says of every
//! build id that nothing goes there, as a server does that was never told of one.

#![expect(deprecated, reason = "clients still ask in the old mode, as the CLI does")]

use super::{Call, Reply, deployment};
use crate::core::versioning::Version;
use crate::dispatch::{Described, Kind, Traffic};
use crate::pb::deployment::v1::WorkerDeploymentOptions;
use crate::pb::enums::v1::{
    BuildIdTaskReachability, DescribeTaskQueueMode, TaskQueueKind, TaskQueueType, WorkerVersioningMode,
};
use crate::pb::taskqueue::v1::{
    PollerInfo, TaskQueue, TaskQueueStats, TaskQueueStatus, TaskQueueTypeInfo, TaskQueueVersionInfo,
    TaskQueueVersionSelection,
};
use crate::pb::workflowservice::v1::*;
use crate::time::{Time, duration, from_std};
use std::collections::BTreeSet;
use tonic::Status;

/// Build ids of which may be asked at a time whether anything goes to them.
const REACHABILITY_MAX: usize = 5;
/// Build ids of which may be asked at a time at all: as many as a server lets one queue have. It does not refuse more, but
/// works on thousands of them until the call's time is over.
const BUILD_IDS_MAX: usize = 100;
/// Tasks a second that a worker takes which names no bound, as servers say it.
const UNBOUND_PER_S: f64 = 100_000.0;
/// The beginning of names that servers keep for parts of a queue.
const RESERVED: &str = "/_sys/";

pub async fn describe(call: Call, r: DescribeTaskQueueRequest) -> Reply<DescribeTaskQueueResponse> {
    let TaskQueue { name, kind, .. } = r.task_queue.clone().unwrap_or_default();
    if name.is_empty() {
        return Err(Status::invalid_argument("missing task queue name"));
    }
    call.id("TaskQueue", &name)?;
    let is_sticky = kind == TaskQueueKind::Sticky as i32;
    if r.api_mode == DescribeTaskQueueMode::Enhanced as i32 {
        return enhanced(&call, &name, is_sticky, r);
    }
    let kind = match (r.task_queue_type == TaskQueueType::Activity as i32, is_sticky) {
        (true, _) => Kind::Activity,
        (_, true) => Kind::Sticky,
        _ => Kind::Workflow,
    };
    let namespace = call.namespace(&r.namespace)?;
    let Described { traffic, pollers } = call.host.queues.describe(namespace, &name, kind, |_| true);
    let routing = call.host.queues.deployments.read().routing(namespace, &name, kind == Kind::Activity);
    let status = TaskQueueStatus { backlog_count_hint: traffic.waiting as i64, ..Default::default() };
    Ok(DescribeTaskQueueResponse {
        pollers: pollers.into_iter().map(poller).collect(),
        versioning_info: (kind != Kind::Sticky).then(|| deployment::queue_info(routing)),
        stats: r.report_stats.then(|| stats(&call, traffic)),
        task_queue_status: r.include_task_queue_status.then_some(status),
        ..Default::default()
    })
}

fn enhanced(call: &Call, name: &str, is_sticky: bool, r: DescribeTaskQueueRequest) -> Reply<DescribeTaskQueueResponse> {
    if is_sticky {
        return Err(Status::invalid_argument(
            "Enhanced DescribeTaskQueue is not valid for a sticky queue, use api_mode=UNSPECIFIED or a normal queue.",
        ));
    }
    if name.starts_with(RESERVED) {
        return Err(Status::invalid_argument("task queue name cannot start with reserved prefix /_sys/"));
    }
    let namespace = call.namespace(&r.namespace)?;
    let only_unversioned = || TaskQueueVersionSelection { unversioned: true, ..Default::default() };
    let TaskQueueVersionSelection { build_ids, unversioned, .. } = r.versions.unwrap_or_else(only_unversioned);
    // The answer is one times the other, so each is bounded before anything is made of them.
    if r.report_task_reachability && build_ids.len() > REACHABILITY_MAX {
        return Err(Status::invalid_argument(format!(
            "Too many build ids queried at once with ReportTaskReachability==true, limit: {REACHABILITY_MAX}"
        )));
    }
    if build_ids.len() > BUILD_IDS_MAX {
        return Err(Status::invalid_argument(format!("Too many build ids queried at once, limit: {BUILD_IDS_MAX}")));
    }
    let asked: BTreeSet<String> = build_ids.into_iter().chain(unversioned.then(String::new)).collect();
    let types = types(r.task_queue_types)?;
    let type_info = |build_id: &str, of: TaskQueueType| {
        let kind = match of {
            TaskQueueType::Workflow if build_id.is_empty() => Some(Kind::Workflow),
            TaskQueueType::Activity if build_id.is_empty() => Some(Kind::Activity),
            _ => None,
        };
        let of_nobody = |version: Option<&Version>| version.is_none();
        let described = kind.map(|kind| call.host.queues.describe(namespace, name, kind, of_nobody));
        let Described { traffic, pollers } = described.unwrap_or_default();
        TaskQueueTypeInfo {
            pollers: pollers.into_iter().filter(|_| r.report_pollers).map(poller).collect(),
            stats: r.report_stats.then(|| stats(call, traffic)),
        }
    };
    let info = |build_id: String| {
        let reachability = match build_id.is_empty() {
            _ if !r.report_task_reachability => BuildIdTaskReachability::Unspecified,
            true => BuildIdTaskReachability::Reachable,
            false => BuildIdTaskReachability::Unreachable,
        };
        let info = TaskQueueVersionInfo {
            types_info: types.iter().map(|of| (*of as i32, type_info(&build_id, *of))).collect(),
            task_reachability: reachability as i32,
        };
        (build_id, info)
    };
    Ok(DescribeTaskQueueResponse { versions_info: asked.into_iter().map(info).collect(), ..Default::default() })
}

/// Those that are asked for, each once: of the ones that the API has, though a server answers with any number. Nobody polls
/// for the others than these two.
fn types(asked: Vec<i32>) -> Result<Vec<TaskQueueType>, Status> {
    if asked.is_empty() {
        return Ok(vec![TaskQueueType::Workflow, TaskQueueType::Activity]);
    }
    let mut types = Vec::new();
    for of in asked {
        let of = TaskQueueType::try_from(of)
            .map_err(|_unknown| Status::invalid_argument(format!("unknown task queue type {of}")))?;
        if !types.contains(&of) {
            types.push(of);
        }
    }
    Ok(types)
}

fn poller((identity, at, version): (String, Time, Option<Version>)) -> PollerInfo {
    PollerInfo {
        identity,
        last_access_time: at.timestamp(),
        rate_per_second: UNBOUND_PER_S,
        deployment_options: version.map(|version| WorkerDeploymentOptions {
            deployment_name: version.deployment,
            build_id: version.build_id,
            worker_versioning_mode: WorkerVersioningMode::Versioned as i32,
        }),
        ..Default::default()
    }
}

/// What waits and how it moves, as a message.
pub fn stats(call: &Call, traffic: Traffic) -> TaskQueueStats {
    let age = traffic.oldest.map_or(0, |oldest| from_std(oldest.until(call.host.clock.now())));
    TaskQueueStats {
        approximate_backlog_count: traffic.waiting as i64,
        approximate_backlog_age: duration(age),
        tasks_add_rate: traffic.added_per_s,
        tasks_dispatch_rate: traffic.taken_per_s,
        ..Default::default()
    }
}
