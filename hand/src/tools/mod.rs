//! The tools of a hand: one file each, one line each in [`TOOLS`].
//!
//! Names, descriptions and schemas are for whoever builds the model's request; `run` works inside the sandbox only.
//! A tool never fails as a call: whatever goes wrong is an error result that the model can read.

mod bash;
mod edit;
mod files;
mod glob;
mod grep;
pub(crate) mod output;
mod read;
mod walk;

mod write;

pub(crate) use files::Files;
pub(crate) use walk::walk;

use crate::init::shell::Ask;
use crate::protocol::ToolResult;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// One tool, as the model is told of it and as it is run.
pub struct Tool {
    pub name: &'static str,
    pub description: &'static str,
    /// JSON Schema of the input.
    pub schema: fn() -> Value,
    pub(crate) run: Run,
}

/// What a tool works with decides how it may be run: file tools side by side, the shell one call at a time.
pub(crate) enum Run {
    Files(RunFiles),
    /// As these, and refused where the disk is full.
    Writes(RunFiles),
    /// What the input asks of the shell, whose keeper then runs it.
    Shell(fn(Value) -> Result<Ask, Refused>),
}

pub(crate) type RunFiles = fn(&Files, &Stop, Value) -> Result<ToolResult, Refused>;

pub const TOOLS: &[Tool] = &[bash::TOOL, read::TOOL, write::TOOL, edit::TOOL, glob::TOOL, grep::TOOL];

/// The tool of that exact name.
pub fn find(name: &str) -> Option<&'static Tool> {
    TOOLS.iter().find(|tool| tool.name == name)
}

/// Why a tool did not do what was asked, in words for the model.
#[derive(thiserror::Error, Debug)]
#[error("{0}")]
pub(crate) struct Refused(pub String);

impl From<String> for Refused {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Refused {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// Take an input apart; unknown fields are refused, so that a typo is not a silent default.
pub(crate) fn parse<T: DeserializeOwned>(input: Value) -> Result<T, Refused> {
    serde_json::from_value(input).map_err(|e| Refused(format!("invalid input: {e}")))
}

/// When a call must end: its deadline, or because someone said so.
pub(crate) struct Stop {
    /// None where whoever runs the call keeps its time.
    deadline: Option<Instant>,
    cancelled: AtomicBool,
}

/// Why a call was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    Timeout,
    Cancelled,
}

impl Stopped {
    /// As the first words of a result.
    pub fn words(self) -> &'static str {
        match self {
            Self::Timeout => "timed out",
            Self::Cancelled => "interrupted",
        }
    }
}

impl Stop {
    pub fn new(deadline: Option<Instant>) -> Self {
        Self { deadline, cancelled: AtomicBool::new(false) }
    }

    /// How long until its deadline; none without one.
    pub fn left(&self) -> Option<Duration> {
        self.deadline.map(|at| at.saturating_duration_since(Instant::now()))
    }

    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
    }

    pub fn reason(&self) -> Option<Stopped> {
        if self.cancelled.load(Ordering::SeqCst) {
            Some(Stopped::Cancelled)
        } else {
            self.deadline.is_some_and(|at| Instant::now() >= at).then_some(Stopped::Timeout)
        }
    }

    /// For loops over many files.
    pub fn check(&self) -> Result<(), Refused> {
        match self.reason() {
            None => Ok(()),
            Some(reason) => Err(Refused(reason.words().to_owned())),
        }
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! A workspace in a temporary folder, and tools run on it without a sandbox.
    use super::*;
    use std::path::{Path, PathBuf};

    pub struct Bench {
        pub dir: tempfile::TempDir,
        pub files: Files,
    }

    impl Bench {
        /// `work/` is the working directory, `more/` another root, `out/` is outside.
        pub fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path().canonicalize().unwrap();
            for name in ["work", "more", "out"] {
                std::fs::create_dir(root.join(name)).unwrap();
            }
            let files = Files::new(root.join("work"), vec![root.join("more")]);
            Self { dir, files }
        }

        pub fn path(&self, rest: &str) -> PathBuf {
            self.dir.path().canonicalize().unwrap().join(rest)
        }

        pub fn put(&self, rest: &str, content: impl AsRef<[u8]>) -> PathBuf {
            let path = self.path(rest);
            std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).unwrap();
            std::fs::write(&path, content).unwrap();
            path
        }

        pub fn run(&self, name: &str, input: Value) -> ToolResult {
            let stop = Stop::new(Some(Instant::now() + Duration::from_secs(60)));
            let Some(Tool { run: Run::Files(run) | Run::Writes(run), .. }) = find(name) else {
                panic!("{name} is no file tool")
            };
            run(&self.files, &stop, input).unwrap_or_else(|refused| ToolResult::error(refused.0))
        }

        /// The text of a result that must not be an error.
        pub fn good(&self, name: &str, input: Value) -> String {
            let result = self.run(name, input);
            assert!(!result.is_error, "{name}: {}", result.text());
            result.text()
        }

        /// The text of a result that must be an error.
        pub fn bad(&self, name: &str, input: Value) -> String {
            let result = self.run(name, input);
            assert!(result.is_error, "{name}: {}", result.text());
            result.text()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::Bench;
    use super::*;
    use serde_json::json;

    #[test]
    fn every_tool_is_described_and_strict() {
        let mut names: Vec<_> = TOOLS.iter().map(|tool| tool.name).collect();
        assert_eq!(names, ["bash", "read", "write", "edit", "glob", "grep"]);
        names.dedup();
        assert_eq!(names.len(), TOOLS.len());
        for tool in TOOLS {
            let schema = (tool.schema)();
            assert!(!tool.description.is_empty());
            assert_eq!(schema["type"], "object", "{}", tool.name);
            assert_eq!(schema["additionalProperties"], false, "{}", tool.name);
            let properties = schema["properties"].as_object().unwrap();
            for required in schema["required"].as_array().unwrap() {
                assert!(properties.contains_key(required.as_str().unwrap()), "{}", tool.name);
            }
        }
    }

    #[test]
    fn file_tools_refuse_what_is_not_in_their_schema() {
        let bench = Bench::new();
        for tool in TOOLS.iter().filter(|tool| matches!(tool.run, Run::Files(_) | Run::Writes(_))) {
            let mut input =
                json!({"file_path": "a", "content": "", "old_string": "a", "new_string": "b", "pattern": "a"});
            let known = (tool.schema)()["properties"].as_object().unwrap().clone();
            input.as_object_mut().unwrap().retain(|key, _| known.contains_key(key));
            input["surprise"] = json!(1);
            assert!(bench.bad(tool.name, input).contains("unknown field `surprise`"), "{}", tool.name);
            assert!(bench.bad(tool.name, json!([1])).contains("invalid input"), "{}", tool.name);
        }
    }
}
