//! A container runtime and one image of it: what it can do, and the containers of hands.
//!
//! A runtime may hang, be late, or be another one than a moment ago. So nothing waits for it without a bound, what was
//! created is spoken of by the id that it got, and a container is only started of an image that was tried.

use crate::{
    body::{self, Dialect, LABEL_DIR, LABEL_HAND, LABEL_TRIAL},
    layers::{self, Unfit},
};
use bollard::{
    API_DEFAULT_VERSION, Docker,
    errors::Error as ApiError,
    models::{ContainerCreateBody, ContainerCreateResponse, ContainerSummary, ImageInspect, SystemInfo},
    query_parameters::{
        CreateContainerOptionsBuilder, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
        WaitContainerOptionsBuilder,
    },
};
use futures::StreamExt as _;
use hand::{
    keeper::{self, Planned},
    limits,
    protocol::Layer,
    sandbox::{contained::Tried, container},
    spec::Mode,
};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::{Duration, SystemTime},
};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout, timeout_at},
};
use tracing::{info, warn};

/// Who tries an image where the service is root: a user that nobody is.
const TRIAL_UID: u32 = 65_532;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("reach the container runtime at {0}")]
    Connect(PathBuf, #[source] ApiError),
    #[error("ask the container runtime what it can do")]
    Ask(#[source] ApiError),
    #[error("find the image {0}")]
    Image(String, #[source] ApiError),
    #[error("create the container")]
    Create(#[source] ApiError),
    #[error("start the container")]
    Start(#[source] ApiError),
    #[error("wait for the container")]
    Wait(#[source] ApiError),
    #[error("remove the container")]
    Remove(#[source] ApiError),
    #[error("list the containers")]
    List(#[source] ApiError),
    #[error("have an answer of the container runtime in time")]
    Late,
    #[error("use this container runtime: {0}")]
    Unfit(&'static str),
    #[error("use an image with volumes")]
    Volumes,
    #[error("use an image that was tried and will not do: {0}")]
    Trial(String),
    #[error("have every limit: {0}")]
    Limits(String),
    #[error(transparent)]
    Hand(#[from] keeper::Error),
}

/// What there is to know before a container is made.
struct Known {
    runtime: String,
    info: SystemInfo,
    image_id: String,
    has_volumes: bool,
    dialect: Result<Dialect, Unfit>,
}

/// What came of trying an image.
#[derive(Clone, Debug)]
struct Trial {
    found: Tried,
    /// What the runtime had to say about what it was asked for.
    warnings: Vec<String>,
}

pub struct Runtime {
    socket: PathBuf,
    image: String,
    /// `steadyhand-hand`, as it is mounted into containers.
    program: PathBuf,
    /// How long a request may take, but for removing what it leaves.
    within: Duration,
    /// What was tried of an image, for as long as neither it nor the runtime is another.
    tried: Mutex<Option<(String, Trial)>>,
    /// Of hands that are being started, whose turn it is: one after the other, in the order that they were asked for.
    turns: std::sync::Mutex<HashMap<String, Weak<Mutex<()>>>>,
}

impl Runtime {
    pub fn new(socket: impl Into<PathBuf>, image: impl Into<String>, program: impl Into<PathBuf>) -> Self {
        Runtime {
            socket: socket.into(),
            image: image.into(),
            program: program.into(),
            within: limits::CONTAINER_START_WITHIN,
            tried: Mutex::default(),
            turns: std::sync::Mutex::default(),
        }
    }

    fn api(&self) -> Result<Docker, Error> {
        let path = self.socket.display().to_string();
        Docker::connect_with_unix(&path, limits::CONTAINER_WITHIN.as_secs(), API_DEFAULT_VERSION)
            .map_err(|error| Error::Connect(self.socket.clone(), error))
    }

    async fn known(&self, api: &Docker, deadline: Instant) -> Result<Known, Error> {
        timeout_at(deadline, self.asked(api)).await.unwrap_or(Err(Error::Late))
    }

    async fn asked(&self, api: &Docker) -> Result<Known, Error> {
        let api = api.clone().negotiate_version().await.map_err(Error::Ask)?;
        let version = api.version().await.map_err(Error::Ask)?;
        let info = api.info().await.map_err(Error::Ask)?;
        let image = api.inspect_image(&self.image).await.map_err(|error| Error::Image(self.image.clone(), error))?;
        let names = version.components.iter().flatten().map(|component| component.name.as_str());
        let is_podman = names.into_iter().any(|name| name.starts_with("Podman"));
        let kind = if is_podman { "Podman" } else { "Docker" };
        let ImageInspect { id, config, .. } = image;
        let volumes = config.and_then(|config| config.volumes).unwrap_or_default();
        Ok(Known {
            runtime: format!("{kind} {}", version.version.unwrap_or_default()),
            dialect: layers::dialect(is_podman, &info, rustix::process::geteuid().is_root()),
            info,
            image_id: id.unwrap_or_else(|| self.image.clone()),
            has_volumes: !volumes.is_empty(),
        })
    }

    /// Which walls containers have here. A container is tried once for each image.
    pub async fn probe(&self) -> Vec<Layer> {
        let deadline = Instant::now() + self.within;
        let known = match self.api() {
            Ok(api) => self.known(&api, deadline).await.map(|known| (api, known)),
            Err(error) => Err(error),
        };
        let (api, known) = match known {
            Ok(known) => known,
            Err(error) => return vec![layers::unreachable(&error)],
        };
        let mut found = vec![layers::of_runtime(&known.runtime, &self.socket)];
        let dialect = match known.dialect {
            Ok(dialect) => dialect,
            Err(unfit) => {
                found.push(layers::unfit(unfit));
                return found;
            }
        };
        found.push(layers::of_image(&self.image, known.has_volumes));
        if known.has_volumes {
            return found;
        }
        let tried = self.tried(&api, &known, dialect, deadline).await;
        let of_trial = tried.as_ref().map(|trial| trial.found).map_err(String::as_str);
        found.extend(layers::of_trial(of_trial));
        let warnings = tried.as_ref().map_or(&[][..], |trial| &trial.warnings);
        found.extend(layers::of_limits(&known.info, dialect, warnings));
        found
    }

    async fn tried(&self, api: &Docker, known: &Known, dialect: Dialect, deadline: Instant) -> Result<Trial, String> {
        let of = format!("{} {}", known.runtime, known.image_id);
        let late = |_| hand::error_chain(&Error::Late);
        let mut tried = timeout_at(deadline, self.tried.lock()).await.map_err(late)?;
        if let Some((image, trial)) = &*tried
            && *image == of
        {
            return Ok(trial.clone());
        }
        // What fails may be mended by the time that it is asked again.
        *tried = None;
        let (code, warnings) =
            self.try_once(api, known, dialect, deadline).await.map_err(|error| hand::error_chain(&error))?;
        let found = Tried::of(code).ok_or_else(|| format!("steadyhand-hand ended with {code} in this image"))?;
        let trial = Trial { found, warnings };
        *tried = Some((of, trial.clone()));
        Ok(trial)
    }

    async fn try_once(
        &self,
        api: &Docker,
        known: &Known,
        dialect: Dialect,
        deadline: Instant,
    ) -> Result<(i64, Vec<String>), Error> {
        let own = rustix::process::geteuid();
        let uid = if own.is_root() { TRIAL_UID } else { own.as_raw() };
        let trial = container::trial(format!("steadyhand-trial-{}", uuid::Uuid::now_v7()), uid, &self.program);
        let labels = HashMap::from([(LABEL_TRIAL.to_owned(), String::new())]);
        let mut body = body::of(&trial, &known.image_id, labels, dialect);
        if let Some(config) = &mut body.host_config {
            // Its exit code is still asked for.
            config.auto_remove = Some(false);
        }
        let mut id = None;
        let tried = async {
            let made = create(api, &trial.name, body).await?;
            let id = id.insert(made.id);
            api.start_container(id, None).await.map_err(Error::Start)?;
            Ok((wait(api, id).await?, made.warnings))
        };
        let outcome = timeout_at(deadline, tried).await.unwrap_or(Err(Error::Late));
        if let Some(id) = id {
            remove_left(api, &id).await;
        }
        outcome
    }

    /// Start the container of a hand, as its plan says. Whoever asks waits longer than this takes, so what a launch that gave up
    /// has asked for is over before the next one is begun.
    pub async fn start(&self, hands_dir: &Path, hand_id: &str) -> Result<(), Error> {
        let deadline = Instant::now() + self.within;
        let turn = self.turn(hand_id);
        let _turn = timeout_at(deadline, turn.lock()).await.map_err(|_| Error::Late)?;
        let planned = keeper::planned(hands_dir, hand_id, &self.program)?;
        let api = self.api()?;
        let known = self.known(&api, deadline).await?;
        let dialect = known.dialect.map_err(|unfit| Error::Unfit(unfit.why))?;
        if known.has_volumes {
            return Err(Error::Volumes);
        }
        match self.tried(&api, &known, dialect, deadline).await {
            Ok(Trial { found: Tried::Fine | Tried::WithoutLandlock, .. }) => {}
            Ok(trial) => return Err(Error::Trial(format!("{:?}", trial.found))),
            Err(why) => return Err(Error::Trial(why)),
        }
        let body = body::of(&planned.container, &known.image_id, labels(hands_dir, Some(hand_id)), dialect);
        let mut id = None;
        let started = timeout_at(deadline, start_planned(&api, &planned, body, &mut id)).await;
        let started = started.unwrap_or(Err(Error::Late));
        if started.is_err()
            && let Some(id) = id
        {
            // What never ran is not removed by itself, and what is started too late must not run.
            remove_left(&api, &id).await;
        }
        started
    }

    fn turn(&self, hand_id: &str) -> Arc<Mutex<()>> {
        let mut turns = self.turns.lock().expect("no holder panics");
        turns.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = turns.get(hand_id).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::default();
        turns.insert(hand_id.to_owned(), Arc::downgrade(&turn));
        turn
    }

    /// Remove containers of hands in that folder that nobody runs, makes or ends. Gives back their names.
    pub async fn sweep(&self, hands_dir: &Path) -> Result<Vec<String>, Error> {
        let api = self.api()?;
        let labels = labels(hands_dir, None).into_iter().map(|(name, value)| format!("{name}={value}"));
        let mut swept = Vec::new();
        for container in list(&api, labels.collect()).await? {
            let hand_id = container.labels.and_then(|mut labels| labels.remove(LABEL_HAND)).unwrap_or_default();
            let Some(id) = container.id.filter(|_| !keeper::is_needed(hands_dir, &hand_id)) else { continue };
            match remove(&api, &id).await {
                Ok(()) => {
                    info!(hand_id, "container that no hand has removed");
                    swept.push(hand_id);
                }
                Err(error) => warn!(hand_id, error = &error as &dyn std::error::Error, "container not removed"),
            }
        }
        Ok(swept)
    }

    /// Remove trials that whoever tried did not live to remove: any that is older than one may be. Gives back how many.
    pub async fn sweep_trials(&self) -> Result<usize, Error> {
        let api = self.api()?;
        let now = SystemTime::UNIX_EPOCH.elapsed().map_or(i64::MAX, |since| since.as_secs().cast_signed());
        let oldest = now.saturating_sub(limits::CONTAINER_WITHIN.as_secs().cast_signed());
        let mut swept = 0;
        for container in list(&api, vec![LABEL_TRIAL.to_owned()]).await? {
            let is_left = container.created.is_some_and(|created| created < oldest);
            let Some(id) = container.id.filter(|_| is_left) else { continue };
            match remove(&api, &id).await {
                Ok(()) => swept += 1,
                Err(error) => warn!(error = &error as &dyn std::error::Error, "trial of an image not removed"),
            }
        }
        Ok(swept)
    }
}

/// Puts into `id` what was created, as soon as it is known.
async fn start_planned(
    api: &Docker,
    planned: &Planned,
    body: ContainerCreateBody,
    id: &mut Option<String>,
) -> Result<(), Error> {
    let name = &planned.container.name;
    // The one before it, where its runtime has not yet seen that it ended.
    remove(api, name).await?;
    let made = create(api, name, body).await?;
    let id = id.insert(made.id);
    if !made.warnings.is_empty() {
        let warnings = made.warnings.join("; ");
        if planned.mode == Mode::Strict {
            return Err(Error::Limits(warnings));
        }
        warn!(container = name, warnings, "container made with warnings");
    }
    api.start_container(id, None).await.map_err(Error::Start)
}

fn labels(hands_dir: &Path, hand_id: Option<&str>) -> HashMap<String, String> {
    let dir = (LABEL_DIR.to_owned(), hands_dir.display().to_string());
    let hand = hand_id.map(|hand_id| (LABEL_HAND.to_owned(), hand_id.to_owned()));
    [dir].into_iter().chain(hand).collect()
}

async fn list(api: &Docker, labels: Vec<String>) -> Result<Vec<ContainerSummary>, Error> {
    let filters = HashMap::from([("label", labels)]);
    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    api.list_containers(Some(options)).await.map_err(Error::List)
}

async fn create(api: &Docker, name: &str, body: ContainerCreateBody) -> Result<ContainerCreateResponse, Error> {
    let options = CreateContainerOptionsBuilder::default().name(name).build();
    api.create_container(Some(options), body).await.map_err(Error::Create)
}

/// What cannot be removed now is swept later, by its label.
async fn remove_left(api: &Docker, id: &str) {
    let removed = timeout(limits::CONTAINER_REMOVED_WITHIN, remove(api, id)).await.unwrap_or(Err(Error::Late));
    if let Err(error) = removed {
        warn!(container = id, error = &error as &dyn std::error::Error, "container not removed");
    }
}

/// One that is not there is as good.
async fn remove(api: &Docker, name: &str) -> Result<(), Error> {
    let options = RemoveContainerOptionsBuilder::default().force(true).build();
    match api.remove_container(name, Some(options)).await {
        Err(ApiError::DockerResponseServerError { status_code: 404, .. }) | Ok(()) => Ok(()),
        Err(error) => Err(Error::Remove(error)),
    }
}

async fn wait(api: &Docker, name: &str) -> Result<i64, Error> {
    let options = WaitContainerOptionsBuilder::default().condition("not-running").build();
    let mut ended = std::pin::pin!(api.wait_container(name, Some(options)));
    match ended.next().await {
        Some(Ok(ended)) => Ok(ended.status_code),
        Some(Err(ApiError::DockerContainerWaitError { code, .. })) => Ok(code),
        Some(Err(error)) => Err(Error::Wait(error)),
        None => Err(Error::Wait(ApiError::RequestTimeoutError)),
    }
}

#[cfg(test)]
mod tests;
