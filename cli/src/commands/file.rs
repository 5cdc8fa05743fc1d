//! `steadyhand file`: what is given to sessions, and what they leave behind.

use crate::{
    args,
    client::{Client, Query},
    error::{Code, Hint as _, failed},
    output,
    render::{grouped, moment, one_line},
    service::Service,
    table::table,
};
use clap::{Args, Subcommand};
use serde_json::Value;
use std::path::{Path, PathBuf};
use tokio::io::AsyncWriteExt as _;

/// Upload files for sessions, and fetch what sessions made
#[derive(Debug, Args)]
pub struct File {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    service: Service,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Upload a file and print its id
    Upload {
        path: PathBuf,
        /// Print the file's metadata as JSON
        #[arg(long)]
        json: bool,
    },
    /// List files, newest first
    List {
        /// Only files of this session
        #[arg(long, value_name = "ID", value_parser = args::id)]
        session: Option<String>,
        /// How many at most
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: usize,
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Download a file that a session made
    Download {
        #[arg(value_parser = args::id)]
        id: String,
        /// Where to; `-` is standard output [default: the file's own name, in this folder]
        #[arg(long, short, value_name = "PATH")]
        output: Option<PathBuf>,
    },
    /// Delete a file
    Delete {
        #[arg(value_parser = args::id)]
        id: String,
        /// Print the answer as JSON
        #[arg(long)]
        json: bool,
    },
}

impl File {
    pub async fn run(self) -> anyhow::Result<()> {
        let client = self.service.client()?;
        match self.command {
            Command::Upload { path, json } => {
                let file = upload(&client, &path).await?;
                if json {
                    output::json(&file);
                } else {
                    output::line(file["id"].as_str().unwrap_or_default());
                }
            }
            Command::List { session, limit, json } => list(&client, session, limit, json).await?,
            Command::Download { id, output } => download(&client, &id, output).await?,
            Command::Delete { id, json } => {
                let answer = client.delete(&["v1", "files", &id]).await?;
                output::said(&answer, json, &format!("deleted {id}"));
            }
        }
        Ok(())
    }
}

/// Uploads what is at `path` under its own name; gives the metadata.
pub async fn upload(client: &Client, path: &Path) -> anyhow::Result<Value> {
    let opened = tokio::fs::File::open(path).await;
    let file = opened.hint(Code::Usage, format!("open {}", path.display()), "is it there, and may you read it?")?;
    let name = path.file_name().map_or_else(|| "unnamed".into(), |name| name.to_string_lossy());
    client.upload(&name, file).await
}

async fn list(client: &Client, session: Option<String>, limit: usize, as_json: bool) -> anyhow::Result<()> {
    let mut query = Query::from([("limit", limit.clamp(1, 1000).to_string())]);
    query.extend(session.map(|id| ("scope_id", id)));
    let files = client.list(&["v1", "files"], &query, limit).await?;
    if as_json {
        files.iter().for_each(output::json);
        return Ok(());
    }
    let rows = files.iter().map(|file| {
        let text = |value: &Value, columns| one_line(value.as_str().unwrap_or_default(), columns);
        let size = grouped(file["size_bytes"].as_u64().unwrap_or(0));
        [text(&file["id"], 80), size, moment(&file["created_at"]), text(&file["filename"], 100)]
    });
    output::line(&table(["ID", "BYTES", "CREATED", "NAME"], &rows.collect::<Vec<_>>()));
    Ok(())
}

async fn download(client: &Client, id: &str, output: Option<PathBuf>) -> anyhow::Result<()> {
    let path = match output {
        Some(path) => path,
        None => own_name(client, id).await?,
    };
    let mut response = client.open(&["v1", "files", id, "content"], &Query::new()).await?;
    if path.as_os_str() == "-" {
        while let Some(chunk) = client.chunk(&mut response).await? {
            output::bytes(&chunk);
        }
        return Ok(());
    }
    let problem = || format!("write {}", path.display());
    let hint = "choose another place with --output; files that are there are not overwritten";
    let mut file = tokio::fs::File::create_new(&path).await.hint(Code::Failed, problem(), hint)?;
    let copied = async {
        while let Some(chunk) = client.chunk(&mut response).await? {
            file.write_all(&chunk).await.hint(Code::Failed, problem(), "is the disk full?")?;
        }
        file.flush().await.hint(Code::Failed, problem(), "is the disk full?")
    };
    if let Err(error) = copied.await {
        // Half a file would be taken for a whole one; one that cannot be removed is named in the error.
        let _ = tokio::fs::remove_file(&path).await;
        return Err(error);
    }
    output::note(&format!("wrote {}", path.display()));
    Ok(())
}

/// A name that a session chose leads nowhere but into this folder.
async fn own_name(client: &Client, id: &str) -> anyhow::Result<PathBuf> {
    let file = client.get(&["v1", "files", id], &Query::new()).await?;
    let name = file["filename"].as_str().and_then(|name| Path::new(name).file_name());
    let name = name.filter(|name| !name.to_string_lossy().contains(char::is_control));
    name.map(PathBuf::from)
        .ok_or_else(|| failed(Code::Usage, "the file has no usable name", "choose one with --output"))
}
