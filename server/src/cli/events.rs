//! Server-sent events, as the HTML standard defines their stream (section 9.2.6), read from pieces of any size.

use std::mem;

/// Longest event that is read, in bytes: a document of the largest size with room to spare.
const EVENT_BYTES_MAX: usize = 8 << 20;

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) name: String,
    pub(super) id: Option<String>,
    pub(super) data: String,
}

/// The stream is not one of events, or holds one that is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoEvents;

/// What has been read of an event.
#[derive(Debug, Default)]
pub(super) struct Reader {
    line: Vec<u8>,
    event: Event,
    after_return: bool,
}

impl Reader {
    /// Takes the next bytes, and gives the events that end in them.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<Vec<Event>, NoEvents> {
        let mut events = Vec::new();
        for byte in bytes {
            let second_half = *byte == b'\n' && mem::take(&mut self.after_return);
            self.after_return = *byte == b'\r';
            if second_half {
                continue;
            }
            if *byte != b'\n' && *byte != b'\r' {
                if self.line.len() + self.event.data.len() >= EVENT_BYTES_MAX {
                    return Err(NoEvents);
                }
                self.line.push(*byte);
                continue;
            }
            let line = String::from_utf8(mem::take(&mut self.line)).map_err(|_| NoEvents)?;
            if !line.is_empty() {
                self.field(&line);
            } else if let event = mem::take(&mut self.event)
                && !event.name.is_empty()
            {
                events.push(event);
            }
        }
        Ok(events)
    }

    fn field(&mut self, line: &str) {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "event" => value.clone_into(&mut self.event.name),
            "id" => self.event.id = Some(value.to_owned()),
            "data" => {
                if !self.event.data.is_empty() {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            // Comments and fields that are unknown here.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] =
        b"retry: 1000\n\nevent: change\nid: n-1\ndata: {\"a\":\ndata: 1}\n\n: comment\nevent:heartbeat\r\ndata: {}\r\n\r\n";

    #[test]
    fn events_come_out_whole_however_they_are_cut() {
        let expected = [
            Event { name: "change".to_owned(), id: Some("n-1".to_owned()), data: "{\"a\":\n1}".to_owned() },
            Event { name: "heartbeat".to_owned(), id: None, data: "{}".to_owned() },
        ];
        for size in 1..=STREAM.len() {
            let mut reader = Reader::default();
            let events: Vec<_> =
                STREAM.chunks(size).flat_map(|chunk| reader.read(chunk).expect("it is a stream of events")).collect();
            assert_eq!(events, expected, "cut at {size}");
        }
    }

    #[test]
    fn an_event_without_end_is_given_up() {
        let mut reader = Reader::default();
        let line = vec![b'x'; 1 << 20];
        let error = (0..=EVENT_BYTES_MAX >> 20).find_map(|_| reader.read(&line).err());
        assert_eq!(error, Some(NoEvents));
        assert_eq!(Reader::default().read(b"\xff\n"), Err(NoEvents));
    }
}
