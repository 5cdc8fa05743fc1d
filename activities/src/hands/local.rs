//! Hands on this machine, through `hand::local` and a shim's socket, whatever their walls are made by: bubblewrap or a
//! container runtime.

use super::{Executed, Provider, Provisioned, ToolCall, packages, pieces, repositories};
use async_trait::async_trait;
use domain::{
    Failure,
    content::Block,
    egress::{CLIENT, Client},
    event::ErrorBody,
    failure::FailureKind,
    fault::{self, Fault, Point},
    packages::{Manager, Packages},
    session::{HandRef, OutputFile, ProvisionInput, Resource, ResourceKind, Workspace, WorkspaceStart},
};
use hand::{
    client,
    hands::Hands,
    local,
    protocol::{Refusal, Settled, State, ToolResult},
    spec::{CloneOf, Egress, FileResource, Owner, Repo, Restore, Shelf, Spec, Start, Stop, StopAt},
};
use std::{collections::BTreeMap, path::PathBuf, sync::Arc};
use store::Blobs;
use tokio::task::spawn_blocking;

/// Where uploads are mounted in a hand.
const UPLOADS: &str = "/mnt/session/uploads";
/// Where a hand's repository lives.
const WORKSPACE: &str = "/workspace";

pub struct Local {
    pub(super) host: String,
    pub(super) hands: Hands,
    pub(super) filling: packages::Filling,
    blobs: Arc<dyn Blobs>,
    /// Whose interpreters packages are installed for; none: this machine's.
    pub(super) image: Option<String>,
    /// Sockets of sessions, one folder each; none where there is no egress.
    ways_out: Option<PathBuf>,
}

impl Local {
    /// `host` names this machine in task queues.
    pub fn new(host: impl Into<String>, hands: Hands, blobs: Arc<dyn Blobs>) -> Self {
        Local { host: host.into(), hands, filling: packages::Filling::default(), blobs, image: None, ways_out: None }
    }

    /// Sandboxes of sessions that have a folder there get a way out.
    pub fn with_ways_out(self, ways_out: Option<PathBuf>) -> Self {
        Local { ways_out, ..self }
    }

    /// What an image's package managers install is for that image.
    pub fn with_packages_for(self, image: Option<String>) -> Self {
        Local { image, ..self }
    }

