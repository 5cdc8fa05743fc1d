//! What a runtime is asked for: a container with nothing but what its hand's plan says. Pure.

use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig, Mount, MountType,
};
use hand::{
    limits::CPU_PERCENT,
    sandbox::container::{self, Container},
};
use std::collections::HashMap;

/// The folder of hands that a container belongs to, and the hand.
pub const LABEL_DIR: &str = "dev.steadyhand.hands-dir";
pub const LABEL_HAND: &str = "dev.steadyhand.hand";
/// One that only tries an image; of no hand.
pub const LABEL_TRIAL: &str = "dev.steadyhand.trial";

const CPU_PERIOD_US: u64 = 100_000;

/// What Docker hides of /proc and /sys by itself, and the rest of /sys: it tells of the host, and nothing inside needs it.
const HIDDEN: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys",
];

/// How a runtime wants to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    Docker,
    Podman,
    /// Maps users, and is to leave that of the hand as it is.
    RootlessPodman,
}

pub fn of(wanted: &Container, image: &str, labels: HashMap<String, String>, dialect: Dialect) -> ContainerCreateBody {
    let Container { uid, mounts, tmpfs, shm_bytes, limits, arguments, .. } = wanted;
    // Not the image's own first process, whatever that is.
    let program = container::PROGRAM.to_owned();
    let host_config = HostConfig {
        mounts: Some(mounts.iter().map(mount).collect()),
        tmpfs: Some(tmpfs.iter().map(|(path, bytes)| ((*path).to_owned(), in_memory(*bytes, dialect))).collect()),
        shm_size: Some(signed(*shm_bytes)),
        memory: Some(signed(limits.memory_bytes)),
        // Swap included.
        memory_swap: Some(signed(limits.memory_bytes)),
        pids_limit: Some(signed(limits.pids)),
        cpu_period: Some(signed(CPU_PERIOD_US)),
        cpu_quota: Some(signed(limits.cpu_percent.min(CPU_PERCENT) * CPU_PERIOD_US / 100)),
        network_mode: Some("none".to_owned()),
        ipc_mode: Some("private".to_owned()),
        cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
        userns_mode: (dialect == Dialect::RootlessPodman).then(|| "keep-id".to_owned()),
        privileged: Some(false),
        cap_drop: Some(vec!["ALL".to_owned()]),
        security_opt: Some(security(dialect)),
        masked_paths: (dialect == Dialect::Docker).then(|| HIDDEN.iter().map(ToString::to_string).collect()),
        readonly_rootfs: Some(true),
        init: Some(false),
        // It ends with its shim, and what it leaves is in the hand's folder.
        auto_remove: Some(true),
        log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
        ..HostConfig::default()
    };
    ContainerCreateBody {
        image: Some(image.to_owned()),
        hostname: Some("hand".to_owned()),
        user: Some(format!("{uid}:{uid}")),
        entrypoint: Some(vec![program]),
        cmd: Some(arguments.clone()),
        working_dir: Some("/".to_owned()),
        healthcheck: Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() }),
        labels: Some(labels),
        host_config: Some(host_config),
        ..ContainerCreateBody::default()
    }
}

fn security(dialect: Dialect) -> Vec<String> {
    let no_new = "no-new-privileges".to_owned();
    match dialect {
        Dialect::Docker => vec![no_new],
        // It knows the list of hidden paths as an option of its own.
        Dialect::Podman | Dialect::RootlessPodman => vec![no_new, format!("mask={}", HIDDEN.join(":"))],
    }
}

fn mount(mount: &container::Mount) -> Mount {
    Mount {
        typ: Some(MountType::BIND),
        source: Some(mount.from.display().to_string()),
        target: Some(mount.to.to_owned()),
        read_only: Some(mount.is_read_only),
        ..Mount::default()
    }
}

/// What the image has there gives its mode, whatever is asked for.
fn in_memory(bytes: u64, dialect: Dialect) -> String {
    // Podman would copy the files too.
    let empty = if dialect == Dialect::Docker { "" } else { ",notmpcopyup" };
    format!("rw,exec,nosuid,nodev,size={bytes},mode=1777{empty}")
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hand::spec::Limits;

    fn body(dialect: Dialect) -> HostConfig {
        let container = Container {
            name: "steadyhand-h".to_owned(),
            uid: 61_000,
            mounts: vec![container::Mount { from: "/hands/h/workspace".into(), to: "/workspace", is_read_only: false }],
            tmpfs: vec![("/tmp", 64)],
            shm_bytes: 64,
            limits: Limits { memory_bytes: 5, pids: 6, cpu_percent: 150, disk_bytes: 7 },
            arguments: vec!["contained".to_owned(), "A=b".to_owned()],
        };
        let body = of(&container, "sha256:1", HashMap::new(), dialect);
        assert_eq!(body.user.as_deref(), Some("61000:61000"));
        assert_eq!(body.env, None, "what is in a container's environment its first process is told by arguments");
        body.host_config.unwrap()
    }

    #[test]
    fn it_has_no_right_and_no_network() {
        let config = body(Dialect::Docker);
        assert_eq!((config.privileged, config.readonly_rootfs), (Some(false), Some(true)));
        assert_eq!(config.cap_drop, Some(vec!["ALL".to_owned()]));
        assert_eq!((config.cap_add, config.devices, config.binds), (None, None, None));
        assert_eq!((config.network_mode.as_deref(), config.userns_mode), (Some("none"), None));
        assert_eq!(body(Dialect::RootlessPodman).userns_mode.as_deref(), Some("keep-id"));
    }

    #[test]
    fn the_hosts_hardware_is_hidden_in_each_dialect() {
        assert!(body(Dialect::Docker).masked_paths.unwrap().contains(&"/sys".to_owned()));
        for dialect in [Dialect::Podman, Dialect::RootlessPodman] {
            let options = body(dialect).security_opt.unwrap();
            assert!(
                options.iter().any(|option| option.starts_with("mask=") && option.ends_with(":/sys")),
                "{options:?}"
            );
        }
    }

    #[test]
    fn its_limits_are_those_of_the_plan() {
        let config = body(Dialect::Docker);
        assert_eq!((config.memory, config.memory_swap, config.pids_limit), (Some(5), Some(5), Some(6)));
        assert_eq!((config.cpu_quota, config.cpu_period), (Some(150_000), Some(100_000)));
        assert_eq!(config.tmpfs.unwrap()["/tmp"], "rw,exec,nosuid,nodev,size=64,mode=1777");
    }
}
