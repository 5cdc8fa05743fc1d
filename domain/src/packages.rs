//! Packages of an environment: what is installed for its sandboxes, by which manager, and from where.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// In the order in which they install.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "snake_case")]
pub enum Manager {
    Apt,
    Cargo,
    Gem,
    Go,
    Npm,
    Pip,
}

impl Manager {
    pub const ALL: [Manager; 6] = [Self::Apt, Self::Cargo, Self::Gem, Self::Go, Self::Npm, Self::Pip];

    pub fn name(self) -> &'static str {
        match self {
            Self::Apt => "apt",
            Self::Cargo => "cargo",
            Self::Gem => "gem",
            Self::Go => "go",
            Self::Npm => "npm",
            Self::Pip => "pip",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|manager| manager.name() == name)
    }

    /// The variable by which it is told of another registry than its own; none where it takes none.
    pub fn registry_variable(self) -> Option<&'static str> {
        match self {
            Self::Go => Some("GOPROXY"),
            Self::Npm => Some("npm_config_registry"),
            Self::Pip => Some("PIP_INDEX_URL"),
            Self::Apt => Some("APT_MIRROR"),
            Self::Cargo | Self::Gem => None,
        }
    }
}

/// Lists that are not empty.
pub type Packages = BTreeMap<Manager, Vec<String>>;

/// URLs of registries that managers ask instead of their own.
pub type Registries = BTreeMap<Manager, String>;
