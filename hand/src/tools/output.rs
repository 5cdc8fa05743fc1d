//! What a command says, as the model gets it: the last part, without terminal escapes, always valid text.

use crate::limits::RESULT_TEXT_BYTES;
use crate::protocol::{Block, ToolResult};

/// Keeps the last `keep` bytes of a stream, in at most twice the memory.
pub struct Tail {
    keep: usize,
    bytes: Vec<u8>,
    total: u64,
}

impl Tail {
    pub fn new(keep: usize) -> Self {
        Self { keep, bytes: Vec::new(), total: 0 }
    }

    pub fn push(&mut self, more: &[u8]) {
        self.total += more.len() as u64;
        self.bytes.extend_from_slice(&more[more.len().saturating_sub(self.keep)..]);
        if self.bytes.len() > 2 * self.keep {
            self.bytes.drain(..self.bytes.len() - self.keep);
        }
    }

    /// How much was said in all.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// What is kept, and start again.
    pub fn take(&mut self) -> Vec<u8> {
        self.total = 0;
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.drain(..bytes.len().saturating_sub(self.keep));
        bytes
    }
}

/// Text for the model: escapes removed, invalid UTF-8 and NUL replaced.
pub fn plain(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&strip_escapes(bytes)).replace('\0', "\u{fffd}")
}

/// The last `keep` bytes of `text`, cut at a character.
pub fn last(text: &str, keep: usize) -> &str {
    &text[text.ceil_char_boundary(text.len().saturating_sub(keep))..]
}

/// A result whose text is no longer than one may be; of what is too long the first part.
pub fn capped(mut result: ToolResult) -> ToolResult {
    let mut left = RESULT_TEXT_BYTES;
    for block in &mut result.content {
        let Block::Text { text } = block else { continue };
        if text.len() > left {
            text.truncate(text.floor_char_boundary(left));
            *block = Block::text(format!("{text}\n[cut after {left} bytes]"));
            result.truncated = true;
            left = 0;
        } else {
            left -= text.len();
        }
    }
    result
}

/// Remove ANSI escape sequences: CSI, OSC and the other strings, and two-byte escapes.
fn strip_escapes(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|&b| b == 0x1b) {
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at + 1..];
        let skip = match rest.first() {
            None => 0,
            // Parameters, then intermediates, then one final byte; anything else ends a broken sequence.
            Some(b'[') => {
                let body = rest[1..].iter().take_while(|b| (0x20..=0x3f).contains(*b)).count();
                let end = rest.get(1 + body).is_some_and(|b| (0x40..=0x7e).contains(b));
                1 + body + usize::from(end)
            }
            // Ended by BEL or ESC \; one that never ends must not swallow the rest, so it ends with its line.
            Some(b']' | b'P' | b'X' | b'^' | b'_') => {
                let body = rest[1..].iter().take_while(|b| !matches!(b, 0x07 | 0x1b | b'\n')).count();
                match rest.get(1 + body) {
                    Some(0x07) => 2 + body,
                    Some(0x1b) if rest.get(2 + body) == Some(&b'\\') => 3 + body,
                    _ => 1 + body,
                }
            }
            // Intermediates (character sets), then one final byte.
            Some(0x20..=0x2f) => {
                let body = rest.iter().take_while(|b| (0x20..=0x2f).contains(*b)).count();
                body + usize::from(rest.get(body).is_some_and(|b| (0x30..=0x7e).contains(b)))
            }
            Some(0x30..=0x7e) => 1,
            Some(_) => 0,
        };
        rest = &rest[skip..];
    }
    out.extend_from_slice(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_stripped() {
        for (from, expect) in [
            ("plain\ttext\n", "plain\ttext\n"),
            ("\x1b[1;31mred\x1b[0m", "red"),
            ("\x1b]0;title\x07after", "after"),
            ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
            ("\x1b]never ends\nnext", "\nnext"),
            ("\x1b(Bx\x1b7y\x1bMz", "xyz"),
            ("\x1b[?25lx\x1b[2K", "x"),
            ("cut\x1b", "cut"),
            ("cut\x1b[3", "cut"),
            ("bad\x1b[3\u{1}x", "bad\u{1}x"),
            ("é\x1b[0mé", "éé"),
            ("a\0b", "a\u{fffd}b"),
        ] {
            assert_eq!(plain(from.as_bytes()), expect, "{from:?}");
        }
        assert_eq!(plain(b"a\xffb"), "a\u{fffd}b");
    }

    #[test]
    fn a_result_has_a_longest_text() {
        let fits = ToolResult::ok("x".repeat(RESULT_TEXT_BYTES));
        assert_eq!(capped(fits.clone()), fits);
        let long = capped(ToolResult::ok("é".repeat(RESULT_TEXT_BYTES)));
        assert!(long.truncated && long.text().len() < RESULT_TEXT_BYTES + 50 && long.text().starts_with("éé"));
    }

    #[test]
    fn the_tail_is_what_came_last() {
        let mut tail = Tail::new(4);
        for more in ["ab", "cdefghijklmnop", "q", "rs"] {
            tail.push(more.as_bytes());
            assert!(tail.bytes.len() <= 8);
        }
        assert_eq!(tail.total(), 19);
        assert_eq!(tail.take(), b"pqrs");
        assert_eq!((tail.total(), tail.take()), (0, Vec::new()));
        assert_eq!(last("aéb", 2), "b");
        assert_eq!(last("ab", 9), "ab");
    }
}
