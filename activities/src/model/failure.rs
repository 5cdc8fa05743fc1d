//! From what a provider said to a [`Failure`]: status codes, error bodies of both APIs, and the two retry headers.
//!
//! Pure: the time of day comes in as a value.

use std::time::SystemTime;

use http::{HeaderMap, StatusCode, header};
use jiff::Timestamp;
use serde_json::Value;

use super::{Failure, FailureClass};

/// How much of a provider's message is kept.
const MESSAGE_CHARS_MAX: usize = 1_000;
/// No provider means a longer pause than this.
const RETRY_AFTER_MS_MAX: u64 = 24 * 60 * 60 * 1000;

/// Anthropic twice, then vLLM and older OpenAI models.
const TOO_LONG: [&str; 3] = ["prompt is too long", "exceed context limit", "maximum context length"];

/// The failure that an HTTP answer without an event stream stands for.
pub(super) fn from_response(status: StatusCode, headers: &HeaderMap, body: &[u8], now: SystemTime) -> Failure {
    let said = Said::read(body);
    let class = match said.class().unwrap_or_else(|| from_status(status)) {
        FailureClass::Request if said.is_too_long() => FailureClass::ContextLength,
        class => class,
    };
    let reason = status.canonical_reason().unwrap_or("no known status");
    let message = said.message.unwrap_or_else(|| format!("the model server answered {} ({reason})", status.as_u16()));
    Failure {
        retry_after_ms: retry_after_ms(headers, now),
        status: Some(status.as_u16()),
        provider_type: said.kind,
        request_id: request_id(headers),
        ..Failure::new(class, message)
    }
}

/// The failure that an `error` inside a stream stands for: an envelope, or what is in it.
pub(super) fn from_stream_error(error: &Value) -> Failure {
    let said = Said::from_value(error);
    // No status to go by here, so the one word that is ambiguous beside a status counts.
    let otherwise = match said.kind.as_deref() {
        Some("invalid_request_error") => FailureClass::Request,
        _ => FailureClass::Server,
    };
    let class = said.class().unwrap_or(otherwise);
    let message = said.message.unwrap_or_else(|| "the model server sent an error inside the answer".to_owned());
    Failure { provider_type: said.kind, ..Failure::new(class, message) }
}

/// The provider's id of the request, for their support.
pub(super) fn request_id(headers: &HeaderMap) -> Option<String> {
    let value = headers.get("request-id").or_else(|| headers.get("x-request-id"))?;
    Some(value.to_str().ok()?.to_owned())
}

/// As much of a message as is kept. What must not be in it is taken out before, so that no half of it stays.
pub(super) fn bounded(message: &str) -> String {
    match message.char_indices().nth(MESSAGE_CHARS_MAX) {
        Some((end, _)) => format!("{} [...]", &message[..end]),
        None => message.to_owned(),
    }
}

fn from_status(status: StatusCode) -> FailureClass {
    match status.as_u16() {
        401 | 403 => FailureClass::Auth,
        402 => FailureClass::Billing,
        404 => FailureClass::NotFound,
        408 | 504 => FailureClass::Timeout,
        409 => FailureClass::Server,
        429 => FailureClass::RateLimited,
        529 => FailureClass::Overloaded,
        500..=599 => FailureClass::Server,
        _ => FailureClass::Request,
    }
}

/// What an error body says, whichever of the usual shapes it has.
#[derive(Default)]
struct Said {
    kind: Option<String>,
    code: Option<String>,
    message: Option<String>,
}

impl Said {
    fn read(body: &[u8]) -> Said {
        match serde_json::from_slice::<Value>(body) {
            Ok(value) => Said::from_value(&value),
            Err(_) => {
                let text = String::from_utf8_lossy(body);
                let text = text.trim();
                // A proxy's HTML page says less than the status does.
                let message = (!text.is_empty() && !text.starts_with('<')).then(|| text.to_owned());
                Said { message, ..Said::default() }
            }
        }
    }

