//! Looking for secrets where none may be: in bytes, files, the memory of processes, and from inside a sandbox.
//!
//! For whoever planted the secrets and knows them: the operator's `canary` command, and tests. What is found is told by the name of
//! the secret and the place, and never by its value. Egress itself does not use it.

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD as BASE64};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

/// Read at a time.
const CHUNK_BYTES: usize = 1 << 16;
/// Shorter secrets would be found by chance, in their encoded forms above all.
const SECRET_BYTES_MIN: usize = 12;

/// Run by `python3` inside a sandbox, with the secrets' common beginning and the control as its arguments, each in two parts so that
/// its own command line is neither. It looks at environments, command lines, readable memory and files.
pub const INSIDE: &str = include_str!("canary/inside.py");

/// Secrets by name, in every form in which they are looked for.
pub struct Needles {
    forms: Vec<(String, Vec<u8>)>,
    /// By their first two bytes, so that what cannot be one is passed by at once.
    starts: BTreeMap<[u8; 2], Vec<usize>>,
    longest: usize,
}

impl Needles {
    /// As they are and in base64, whatever stands before them there. What is planted has no characters that a URL would change.
    pub fn new<'a>(secrets: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut needles = Needles { forms: Vec::new(), starts: BTreeMap::new(), longest: 0 };
        for (name, secret) in secrets {
            assert!(secret.len() >= SECRET_BYTES_MIN, "{name} is too short to be looked for");
            let encoded = (0..3).map(|before| in_base64(secret.as_bytes(), before));
            for form in std::iter::once(secret.as_bytes().to_vec()).chain(encoded) {
                needles.longest = needles.longest.max(form.len());
                needles.starts.entry([form[0], form[1]]).or_default().push(needles.forms.len());
                needles.forms.push((name.to_owned(), form));
            }
        }
        needles
    }

    /// Names of those that are there.
    pub fn found(&self, bytes: &[u8]) -> BTreeSet<&str> {
        let mut found = BTreeSet::new();
        // Holes of files, and memory that nobody has used.
        if bytes.iter().all(|byte| *byte == 0) {
            return found;
        }
        for (at, start) in bytes.windows(2).enumerate() {
            for &form in self.starts.get(start).into_iter().flatten() {
                let (name, form) = &self.forms[form];
                if bytes[at..].starts_with(form) {
                    found.insert(name.as_str());
                }
            }
        }
        found
    }

    /// The same of everything that can be read.
    pub fn found_in(&self, mut reader: impl io::Read) -> io::Result<BTreeSet<&str>> {
        let (mut found, mut held) = (BTreeSet::new(), Vec::new());
        loop {
            let kept = held.len().saturating_sub(self.longest);
            held.drain(..kept);
            if reader.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut held)? == 0 {
                return Ok(found);
            }
            found.extend(self.found(&held));
        }
    }

    /// How many files below a folder were looked at, and those in which one is, with its name; `passes` says which are not looked at.
    /// Links are not followed, and what is removed meanwhile is nowhere.
    pub fn found_below(
        &self,
        folder: &Path,
        passes: &dyn Fn(&Path) -> bool,
    ) -> io::Result<(u64, Vec<(String, PathBuf)>)> {
        let (mut looked, mut found, mut folders) = (0, Vec::new(), vec![folder.to_owned()]);
        while let Some(folder) = folders.pop() {
            let Some(entries) = there(std::fs::read_dir(&folder))? else { continue };
            for entry in entries {
                let entry = entry?;
                let (path, Some(kind)) = (entry.path(), there(entry.file_type())?) else { continue };
                if kind.is_dir() {
                    folders.push(path);
                } else if kind.is_file() && !passes(&path) {
                    let Some(file) = there(File::open(&path))? else { continue };
                    looked += 1;
                    found.extend(self.found_in(file)?.into_iter().map(|name| (name.to_owned(), path.clone())));
                }
            }
        }
        Ok((looked, found))
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

/// Everything that a process has written, as far as whoever asks may read it.
pub fn memory(pid: u32) -> io::Result<Vec<u8>> {
    let (mut memory, mut all) = (File::open(format!("/proc/{pid}/mem"))?, Vec::new());
    for line in std::fs::read_to_string(format!("/proc/{pid}/maps"))?.lines() {
        let Some((range, rest)) = line.split_once(' ') else { continue };
        // What can be written: programs and their data hold no secret.
        if !rest.starts_with("rw") {
            continue;
        }
        let bounds = range.split_once('-').and_then(|(from, to)| Some((hex(from)?, hex(to)?)));
        let (from, to) = bounds.ok_or(io::ErrorKind::InvalidData)?;
        memory.seek(SeekFrom::Start(from))?;
        // A mapping may go away while it is read.
        memory.by_ref().take(to - from).read_to_end(&mut all).ok();
    }
    Ok(all)
}

fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

/// Children of a process with the words of their command lines.
pub fn children(pid: u32) -> io::Result<Vec<(String, u32)>> {
    let mut children = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        for child in std::fs::read_to_string(task?.path().join("children"))?.split_whitespace() {
            // One that has just ended has no command line.
            let Ok(words) = std::fs::read_to_string(format!("/proc/{child}/cmdline")) else { continue };
            children.push((words.replace('\0', " "), child.parse().map_err(io::Error::other)?));
        }
    }
    Ok(children)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::STANDARD;

    const SECRET: &str = "CANARY-of-a-class-51f0";

    fn needles() -> Needles {
        Needles::new([("class", SECRET), ("other", "CANARY-of-another-77aa")])
    }

    #[test]
    fn a_secret_is_found_as_it_is_and_in_base64_whatever_stands_around_it() {
        let needles = needles();
        for around in ["", "a", "ab", "abc", "x-access-token:", "Bearer "] {
            let text = format!("{around}{SECRET}{around}");
            for form in [text.clone(), STANDARD.encode(&text), format!("{{\"k\":\"{text}\"}}")] {
                assert_eq!(needles.found(form.as_bytes()), BTreeSet::from(["class"]), "{form}");
            }
        }
        assert!(needles.found(b"CANARY-of-a-class-51f1").is_empty() && needles.found(b"C").is_empty());
    }

    #[test]
    fn a_secret_across_two_reads_is_found() {
        let mut bytes = vec![b'.'; CHUNK_BYTES - 7];
        bytes.extend(SECRET.as_bytes());
        assert_eq!(needles().found_in(&bytes[..]).unwrap(), BTreeSet::from(["class"]));
        assert!(needles().found_in(&bytes[..bytes.len() - 1]).unwrap().is_empty());
    }

    #[test]
    fn files_are_told_by_their_names_and_those_where_it_belongs_are_passed_by() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("deep")).unwrap();
        for (name, text) in [("home", SECRET), ("deep/leak", SECRET), ("clean", "nothing")] {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let home = dir.path().join("home");
        let (looked, found) = needles().found_below(dir.path(), &|path| path == home).unwrap();
        assert_eq!((looked, found), (2, vec![("class".to_owned(), dir.path().join("deep/leak"))]));
    }

    #[test]
    fn what_this_process_holds_is_in_its_memory() {
        let held = format!("CANARY-{}-{}", std::process::id(), "in-memory");
        let needles = Needles::new([("held", held.as_str())]);
        assert_eq!(needles.found(&memory(std::process::id()).unwrap()), BTreeSet::from(["held"]));
    }
}
