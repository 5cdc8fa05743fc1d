//! Every bound of a hand, with its unit and its reason. Never a policy: callers may only ask for less.

use std::time::Duration;

/// A call's time when its input names none.
pub const CALL_TIMEOUT_DEFAULT_MS: u64 = 120_000;
/// The longest any call may run, whatever was asked for.
pub const CALL_TIMEOUT_MAX_MS: u64 = 600_000;
/// Between the signal that ends a call and the proof that its processes are gone; later, the hand is lost.
pub const END_CONFIRM: Duration = Duration::from_secs(10);
/// How long after a call's deadline the shim waits for init to report before it gives the sandbox up.
pub const INIT_GRACE: Duration = Duration::from_secs(20);
/// A hand nobody asks anything of for so long ends itself.
pub const LEASE_DEFAULT_MS: u64 = 30 * 60 * 1000;
/// What one renewal may add at most, so that a wrong number cannot keep a hand for ever.
pub const LEASE_MAX_MS: u64 = 24 * 60 * 60 * 1000;
/// How long a launcher that died may take to be there again.
pub const LAUNCHER_BACK: Duration = Duration::from_secs(10);
/// How long a runtime may take to start a container, and its first process to find the shim.
pub const CONTAINER_WITHIN: Duration = Duration::from_secs(60);
/// How long the keeper may take over a request, but for removing what came of it: with that less than whoever asks waits, so
/// that nothing is started for a launch that has given up.
pub const CONTAINER_START_WITHIN: Duration = Duration::from_secs(40);
/// How long the keeper waits for a container that it does not want to be removed.
pub const CONTAINER_REMOVED_WITHIN: Duration = Duration::from_secs(5);
/// How long a launcher whose service ends may still take to remove what it has begun to: less than the service waits for it.
pub const REMOVALS_WITHIN: Duration = Duration::from_secs(4);
/// How long a hand may take to tell its status before it is listed without.
pub const STATUS_WITHIN: Duration = Duration::from_secs(2);
/// Cloning or restoring a workspace; a stuck git must not hold `provision` for ever.
pub const RECIPE_TIMEOUT: Duration = Duration::from_secs(600);
/// All clones of a recipe together: less than the service waits for a hand, so that what cannot be had is said.
pub const CLONES_TIMEOUT: Duration = Duration::from_secs(400);
/// What is kept of git's words about a clone that failed: their end.
pub const CLONE_SAID_BYTES: usize = 2 * 1024;
/// Listing outputs, making the diff, packing the workspace.
pub const COLLECT_TIMEOUT: Duration = Duration::from_secs(300);

/// What of a command's output goes back to the model: its last part, as that is where errors are.
pub const BASH_OUTPUT_BYTES: usize = 100 * 1024;
/// What of a call's output is kept in all, in the journal and readable inside the sandbox.
pub const SPOOL_BYTES: u64 = 16 * 1024 * 1024;
/// All spools, and all blobs, that a hand keeps; the oldest go first.
pub const KEPT_BYTES: u64 = 1024 * 1024 * 1024;
/// The text of one result on its way to the brain.
pub const RESULT_TEXT_BYTES: usize = 256 * 1024;
/// What `read` and `edit` take of one file.
pub const FILE_TEXT_BYTES: u64 = 256 * 1024;
/// An image as base64, the provider's own limit.
pub const IMAGE_BASE64_BYTES: usize = 5 * 1024 * 1024;
/// A PDF as it lies on disk.
pub const PDF_BYTES: u64 = 20 * 1024 * 1024;
/// Results of one `glob`.
pub const GLOB_RESULTS: usize = 200;
/// Text of one `grep`.
pub const GREP_BYTES: usize = 100 * 1024;
/// Entries a walk looks at before it gives up: a workspace may be as wide as its disk.
pub const WALK_ENTRIES: usize = 1_000_000;
/// Directories below one another that a walk descends.
pub const WALK_DEPTH: usize = 128;

