//! What hands of these tests are made by: containers of a Podman of the test's own, and a keeper in the test's process.

use crate::podman::{IMAGE, Podman};
use containers::{Keeper, Options};
use hand::spec::Walls;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

pub struct Made {
    pub podman: Podman,
    socket: PathBuf,
    /// As containers are labelled.
    hands_dir: PathBuf,
    /// The keeper runs on it.
    _runtime: tokio::runtime::Runtime,
}

impl Made {
    pub fn new(hands_dir: &Path) -> Self {
        // One that was told to be skipped has nothing to show.
        let Some(podman) = Podman::start() else { std::process::exit(0) };
        Self::with_image(hands_dir, podman, IMAGE)
    }

    pub fn with_image(hands_dir: &Path, podman: Podman, image: &str) -> Self {
        std::fs::create_dir_all(hands_dir).unwrap();
        std::fs::set_permissions(hands_dir, std::fs::Permissions::from_mode(0o711)).unwrap();
        let socket = hands_dir.join(".keeper");
        let options = Options {
            socket: socket.clone(),
            hands_dir: hands_dir.to_owned(),
            runtime_socket: podman.socket(),
            image: image.to_owned(),
            program: program(),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let keeper = runtime.block_on(async { Keeper::open(options).unwrap() });
        runtime.spawn(keeper.run());
        Self { podman, socket, hands_dir: hands_dir.canonicalize().unwrap(), _runtime: runtime }
    }

    /// Of the one container.
    pub fn first_process(&self, _shim: u32) -> u32 {
        let [name] = &self.containers()[..] else { panic!("{:?}", self.containers()) };
        self.podman.said(&["inspect", "--format", "{{.State.Pid}}", name]).trim().parse().unwrap()
    }

    pub fn containers(&self) -> Vec<String> {
        self.podman.containers(&self.hands_dir)
    }

    pub fn walls(&self) -> Walls {
        Walls::Container { keeper: self.socket.clone() }
    }
}

/// Built beside these tests' own binary.
pub fn program() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let program = own.ancestors().nth(2).unwrap().join("steadyhand-hand");
    assert!(program.is_file(), "build it first: cargo build -p steadyhand-hand");
    program
}
