//! A provider whose tools do nothing but count, wait and answer: for tests of everything around hands.

use activities::hands::{Executed, Provider, Provisioned, ToolCall};
use async_trait::async_trait;
use domain::{
    Failure,
    content::{BlobRef, Block},
    failure::FailureKind,
    session::{HandRef, OutputFile, ProvisionInput, Workspace},
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};
use tokio::sync::Notify;

pub const HOST: &str = "test-host";

/// Keeps a journal as a real hand does: a call runs once, whoever asks how often.
#[derive(Default)]
pub struct CountingHands {
    pub provisioned: AtomicUsize,
    /// Of these, made from what another one left.
    pub restored: AtomicUsize,
    pub parked: AtomicUsize,
    pub released: AtomicUsize,
    /// Refuses to make hands.
    pub broken: AtomicBool,
    journal: Mutex<BTreeMap<String, Executed>>,
    /// Calls of `{"wait": true}` that were begun.
    pub waiting: Arc<Notify>,
    ended: Mutex<BTreeMap<String, Arc<Notify>>>,
}

impl CountingHands {
    /// How many calls took effect.
    pub fn effects(&self) -> usize {
        self.journal.lock().expect("no test panics inside").len()
    }
}

#[async_trait]
impl Provider for CountingHands {
    async fn provision(&self, input: &ProvisionInput) -> Result<Provisioned, Failure> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(Failure::permanent(FailureKind::Request, "install bubblewrap"));
        }
        self.provisioned.fetch_add(1, Ordering::SeqCst);
        self.restored.fetch_add(usize::from(input.restore.is_some()), Ordering::SeqCst);
        Ok(HandRef { hand: input.hand.clone(), host: HOST.into(), epoch: 1 }.into())
    }

    async fn execute(&self, _hand: &HandRef, call: ToolCall) -> Executed {
        if let Some(known) = self.journal.lock().expect("no test panics inside").get(&call.id) {
            return known.clone();
        }
        let mut executed = Executed {
            content: vec![Block::text(format!("ran {}", call.input["command"].as_str().unwrap_or_default()))],
            is_error: false,
            lost: false,
            hand_lost: false,
        };
        if call.input["wait"] == true {
            let ended = Arc::new(Notify::new());
            self.ended.lock().expect("no test panics inside").insert(call.id.clone(), ended.clone());
            self.waiting.notify_one();
            ended.notified().await;
            executed = Executed::error("interrupted");
        }
        if call.input["lose_hand"] == true {
            executed = Executed::hand_lost("for the test");
        }
        self.journal.lock().expect("no test panics inside").insert(call.id, executed.clone());
        executed
    }

    async fn cancel(&self, _hand: &HandRef, call_id: &str) {
        if let Some(ended) = self.ended.lock().expect("no test panics inside").get(call_id) {
            ended.notify_one();
        }
    }

    async fn collect(&self, _hand: &HandRef) -> Result<Option<Vec<OutputFile>>, Failure> {
        Ok(Some(Vec::new()))
    }

    async fn park(&self, _hand: &HandRef) -> Result<Option<Workspace>, Failure> {
        self.parked.fetch_add(1, Ordering::SeqCst);
        let blob = BlobRef { blob: "0".repeat(64), bytes: 0 };
        Ok(Some(Workspace { listing: blob, start: None }))
    }

    async fn release(&self, _hand: &HandRef) -> Result<(), Failure> {
        self.released.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}
