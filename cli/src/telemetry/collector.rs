//! Where spans are sent: the base URL of an OTLP/HTTP receiver.
//!
//! It is given to the hand worker as an argument, which every user of the machine can read. So it has no credentials in
//! it: a collector that wants some gets them from one nearby that wants none.

use reqwest::Url;
use std::str::FromStr;

#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct Collector(Url);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("it is not a URL: {0}")]
    Url(String),
    #[error("it is not an http or https URL, as in http://127.0.0.1:4318")]
    Scheme,
    #[error(
        "it has credentials or a query in it, and would be seen in the list of processes: name a collector without"
    )]
    Secret,
}

impl FromStr for Collector {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let url = Url::parse(text).map_err(|error| Error::Url(error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(Error::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
            return Err(Error::Secret);
        }
        Ok(Collector(url))
    }
}

impl TryFrom<String> for Collector {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl Collector {
    pub fn url(&self) -> &str {
        self.0.as_str().trim_end_matches('/')
    }

    /// Whether it can only be on this machine.
    pub fn is_here(&self) -> bool {
        crate::service::is_here(&self.0)
    }

    /// Where traces go, as the protocol says.
    pub fn traces(&self) -> String {
        format!("{}/v1/traces", self.url())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_http_address_is_a_collector() {
        for (text, traces) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("https://otel.example.com/base/", "https://otel.example.com/base/v1/traces"),
        ] {
            assert_eq!(text.parse::<Collector>().unwrap().traces(), traces);
        }
        for text in ["", "127.0.0.1:4318", "grpc://h:4317", "http://user:pass@h", "http://key@h", "http://h/?key=1"] {
            assert!(text.parse::<Collector>().is_err(), "{text}");
        }
    }
}