/// An MCP server in a hand introduces itself within this: it may have to be fetched first.
pub const MCP_START_WITHIN: Duration = Duration::from_secs(60);
/// Starting a server and reading its list of tools: less than the service waits for it.
pub const MCP_LIST_TIMEOUT_MS: u64 = 90_000;
/// How long a server that is told to end may take to do it by itself.
pub const MCP_END_GRACE: Duration = Duration::from_secs(1);
/// One message of a server, and all pages of its list. It is text in a result in a reply, and may double each time.
pub const MCP_MESSAGE_BYTES: usize = 7 * 1024 * 1024;
/// What a server may say while somebody waits for an answer and gets none.
pub const MCP_UNANSWERED_BYTES: u64 = 64 * 1024 * 1024;
/// Answers to what a server asks that wait for it to read them; what it asks beyond is not answered.
pub const MCP_ANSWERS_BYTES: usize = 64 * 1024;
/// What is kept of a server's stderr: its end.
pub const MCP_STDERR_BYTES: usize = 4 * 1024;

/// One request line to the shim: the largest `write` with room for JSON's escapes.
pub const REQUEST_BYTES: usize = 16 * 1024 * 1024;
/// A request as init gets it: JSON written anew may be longer than it came, as numbers are spelled out.
pub const CALL_FRAME_BYTES: usize = 8 * REQUEST_BYTES;
/// One reply line of the shim, or one frame of init: a PDF in base64 and its envelope.
pub const REPLY_BYTES: usize = 32 * 1024 * 1024;
/// One piece of a blob in a reply.
pub const BLOB_PIECE_BYTES: usize = 1024 * 1024;
/// Connections to one shim at a time; each waiting call holds one.
pub const CONNECTIONS: usize = 256;
/// Calls of one hand running at a time.
pub const CALLS_RUNNING: usize = 64;

/// One collected file; larger ones are listed without their bytes.
pub const OUTPUT_FILE_BYTES: u64 = 64 * 1024 * 1024;
/// All files of one collection.
pub const OUTPUT_TOTAL_BYTES: u64 = 256 * 1024 * 1024;
/// Files listed in one collection.
pub const OUTPUT_FILES: usize = 1_000;
/// The diff against the starting commit.
pub const DIFF_BYTES: u64 = 16 * 1024 * 1024;
/// A packed workspace.
pub const SNAPSHOT_BYTES: u64 = 4 * 1024 * 1024 * 1024;

/// All shelves of packages together, on disk: beyond it those that were not read for longest are removed.
pub const SHELVES_BYTES_MAX: u64 = 20 * 1024 * 1024 * 1024;
/// Without a hand that is launched with it a shelf is removed after this.
pub const SHELF_IDLE_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A folder without a plan for so long is no hand that is being made: longer than any launch takes.
pub const UNFINISHED_MAX: Duration = Duration::from_secs(30 * 60);

/// Unprivileged host uids that hands get when the service runs as root, one each.
pub const UIDS: std::ops::RangeInclusive<u32> = 61_000..=64_999;
/// The host uid of the hand worker when the service runs as root; no hand has it.
pub const WORKER_UID: u32 = 60_998;
/// The host uid of egress when the service runs as root; no hand has it.
pub const EGRESS_UID: u32 = 60_999;
/// Memory of one sandbox, swap included.
pub const MEMORY_BYTES: u64 = 2 * 1024 * 1024 * 1024;
/// Processes and threads of one sandbox.
pub const PIDS: u64 = 512;
/// Processor time of one sandbox, in hundredths of a core.
pub const CPU_PERCENT: u64 = 200;
/// Workspace, outputs and home of one hand together.
pub const DISK_BYTES: u64 = 10 * 1024 * 1024 * 1024;
/// /tmp and /dev/shm, each.
pub const TMPFS_BYTES: u64 = 64 * 1024 * 1024;
/// /run holds next to nothing.
pub const RUN_TMPFS_BYTES: u64 = 1024 * 1024;
/// Open files of one process.
pub const OPEN_FILES: u64 = 1024;
/// The largest file a sandboxed process may write.
pub const FILE_SIZE_BYTES: u64 = 2 * 1024 * 1024 * 1024;
/// Memory a sandboxed process may lock.
pub const LOCKED_MEMORY_BYTES: u64 = 64 * 1024;
