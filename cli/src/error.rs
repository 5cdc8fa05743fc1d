//! Failures of the program: what to say, what to try, which exit code.

use std::process::ExitCode;

/// Exit codes are an interface (docs/operations.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Something failed that no other code names.
    Failed = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// No service answers, or the engine or the model cannot be reached.
    Unreachable = 3,
    /// The service refused: the key, the id or the request.
    Refused = 4,
    /// The task ended without success: the session stopped for another reason than `end_turn`.
    Unfinished = 5,
    /// Data on disk is in use by another process, or damaged.
    Data = 6,
    /// This machine lacks something that is needed.
    Environment = 7,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        ExitCode::from(code as u8)
    }
}

/// A failure with a hint. Made with [`Hint`], carried inside `anyhow`.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Hinted {
    pub message: String,
    pub hint: Option<String>,
    pub code: Code,
    #[source]
    pub source: Option<anyhow::Error>,
}

/// Adds message, hint and code to an error on its way up.
pub trait Hint<T> {
    fn hint(self, code: Code, message: impl Into<String>, hint: impl Into<String>) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> Hint<T> for Result<T, E> {
    fn hint(self, code: Code, message: impl Into<String>, hint: impl Into<String>) -> anyhow::Result<T> {
        self.map_err(|error| {
            let (message, hint, source) = (message.into(), Some(hint.into()), Some(error.into()));
            Hinted { message, hint, code, source }.into()
        })
    }
}

/// A failure that has no cause below it.
pub fn failed(code: Code, message: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
    Hinted { message: message.into(), hint: Some(hint.into()), code, source: None }.into()
}

/// What is printed in the end.
pub struct Failed {
    /// The whole chain, outermost first.
    pub chain: Vec<String>,
    pub hint: Option<String>,
    pub code: Code,
}

impl From<anyhow::Error> for Failed {
    fn from(error: anyhow::Error) -> Self {
        let mut chain: Vec<String> = Vec::new();
        let mut hint = None;
        let mut code = Code::Failed;
        for cause in error.chain() {
            let text = cause.to_string();
            // Some errors repeat their cause in their own text.
            if chain.last().is_none_or(|last| !last.ends_with(&text)) {
                chain.push(text);
            }
            if let Some(hinted) = cause.downcast_ref::<Hinted>()
                && hint.is_none()
            {
                hint.clone_from(&hinted.hint);
                code = hinted.code;
            }
        }
        Failed { chain, hint, code }
    }
}
