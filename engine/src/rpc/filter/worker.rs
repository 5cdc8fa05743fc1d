//! What workers can be selected by.

use super::Subject;
use super::attribute::{Attribute, Value};
use crate::pb::enums::v1::{IndexedValueType as Kind, WorkerStatus};
use crate::pb::worker::v1::WorkerHeartbeat;

const ATTRIBUTES: &[(&str, Kind)] = &[
    ("BuildId", Kind::Keyword),
    ("DeploymentName", Kind::Keyword),
    ("HeartbeatTime", Kind::Datetime),
    ("HostName", Kind::Keyword),
    ("SdkName", Kind::Keyword),
    ("SdkVersion", Kind::Keyword),
    ("StartTime", Kind::Datetime),
    ("Status", Kind::Keyword),
    ("TaskQueue", Kind::Keyword),
    ("WorkerIdentity", Kind::Keyword),
    ("WorkerInstanceKey", Kind::Keyword),
    ("WorkerStatus", Kind::Keyword),
];

/// The attribute that a query calls so.
pub fn attribute(name: &str) -> Option<Attribute> {
    ATTRIBUTES.iter().find(|known| known.0 == name).map(|(name, kind)| Attribute::built_in(name, *kind))
}

impl Subject for WorkerHeartbeat {
    fn values(&self, attribute: &Attribute) -> Vec<Value> {
        let text = |text: &str| (!text.is_empty()).then(|| Value::Text(text.to_owned()));
        let version = self.deployment_version.as_ref();
        let value = match attribute.name.as_str() {
            "BuildId" => version.and_then(|version| text(&version.build_id)),
            "DeploymentName" => version.and_then(|version| text(&version.deployment_name)),
            "HeartbeatTime" => Value::time(self.heartbeat_time.as_ref()),
            "HostName" => self.host_info.as_ref().and_then(|host| text(&host.host_name)),
            "SdkName" => text(&self.sdk_name),
            "SdkVersion" => text(&self.sdk_version),
            "StartTime" => Value::time(self.start_time.as_ref()),
            "Status" | "WorkerStatus" => text(status_name(self.status())),
            "TaskQueue" => text(&self.task_queue),
            "WorkerIdentity" => text(&self.worker_identity),
            "WorkerInstanceKey" => text(&self.worker_instance_key),
            _ => None,
        };
        value.into_iter().collect()
    }
}

fn status_name(status: WorkerStatus) -> &'static str {
    match status {
        WorkerStatus::Running => "Running",
        WorkerStatus::ShuttingDown => "ShuttingDown",
        WorkerStatus::Shutdown => "Shutdown",
        WorkerStatus::Unspecified => "Unspecified",
    }
}

#[cfg(test)]
mod tests {
    use super::super::Query;
    use super::*;
    use crate::pb::deployment::v1::WorkerDeploymentVersion;
    use crate::pb::worker::v1::WorkerHostInfo;

    #[test]
    fn queries_select_workers_by_what_they_say_of_themselves() {
        let worker = WorkerHeartbeat {
            worker_instance_key: "key".into(),
            worker_identity: "1@host".into(),
            task_queue: "q".into(),
            status: WorkerStatus::Running as i32,
            start_time: Some(prost_wkt_types::Timestamp { seconds: 1_700_000_000, nanos: 0 }),
            host_info: Some(WorkerHostInfo { host_name: "host".into(), ..Default::default() }),
            deployment_version: Some(WorkerDeploymentVersion { deployment_name: "d".into(), build_id: "1".into() }),
            ..Default::default()
        };
        let table = [
            ("", Some(true)),
            ("TaskQueue = 'q' AND WorkerStatus = 'Running'", Some(true)),
            ("TaskQueue != 'q'", Some(false)),
            ("HostName STARTS_WITH 'ho' AND BuildId = '1' AND DeploymentName = 'd'", Some(true)),
            ("StartTime < '2023-01-01T00:00:00Z'", Some(false)),
            ("SdkName IS NULL AND WorkerIdentity IS NOT NULL", Some(true)),
            ("WorkerInstanceKey = 'other' OR Status = 'ShuttingDown'", Some(false)),
            ("WorkflowId = 'w'", None),
            ("TaskQueue >", None),
        ];
        for (query, expected) in table {
            let matches = Query::parse_by(query, &attribute).ok().map(|query| query.filter.matches(&worker));
            assert_eq!(matches, expected, "{query}");
        }
    }
}
