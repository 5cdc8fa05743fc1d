//! What sandboxes are made by, as flags, environment and configuration file say it.

use crate::{
    env_vars,
    error::{Code, failed},
};
use clap::{Args, ValueEnum};
use serde::Deserialize;
use std::path::PathBuf;

/// A way to have sandboxes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum HandProvider {
    /// bubblewrap on this machine, with no daemon
    Local,
    /// A container of Docker or Podman for each sandbox
    Container,
}

#[derive(Clone, Debug, Default, Args)]
pub struct ProviderArgs {
    /// What sandboxes are [default: local]
    #[arg(long, env = env_vars::HAND_PROVIDER, value_name = "PROVIDER")]
    pub hand_provider: Option<HandProvider>,
    /// The image of containers: it needs bash, and whatever else agents are to find
    #[arg(long, env = env_vars::CONTAINER_IMAGE, value_name = "IMAGE")]
    pub container_image: Option<String>,
    /// The API's socket of the container runtime [default: that of Podman or Docker, whichever is there]
    #[arg(long, env = env_vars::CONTAINER_SOCKET, value_name = "PATH")]
    pub container_socket: Option<PathBuf>,
}

/// A runtime, and an image of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Containers {
    pub image: String,
    pub socket: PathBuf,
}

impl ProviderArgs {
    /// None: sandboxes are local.
    pub fn containers(self) -> anyhow::Result<Option<Containers>> {
        let ProviderArgs { hand_provider, container_image, container_socket } = self;
        let image = container_image.filter(|image| !image.is_empty());
        match (hand_provider, image) {
            (Some(HandProvider::Container), Some(image)) => {
                Ok(Some(Containers { image, socket: container_socket.unwrap_or_else(usual_socket) }))
            }
            (Some(HandProvider::Container), None) => {
                let hint = "--container-image IMAGE: one that the runtime has, with bash and what agents are to find";
                Err(failed(Code::Usage, "--hand-provider container needs an image", hint))
            }
            (_, Some(_)) => {
                let hint = "add --hand-provider container, or leave the image out";
                Err(failed(Code::Usage, "--container-image is of no use to local sandboxes", hint))
            }
            (_, None) => Ok(None),
        }
    }
}

/// The first that is there; Podman's where none is, so that it can be named.
fn usual_socket() -> PathBuf {
    let own = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let own = own.filter(|_| !rustix::process::geteuid().is_root());
    let dirs = own.into_iter().chain(["/run".into(), "/var/run".into()]);
    let sockets: Vec<_> =
        dirs.flat_map(|dir: PathBuf| ["podman/podman.sock", "docker.sock"].map(|name| dir.join(name))).collect();
    sockets.iter().find(|socket| socket.exists()).unwrap_or(&sockets[0]).clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(hand_provider: Option<HandProvider>, image: Option<&str>) -> anyhow::Result<Option<Containers>> {
        let container_image = image.map(str::to_owned);
        ProviderArgs { hand_provider, container_image, container_socket: Some("/s".into()) }.containers()
    }

    #[test]
    fn containers_have_an_image_and_nothing_else_has() {
        let containers = said(Some(HandProvider::Container), Some("debian")).unwrap().unwrap();
        assert_eq!(containers, Containers { image: "debian".into(), socket: "/s".into() });
        for (provider, image) in
            [(Some(HandProvider::Container), None), (Some(HandProvider::Container), Some("")), (None, Some("debian"))]
        {
            assert!(said(provider, image).is_err(), "{provider:?} {image:?}");
        }
        for provider in [None, Some(HandProvider::Local)] {
            assert_eq!(said(provider, None).unwrap(), None);
        }
    }
}
