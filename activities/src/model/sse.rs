//! An incremental parser of `text/event-stream`, after the WHATWG rules.
//!
//! Takes bytes cut anywhere (inside a line end, inside a character) and gives whole events. It never panics, never
//! holds more than the cap, and knows nothing of what the events mean. `id` and `retry` are skipped: a model's answer
//! is never resumed. Bytes that are not UTF-8 become U+FFFD, as the rules say.

/// One event: `name` is empty when the server gave none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub name: String,
    pub data: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("read an event of more than {bytes_max} bytes")]
    TooLarge { bytes_max: usize },
}

/// Feed with [`Parser::push`]; every event that a chunk completes is handed to the callback at once.
pub struct Parser {
    /// The line so far, without its end.
    line: Vec<u8>,
    /// The last byte was a CR that ended a line: an LF right after it belongs to it.
    after_cr: bool,
    first_line: bool,
    name: String,
    /// Every `data` line so far, each followed by LF.
    data: String,
    bytes_max: usize,
}

impl Parser {
    /// `bytes_max` bounds one event: its name, data and the line being read.
    pub fn new(bytes_max: usize) -> Parser {
        Parser {
            line: Vec::new(),
            after_cr: false,
            first_line: true,
            name: String::new(),
            data: String::new(),
            bytes_max,
        }
    }

    /// Takes the next bytes and gives the events that they complete, in order.
    pub fn push(&mut self, chunk: &[u8]) -> Result<Vec<Event>, Error> {
        let mut events = Vec::new();
        let mut rest = chunk;
        while let Some(&first) = rest.first() {
            if std::mem::take(&mut self.after_cr) && first == b'\n' {
                rest = &rest[1..];
                continue;
            }
            let Some(end) = rest.iter().position(|&byte| byte == b'\n' || byte == b'\r') else {
                self.extend_line(rest)?;
                break;
            };
            self.extend_line(&rest[..end])?;
            self.after_cr = rest[end] == b'\r';
            rest = &rest[end + 1..];
            events.extend(self.end_line());
        }
        Ok(events)
    }

    /// The event that the end of the stream cut off before its blank line. The rules drop it; some servers close right
    /// after their last line, so the reader of the data decides whether it is whole.
    pub fn finish(mut self) -> Option<Event> {
        if !self.line.is_empty() {
            self.end_line();
        }
        self.end_event()
    }

    fn extend_line(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let held = self.name.len() + self.data.len() + self.line.len();
        if held + bytes.len() > self.bytes_max {
            return Err(Error::TooLarge { bytes_max: self.bytes_max });
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn end_line(&mut self) -> Option<Event> {
        let bytes = std::mem::take(&mut self.line);
        let mut line = &bytes[..];
        if std::mem::take(&mut self.first_line) {
            line = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line);
        }
        if line.is_empty() {
            return self.end_event();
        }
        let colon = line.iter().position(|&byte| byte == b':');
        let (field, value) = match colon {
            Some(at) => (&line[..at], &line[at + 1..]),
            None => (line, &line[line.len()..]),
        };
        let value = String::from_utf8_lossy(value.strip_prefix(b" ").unwrap_or(value));
        match field {
            b"event" => self.name = value.into_owned(),
            b"data" => {
                self.data.push_str(&value);
                self.data.push('\n');
            }
            _ => {}
        }
        None
    }

    fn end_event(&mut self) -> Option<Event> {
        let name = std::mem::take(&mut self.name);
        let mut data = std::mem::take(&mut self.data);
        data.pop()?;
        Some(Event { name, data })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(chunks: &[&[u8]]) -> Vec<(String, String)> {
        let mut parser = Parser::new(1 << 20);
        let mut events = Vec::new();
        for chunk in chunks {
            events.extend(parser.push(chunk).expect("below the cap"));
        }
        events.extend(parser.finish());
        events.into_iter().map(|event| (event.name, event.data)).collect()
    }

    fn check(input: &[u8], expect: &[(&str, &str)]) {
        let expect: Vec<_> = expect.iter().map(|(name, data)| (name.to_string(), data.to_string())).collect();
        assert_eq!(parse(&[input]), expect, "{:?}", String::from_utf8_lossy(input));
        let single: Vec<&[u8]> = input.chunks(1).collect();
        assert_eq!(parse(&single), expect, "byte by byte: {:?}", String::from_utf8_lossy(input));
    }

    #[test]
    fn table() {
        check(b"", &[]);
        check(b"\n\n\n", &[]);
        check(b"data: a\n\n", &[("", "a")]);
        check(b"data:a\n\n", &[("", "a")]);
        check(b"data:  a\n\n", &[("", " a")]);
        check(b"event: ping\ndata: {}\n\n", &[("ping", "{}")]);
        check(b"event: ping\r\ndata: {}\r\n\r\n", &[("ping", "{}")]);
        check(b"event: ping\rdata: {}\r\r", &[("ping", "{}")]);
        check(b"data: a\r\ndata: b\n\r\ndata: c\n\n", &[("", "a\nb"), ("", "c")]);
        check(b"data\n\n", &[("", "")]);
        check(b"data\ndata\n\n", &[("", "\n")]);
        check(b": comment\n\ndata: a\n: in between\ndata: b\n\n", &[("", "a\nb")]);
        check(b"id: 7\nretry: 10\nunknown: x\ndata: a\n\n", &[("", "a")]);
        check(b"event: only a name\n\ndata: a\n\n", &[("", "a")]);
        check(b"\xEF\xBB\xBFdata: a\n\ndata: b\n\n", &[("", "a"), ("", "b")]);
        check("data: grün 🦀\n\n".as_bytes(), &[("", "grün 🦀")]);
        check(b"data: \xff\n\n", &[("", "\u{fffd}")]);
        check(b"data: cut", &[("", "cut")]);
        check(b"data: a\n\nevent: x", &[("", "a")]);
        check(b"data: a: b\n\n", &[("", "a: b")]);
    }

    #[test]
    fn one_event_is_bounded_and_the_next_is_not_charged_for_it() {
        let mut parser = Parser::new(16);
        assert_eq!(parser.push(b"data: 0123456789\n\ndata: 0123456789\n\n").unwrap().len(), 2);
        assert_eq!(parser.push(b"data: 0123456789x"), Err(Error::TooLarge { bytes_max: 16 }));
        let mut parser = Parser::new(16);
        let many_lines = b"data: 012345\n".repeat(3);
        assert_eq!(parser.push(&many_lines), Err(Error::TooLarge { bytes_max: 16 }));
    }

    /// Bytes that are mostly the characters that matter.
    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            4 => Just(b"data: ".to_vec()),
            2 => Just(b"event: ".to_vec()),
            4 => Just(b"\n".to_vec()),
            2 => Just(b"\r".to_vec()),
            2 => Just(b"\r\n".to_vec()),
            1 => Just(b":".to_vec()),
            2 => Just("ü🦀".as_bytes().to_vec()),
            2 => proptest::collection::vec(any::<u8>(), 0..6),
        ];
        proptest::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_events(bytes in stream(), cuts in proptest::collection::vec(any::<usize>(), 0..20)) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % (bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            prop_assert_eq!(parse(&chunks), parse(&[&bytes]));
        }

        #[test]
        fn no_bytes_panic_or_pass_the_cap(bytes in proptest::collection::vec(any::<u8>(), 0..400), cap in 0usize..64) {
            let mut parser = Parser::new(cap);
            if let Ok(events) = parser.push(&bytes) {
                // U+FFFD is three bytes for one bad byte.
                prop_assert!(events.iter().all(|event| event.name.len() + event.data.len() <= cap * 3));
            }
        }
    }
}
