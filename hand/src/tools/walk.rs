//! Walking a folder without following links, in a fixed order and within bounds.

use super::{Refused, Stop};
use crate::limits::{WALK_DEPTH, WALK_ENTRIES};
use std::fs::{DirEntry, FileType};
use std::path::{Path, PathBuf};

/// Call `each` with every entry below `root`; it says whether to descend into a folder. Symlinks are never followed.
pub fn walk(
    root: &Path,
    stop: &Stop,
    mut each: impl FnMut(&DirEntry, FileType) -> Result<bool, Refused>,
) -> Result<(), Refused> {
    let mut seen = 0;
    let mut folders: Vec<(PathBuf, usize)> = vec![(root.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        // What vanishes or may not be read while it is walked is passed over, as any search does.
        let Ok(entries) = folder.read_dir() else { continue };
        let mut below = Vec::new();
        let mut entries: Vec<_> = entries.flatten().take(WALK_ENTRIES).collect();
        entries.sort_by_key(DirEntry::file_name);
        for entry in entries {
            stop.check()?;
            seen += 1;
            if seen > WALK_ENTRIES {
                return Err(Refused(format!("more than {WALK_ENTRIES} entries; give a narrower path")));
            }
            let Ok(kind) = entry.file_type() else { continue };
            if each(&entry, kind)? && kind.is_dir() && depth < WALK_DEPTH {
                below.push((entry.path(), depth + 1));
            }
        }
        folders.extend(below.into_iter().rev());
    }
    Ok(())
}
