//! `steadyhand backup`: a copy of a data folder as it is at one moment, whether or not a service runs from it.

use crate::{
    backup::{self, Manifest, Sources},
    config,
    data_dir::{self, DataDir},
    env_vars,
    error::{Code, Hint as _, failed},
    output,
    table::fields,
};
use clap::Args;
use engine::Engine;
use std::{path::PathBuf, sync::Arc};
use store::{FjallCatalog, FolderBlobs};

/// Copy a data folder as it is at this moment, also while the service works
///
/// The copy holds everything that was acknowledged before, and has its name only when it is whole. Sandboxes are not
/// in it, nor is the vault, whose folder is egress's alone.
#[derive(Debug, Args)]
pub struct Backup {
    /// Folder for the copy; must not be there yet, or be empty
    #[arg(value_name = "TO")]
    to: PathBuf,
    /// Data folder [default: ~/.local/share/steadyhand]
    #[arg(long, env = env_vars::DATA, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Backup {
    pub async fn run(self) -> anyhow::Result<()> {
        let root = self.data.unwrap_or_else(config::default_data_dir);
        if !root.is_dir() {
            let hint = "name the folder that the service runs from with --data";
            return Err(failed(Code::Data, format!("there is no data folder {}", root.display()), hint));
        }
        // The service may have another working folder.
        let to = std::path::absolute(&self.to)?;
        let made = match backup::ask(&root, &to).await? {
            Some(made) => made,
            None => of_stopped(&DataDir::open(&root)?)?.write(&to).await?,
        };
        print(&made, self.json);
        Ok(())
    }
}

/// What a folder holds that no service runs from.
fn of_stopped(data: &DataDir) -> anyhow::Result<Sources> {
    let root = data.root();
    let hint = "the folder may be damaged: `steadyhand verify` says what is";
    let path = data_dir::engine(root);
    let engine = match path.is_dir() {
        true => {
            let options = engine::Options::new(engine::Store::Fjall(path));
            Some(Engine::open_read_only(options).hint(Code::Data, "open the engine", hint)?)
        }
        false => None,
    };
    let catalog = FjallCatalog::open(&data_dir::catalog(root)).hint(Code::Data, "open the catalog", hint)?;
    let blobs = FolderBlobs::open(&data_dir::blobs(root)).hint(Code::Data, "open the blobs", hint)?;
    Ok(Sources { root: root.to_owned(), engine, catalog: Arc::new(catalog), blobs: Arc::new(blobs) })
}

fn print(made: &Manifest, as_json: bool) {
    if as_json {
        return output::json(&serde_json::json!(made));
    }
    let lines = [
        ("made", made.made_at.clone()),
        ("engine", format!("{} entries", made.engine_entries)),
        ("blobs", made.blobs.to_string()),
    ];
    output::line(&fields(&lines));
}
