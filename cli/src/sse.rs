//! Reads server-sent events out of bytes cut anywhere: name, id and data. Knows nothing of what they mean.

/// The largest message that is kept, in bytes: an event of the API is far below.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    pub name: String,
    /// What this message said to resume behind it.
    pub id: Option<String>,
    pub data: String,
}

#[derive(Debug, thiserror::Error)]
#[error("read a message of more than {MESSAGE_BYTES_MAX} bytes from the stream")]
pub struct TooLarge;

#[derive(Default)]
pub struct Parser {
    rest: Vec<u8>,
    building: Message,
    has_data: bool,
}

impl Parser {
    /// Takes the next bytes and gives the messages that they complete.
    pub fn push(&mut self, chunk: &[u8]) -> Result<Vec<Message>, TooLarge> {
        self.rest.extend_from_slice(chunk);
        let mut done = Vec::new();
        let mut from = 0;
        while let Some(end) = self.rest[from..].iter().position(|&byte| byte == b'\n') {
            let line = String::from_utf8_lossy(&self.rest[from..from + end]).into_owned();
            from += end + 1;
            done.extend(self.line(line.strip_suffix('\r').unwrap_or(&line)));
        }
        self.rest.drain(..from);
        if self.rest.len() + self.building.data.len() > MESSAGE_BYTES_MAX {
            return Err(TooLarge);
        }
        Ok(done)
    }

    fn line(&mut self, line: &str) -> Option<Message> {
        if line.is_empty() {
            let message = std::mem::take(&mut self.building);
            return std::mem::take(&mut self.has_data).then_some(message);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.building.name),
            "id" => self.building.id = Some(value.to_owned()),
            "data" => {
                if self.has_data {
                    self.building.data.push('\n');
                }
                self.building.data.push_str(value);
                self.has_data = true;
            }
            // Comments, `retry`, and whatever a later server adds.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str =
        ": hello\n\nevent: ping\ndata: {}\n\nevent: a\r\nid: 7\r\ndata: one\r\ndata: \u{fc}\r\n\r\ndata\n\nevent: cut";

    fn expect() -> Vec<Message> {
        let message = |name: &str, id: Option<&str>, data: &str| Message {
            name: name.to_owned(),
            id: id.map(str::to_owned),
            data: data.to_owned(),
        };
        vec![message("ping", None, "{}"), message("a", Some("7"), "one\n\u{fc}"), message("", None, "")]
    }

    #[test]
    fn messages_come_out_whole_wherever_the_bytes_are_cut() {
        for size in 1..=STREAM.len() {
            let mut parser = Parser::default();
            let found: Vec<_> = STREAM.as_bytes().chunks(size).flat_map(|chunk| parser.push(chunk).unwrap()).collect();
            assert_eq!(found, expect(), "{size} bytes a chunk");
        }
    }
}
