//! What a rule breaks.

use http::StatusCode;
use serde::Deserialize;

#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "FaultForm")]
pub(in crate::model::scripted) struct Fault {
    /// How many tries it breaks; all of them without.
    pub(super) tries: Option<u32>,
    pub(super) kind: FaultKind,
}

#[derive(Clone, Debug)]
pub(in crate::model::scripted) enum FaultKind {
    Status {
        status: StatusCode,
        retry_after_ms: Option<u64>,
        retry_after_s: Option<u64>,
        error_type: Option<String>,
        message: Option<String>,
    },
    Refuse,
    Drop {
        after_events: usize,
    },
    End {
        after_events: usize,
    },
    Stall {
        after_events: usize,
    },
    Malformed {
        after_events: usize,
    },
    Error {
        after_events: usize,
        error_type: String,
        message: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FaultForm {
    kind: String,
    tries: Option<u32>,
    after_events: Option<usize>,
    status: Option<u16>,
    retry_after_ms: Option<u64>,
    retry_after_s: Option<u64>,
    error_type: Option<String>,
    message: Option<String>,
}

impl TryFrom<FaultForm> for Fault {
    type Error = String;

    fn try_from(form: FaultForm) -> Result<Fault, String> {
        let FaultForm { kind, tries, after_events, status, retry_after_ms, retry_after_s, error_type, message } = form;
        let is_status = kind == "status";
        if !is_status && (status.is_some() || retry_after_ms.is_some() || retry_after_s.is_some()) {
            return Err(format!("a fault of kind {kind:?} has no status or retry_after"));
        }
        if !is_status && kind != "error" && (error_type.is_some() || message.is_some()) {
            return Err(format!("a fault of kind {kind:?} has no error_type or message"));
        }
        if (is_status || kind == "refuse") && after_events.is_some() {
            return Err(format!("a fault of kind {kind:?} comes before all events"));
        }
        if tries == Some(0) {
            return Err("a fault of no tries never happens".to_owned());
        }
        let after_events = after_events.unwrap_or(1);
        let kind = match kind.as_str() {
            "status" => {
                let number = status.ok_or("a fault of kind \"status\" needs a status")?;
                let status = StatusCode::from_u16(number)
                    .ok()
                    .filter(|status| status.as_u16() >= 300)
                    .ok_or_else(|| format!("{number} is not the status of a failure"))?;
                FaultKind::Status { status, retry_after_ms, retry_after_s, error_type, message }
            }
            "refuse" => FaultKind::Refuse,
            "drop" => FaultKind::Drop { after_events },
            "end" => FaultKind::End { after_events },
            "stall" => FaultKind::Stall { after_events },
            "malformed" => FaultKind::Malformed { after_events },
            "error" => FaultKind::Error {
                after_events,
                error_type: error_type.unwrap_or_else(|| "overloaded_error".to_owned()),
                message: message.unwrap_or_else(|| "scripted".to_owned()),
            },
            other => {
                return Err(format!(
                    "there is no fault of kind {other:?}: status, refuse, drop, end, stall, malformed, error"
                ));
            }
        };
        Ok(Fault { tries, kind })
    }
}
