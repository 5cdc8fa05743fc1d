//! Unix sockets by paths of any length: a socket's address holds 107 bytes, a hand's folder may lie deeper.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// The longest path that fits into an address.
const ADDRESS_BYTES: usize = 107;

pub fn connect(path: &Path) -> io::Result<UnixStream> {
    with_short(path, |short| UnixStream::connect(short))
}

pub fn listen(path: &Path) -> io::Result<UnixListener> {
    with_short(path, |short| UnixListener::bind(short))
}

/// A long path is named through a descriptor of its folder.
fn with_short<T>(path: &Path, act: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    if path.as_os_str().len() <= ADDRESS_BYTES {
        return act(path);
    }
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let folder = File::open(folder)?;
    act(&PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deep_folders_have_sockets_too() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let listener = listen(&deep.join("s")).unwrap();
        connect(&deep.join("s")).unwrap();
        listener.accept().unwrap();
        assert!(connect(&deep.join("none")).is_err());
    }
}
