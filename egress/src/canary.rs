//! Looking for secrets where none may be: in bytes, files, the memory of processes, and from inside a sandbox.
//!
//! For whoever planted the secrets and knows them: the operator's `canary` command, and tests. What is found is told by the name of
//! the secret and the place, and never by its value. Egress itself does not use it.

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD as BASE64};
use memchr::memmem::Finder;
use rustix::{fs::SeekFrom as Seek, io::Errno};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

/// Read at a time.
const CHUNK_BYTES: usize = 1 << 18;
/// Shorter secrets would be found by chance, in their encoded forms above all.
const SECRET_BYTES_MIN: usize = 12;

/// Run by `python3` inside a sandbox, with the secrets' common beginning and the control as its arguments, each in two parts so that
/// its own command line is neither. It looks at environments, command lines, the rest of /proc, readable memory and files.
pub const INSIDE: &str = include_str!("canary/inside.py");

/// Secrets by name, in every form in which they are looked for.
#[derive(Clone, Default)]
pub struct Needles {
    forms: Vec<(String, Finder<'static>)>,
    longest: usize,
}

impl Needles {
    /// As they are and in base64, whatever stands before them there. What is planted has no characters that a URL would change.
    pub fn new<'a>(secrets: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut needles = Needles::default();
        for (name, secret) in secrets {
            assert!(secret.len() >= SECRET_BYTES_MIN, "{name} is too short to be looked for");
            needles.add(name, secret.as_bytes());
            for before in 0..3 {
                needles.add(name, &in_base64(secret.as_bytes(), before));
            }
        }
        needles
    }

    /// These, and a text that is looked for as it is.
    pub fn and(&self, name: &str, text: &str) -> Self {
        let mut needles = self.clone();
        needles.add(name, text.as_bytes());
        needles
    }

    fn add(&mut self, name: &str, form: &[u8]) {
        self.longest = self.longest.max(form.len());
        self.forms.push((name.to_owned(), Finder::new(form).into_owned()));
    }

    /// Names of those that are there.
    pub fn found(&self, bytes: &[u8]) -> BTreeSet<String> {
        let there = self.forms.iter().filter(|(_, form)| form.find(bytes).is_some());
        there.map(|(name, _)| name.clone()).collect()
    }

    /// The same of everything that can be read, in memory of a bounded size.
    pub fn found_in(&self, mut reader: impl io::Read) -> io::Result<BTreeSet<String>> {
        static NOTHING: [u8; CHUNK_BYTES] = [0; CHUNK_BYTES];
        let (mut found, mut held) = (BTreeSet::new(), Vec::with_capacity(CHUNK_BYTES + self.longest));
        loop {
            // What two reads share.
            let passed = held.len().saturating_sub(self.longest);
            held.drain(..passed);
            let kept = held.len();
            if reader.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut held)? == 0 {
                return Ok(found);
            }
            // Memory that nobody has used.
            let new = &held[kept..];
            if new == &NOTHING[..new.len()] {
                held.clear();
            } else {
                found.extend(self.found(&held));
            }
        }
    }

    /// The same of a file, without its holes: a store's files may be much larger than what is in them.
    pub fn found_in_file(&self, file: &File) -> io::Result<BTreeSet<String>> {
        let (mut found, mut at) = (BTreeSet::new(), 0);
        loop {
            let from = match rustix::fs::seek(file, Seek::Data(at)) {
                Ok(from) => from,
                Err(Errno::NXIO) => return Ok(found),
                Err(error) => return Err(error.into()),
            };
            at = rustix::fs::seek(file, Seek::Hole(from))?;
            rustix::fs::seek(file, Seek::Start(from))?;
            found.extend(self.found_in(file.take(at - from))?);
        }
    }

    /// How many files below a folder were looked at, and what is in which of them. Links are not followed, and what is removed
    /// meanwhile is nowhere.
    pub fn found_below(&self, folder: &Path) -> io::Result<(u64, BTreeSet<(String, PathBuf)>)> {
        let (mut looked, mut found, mut folders) = (0, BTreeSet::new(), vec![folder.to_owned()]);
        while let Some(folder) = folders.pop() {
            let Some(entries) = there(std::fs::read_dir(&folder))? else { continue };
            for entry in entries {
                let entry = entry?;
                let (path, Some(kind)) = (entry.path(), there(entry.file_type())?) else { continue };
                if kind.is_dir() {
                    folders.push(path);
                } else if kind.is_file() {
                    let Some(file) = there(File::open(&path))? else { continue };
                    looked += 1;
                    found.extend(self.found_in_file(&file)?.into_iter().map(|name| (name, path.clone())));
                }
            }
        }
        Ok((looked, found))
    }

    /// The same of everything that a process has written, as far as whoever asks may read it, and how many bytes that were.
    pub fn found_in_memory(&self, pid: u32) -> io::Result<(u64, BTreeSet<String>)> {
        let (mut memory, mut bytes) = (File::open(format!("/proc/{pid}/mem"))?, 0);
        let mut found = BTreeSet::new();
        for line in std::fs::read_to_string(format!("/proc/{pid}/maps"))?.lines() {
            let Some((range, rest)) = line.split_once(' ') else { continue };
            // What can be written: programs and their data hold no secret.
            if !rest.starts_with("rw") {
                continue;
            }
            let bounds = range.split_once('-').and_then(|(from, to)| Some((hex(from)?, hex(to)?)));
            let (from, to) = bounds.ok_or(io::ErrorKind::InvalidData)?;
            memory.seek(SeekFrom::Start(from))?;
            // A mapping may go away while it is read, or be nobody's to read.
            if let Ok(more) = self.found_in(memory.by_ref().take(to - from)) {
                found.extend(more);
                bytes += to - from;
            }
        }
        Ok((bytes, found))
    }
}

