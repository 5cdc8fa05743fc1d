//! A container runtime and one image of it: what it can do, and the containers of hands.

use crate::body::{self, Dialect, LABEL_DIR, LABEL_HAND};
use bollard::{
    API_DEFAULT_VERSION, Docker,
    errors::Error as ApiError,
    models::{ImageInspect, SystemInfo},
    query_parameters::{
        CreateContainerOptionsBuilder, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
        WaitContainerOptionsBuilder,
    },
};
use futures::StreamExt as _;
use hand::{
    keeper, limits,
    protocol::{Layer, Need},
    sandbox::{contained::Tried, container},
};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};
use tokio::sync::Mutex;
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
    #[error("use a Docker that maps users by itself")]
    Dialect,
    #[error(transparent)]
    Hand(#[from] keeper::Error),
}

/// What there is to know before a container is made.
struct Known {
    runtime: String,
    info: SystemInfo,
    image_id: String,
    has_volumes: bool,
    /// None: one that this is not made for.
    dialect: Option<Dialect>,
}

pub struct Runtime {
    socket: PathBuf,
    image: String,
    /// `steadyhand-hand`, as it is mounted into containers.
    program: PathBuf,
    /// What was tried of an image, for as long as neither it nor the runtime is another.
    tried: Mutex<Option<(String, Result<Tried, String>)>>,
}

impl Runtime {
    pub fn new(socket: impl Into<PathBuf>, image: impl Into<String>, program: impl Into<PathBuf>) -> Self {
        Runtime { socket: socket.into(), image: image.into(), program: program.into(), tried: Mutex::new(None) }
    }

    fn api(&self) -> Result<Docker, Error> {
        let path = self.socket.display().to_string();
        Docker::connect_with_unix(&path, limits::CONTAINER_WITHIN.as_secs(), API_DEFAULT_VERSION)
            .map_err(|error| Error::Connect(self.socket.clone(), error))
    }

    async fn known(&self, api: &Docker) -> Result<Known, Error> {
        let api = api.clone().negotiate_version().await.map_err(Error::Ask)?;
        let version = api.version().await.map_err(Error::Ask)?;
        let info = api.info().await.map_err(Error::Ask)?;
        let image = api.inspect_image(&self.image).await.map_err(|error| Error::Image(self.image.clone(), error))?;
        let names = version.components.iter().flatten().map(|component| component.name.as_str());
        let is_podman = names.into_iter().any(|name| name.starts_with("Podman"));
        let options = info.security_options.iter().flatten();
        let is_rootless = options.into_iter().any(|option| option.contains("rootless"));
        let kind = if is_podman { "Podman" } else { "Docker" };
        let ImageInspect { id, config, .. } = image;
        let volumes = config.and_then(|config| config.volumes).unwrap_or_default();
        Ok(Known {
            runtime: format!("{kind} {}", version.version.unwrap_or_default()),
            info,
            image_id: id.unwrap_or_else(|| self.image.clone()),
            has_volumes: !volumes.is_empty(),
            dialect: match (is_podman, is_rootless) {
                (true, true) => Some(Dialect::RootlessPodman),
                (true, false) => Some(Dialect::Podman),
                (false, false) => Some(Dialect::Docker),
                (false, true) => None,
            },
        })
    }

    /// Which walls containers have here. A container is tried once for each image.
    pub async fn probe(&self) -> Vec<Layer> {
        let known = match self.api() {
            Ok(api) => self.known(&api).await.map(|known| (api, known)),
            Err(error) => Err(error),
        };
        let (api, known) = match known {
            Ok(known) => known,
            Err(error) => return vec![unreachable(&error)],
        };
        let socket = self.socket.display();
        let mut layers = vec![on("container_runtime", format!("{} at {socket}", known.runtime))];
        let Some(dialect) = known.dialect else {
            layers.push(off(
                "container_users",
                "rootless Docker gives every user another number inside",
                "use rootless Podman, or a Docker that is not rootless",
            ));
            return layers;
        };
        if known.has_volumes {
            let why = format!("{} has volumes, which would be written to without a bound", self.image);
            layers.push(off("container_image", why, "use an image without VOLUME"));
            return layers;
        }
        layers.push(on("container_image", self.image.clone()));
        let tried = self.tried(&api, &known, dialect).await;
        layers.extend(of_trial(tried));
        layers.extend(of_limits(&known.info));
        layers
    }

