//! The hands of a session by name, and what it has of each. One is always there to be had, [`HandName::MAIN`]; others are those
//! that the agent names.

use crate::{
    Time,
    content::BlobRef,
    session::{HandRef, Workspace},
};
use serde::{Deserialize, Serialize};

/// What a session calls one of its hands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HandName(String);

impl HandName {
    /// The hand that a call goes to that names none.
    pub const MAIN: &str = "main";
    /// As a part of an activity's id and of a file's path it should stay short.
    pub const CHARS_MAX: usize = 32;

    /// The name of another hand than the main one: `[a-z][a-z0-9_-]*`.
    pub fn other(name: &str) -> Option<Self> {
        let is_word = name.starts_with(|first: char| first.is_ascii_lowercase())
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-'));
        (is_word && name.len() <= Self::CHARS_MAX && name != Self::MAIN).then(|| HandName(name.to_owned()))
    }

    /// As somebody wrote it, the main one too.
    pub fn parse(name: &str) -> Option<Self> {
        if name == Self::MAIN { Some(Self::default()) } else { Self::other(name) }
    }

    pub fn is_main(&self) -> bool {
        self.0 == Self::MAIN
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// An activity's id: the main hand's are those of sessions that know no other.
    pub fn activity(&self, base: &str) -> String {
        if self.is_main() { base.to_owned() } else { format!("{base}-{self}") }
    }
}

impl Default for HandName {
    fn default() -> Self {
        HandName(Self::MAIN.to_owned())
    }
}

impl std::fmt::Display for HandName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a session has of one of its hands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub hand: Option<HandRef>,
    /// What the last one of this name left, while there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parked: Option<Parked>,
    /// The activity by which it is being parked now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parking: Option<String>,
    /// Listing of the files collected last.
    pub outputs: Option<BlobRef>,
    /// The activity that is collecting them now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collecting: Option<String>,
}

impl Held {
    /// Nothing, and nothing kept of an earlier one.
    pub fn is_without(&self) -> bool {
        self.hand.is_none() && self.parked.is_none()
    }

    /// An activity is over.
    pub(crate) fn closed(&mut self, activity: &str) {
        self.collecting.take_if(|collecting| collecting == activity);
        self.parking.take_if(|parking| parking == activity);
    }
}

/// A hand that was let go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parked {
    /// The id it had.
    pub hand: String,
    pub workspace: Workspace,
    pub at: Time,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_small_word_and_the_main_hands_is_taken() {
        for name in ["build", "b", "test_2", "a-b", &"x".repeat(32)] {
            assert_eq!(HandName::other(name).map(|name| name.to_string()).as_deref(), Some(name));
        }
        for name in ["", "main", "Build", "2nd", "-a", "a b", "a/b", "a.b", "ä", &"x".repeat(33)] {
            assert_eq!(HandName::other(name), None, "{name:?}");
        }
        assert!(HandName::parse("main").unwrap().is_main() && !HandName::parse("build").unwrap().is_main());
    }

    #[test]
    fn the_main_hands_activities_are_called_as_they_always_were() {
        assert_eq!(HandName::default().activity("provision-3"), "provision-3");
        assert_eq!(HandName::other("build").unwrap().activity("provision-3"), "provision-3-build");
    }
}