fn there<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
}

/// The characters of `secret` that are the same whatever stands around it in base64, where `before` bytes (of three) stand before it.
fn in_base64(secret: &[u8], before: usize) -> Vec<u8> {
    let padded = [vec![0; before], secret.to_vec()].concat();
    let encoded = BASE64.encode(&padded).into_bytes();
    // A character is six bits: whole ones of the secret alone.
    let (from, to) = ((before * 8).div_ceil(6), padded.len() * 8 / 6);
    encoded[from..to].to_vec()
}

fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

/// Processes with all of these words on their command lines.
pub fn processes(words: &[&str]) -> io::Result<Vec<u32>> {
    let mut pids = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // One that has just ended has none.
        let Ok(line) = std::fs::read(format!("/proc/{pid}/cmdline")) else { continue };
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if words.iter().all(|word| line.contains(word)) {
            pids.push(pid);
        }
    }
    Ok(pids)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::STANDARD;
    use std::os::unix::fs::FileExt as _;

    const SECRET: &str = "CANARY-of-a-class-51f0";

    fn needles() -> Needles {
        Needles::new([("class", SECRET), ("other", "CANARY-of-another-77aa")])
    }

    fn class() -> BTreeSet<String> {
        BTreeSet::from(["class".to_owned()])
    }

    #[test]
    fn a_secret_is_found_as_it_is_and_in_base64_whatever_stands_around_it() {
        let needles = needles();
        for around in ["", "a", "ab", "abc", "x-access-token:", "Bearer "] {
            let text = format!("{around}{SECRET}{around}");
            for form in [text.clone(), STANDARD.encode(&text), format!("{{\"k\":\"{text}\"}}")] {
                assert_eq!(needles.found(form.as_bytes()), class(), "{form}");
            }
        }
        assert!(needles.found(b"CANARY-of-a-class-51f1").is_empty() && needles.found(b"C").is_empty());
        assert_eq!(needles.and("short", "abc").found(b"..abc.."), BTreeSet::from(["short".to_owned()]));
    }

    #[test]
    fn a_secret_across_two_reads_is_found() {
        for before in [CHUNK_BYTES - 7, CHUNK_BYTES, 3 * CHUNK_BYTES - 1] {
            let mut bytes = vec![b'.'; before];
            bytes.extend(SECRET.as_bytes());
            assert_eq!(needles().found_in(&bytes[..]).unwrap(), class());
            assert!(needles().found_in(&bytes[..bytes.len() - 1]).unwrap().is_empty());
            // Behind nothing at all it is found as well.
            bytes[..before].fill(0);
            assert_eq!(needles().found_in(&bytes[..]).unwrap(), class());
        }
    }

    #[test]
    fn what_lies_between_holes_is_found_and_the_holes_are_not_read() {
        const TIB: u64 = 1 << 40;
        let file = tempfile::tempfile().unwrap();
        file.set_len(8 * TIB).unwrap();
        assert!(needles().found_in_file(&file).unwrap().is_empty());
        file.write_all_at(SECRET.as_bytes(), 5 * TIB - 9).unwrap();
        assert_eq!(needles().found_in_file(&file).unwrap(), class());
    }

    #[test]
    fn files_are_told_by_their_names() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("deep")).unwrap();
        for (name, text) in [("home", SECRET), ("deep/leak", SECRET), ("clean", "nothing"), ("empty", "")] {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let (looked, found) = needles().found_below(dir.path()).unwrap();
        let places = ["home", "deep/leak"].map(|name| ("class".to_owned(), dir.path().join(name)));
        assert_eq!((looked, found), (4, BTreeSet::from(places)));
    }

    #[test]
    fn what_this_process_holds_is_in_its_memory() {
        let held = format!("CANARY-{}-{}", std::process::id(), "in-memory");
        let needles = Needles::default().and("held", held.as_str());
        let (bytes, found) = needles.found_in_memory(std::process::id()).unwrap();
        assert_eq!(found, BTreeSet::from(["held".to_owned()]));
        assert!(bytes > 0);
    }

    #[test]
    fn a_process_is_known_by_its_words() {
        let own = std::env::args().next().unwrap();
        assert!(processes(&[&own]).unwrap().contains(&std::process::id()));
        assert!(!processes(&[&own, "never said"]).unwrap().contains(&std::process::id()));
    }
}