    async fn tried(&self, api: &Docker, known: &Known, dialect: Dialect) -> Result<Tried, String> {
        let of = format!("{} {}", known.runtime, known.image_id);
        let mut tried = self.tried.lock().await;
        if let Some((image, outcome)) = &*tried
            && *image == of
        {
            return outcome.clone();
        }
        let outcome = match self.try_once(api, known, dialect).await {
            Ok(code) => Tried::of(code).ok_or_else(|| format!("steadyhand-hand ended with {code} in this image")),
            Err(error) => Err(hand::error_chain(&error)),
        };
        // What failed may be mended by the time that it is asked again.
        *tried = outcome.is_ok().then(|| (of, outcome.clone()));
        outcome
    }

    async fn try_once(&self, api: &Docker, known: &Known, dialect: Dialect) -> Result<i64, Error> {
        let own = rustix::process::geteuid();
        let uid = if own.is_root() { TRIAL_UID } else { own.as_raw() };
        let name = format!("steadyhand-trial-{}", std::process::id());
        let trial = container::trial(name, uid, &self.program);
        remove(api, &trial.name).await?;
        let mut body = body::of(&trial, &known.image_id, HashMap::new(), dialect);
        if let Some(config) = &mut body.host_config {
            // Its exit code is still asked for.
            config.auto_remove = Some(false);
        }
        create(api, &trial.name, body).await?;
        let code = match api.start_container(&trial.name, None).await {
            Ok(()) => wait(api, &trial.name).await,
            Err(error) => Err(Error::Start(error)),
        };
        remove(api, &trial.name).await?;
        code
    }

    /// Start the container of a hand, as its plan says.
    pub async fn start(&self, hands_dir: &Path, hand_id: &str) -> Result<(), Error> {
        let container = keeper::planned(hands_dir, hand_id, &self.program)?;
        let api = self.api()?;
        let known = self.known(&api).await?;
        // The one before it, where its runtime has not yet seen that it ended.
        remove(&api, &container.name).await?;
        let labels = labels(hands_dir, Some(hand_id));
        let body = body::of(&container, &known.image_id, labels, known.dialect.ok_or(Error::Dialect)?);
        create(&api, &container.name, body).await?;
        match api.start_container(&container.name, None).await {
            Ok(()) => Ok(()),
            Err(error) => {
                // What never ran is not removed by itself.
                remove(&api, &container.name).await?;
                Err(Error::Start(error))
            }
        }
    }