    /// Talks to the hand on a thread of its own. A shim that is gone is started again once on what it left.
    async fn ask<T: Send + 'static>(
        &self,
        hand: &HandRef,
        ask: impl Fn(&mut client::Client, u64) -> Result<T, client::Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (hands, known) = (self.hands.clone(), self.hands.reference(&hand.hand, hand.epoch));
        let asked = spawn_blocking(move || {
            match client::Client::connect(&known.socket).and_then(|mut client| ask(&mut client, known.epoch)) {
                Err(client::Error::Gone(_) | client::Error::Broken(_)) => {
                    let revived = hands.revive(&known.hand_id).map_err(Error::Revive)?;
                    let mut client = client::Client::connect(&revived.socket)?;
                    Ok(ask(&mut client, known.epoch)?)
                }
                other => Ok(other?),
            }
        });
        asked.await.unwrap_or(Err(Error::Panicked))
    }

    /// The recipe, and what of it cannot be had.
    async fn spec(
        &self,
        input: &ProvisionInput,
        staging: &std::path::Path,
    ) -> Result<(Spec, Option<ErrorBody>), Failure> {
        let mut spec = self.hands.spec(&input.hand);
        let (host, session_id) = (self.host.clone(), input.session_id.clone());
        spec.owner = Some(Owner { name: input.name.to_string(), ..Owner::new(host, session_id) });
        spec.stop = fault::armed().and_then(stop);
        for resource in &input.resources {
            self.stage(&mut spec, resource, staging).await?;
        }
        if let Some(workspace) = &input.restore {
            spec.resources.restore = Some(self.restore(workspace, staging).await?);
            // It is in the workspace.
            spec.resources.repo = None;
        }
        let mut problem = None;
        if let Some((egress, packages)) = self.way_out(&input.session_id).await? {
            match packages::shelf(self, input, &egress, &packages).await? {
                Ok(shelf) => spec.shelf = shelf,
                Err(error) => problem = Some(error),
            }
            spec.egress = Some(egress);
        }
        if spec.egress.is_none() && !spec.resources.clones.is_empty() {
            let message = "repositories are cloned through egress, and this service runs without";
            return Err(Failure::permanent(FailureKind::Request, message));
        }
        Ok((spec, problem))
    }

    /// What egress has put there for the session. Without it the sandbox has no network at all.
    async fn way_out(&self, session_id: &str) -> Result<Option<(Egress, Packages)>, Failure> {
        let Some(dir) = self.ways_out.as_ref().map(|ways_out| ways_out.join(session_id)) else { return Ok(None) };
        let internal = |error: &dyn std::error::Error| {
            Failure::transient(FailureKind::Internal, format!("find the way out: {}", hand::error_chain(error)))
        };
        let bytes = match tokio::fs::read(dir.join(CLIENT)).await {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(|error| internal(&error))?,
        };
        let client: Client = serde_json::from_slice(&bytes).map_err(|error| internal(&error))?;
        let Client { variables, repositories, packages, registries } = client;
        let variable = |(manager, url): (Manager, String)| Some((manager.registry_variable()?.to_owned(), url));
        let registries = registries.into_iter().filter_map(variable).collect();
        Ok(Some((Egress { dir, variables, repositories, registries }, packages)))
    }

    /// Puts an archive where the launcher can read it.
    async fn restore(&self, workspace: &Workspace, staging: &std::path::Path) -> Result<Restore, Failure> {
        let archive = staging.join("workspace.tar");
        let fetched = pieces::fetch(&*self.blobs, workspace, &archive).await;
        fetched.map_err(|error| Failure::transient(FailureKind::Internal, hand::error_chain(&error)))?;
        let start = workspace.start.clone();
        let start = start.map(|WorkspaceStart { dir, commit }| Start { dir: dir.into(), commit });
        Ok(Restore { archive, start })
    }

    /// Copies a resource's bytes out of the blobs to where the launcher can read them.
    async fn stage(&self, spec: &mut Spec, resource: &Resource, staging: &std::path::Path) -> Result<(), Failure> {
        let mounted = |root: &str| {
            let inside = resource.mount_path.strip_prefix(root).unwrap_or(&resource.mount_path);
            inside.trim_start_matches('/').to_owned()
        };
        let blob = match &resource.kind {
            ResourceKind::File { blob, .. } | ResourceKind::GitBundle { blob } => blob,
            ResourceKind::GithubRepository { url, checkout, .. } => {
                let checkout = checkout.as_ref().map(|checkout| checkout.name().to_owned());
                spec.resources.clones.push(CloneOf { url: url.clone(), path: mounted(WORKSPACE).into(), checkout });
                return Ok(());
            }
        };
        let internal = |error: &dyn std::error::Error| {
            Failure::transient(FailureKind::Internal, format!("stage {}: {}", resource.id, hand::error_chain(error)))
        };
        let bytes = log::blobs::get(&*self.blobs, blob).await.map_err(|error| internal(&error))?;
        let source = staging.join(&resource.id);
        tokio::fs::write(&source, bytes).await.map_err(|error| internal(&error))?;
        if let ResourceKind::File { .. } = &resource.kind {
            spec.resources.files.push(FileResource { source, path: mounted(UPLOADS).into() });
        } else {
            let name = Some(mounted(WORKSPACE)).filter(|name| !name.is_empty());
            spec.resources.repo = Some(Repo { bundle: source, name });
        }
        Ok(())
    }

    /// Makes the hand of this recipe, or finds it.
    pub(super) async fn make(&self, spec: Spec) -> Result<HandRef, Failure> {
        let hands = self.hands.clone();
        let made = spawn_blocking(move || hands.provision(spec)).await;
        match made.unwrap_or_else(|_| Err(local::Error::Failed("the thread panicked".to_owned()))) {
            Ok(hand) => Ok(HandRef { hand: hand.hand_id, host: self.host.clone(), epoch: hand.epoch }),
            // This machine will not do better next time: the model is told, with what an operator has to do.
            Err(error @ local::Error::Refused(_)) => {
                Err(Failure::permanent(FailureKind::Request, hand::error_chain(&error)))
            }
            Err(error) => Err(Failure::transient(FailureKind::Internal, hand::error_chain(&error))),
        }
    }

    async fn blob(&self, hand: &HandRef, sha256: String) -> Result<domain::content::BlobRef, Failure> {
        let bytes = self
            .ask(hand, move |client, _| {
                let mut bytes = Vec::new();
                client.blob(&sha256, &mut bytes).map(|_| bytes)
            })
            .await
            .map_err(Error::into_failure)?;
        log::blobs::put(&*self.blobs, bytes.into()).await.map_err(|error| Error::Blob(error).into_failure())
    }
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Client(#[from] client::Error),
    #[error("start the hand again")]
    Revive(#[source] local::Error),
    #[error("keep what the hand gave")]
    Blob(#[source] log::blobs::Error),
    #[error(transparent)]
    Pieces(#[from] pieces::Error),
    #[error("talk to the hand: the thread panicked")]
    Panicked,
}

impl Error {
    fn into_failure(self) -> Failure {
        Failure::transient(FailureKind::Internal, hand::error_chain(&self))
    }
}

#[async_trait]
impl Provider for Local {
    async fn provision(&self, input: &ProvisionInput) -> Result<Provisioned, Failure> {
        let internal =
            |error: &dyn std::error::Error| Failure::transient(FailureKind::Internal, hand::error_chain(error));
        let staging =
            tempfile::Builder::new().prefix("steadyhand-staging-").tempdir().map_err(|error| internal(&error))?;
        let (spec, mut problem) = self.spec(input, staging.path()).await?;
        let has_clones = !spec.resources.clones.is_empty();
        let shelf = spec.shelf.clone();
        let hand = match self.make(spec).await {
            // It was removed just before it would have been in use: it is filled again.
            Err(_) if matches!(&shelf, Some(Shelf::Read(name)) if !self.hands.has_shelf(name)) => {
                let again = self.spec(input, staging.path()).await?;
                problem = again.1;
                self.make(again.0).await?
            }
            made => made?,
        };
        let mut problems = Vec::from_iter(problem);
        if has_clones {
            let status = self.ask(&hand, |client, _| client.status()).await.map_err(Error::into_failure)?;
            problems.extend(status.failed_clones.iter().map(repositories::problem));
        }
        Ok(Provisioned { hand, problems })
    }

    async fn execute(&self, hand: &HandRef, call: ToolCall) -> Executed {
        let asked = self
            .ask(hand, move |client, epoch| {
                client.execute(call.id.clone(), &call.name, call.input.clone(), None, epoch)
            })
            .await;
        match asked {
            Ok(settled) => executed(settled),
            Err(Error::Client(client::Error::Refused { code: Refusal::Conflict, message })) => {
                Executed::error(format!("refused: {message}"))
            }
            Err(Error::Client(client::Error::Refused { message, .. })) => {
                Executed::error(format!("the sandbox refused the call: {message}"))
            }
            Err(Error::Revive(error)) => Executed::hand_lost(&hand::error_chain(&error)),
            Err(error) => Executed { lost: true, ..Executed::error(format!("lost: {}", hand::error_chain(&error))) },
        }
    }

    async fn cancel(&self, hand: &HandRef, call_id: &str) {
        let id = call_id.to_owned();
        if let Err(error) = self.ask(hand, move |client, epoch| client.cancel(id.clone(), epoch)).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "call not ended");
        }
    }

    async fn collect(&self, hand: &HandRef) -> Result<Option<Vec<OutputFile>>, Failure> {
        let asked = self.ask(hand, |client, epoch| client.collect(BTreeMap::new(), epoch)).await;
        let collected = match asked {
            Ok(collected) => collected,
            Err(Error::Revive(_)) => return Ok(None),
            Err(error) => return Err(error.into_failure()),
        };
        let mut files = Vec::new();
        for file in collected.files {
            if let Some(sha256) = file.sha256 {
                files.push(OutputFile { path: file.path, blob: self.blob(hand, sha256).await? });
            }
        }
        if let Some(sha256) = collected.diff.and_then(|diff| diff.sha256) {
            files.push(OutputFile { path: OutputFile::DIFF.to_owned(), blob: self.blob(hand, sha256).await? });
        }
        Ok(Some(files))
    }

    async fn park(&self, hand: &HandRef) -> Result<Option<Workspace>, Failure> {
        let packed = match self.ask(hand, |client, epoch| client.snapshot(epoch)).await {
            Ok(packed) => packed,
            Err(Error::Revive(_)) => return Ok(None),
            Err(error) => return Err(error.into_failure()),
        };
        let (mut cutter, pieces) = pieces::cutter();
        let socket = self.hands.reference(&hand.hand, hand.epoch).socket;
        let read = spawn_blocking(move || {
            client::Client::connect(&socket)?.blob(&packed.sha256, &mut cutter)?;
            cutter.finish().map_err(|error| client::Error::Broken(error.into()))
        });
        let listing = pieces::keep(&*self.blobs, pieces).await.map_err(|error| Error::from(error).into_failure())?;
        // Only now is it known that they were all.
        read.await.unwrap_or(Err(client::Error::Unexpected)).map_err(|error| Error::from(error).into_failure())?;
        let start = packed.start.map(|Start { dir, commit }| WorkspaceStart { dir: dir.display().to_string(), commit });
        Ok(Some(Workspace { listing, start }))
    }

    async fn release(&self, hand: &HandRef) -> Result<(), Failure> {
        let (hands, hand_id, epoch) = (self.hands.clone(), hand.hand.clone(), hand.epoch);
        match spawn_blocking(move || hands.release(&hand_id, epoch)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Failure::transient(FailureKind::Internal, hand::error_chain(&error))),
            Err(_) => Err(Error::Panicked.into_failure()),
        }
    }
}

/// Where the shim has to stop itself, as this process was told to.
fn stop(Fault { point, nth }: Fault) -> Option<Stop> {
    let at = match point {
        Point::CallBegun => StopAt::Begun,
        Point::CallEnded => StopAt::Ended,
        Point::CallRecorded => StopAt::Recorded,
        _ => return None,
    };
    Some(Stop { at, nth })
}

fn executed(settled: Settled) -> Executed {
    let lost = settled.state == State::Lost;
    match serde_json::from_str::<ToolResult>(&settled.result) {
        Ok(result) => {
            let content = serde_json::to_value(&result.content)
                .and_then(serde_json::from_value::<Vec<Block>>)
                .expect("a hand's blocks are blocks of the log");
            Executed { content, is_error: result.is_error, lost, hand_lost: false }
        }
        Err(_) => Executed { lost, ..Executed::error("the sandbox gave a result that cannot be read") },
    }
}
