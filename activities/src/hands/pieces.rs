//! A workspace as it is kept: the bytes of an archive, in pieces that are blobs of their own, so that nobody holds the whole.
//!
//! What is in it is never looked at here: a sandbox packed it, and a sandbox unpacks it.

use bytes::Bytes;
use domain::{
    content::BlobRef,
    session::{OutputFile, Workspace},
};
use std::{io, path::Path};
use store::Blobs;
use tokio::{io::AsyncWriteExt as _, sync::mpsc};

/// Two of them are in memory at a time.
const PIECE_BYTES: usize = 8 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("keep a piece of the workspace")]
    Put(#[source] log::blobs::Error),
    #[error("find a piece of the workspace")]
    Get(#[source] log::blobs::Error),
    #[error("write the archive of the workspace")]
    Write(#[source] io::Error),
}

/// Where a thread writes an archive that others keep.
pub struct Cutter {
    piece: Vec<u8>,
    to: mpsc::Sender<Bytes>,
}

/// The pieces of an archive as they come. It ends when the cutter is finished or dropped.
pub type Pieces = mpsc::Receiver<Bytes>;

pub fn cutter() -> (Cutter, Pieces) {
    let (to, pieces) = mpsc::channel(1);
    (Cutter { piece: Vec::new(), to }, pieces)
}

impl Cutter {
    fn send(&mut self) -> io::Result<()> {
        let piece = std::mem::take(&mut self.piece);
        self.to.blocking_send(piece.into()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// What is left is a piece too.
    pub fn finish(mut self) -> io::Result<()> {
        if self.piece.is_empty() { Ok(()) } else { self.send() }
    }
}

impl io::Write for Cutter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let take = bytes.len().min(PIECE_BYTES - self.piece.len());
        self.piece.extend_from_slice(&bytes[..take]);
        if self.piece.len() == PIECE_BYTES {
            self.send()?;
        }
        Ok(take)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Keeps all pieces; the listing that names them in order.
pub async fn keep(blobs: &dyn Blobs, mut pieces: Pieces) -> Result<BlobRef, Error> {
    let mut kept = Vec::new();
    while let Some(piece) = pieces.recv().await {
        let blob = log::blobs::put(blobs, piece).await.map_err(Error::Put)?;
        kept.push(OutputFile { path: format!("{:06}", kept.len()), blob });
    }
    log::blobs::put_json(blobs, &kept).await.map_err(Error::Put)
}

/// Writes the archive whole.
pub async fn fetch(blobs: &dyn Blobs, workspace: &Workspace, to: &Path) -> Result<(), Error> {
    let kept: Vec<OutputFile> = log::blobs::get_json(blobs, &workspace.listing).await.map_err(Error::Get)?;
    let mut archive = tokio::fs::File::create(to).await.map_err(Error::Write)?;
    for OutputFile { blob, .. } in kept {
        let piece = log::blobs::get(blobs, &blob).await.map_err(Error::Get)?;
        archive.write_all(&piece).await.map_err(Error::Write)?;
    }
    archive.flush().await.map_err(Error::Write)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use store::MemoryBlobs;

    #[tokio::test]
    async fn what_is_kept_in_pieces_comes_back_whole() {
        let dir = tempfile::tempdir().unwrap();
        for bytes in [0, 1, PIECE_BYTES, 2 * PIECE_BYTES + 1] {
            let archive: Vec<u8> = (0..bytes).map(|at| (at % 251) as u8).collect();
            let (mut cutter, pieces) = cutter();
            let written = archive.clone();
            let writing =
                tokio::task::spawn_blocking(move || cutter.write_all(&written).and_then(|()| cutter.finish()));
            let blobs = MemoryBlobs::new();
            let listing = keep(&blobs, pieces).await.unwrap();
            writing.await.unwrap().unwrap();
            let kept: Vec<OutputFile> = log::blobs::get_json(&blobs, &listing).await.unwrap();
            assert_eq!(kept.len(), bytes.div_ceil(PIECE_BYTES));
            let to = dir.path().join(bytes.to_string());
            fetch(&blobs, &Workspace { listing, start: None }, &to).await.unwrap();
            assert!(std::fs::read(to).unwrap() == archive, "{bytes} bytes came back otherwise");
        }
    }

    #[tokio::test]
    async fn whoever_writes_hears_that_nobody_keeps_it() {
        let (mut cutter, pieces) = cutter();
        drop(pieces);
        let written = tokio::task::spawn_blocking(move || cutter.write_all(&vec![0; 2 * PIECE_BYTES]));
        assert_eq!(written.await.unwrap().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
