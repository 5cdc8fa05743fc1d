//! One secret of every class, each new in every run.

use std::path::PathBuf;

/// What may be everywhere, and has to be found wherever is looked.
pub fn control(run: &str) -> String {
    format!("CONTROL-{run}")
}

#[derive(Clone)]
pub struct Planted {
    /// What all of them begin with.
    pub prefix: String,
    pub bearer: String,
    /// An access token that is no longer good, and the one that it is exchanged for.
    pub access: String,
    pub minted: String,
    pub refresh: String,
    pub client: String,
    pub repository: String,
    pub variable: String,
    pub model_key: String,
}

impl Planted {
    pub fn new(run: &str) -> Self {
        let prefix = format!("CANARY-{run}-");
        let secret = |class: &str| format!("{prefix}{class}");
        Planted {
            bearer: secret("mcp-bearer"),
            access: secret("mcp-access"),
            minted: secret("mcp-minted"),
            refresh: secret("mcp-refresh"),
            client: secret("mcp-client"),
            repository: secret("repository"),
            variable: secret("variable"),
            model_key: secret("model-key"),
            prefix,
        }
    }

    /// By the names that people are told.
    pub fn named(&self) -> [(&'static str, &str); 8] {
        [
            ("mcp_bearer", &self.bearer),
            ("mcp_access", &self.access),
            ("mcp_minted", &self.minted),
            ("mcp_refresh", &self.refresh),
            ("mcp_client", &self.client),
            ("repository", &self.repository),
            ("variable", &self.variable),
            ("model_key", &self.model_key),
        ]
    }
}

/// A secret of the service's own, and the one file of its data, or of a copy of that, in which it belongs.
pub struct Own {
    pub name: &'static str,
    pub secret: String,
    pub home: PathBuf,
}
