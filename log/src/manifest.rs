//! Which runs of a session are sealed, and where: the newest in the manifest itself, the others in pages that never change, and
//! pages of pages. So what sealing one more run writes, and what a reader of a few positions reads, grows with the logarithm of
//! the number of runs.
//!
//! A manifest lists the newest [`FULL`] of each kind at least: whoever saw each manifest of a session saw every segment and
//! every page listed.

use crate::{
    blobs,
    segment::{Error, Segment},
};
use domain::{Summary, committed::Genesis, content::BlobRef, session::Mail};
use serde::{Deserialize, Serialize};
use std::{collections::VecDeque, sync::Arc};
use store::Blobs;

/// Entries of a page. A manifest has less than twice as many of each kind, but for those that builds without pages wrote.
const FULL: usize = 8;
/// From the top of the longest log to a segment.
const PAGES_KEPT: usize = 4;

/// The sealed part of a session's log.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct Manifest {
    pub session_id: String,
    /// What the session began with, out of its first run: replay starts from it.
    pub genesis: Option<Genesis>,
    /// What is before `segments`, oldest first; of higher levels first.
    pub pages: Vec<Page>,
    /// The newest, oldest first.
    pub segments: Vec<Segment>,
    /// There once the session is over and every run of it is sealed.
    pub end: Option<End>,
}

/// The last word on a session: with it the log can be read when its histories are gone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct End {
    pub summary: Summary,
    /// Why the last run was cut, if it did not end by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<String>,
    /// Accepted and never committed: no segment has it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<Mail>,
}

/// Some segments, or some pages of the level below.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Page {
    pub level: u32,
    /// Positions `[from, to)`.
    pub from: u64,
    pub to: u64,
    /// How many segments are in it and in its pages.
    pub segments: usize,
    pub blob: BlobRef,
    /// All of it is another session's, which this one was forked from.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shared: bool,
}

/// What a page is read from.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Listed {
    Segments(Vec<Segment>),
    Pages(Vec<Page>),
}

/// A manifest without pages has its segments where builds look that know of none; one with pages has not, so that such a build
/// fails and takes no part of a log for the whole.
#[derive(Serialize, Deserialize)]
struct Stored {
    session_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    genesis: Option<Genesis>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    segments: Option<Vec<Segment>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    paged: Option<Paged>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    end: Option<End>,
}

#[derive(Serialize, Deserialize)]
struct Paged {
    pages: Vec<Page>,
    newest: Vec<Segment>,
}

impl From<Manifest> for Stored {
    fn from(Manifest { session_id, genesis, pages, segments, end }: Manifest) -> Self {
        let (segments, paged) = match pages.is_empty() {
            true => (Some(segments), None),
            false => (None, Some(Paged { pages, newest: segments })),
        };
        Stored { session_id, genesis, segments, paged, end }
    }
}

impl TryFrom<Stored> for Manifest {
    type Error = &'static str;

    fn try_from(Stored { session_id, genesis, segments, paged, end }: Stored) -> Result<Self, Self::Error> {
        let (pages, segments) = match (segments, paged) {
            (Some(segments), None) => (Vec::new(), segments),
            (None, Some(Paged { pages, newest })) => (pages, newest),
            _ => return Err("a manifest lists segments either in pages or without"),
        };
        Ok(Manifest { session_id, genesis, pages, segments, end })
    }
}

impl Manifest {
    /// How many segments there are.
    pub fn count(&self) -> usize {
        self.pages.iter().map(|page| page.segments).sum::<usize>() + self.segments.len()
    }

    /// Where the sealed part of the log ends.
    pub fn end_position(&self) -> u64 {
        let page = self.pages.last().map(|page| page.to);
        self.segments.last().map(|segment| segment.to).or(page).unwrap_or(0)
    }

    /// Adds the newest segment. One page of each level is filled at most: also one that a build without pages made long gets
    /// there without a page that no manifest ever listed.
    pub async fn push(&mut self, store: &dyn Blobs, segment: Segment) -> Result<(), Error> {
        self.segments.push(segment);
        if self.segments.len() < 2 * FULL {
            return Ok(());
        }
        let older: Vec<Segment> = self.segments.drain(..FULL).collect();
        let (from, to) = (older[0].from, older[FULL - 1].to);
        let blob = blobs::put_json(store, &Listed::Segments(older)).await?;
        self.pages.push(Page { level: 0, from, to, segments: FULL, blob, shared: false });
        for level in 0.. {
            let first = self.pages.partition_point(|page| page.level > level);
            let end = self.pages.partition_point(|page| page.level >= level);
            if end - first < 2 * FULL {
                break;
            }
            let older: Vec<Page> = self.pages.drain(first..first + FULL).collect();
            let (from, to) = (older[0].from, older[FULL - 1].to);
            let segments = older.iter().map(|page| page.segments).sum();
            let blob = blobs::put_json(store, &Listed::Pages(older)).await?;
            self.pages.insert(first, Page { level: level + 1, from, to, segments, blob, shared: false });
        }
        Ok(())
    }

    /// From the newest segment back.
    pub fn backwards(&self) -> Backwards {
        Backwards { pages: self.pages.clone(), segments: self.segments.clone(), within: (0, u64::MAX) }
    }