    /// Remove containers of hands in that folder that nobody runs, makes or ends. Gives back their names.
    pub async fn sweep(&self, hands_dir: &Path) -> Result<Vec<String>, Error> {
        let api = self.api()?;
        let label = labels(hands_dir, None).into_iter().map(|(name, value)| format!("{name}={value}"));
        let filters = HashMap::from([("label", label.collect::<Vec<_>>())]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let found = api.list_containers(Some(options)).await.map_err(Error::List)?;
        let mut swept = Vec::new();
        for container in found {
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
}

fn labels(hands_dir: &Path, hand_id: Option<&str>) -> HashMap<String, String> {
    let dir = (LABEL_DIR.to_owned(), hands_dir.display().to_string());
    let hand = hand_id.map(|hand_id| (LABEL_HAND.to_owned(), hand_id.to_owned()));
    [dir].into_iter().chain(hand).collect()
}

async fn create(api: &Docker, name: &str, body: bollard::models::ContainerCreateBody) -> Result<(), Error> {
    let options = CreateContainerOptionsBuilder::default().name(name).build();
    api.create_container(Some(options), body).await.map(drop).map_err(Error::Create)
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

fn unreachable(error: &Error) -> Layer {
    let why = hand::error_chain(error);
    match error {
        Error::Image(image, _) => off("container_image", why, format!("pull or import it: podman pull {image}")),
        _ => off(
            "container_runtime",
            why,
            "install Podman or Docker, have its API listen (systemctl enable --now podman.socket) and name its socket with \
             --container-socket",
        ),
    }
}

fn of_trial(tried: Result<Tried, String>) -> Vec<Layer> {
    let landlock = |on: bool| {
        let (why, fix) = match on {
            true => ("held in a container as well", ""),
            false => (
                "a container of this runtime cannot have it",
                "Linux 6.2 or later with landlock among the kernel's `lsm=`, and a runtime whose profile of system calls lets it through",
            ),
        };
        layer(hand::probe::LANDLOCK, Need::Strict, on, why, fix)
    };
    let wrong = |why: &str, fix: &str| vec![off("container", why, fix)];
    let runs = "no capability, no new privileges, a read-only root, no network";
    match tried {
        Ok(tried @ (Tried::Fine | Tried::WithoutLandlock)) => vec![
            on("container", runs),
            on("namespaces", "mount, pid, net, ipc and uts, by the runtime; none can be made inside"),
            on("seccomp", "put on by the first process inside, beside the runtime's own"),
            landlock(tried == Tried::Fine),
        ],
        Ok(Tried::NoShell) => wrong("the image has no /bin/bash", "use an image with bash and coreutils"),
        Ok(Tried::NoTmp) => wrong("nobody but root may write to the image's /tmp", "an image whose /tmp has mode 1777"),
        Ok(Tried::NoFilter) => {
            wrong("the filter of system calls is refused inside", "a runtime on Linux 4.14 or later")
        }
        Ok(Tried::NotInit) => {
            wrong("the first process inside is another one", "a runtime that adds no init of its own")
        }
        Ok(Tried::Privileged) => wrong(
            "what runs inside has capabilities, or could get some",
            "a runtime that takes them away when it is told to",
        ),
        Err(why) => wrong(
            &why,
            "an image for this processor; one whose libc is as new as this machine's, or the static steadyhand-hand that \
             scripts/build makes; for Podman a runtime that starts here: podman run --network none IMAGE true",
        ),
    }
}

fn of_limits(info: &SystemInfo) -> Vec<Layer> {
    let limits = [("memory", info.memory_limit), ("pids", info.pids_limit), ("cpu", info.cpu_cfs_quota)];
    let layer_of = |(name, can): (&str, Option<bool>)| {
        let on = can == Some(true);
        let (why, fix) = match on {
            true => ("by the runtime", ""),
            false => {
                ("the runtime cannot bound it", "a runtime with cgroups: not rootless, or with cgroup v2 delegated")
            }
        };
        layer(&format!("cgroup_{name}"), Need::Strict, on, why, fix)
    };
    limits.into_iter().map(layer_of).collect()
}

fn on(name: &str, why: impl Into<String>) -> Layer {
    layer(name, Need::Always, true, why, "")
}

fn off(name: &str, why: impl Into<String>, fix: impl Into<String>) -> Layer {
    layer(name, Need::Always, false, why, fix)
}

fn layer(name: &str, need: Need, on: bool, why: impl Into<String>, fix: impl Into<String>) -> Layer {
    Layer { name: name.to_owned(), on, need, why: why.into(), fix: fix.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_off_says_what_to_do() {
        let tried = [
            Ok(Tried::Fine),
            Ok(Tried::WithoutLandlock),
            Ok(Tried::NoShell),
            Ok(Tried::NoFilter),
            Ok(Tried::NotInit),
            Ok(Tried::Privileged),
            Ok(Tried::NoTmp),
            Err("exec format error".to_owned()),
        ];
        for tried in tried {
            let layers = of_trial(tried.clone());
            assert!(layers.iter().all(|layer| layer.on == layer.fix.is_empty()), "{layers:?}");
            let is_required = |layer: &&Layer| !layer.on && layer.need == Need::Always;
            let starts = matches!(tried, Ok(Tried::Fine | Tried::WithoutLandlock));
            assert_eq!(layers.iter().any(|layer| is_required(&layer)), !starts, "{layers:?}");
        }
        let info = SystemInfo { memory_limit: Some(true), pids_limit: Some(false), ..SystemInfo::default() };
        assert_eq!(of_limits(&info).iter().map(|layer| layer.on).collect::<Vec<_>>(), [true, false, false]);
    }

    #[tokio::test]
    async fn a_runtime_that_is_not_there_is_one_missing_layer_with_a_hint() {
        let dir = tempfile::tempdir().unwrap();
        let layers = Runtime::new(dir.path().join("none.sock"), "image", "/program").probe().await;
        assert_eq!(
            layers.iter().map(|layer| (&*layer.name, layer.on)).collect::<Vec<_>>(),
            [("container_runtime", false)]
        );
        assert!(layers[0].fix.contains("--container-socket"), "{layers:?}");
    }
}
