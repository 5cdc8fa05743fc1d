//! Every environment variable that is read, and nowhere else.

/// An API key: for `serve` an admin key that is accepted beside those in the catalog; for every other command
/// the key that is sent.
pub const API_KEY: &str = "STEADYHAND_API_KEY";
/// The model provider's key.
pub const MODEL_KEY: &str = "STEADYHAND_MODEL_KEY";
/// Used when `STEADYHAND_MODEL_KEY` is not set.
pub const ANTHROPIC_API_KEY: &str = "ANTHROPIC_API_KEY";
/// Base URL of a running service, for commands that talk to one.
pub const URL: &str = "STEADYHAND_URL";
pub const CONFIG: &str = "STEADYHAND_CONFIG";
pub const DATA: &str = "STEADYHAND_DATA";
pub const LISTEN: &str = "STEADYHAND_LISTEN";
pub const ENGINE_LISTEN: &str = "STEADYHAND_ENGINE_LISTEN";
pub const ENGINE_TLS_CERT: &str = "STEADYHAND_ENGINE_TLS_CERT";
pub const ENGINE_TLS_KEY: &str = "STEADYHAND_ENGINE_TLS_KEY";
pub const ENGINE_TLS_CLIENT_CA: &str = "STEADYHAND_ENGINE_TLS_CLIENT_CA";
pub const ENGINE_KEYS: &str = "STEADYHAND_ENGINE_KEYS";
pub const ENGINE_PLAINTEXT: &str = "STEADYHAND_ENGINE_PLAINTEXT";
pub const ROLE: &str = "STEADYHAND_ROLE";
pub const TEMPORAL: &str = "STEADYHAND_TEMPORAL";
pub const NAMESPACE: &str = "STEADYHAND_NAMESPACE";
pub const MODEL_URL: &str = "STEADYHAND_MODEL_URL";
pub const MODEL_API: &str = "STEADYHAND_MODEL_API";
pub const MODEL_SCRIPT: &str = "STEADYHAND_MODEL_SCRIPT";
pub const JUDGE_MODEL: &str = "STEADYHAND_JUDGE_MODEL";
pub const HANDS_DIR: &str = "STEADYHAND_HANDS_DIR";
/// Addresses that are not public, for sandboxes whose environment names them.
pub const PRIVATE_ADDRESSES: &str = "STEADYHAND_PRIVATE_ADDRESSES";
/// Where package managers of sandboxes find what they install.
pub const PACKAGE_REGISTRIES: &str = "STEADYHAND_PACKAGE_REGISTRIES";
pub const HANDS: &str = "STEADYHAND_HANDS";
/// What to do where a layer of a sandbox is missing.
pub const HANDS_MODE: &str = "STEADYHAND_HANDS_MODE";
/// What sandboxes are made by; and of containers the image and the runtime's socket.
pub const HAND_PROVIDER: &str = "STEADYHAND_HAND_PROVIDER";
pub const CONTAINER_IMAGE: &str = "STEADYHAND_CONTAINER_IMAGE";
pub const CONTAINER_SOCKET: &str = "STEADYHAND_CONTAINER_SOCKET";
/// Users that a service that is root gives to its children.
pub const WORKER_UID: &str = "STEADYHAND_WORKER_UID";
pub const EGRESS_UID: &str = "STEADYHAND_EGRESS_UID";
/// The vault's master key, where it comes from the environment; and one of before.
pub const VAULT_KEY: &str = "STEADYHAND_VAULT_KEY";
pub const VAULT_OLD_KEY: &str = "STEADYHAND_VAULT_OLD_KEY";
pub const VAULT_KEY_FILE: &str = "STEADYHAND_VAULT_KEY_FILE";
pub const VAULT_KEY_COMMAND: &str = "STEADYHAND_VAULT_KEY_COMMAND";
pub const VAULT_OLD_KEY_FILE: &str = "STEADYHAND_VAULT_OLD_KEY_FILE";
pub const CREATES_PER_MINUTE: &str = "STEADYHAND_CREATES_PER_MINUTE";
pub const READS_PER_MINUTE: &str = "STEADYHAND_READS_PER_MINUTE";
pub const PARK_AFTER: &str = "STEADYHAND_PARK_AFTER";
pub const JOURNAL_MIB: &str = "STEADYHAND_JOURNAL_MIB";
pub const DECISIONS_PER_RUN: &str = "STEADYHAND_DECISIONS_PER_RUN";
/// For tests: `POINT[:N]` stops the process (SIGSTOP) at the n-th passage of a point of `domain::fault`, so that
/// whoever started it can kill it, or another process, right there. Children do not inherit it.
pub const FAULT: &str = "STEADYHAND_FAULT";
/// A token for the repository that `run --repo URL` names.
pub const REPO_TOKEN: &str = "STEADYHAND_REPO_TOKEN";
/// `tracing` filter, as in `info,steadyhand=debug`.
pub const LOG: &str = "STEADYHAND_LOG";
/// Where spans are sent: the base URL of an OTLP/HTTP receiver.
pub const OTLP_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
