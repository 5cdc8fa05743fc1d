//! Lists of runs, newest first.

use super::{Error, Host};
use crate::pb::workflow::v1::WorkflowExecutionInfo;
use crate::store::keys;
use crate::store::{Range, Space};
use prost::Message;

/// Entries read from the store at a time.
const CHUNK: usize = 512;

/// A part of a list.
pub struct ListPage {
    pub runs: Vec<WorkflowExecutionInfo>,
    /// Where the next page goes on; empty at the end.
    pub next: Vec<u8>,
}

impl Host {
    /// Runs of `namespace` that `keep` accepts, at most `limit`, from where `after` says (empty: the newest).
    pub fn list(
        &self,
        namespace: &str,
        keep: impl Fn(&WorkflowExecutionInfo) -> bool,
        after: &[u8],
        limit: usize,
    ) -> Result<ListPage, Error> {
        let all = Range::prefix(keys::named(namespace));
        let mut from = if after.is_empty() { all.from.clone() } else { successor(after) };
        let mut runs = Vec::new();
        loop {
            let range = Range { from, limit: CHUNK, ..all.clone() };
            let entries = self.store.scan(Space::Listed, range)?;
            let is_last = entries.len() < CHUNK;
            let mut last = Vec::new();
            for (key, value) in entries {
                let info = self.decode_listed(&key, &value)?;
                last = key;
                if keep(&info) {
                    runs.push(info);
                    if runs.len() == limit {
                        return Ok(ListPage { runs, next: last });
                    }
                }
            }
            if is_last {
                return Ok(ListPage { runs, next: Vec::new() });
            }
            from = successor(&last);
        }
    }

    /// All runs of a workflow id, newest first.
    pub fn list_workflow(&self, namespace: &str, workflow_id: &str) -> Result<Vec<WorkflowExecutionInfo>, Error> {
        let prefix = keys::by_workflow_prefix(namespace, workflow_id);
        let mut runs = Vec::new();
        for (key, _) in self.store.scan(Space::ByWorkflow, Range::prefix(prefix.clone()))? {
            // The rest of the key is the start and the run: so it is in the list.
            let mut listed = keys::named(namespace);
            listed.extend_from_slice(&key[prefix.len()..]);
            if let Some(value) = self.store.get(Space::Listed, &listed)? {
                runs.push(self.decode_listed(&listed, &value)?);
            }
        }
        Ok(runs)
    }

    fn decode_listed(&self, key: &[u8], value: &[u8]) -> Result<WorkflowExecutionInfo, Error> {
        let run_id = || keys::trailing_run(key).map(|run| keys::run_id(&run)).unwrap_or_default();
        WorkflowExecutionInfo::decode(value).map_err(|source| Error::Corrupt { run_id: run_id(), source })
    }
}

fn successor(key: &[u8]) -> Vec<u8> {
    let mut next = key.to_vec();
    next.push(0);
    next
}
