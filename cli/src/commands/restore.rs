//! `steadyhand restore`: a data folder out of a backup, examined before it has its name.

use super::verify;
use crate::{
    backup, config,
    data_dir::{self, DataDir},
    env_vars,
    error::{Code, Hint as _, failed},
};
use clap::Args;
use engine::Engine;
use std::path::PathBuf;

/// Make a data folder from a backup and check that it is whole
///
/// The backup stays as it is. The folder has its name only when everything in it was found sound; exit code 6 when it
/// was not.
#[derive(Debug, Args)]
pub struct Restore {
    /// Folder that `steadyhand backup` made
    #[arg(value_name = "BACKUP")]
    backup: PathBuf,
    /// Data folder to make; must not be there yet, or be empty [default: ~/.local/share/steadyhand]
    #[arg(long, env = env_vars::DATA, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Temporal namespace of the sessions
    #[arg(long, env = env_vars::NAMESPACE, default_value = "default", value_name = "NAME")]
    namespace: String,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Restore {
    pub async fn run(self) -> anyhow::Result<()> {
        backup::manifest(&self.backup)?;
        let root = std::path::absolute(self.data.unwrap_or_else(config::default_data_dir))?;
        let part = backup::make_part(&root)?;
        let restored = async {
            let (from, to) = (self.backup.clone(), part.clone());
            tokio::task::spawn_blocking(move || backup::copy(&from, &to)).await??;
            let data = DataDir::open(&part)?;
            let engine = data_dir::engine(&part);
            if engine.is_dir() {
                // A backup that an older build made becomes a folder of this one.
                tokio::task::spawn_blocking(move || Engine::bring_up(&engine)).await?.hint(
                    Code::Data,
                    "bring up what the engine stored",
                    "the backup may be damaged, or made by a newer version",
                )?;
            }
            verify::examine(&data, &self.namespace).await
        };
        let found = match restored.await {
            Ok(found) => found,
            Err(error) => {
                let _unfinished = std::fs::remove_dir_all(&part);
                return Err(error);
            }
        };
        found.print(self.json);
        if !found.is_sound() {
            let _damaged = std::fs::remove_dir_all(&part);
            return Err(failed(
                Code::Data,
                format!("the backup {} is damaged, and nothing was restored", self.backup.display()),
                "restore another one",
            ));
        }
        backup::put_in_place(&part, &root)
    }
}
