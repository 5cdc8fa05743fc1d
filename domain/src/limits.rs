//! Every limit, with its unit and the reason for the number.

/// Content above this many bytes leaves history for a blob: keeps a history page of 256 events below the
/// 4 MiB of a gRPC message in the usual case.
pub const INLINE_BYTES_MAX: usize = 32 * 1024;

/// A tool input above this many bytes is passed on by reference, as it sits in `SessionState` until it runs.
pub const STATE_INPUT_BYTES_MAX: usize = 4 * 1024;

/// The JSON text of one tool call's input: what a hand's shim reads in one request. Longer ones are not made, and the
/// model is told.
pub const TOOL_INPUT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Events in one POST: the limit the API documents for `initial_events`.
pub const EVENTS_PER_POST_MAX: usize = 50;

/// Uncommitted events of one session: bounds what continue-as-new has to carry.
pub const UNCOMMITTED_EVENTS_MAX: usize = 100;

/// A signal is one history event; below 1 MiB keeps clear of Temporal's 2 MiB payload limit.
pub const SIGNAL_BYTES_MAX: usize = 1024 * 1024;

/// A payload from this size on becomes a claim to a blob: far enough below the 2 MiB that a server takes, and so that
/// the commands of one workflow task stay below the 4 MiB of a gRPC message.
pub const PAYLOAD_BYTES_MAX: usize = 512 * 1024;

/// Signals in one run before it continues as new (Temporal refuses the 10,001st).
pub const SIGNALS_PER_RUN_MAX: u32 = 2_000;

/// Event ids remembered across runs to drop redelivered signals.
pub const SEEN_EVENT_IDS_MAX: usize = 1_000;

/// What a harness may see and keep.
pub const VIEW_BYTES_MAX: usize = 64 * 1024;
pub const MEMO_BYTES_MAX: usize = 8 * 1024;

/// A harness that is data, in bytes: a few times what a Rust one with a JSON parser takes.
pub const HARNESS_MODULE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Linear memory of such a harness: the View, parsed generously, and its stack.
pub const HARNESS_MEMORY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Instructions it may take for one decision: a few for each byte of the largest View, some hundred times over,
/// and still below half a second.
pub const HARNESS_FUEL_MAX: u64 = 40_000_000;
/// Its answer, in bytes: a memo and a suffix fit in several times.
pub const DECISION_BYTES_MAX: usize = 64 * 1024;

/// Summaries without an answer in between after which a turn ends, whatever the harness says.
pub const COMPACTIONS_MAX: u32 = 10;

/// First and last bytes of a text block in a View.
pub const VIEW_TEXT_EDGE_BYTES: usize = 2 * 1024;
/// First bytes of a tool result in a View.
pub const VIEW_RESULT_HEAD_BYTES: usize = 512;

/// A JSON body of the HTTP API, in bytes.
pub const BODY_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Activities of the brain and of hands beat every second; five silent seconds mean a lost worker.
pub const HEARTBEAT_TIMEOUT_MS: u64 = 5_000;

/// Milliseconds that a model request may take in all before the attempt counts as lost.
pub const MODEL_CALL_TIMEOUT_MS: u64 = 15 * 60 * 1_000;

/// A decision that takes longer than this is not coming back (measured: 0.33 ms).
pub const DECIDE_TIMEOUT_MS: u64 = 10_000;

/// Longest tool timeout (600 s) and the 60 s that are added to it.
pub const EXECUTE_TIMEOUT_MS: u64 = (600 + 60) * 1_000;

/// Milliseconds that one call of an MCP server may take: as long as any tool. Its activity has
/// [`EXECUTE_TIMEOUT_MS`], for connecting and reporting too; whoever passes the call on waits a little longer.
pub const MCP_CALL_TIMEOUT_MS: u64 = 600 * 1_000;

/// Milliseconds within which the one host that has a hand has to take a call. Its worker is back sooner after a restart; a
/// call that it does not take twice in a row is lost, and its hand with it.
pub const HOST_WAIT_MS: u64 = 30_000;

/// Asking all of an agent's MCP servers which tools they have, or all those in one hand; each has less.
pub const LIST_TIMEOUT_MS: u64 = 2 * 60 * 1_000;
/// Cloning a repository and copying files into a hand, milliseconds.
pub const PROVISION_TIMEOUT_MS: u64 = 10 * 60 * 1_000;

/// Milliseconds at rest after which a session's hand is parked, unless the operator says otherwise: before its lease ends.
pub const PARK_AFTER_MS: u64 = 10 * 60 * 1_000;

/// Reading a slice of the own log, milliseconds: a run and some frames.
pub const READ_LOG_TIMEOUT_MS: u64 = 2 * 60 * 1_000;

/// Reading one run and writing its segments, milliseconds.
pub const SEAL_TIMEOUT_MS: u64 = 10 * 60 * 1_000;

/// Milliseconds between two heartbeats.
pub const HEARTBEAT_INTERVAL_MS: u64 = 1_000;

/// Milliseconds a native harness may think about one View; a decision takes microseconds.
pub const HARNESS_TIMEOUT_MS: u64 = 2_000;

/// Modules of harnesses that a brain worker keeps compiled.
pub const CACHED_HARNESSES_MAX: usize = 32;

/// Bytes of decoded logs that a brain worker keeps, and the api as many, as the JSON that they were read from: enough
/// for hundreds of sessions whose older runs are sealed, or a few in the middle of a long run.
pub const CACHED_LOG_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Recorded sessions that one activity of a rollout's gate is shown: what a worker that dies in between does again.
pub const GATE_BATCH_SESSIONS: u32 = 16;
/// Recorded sessions in the gate of a rollout.
pub const GATE_SESSIONS_MAX: u32 = 1_000;
/// Milliseconds that such an activity may take: sessions are up to 100,000 events long, and a module decides in tenths of
/// a millisecond.
pub const GATE_TIMEOUT_MS: u64 = 30 * 60 * 1_000;
/// What a rollout remembers of what happened, and of the commands that it got.
pub const ROLLOUT_NOTES_MAX: usize = 50;
/// Stages of a rollout.
pub const ROLLOUT_STAGES_MAX: usize = 20;

/// What-ifs of one trial that are gone through side by side: each holds a log, and may ask a model.
pub const TRIALS_AT_ONCE: usize = 4;
/// What-ifs that a brain worker goes through at a time, of all trials: the others wait, and no session waits for them.
pub const TRIALS_OF_A_WORKER_MAX: usize = 8;
/// Trials of a tenant at a time.
pub const TRIALS_OF_A_TENANT_MAX: usize = 8;
/// Milliseconds that one of them may take: a model may be asked as often as is allowed.
pub const TRIAL_TIMEOUT_MS: u64 = 2 * 60 * 60 * 1_000;
/// Attempts of one of them: each may ask a model anew.
pub const TRIAL_ATTEMPTS_MAX: u32 = 3;
/// How often one of them may really ask a model.
pub const TRIAL_REQUESTS_MAX: u32 = 1_000;
/// Milliseconds for which a model may ask one of them to leave it alone: it holds its place meanwhile.
pub const TRIAL_PAUSE_MS_MAX: u64 = 10 * 60 * 1_000;
/// Bytes of what is expected of its last message.
pub const TRIAL_EXPECT_BYTES_MAX: usize = 4 * 1024;
/// Recorded sessions that shims are tried on with a model: each of them once for every shim.
pub const TRIAL_SESSIONS_MAX: usize = 50;
/// Turns of a what-if that its report tells of one by one.
pub const TRIAL_TURNS_TOLD_MAX: usize = 200;