    fn from_value(value: &Value) -> Said {
        let inner = value.get("error").filter(|error| !error.is_null()).unwrap_or(value);
        if let Value::String(message) = inner {
            return Said { message: Some(message.clone()), ..Said::default() };
        }
        let text = |key: &str| match inner.get(key)? {
            Value::String(text) if !text.is_empty() => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        let message = text("message").or_else(|| text("detail"));
        Said { kind: text("type").or_else(|| text("code")), code: text("code"), message }
    }

    /// The class, where the words say more than the status. `api_error` and its like say less.
    fn class(&self) -> Option<FailureClass> {
        // OpenAI answers 429 both for a rate and for a quota that is spent.
        let words = [self.code.as_deref(), self.kind.as_deref()];
        words.into_iter().flatten().find_map(|word| {
            Some(match word {
                "overloaded_error" | "529" => FailureClass::Overloaded,
                "rate_limit_error" | "rate_limit_exceeded" | "429" => FailureClass::RateLimited,
                "insufficient_quota" | "billing_error" | "billing_hard_limit_reached" => FailureClass::Billing,
                "timeout_error" => FailureClass::Timeout,
                "authentication_error" | "permission_error" | "invalid_api_key" => FailureClass::Auth,
                "not_found_error" | "model_not_found" => FailureClass::NotFound,
                "request_too_large" => FailureClass::Request,
                "context_length_exceeded" | "exceed_context_size_error" => FailureClass::ContextLength,
                _ => return None,
            })
        })
    }

    /// Whether a refused request was too long for the model: for those who have no word for it but a sentence.
    fn is_too_long(&self) -> bool {
        let message = self.message.as_deref().unwrap_or_default();
        TOO_LONG.iter().any(|sentence| message.contains(sentence))
    }
}

/// `retry-after-ms`, else `retry-after` in seconds or as a date. A date is read against the server's own clock where it
/// sent it, so that a wrong clock here does no harm.
fn retry_after_ms(headers: &HeaderMap, now: SystemTime) -> Option<u64> {
    let text = |name| headers.get(name)?.to_str().ok().map(str::trim);
    if let Some(ms) = text("retry-after-ms").and_then(|text| whole_ms(text, 1.0)) {
        return Some(ms);
    }
    let value = text(header::RETRY_AFTER.as_str())?;
    if let Some(ms) = whole_ms(value, 1000.0) {
        return Some(ms);
    }
    let at = http_date(value)?;
    let now = text(header::DATE.as_str()).and_then(http_date).or_else(|| Timestamp::try_from(now).ok())?;
    let ms = at.as_millisecond().saturating_sub(now.as_millisecond());
    Some(u64::try_from(ms).unwrap_or(0).min(RETRY_AFTER_MS_MAX))
}

fn whole_ms(text: &str, unit_ms: f64) -> Option<u64> {
    let ms = text.parse::<f64>().ok()? * unit_ms;
    // A float turned into an integer saturates.
    (ms.is_finite() && ms >= 0.0).then(|| (ms.ceil() as u64).min(RETRY_AFTER_MS_MAX))
}

fn http_date(text: &str) -> Option<Timestamp> {
    jiff::fmt::rfc2822::parse(text).ok().map(|zoned| zoned.timestamp())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use FailureClass::*;

    use super::*;

    fn fail(status: u16, headers: &[(&'static str, &str)], body: &str) -> Failure {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        // Sun, 06 Nov 1994 08:49:37 GMT
        let now = UNIX_EPOCH + Duration::from_secs(784_111_777);
        from_response(StatusCode::from_u16(status).unwrap(), &headers, body.as_bytes(), now)
    }

    #[test]
    fn classes() {
        let check = |status: u16, body: &str, class: FailureClass| {
            assert_eq!(fail(status, &[], body).class, class, "{status} {body}");
        };
        check(301, "", Request);
        check(400, "", Request);
        check(400, r#"{"type":"error","error":{"type":"invalid_request_error","message":"no"}}"#, Request);
        check(400, r#"{"error":{"message":"too long","code":"context_length_exceeded"}}"#, ContextLength);
        check(400, r#"{"error":{"message":"too long","code":400,"type":"exceed_context_size_error"}}"#, ContextLength);
        let sentence =
            r#"{"error":{"type":"invalid_request_error","message":"prompt is too long: 3 tokens > 2 maximum"}}"#;
        check(400, sentence, ContextLength);
        check(429, sentence, RateLimited);
        check(401, "", Auth);
        check(402, "", Billing);
        check(403, "", Auth);
        check(404, "", NotFound);
        check(404, r#"{"error":{"message":"?","type":"invalid_request_error","code":"model_not_found"}}"#, NotFound);
        check(408, "", Timeout);
        check(409, "", Server);
        check(413, r#"{"type":"error","error":{"type":"request_too_large","message":"no"}}"#, Request);
        check(422, r#"{"detail":"bad"}"#, Request);
        check(429, "", RateLimited);
        check(429, r#"{"error":{"type":"insufficient_quota","code":"insufficient_quota","message":"pay"}}"#, Billing);
        check(500, "", Server);
        check(500, r#"{"type":"error","error":{"type":"overloaded_error","message":"busy"}}"#, Overloaded);
        check(503, "", Server);
        check(504, "", Timeout);
        check(529, "", Overloaded);
        check(529, "<html>", Overloaded);
        check(529, r#"{"error":{"type":"server_error","message":"busy"}}"#, Overloaded);
    }

    #[test]
    fn messages() {
        let check = |body: &str, message: &str, provider_type: Option<&str>| {
            let failure = fail(503, &[], body);
            assert_eq!((failure.message.as_str(), failure.provider_type.as_deref()), (message, provider_type));
        };
        check(r#"{"type":"error","error":{"type":"api_error","message":"oh"}}"#, "oh", Some("api_error"));
        check(r#"{"error":{"message":"oh","type":null,"code":503}}"#, "oh", Some("503"));
        check(r#"{"error":"model is loading"}"#, "model is loading", None);
        check(r#"{"detail":"oh"}"#, "oh", None);
        check("upstream gone\n", "upstream gone", None);
        check("<html>502</html>", "the model server answered 503 (Service Unavailable)", None);
        check("", "the model server answered 503 (Service Unavailable)", None);
        check("[]", "the model server answered 503 (Service Unavailable)", None);
    }

    #[test]
    fn retry_after() {
        let check = |headers: &[(&'static str, &str)], ms: Option<u64>| {
            assert_eq!(fail(429, headers, "").retry_after_ms, ms, "{headers:?}");
        };
        check(&[], None);
        check(&[("retry-after", "2")], Some(2_000));
        check(&[("retry-after", " 0.25 ")], Some(250));
        check(&[("retry-after", "2"), ("retry-after-ms", "1500")], Some(1_500));
        check(&[("retry-after", "2"), ("retry-after-ms", "soon")], Some(2_000));
        check(&[("retry-after", "Sun, 06 Nov 1994 08:49:40 GMT")], Some(3_000));
        check(&[("retry-after", "Sun, 06 Nov 1994 08:49:00 GMT")], Some(0));
        let server_clock = ("date", "Sun, 06 Nov 1994 10:00:00 GMT");
        check(&[("retry-after", "Sun, 06 Nov 1994 10:00:07 GMT"), server_clock], Some(7_000));
        check(&[("retry-after", "-1")], None);
        check(&[("retry-after", "NaN")], None);
        check(&[("retry-after", "inf")], None);
        check(&[("retry-after", "1e30")], Some(RETRY_AFTER_MS_MAX));
        check(&[("retry-after", "tomorrow")], None);
    }

    #[test]
    fn errors_inside_a_stream() {
        let check = |text: &str, class: FailureClass, message: &str| {
            let failure = from_stream_error(&serde_json::from_str(text).unwrap());
            assert_eq!((failure.class, failure.message.as_str()), (class, message));
        };
        check(r#"{"type":"error","error":{"type":"overloaded_error","message":"busy"}}"#, Overloaded, "busy");
        check(r#"{"error":{"type":"invalid_request_error","message":"no"}}"#, Request, "no");
        check(r#"{"error":{"code":429,"message":"slow"}}"#, RateLimited, "slow");
        check(r#"{"error":{"message":"oh"}}"#, Server, "oh");
        check(r#"{"error":null}"#, Server, "the model server sent an error inside the answer");
    }
}
