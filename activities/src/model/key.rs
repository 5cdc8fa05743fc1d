//! The key of a model server, kept so that it cannot be printed by accident.
//!
//! Never implements `Display` or `Serialize`, and its `Debug` shows nothing of the key.

use std::fmt;

use http::HeaderValue;

/// A model server's API key. Only the clients beside this file read it.
#[derive(Clone)]
pub struct ApiKey(String);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("use an empty model key")]
    Empty,
    #[error("use a model key that has characters no HTTP header can carry")]
    NotAHeader,
}

impl ApiKey {
    /// Takes a key as read from a file or the environment: white space around it is dropped.
    pub fn new(text: &str) -> Result<ApiKey, Error> {
        let text = text.trim();
        if text.is_empty() {
            return Err(Error::Empty);
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::NotAHeader);
        }
        Ok(ApiKey(text.to_owned()))
    }

    /// The header value `<prefix><key>`, marked so that HTTP libraries do not print it either.
    pub(super) fn header(&self, prefix: &str) -> HeaderValue {
        let mut value = HeaderValue::try_from(format!("{prefix}{}", self.0)).expect("checked when the key was made");
        value.set_sensitive(true);
        value
    }

    /// `text` without the key: some servers quote the key that they refuse.
    pub(super) fn redact(&self, text: &str) -> String {
        text.replace(&self.0, "[key]")
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_and_header_debug_show_nothing() {
        let key = ApiKey::new(" sk-canary\n").unwrap();
        assert_eq!(format!("{key:?}"), "ApiKey");
        let header = key.header("Bearer ");
        assert_eq!(header.as_bytes(), b"Bearer sk-canary");
        assert!(!format!("{header:?}").contains("canary"));
        assert_eq!(key.redact("bad key sk-canary!"), "bad key [key]!");
    }

    #[test]
    fn refuses_what_no_header_can_carry() {
        assert!(matches!(ApiKey::new(" \n"), Err(Error::Empty)));
        assert!(matches!(ApiKey::new("a\nb"), Err(Error::NotAHeader)));
        assert!(matches!(ApiKey::new("schlüssel"), Err(Error::NotAHeader)));
    }
}
