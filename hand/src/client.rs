//! Talking to a shim: blocking, over its unix socket. An async caller writes the same lines over its own stream.

use crate::limits;
use crate::protocol::{CallId, Collected, Refusal, Reply, Request, Settled, Snapshot, Status};
use crate::{socket, wire};
use base64::Engine;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{self, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

#[derive(thiserror::Error, Debug)]
pub enum Error {
    /// No shim listens there: it ended, or never was.
    #[error("connect to the hand")]
    Gone(#[source] io::Error),
    /// The shim went away while it was asked. Whether the request was carried out is for a later ask to find out.
    #[error("hear the hand's reply")]
    Broken(#[from] wire::Error),
    #[error("have the hand do it ({code:?}): {message}")]
    Refused { code: Refusal, message: String },
    #[error("understand the hand's reply")]
    Unexpected,
    #[error("understand a blob's bytes")]
    Base64(#[from] base64::DecodeError),
}

/// One connection; one request at a time.
pub struct Client {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
}

impl Client {
    pub fn connect(socket: &Path) -> Result<Self, Error> {
        let writer = socket::connect(socket).map_err(Error::Gone)?;
        let reader = BufReader::new(writer.try_clone().map_err(Error::Gone)?);
        Ok(Self { reader, writer })
    }

    /// Give up on what takes longer.
    pub fn within(self, time: Duration) -> Result<Self, Error> {
        self.writer
            .set_read_timeout(Some(time))
            .and_then(|()| self.writer.set_write_timeout(Some(time)))
            .map_err(Error::Gone)?;
        Ok(self)
    }

    /// Send one request and wait for its reply, as long as it takes. A refusal is an error.
    pub fn ask(&mut self, request: &Request) -> Result<Reply, Error> {
        let line = wire::line(request)?;
        if line.len() > limits::REQUEST_BYTES {
            // The hand would close the connection in the middle of it, and nobody would know why.
            let (bytes, max) = (line.len(), limits::REQUEST_BYTES);
            let message = format!("it has {bytes} bytes, and a sandbox takes {max}: send it in smaller pieces");
            return Err(Error::Refused { code: Refusal::BadRequest, message });
        }
        self.writer.write_all(&line).map_err(wire::Error::Io)?;
        match wire::read_line(&mut self.reader, limits::REPLY_BYTES)? {
            Reply::Refused { code, message } => Err(Error::Refused { code, message }),
            reply => Ok(reply),
        }
    }

    /// Run a call, or get what became of it. Milliseconds bound the call beside its own input.
    pub fn execute(
        &mut self,
        id: impl Into<CallId>,
        name: &str,
        input: Value,
        timeout_ms: Option<u64>,
        epoch: u64,
    ) -> Result<Settled, Error> {
        let request = Request::Execute { id: id.into(), name: name.to_owned(), input, timeout_ms, epoch };
        match self.ask(&request)? {
            Reply::Settled(settled) => Ok(settled),
            _ => Err(Error::Unexpected),
        }
    }

    /// End a running call; returns once its processes are proven dead, or it is lost.
    pub fn cancel(&mut self, id: impl Into<CallId>, epoch: u64) -> Result<Settled, Error> {
        match self.ask(&Request::Cancel { id: id.into(), epoch })? {
            Reply::Settled(settled) => Ok(settled),
            _ => Err(Error::Unexpected),
        }
    }

    pub fn status(&mut self) -> Result<Status, Error> {
        match self.ask(&Request::Status)? {
            Reply::Status(status) => Ok(*status),
            _ => Err(Error::Unexpected),
        }
    }

    /// Move the lease epoch from `from` to `to`; returns the new one.
    pub fn fence(&mut self, from: u64, to: u64) -> Result<u64, Error> {
        match self.ask(&Request::Fence { from, to })? {
            Reply::Fenced { epoch } => Ok(epoch),
            _ => Err(Error::Unexpected),
        }
    }

    /// Returns the milliseconds that are left of the lease.
    pub fn renew(&mut self, ttl_ms: u64) -> Result<u64, Error> {
        match self.ask(&Request::Renew { ttl_ms })? {
            Reply::Renewed { lease_ms } => Ok(lease_ms),
            _ => Err(Error::Unexpected),
        }
    }

    /// Outputs that differ from `known` (path to sha-256), and the diff.
    pub fn collect(&mut self, known: BTreeMap<String, String>, epoch: u64) -> Result<Collected, Error> {
        match self.ask(&Request::Collect { known, epoch })? {
            Reply::Collected(collected) => Ok(collected),
            _ => Err(Error::Unexpected),
        }
    }

    pub fn snapshot(&mut self, epoch: u64) -> Result<Snapshot, Error> {
        match self.ask(&Request::Snapshot { epoch })? {
            Reply::Snapshot(snapshot) => Ok(snapshot),
            _ => Err(Error::Unexpected),
        }
    }

    /// Write the bytes of a blob to `to`; returns how many.
    pub fn blob(&mut self, sha256: &str, to: &mut impl io::Write) -> Result<u64, Error> {
        let mut offset = 0;
        loop {
            let Reply::Blob(piece) = self.ask(&Request::Blob { sha256: sha256.to_owned(), offset })? else {
                return Err(Error::Unexpected);
            };
            let bytes = base64::engine::general_purpose::STANDARD.decode(piece.data)?;
            to.write_all(&bytes).map_err(wire::Error::Io)?;
            offset += bytes.len() as u64;
            if bytes.is_empty() || offset >= piece.total_bytes {
                return Ok(offset);
            }
        }
    }

    /// End the sandbox and the shim.
    pub fn release(&mut self, epoch: u64) -> Result<(), Error> {
        match self.ask(&Request::Release { epoch })? {
            Reply::Released => Ok(()),
            _ => Err(Error::Unexpected),
        }
    }
}
