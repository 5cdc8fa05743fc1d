//! Bytes on sockets and pipes: JSON lines with a bound, and frames between shim and init.
//!
//! A frame is `len: u32 BE | kind: u8 | call: u64 BE | payload`, `len` counting all that follows it.
//! Never trusts a length: what comes from inside the sandbox is bounded before it is stored.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, BufRead, Read, Write};

#[derive(thiserror::Error, Debug)]
pub enum Error {
    #[error("the other side has closed the connection")]
    Closed,
    #[error("a message of more than {0} bytes")]
    TooLong(usize),
    #[error("a message that is not understood")]
    Json(#[source] serde_json::Error),
    #[error("a frame of unknown kind {0}")]
    Kind(u8),
    #[error("read or write a message")]
    Io(#[from] io::Error),
}

/// Read one JSON line of at most `max` bytes.
pub fn read_line<T: DeserializeOwned>(from: &mut impl BufRead, max: usize) -> Result<T, Error> {
    let mut line = Vec::new();
    let read = from.by_ref().take(max as u64 + 1).read_until(b'\n', &mut line)?;
    if line.last() != Some(&b'\n') {
        return Err(if read > max { Error::TooLong(max) } else { Error::Closed });
    }
    serde_json::from_slice(&line).map_err(Error::Json)
}

/// Write one JSON line in one piece.
pub fn write_line(to: &mut impl Write, value: &impl Serialize) -> Result<(), Error> {
    to.write_all(&line(value)?)?;
    Ok(to.flush()?)
}

/// One JSON line as it is written.
pub fn line(value: &impl Serialize) -> Result<Vec<u8>, Error> {
    let mut line = serde_json::to_vec(value).map_err(Error::Json)?;
    line.push(b'\n');
    Ok(line)
}

#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// A message about a call, as JSON.
    Json { call: u64, payload: Vec<u8> },
    /// Bytes that the call gave out.
    Chunk { call: u64, bytes: Vec<u8> },
}

const HEADER: usize = 9;

pub fn write_json(to: &mut impl Write, call: u64, value: &impl Serialize) -> Result<(), Error> {
    write_frame(to, 0, call, &serde_json::to_vec(value).map_err(Error::Json)?)
}

pub fn write_chunk(to: &mut impl Write, call: u64, bytes: &[u8]) -> Result<(), Error> {
    write_frame(to, 1, call, bytes)
}

fn write_frame(to: &mut impl Write, kind: u8, call: u64, payload: &[u8]) -> Result<(), Error> {
    let len = u32::try_from(HEADER + payload.len()).map_err(|_| Error::TooLong(u32::MAX as usize))?;
    let mut head = [0; 4 + HEADER];
    head[..4].copy_from_slice(&len.to_be_bytes());
    head[4] = kind;
    head[5..].copy_from_slice(&call.to_be_bytes());
    to.write_all(&head)?;
    to.write_all(payload)?;
    Ok(to.flush()?)
}

/// Read one frame of at most `max` payload bytes.
pub fn read_frame(from: &mut impl Read, max: usize) -> Result<Frame, Error> {
    let mut len = [0; 4];
    match from.read_exact(&mut len) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Err(Error::Closed),
        Err(e) => return Err(e.into()),
    }
    let len = u32::from_be_bytes(len) as usize;
    if len < HEADER || len - HEADER > max {
        return Err(Error::TooLong(max));
    }
    let mut head = [0; HEADER];
    from.read_exact(&mut head)?;
    let call = u64::from_be_bytes(head[1..].try_into().expect("eight bytes"));
    let mut payload = Vec::new();
    from.take((len - HEADER) as u64).read_to_end(&mut payload)?;
    if payload.len() != len - HEADER {
        return Err(Error::Closed);
    }
    match head[0] {
        0 => Ok(Frame::Json { call, payload }),
        1 => Ok(Frame::Chunk { call, bytes: payload }),
        other => Err(Error::Kind(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_round_trip_and_are_bounded() {
        let mut bytes = Vec::new();
        write_chunk(&mut bytes, 7, b"abc").unwrap();
        write_json(&mut bytes, 8, &"x").unwrap();
        let mut from = bytes.as_slice();
        assert_eq!(read_frame(&mut from, 3).unwrap(), Frame::Chunk { call: 7, bytes: b"abc".to_vec() });
        assert_eq!(read_frame(&mut from, 3).unwrap(), Frame::Json { call: 8, payload: b"\"x\"".to_vec() });
        assert!(matches!(read_frame(&mut from, 3), Err(Error::Closed)));
        assert!(matches!(read_frame(&mut bytes.as_slice(), 2), Err(Error::TooLong(2))));
        assert!(matches!(read_frame(&mut &bytes[..bytes.len() - 1][16..], 3), Err(Error::Closed)));
        assert!(matches!(read_frame(&mut [0u8, 0, 0, 1, 0].as_slice(), 9), Err(Error::TooLong(_))));
    }

    #[test]
    fn lines_are_bounded() {
        assert_eq!(read_line::<u32>(&mut b"12\n".as_slice(), 8).unwrap(), 12);
        assert!(matches!(read_line::<u32>(&mut b"123456789\n".as_slice(), 4), Err(Error::TooLong(4))));
        assert!(matches!(read_line::<u32>(&mut b"12".as_slice(), 8), Err(Error::Closed)));
        assert!(matches!(read_line::<u32>(&mut b"{\n".as_slice(), 8), Err(Error::Json(_))));
    }
}