    /// From the newest segment back, those that touch positions `[from, to)` or end there.
    pub fn within(&self, from: u64, to: u64) -> Backwards {
        Backwards { within: (from, to), ..self.backwards() }
    }

    /// All segments but the first `known` ones, oldest first.
    pub async fn since(&self, store: &dyn Blobs, known: usize) -> Result<Vec<Segment>, Error> {
        let wanted = self.count().saturating_sub(known);
        let mut since = Vec::new();
        if wanted == 0 {
            return Ok(since);
        }
        let (mut backwards, mut pages) = (self.backwards(), Pages::default());
        while since.len() < wanted
            && let Some(segment) = backwards.next(store, &mut pages).await?
        {
            since.push(segment);
        }
        since.reverse();
        Ok(since)
    }

    pub async fn find(&self, store: &dyn Blobs, run_id: &str) -> Result<Option<Segment>, Error> {
        let (mut backwards, mut pages) = (self.backwards(), Pages::default());
        while let Some(segment) = backwards.next(store, &mut pages).await? {
            if segment.run_id == run_id {
                return Ok(Some(segment));
            }
        }
        Ok(None)
    }

    /// What of it ends by position `at`, as another session's, and the segment behind that.
    pub async fn until(&self, store: &dyn Blobs, at: u64) -> Result<(Manifest, Option<Segment>), Error> {
        let mut until = Manifest { genesis: self.genesis.clone(), ..Manifest::default() };
        let mut pages = VecDeque::from(self.pages.clone());
        let mut segments = self.segments.clone();
        let mut read = Pages::default();
        while let Some(page) = pages.pop_front() {
            if page.to <= at {
                until.pages.push(Page { shared: true, ..page });
                continue;
            }
            // What is behind this page is behind the position.
            pages.clear();
            match &*read.read(store, &page).await? {
                Listed::Pages(below) => pages.extend(below.iter().cloned()),
                Listed::Segments(below) => segments.clone_from(below),
            }
        }
        let whole = segments.partition_point(|segment| segment.to <= at);
        let behind = segments.get(whole).cloned();
        let whole = segments.into_iter().take(whole);
        until.segments.extend(whole.map(|segment| Segment { shared: true, ..segment }));
        Ok((until, behind))
    }

    /// The blobs that it lists itself.
    pub fn listed(&self) -> impl Iterator<Item = &BlobRef> {
        let pages = self.pages.iter().map(|page| &page.blob);
        self.segments.iter().flat_map(Segment::blobs).chain(pages)
    }

    /// The blobs that it lists, and all that its pages do.
    pub async fn all_listed(&self, store: &dyn Blobs) -> Result<Vec<BlobRef>, Error> {
        let mut all: Vec<BlobRef> = self.listed().cloned().collect();
        let (mut pages, mut read) = (self.pages.clone(), Pages::default());
        while let Some(page) = pages.pop() {
            match &*read.read(store, &page).await? {
                Listed::Segments(below) => all.extend(below.iter().flat_map(Segment::blobs).cloned()),
                Listed::Pages(below) => {
                    all.extend(below.iter().map(|page| page.blob.clone()));
                    pages.extend(below.iter().cloned());
                }
            }
        }
        Ok(all)
    }
}

/// Segments of a manifest, the newest first; reads a page when its turn comes.
#[derive(Debug)]
pub struct Backwards {
    pages: Vec<Page>,
    segments: Vec<Segment>,
    within: (u64, u64),
}

impl Backwards {
    pub async fn next(&mut self, store: &dyn Blobs, read: &mut Pages) -> Result<Option<Segment>, Error> {
        let (wanted_from, wanted_to) = self.within;
        // What ends at `from` may end in commits that have no events of their own.
        let is_wanted = |from: u64, to: u64| from < wanted_to && to >= wanted_from;
        loop {
            while let Some(segment) = self.segments.pop() {
                if is_wanted(segment.from, segment.to) {
                    return Ok(Some(segment));
                }
            }
            let Some(page) = self.pages.pop() else { return Ok(None) };
            if !is_wanted(page.from, page.to) {
                continue;
            }
            let shared = page.shared;
            match &*read.read(store, &page).await? {
                Listed::Segments(below) => {
                    let below = below.iter().cloned();
                    self.segments = below.map(|below| Segment { shared: below.shared || shared, ..below }).collect();
                }
                Listed::Pages(below) => {
                    let below = below.iter().cloned();
                    self.pages.extend(below.map(|below| Page { shared: below.shared || shared, ..below }));
                }
            }
        }
    }
}

/// Pages read last.
#[derive(Debug, Default)]
pub struct Pages {
    read: VecDeque<(String, Arc<Listed>)>,
}

impl Pages {
    async fn read(&mut self, store: &dyn Blobs, page: &Page) -> Result<Arc<Listed>, Error> {
        let hash = &page.blob.blob;
        let known = self.read.iter().position(|(known, _)| known == hash).and_then(|known| self.read.remove(known));
        let read = match known {
            Some((_, listed)) => listed,
            None => Arc::new(blobs::get_json(store, &page.blob).await?),
        };
        self.read.truncate(PAGES_KEPT - 1);
        self.read.push_front((hash.clone(), read.clone()));
        Ok(read)
    }
}

#[cfg(test)]
mod tests;
