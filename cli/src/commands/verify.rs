//! `steadyhand verify`: whether what a stopped service left on disk is whole and fits together.
//!
//! Each part is opened on its own, so that one that is damaged does not hide what the others are like. Nothing is
//! recovered: the engine is opened to be read.

use crate::{
    config, connect,
    data_dir::{self, DataDir},
    env_vars,
    error::{Code, failed},
    output, sessions_check,
    table::fields,
};
use clap::Args;
use engine::Engine;
use jiff::Timestamp;
use log::TemporalReader;
use serde_json::{Value, json};
use std::{path::PathBuf, sync::Arc};
use store::{Blobs, Catalog, FjallCatalog, FolderBlobs};

/// Check that a data folder is whole, while no service uses it
///
/// Reads everything: rows, indexes, blobs, histories, and every session's log. Exit code 6 when something is wrong.
#[derive(Debug, Args)]
pub struct Verify {
    /// Data folder [default: ~/.local/share/steadyhand]
    #[arg(long, env = env_vars::DATA, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Temporal namespace of the sessions
    #[arg(long, env = env_vars::NAMESPACE, default_value = "default", value_name = "NAME")]
    namespace: String,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Default)]
pub(super) struct Found {
    catalog: String,
    blobs: String,
    engine: String,
    sessions: String,
    problems: Vec<String>,
}

impl Verify {
    pub async fn run(self) -> anyhow::Result<()> {
        let root = self.data.unwrap_or_else(config::default_data_dir);
        if !root.is_dir() {
            let hint = "name the folder that the service ran from with --data";
            return Err(failed(Code::Data, format!("there is no data folder {}", root.display()), hint));
        }
        let found = examine(&DataDir::open(&root)?, &self.namespace).await?;
        found.print(self.json);
        found.outcome()
    }
}

/// Reads everything that a folder holds; nothing of it is open any more when this returns.
pub(super) async fn examine(data: &DataDir, namespace: &str) -> anyhow::Result<Found> {
    let mut found = Found::default();
    let stores = stores(data, &mut found).await;
    let engine = engine(data, namespace, &mut found).await;
    if let (Some((catalog, blobs)), Some(engine)) = (&stores, &engine) {
        let connection = connect::embedded(engine.clone(), "steadyhand verify").await?;
        let reader = TemporalReader::new(connection, namespace, blobs.clone());
        let report = sessions_check::check(&**catalog, &**blobs, &reader).await;
        found.sessions = format!("{} sessions, {} events", report.sessions, report.events);
        found.problems.extend(report.problems);
    }
    if let Some(engine) = engine {
        engine.shutdown().await;
    }
    Ok(found)
}

async fn stores(data: &DataDir, found: &mut Found) -> Option<(Arc<dyn Catalog>, Arc<dyn Blobs>)> {
    let (catalog_path, blobs_path) = (data_dir::catalog(data.root()), data_dir::blobs(data.root()));
    if !catalog_path.is_dir() && !blobs_path.is_dir() {
        return None;
    }
    for (name, path) in [("catalog", &catalog_path), ("blobs", &blobs_path)] {
        if !path.is_dir() {
            found.problems.push(format!("{name}: {} is not there", path.display()));
            return None;
        }
    }
    let catalog = found.open("catalog", move || FjallCatalog::open(&catalog_path)).await;
    let blobs = found.open("blobs", move || FolderBlobs::open(&blobs_path)).await;
    let (catalog, blobs): (Arc<dyn Catalog>, Arc<dyn Blobs>) = (Arc::new(catalog?), Arc::new(blobs?));
    match api::verify::verify(&catalog, &*blobs, Timestamp::now()).await {
        Ok(report) => {
            let rows: u64 = report.catalog.tables.values().sum();
            found.catalog =
                format!("{rows} rows in {} tables, {} bytes", report.catalog.tables.len(), report.catalog.bytes);
            found.blobs = format!("{} blobs, {} bytes", report.blobs.blobs, report.blobs.bytes);
            found.problems.extend(report.problems);
        }
        Err(error) => found.problems.push(format!("catalog and blobs: cannot be read to the end: {}", error.message())),
    }
    Some((catalog, blobs))
}

async fn engine(data: &DataDir, namespace: &str, found: &mut Found) -> Option<Engine> {
    let path = data_dir::engine(data.root());
    if !path.is_dir() {
        return None;
    }
    let mut options = engine::Options::new(engine::Store::Fjall(path));
    options.namespaces = vec![namespace.to_owned()];
    let engine = found.open("engine", move || Engine::open_read_only(options)).await?;
    let examined = engine.clone();
    let report = found.open("engine", move || examined.verify()).await;
    if let Some(report) = report {
        found.engine =
            format!("{} runs ({} open), {} history events", report.runs, report.open_runs, report.history_events);
        found.problems.extend(report.problems.into_iter().map(|problem| format!("engine: {problem}")));
    }
    Some(engine)
}

impl Found {
    /// What a part gives when it is opened. A failure is a problem of the folder, and so is a panic: what is read there
    /// may be anything.
    async fn open<T: Send + 'static, E: std::error::Error + Send + Sync + 'static>(
        &mut self,
        part: &str,
        open: impl FnOnce() -> Result<T, E> + Send + 'static,
    ) -> Option<T> {
        let problem = match tokio::task::spawn_blocking(open).await {
            Ok(Ok(opened)) => return Some(opened),
            Ok(Err(error)) => format!("{:#}", anyhow::Error::from(error)),
            Err(_) => "what is stored cannot be understood".to_owned(),
        };
        self.problems.push(format!("{part}: {problem}"));
        None
    }

    pub(super) fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }

    pub(super) fn print(&self, as_json: bool) {
        let Found { catalog, blobs, engine, sessions, problems } = self;
        let parts = [("catalog", catalog), ("blobs", blobs), ("engine", engine), ("sessions", sessions)];
        if as_json {
            let mut report = json!({"problems": problems});
            for (name, what) in parts {
                report[name] = if what.is_empty() { Value::Null } else { what.clone().into() };
            }
            return output::json(&report);
        }
        let said = |what: &String| if what.is_empty() { "nothing".to_owned() } else { what.clone() };
        output::line(&fields(&parts.map(|(name, what)| (name, said(what)))));
        problems.iter().for_each(|problem| output::line(&format!("problem: {problem}")));
    }

    fn outcome(&self) -> anyhow::Result<()> {
        let count = self.problems.len();
        if count == 0 {
            return Ok(());
        }
        let plural = if count == 1 { "problem" } else { "problems" };
        Err(failed(
            Code::Data,
            format!("{count} {plural} found"),
            "keep a copy of the folder, then restore it from a backup",
        ))
    }
}
