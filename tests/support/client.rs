//! An HTTP/1.1 client of few lines, so that a test sees and can break every byte.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// How long any one read may take.
pub const READ_TIMEOUT: Duration = Duration::from_secs(90);

/// Asks one server, a connection a request.
#[derive(Clone, Debug)]
pub struct Client {
    address: SocketAddr,
    token: Option<String>,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    /// A header's value, whatever its case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The ETag header as it stands, with its quotes.
    pub fn etag(&self) -> String {
        self.header("etag").unwrap_or_else(|| panic!("no ETag: {self:?}")).to_owned()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {} {}", self.status, self.text()))
    }

    /// Checks the status, showing the whole answer where it differs.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{:?} {}", self.headers, self.text());
        self
    }

    /// Checks that this is an error of this status with a text and a hint, and that one of them holds `words`.
    #[track_caller]
    pub fn expect_error(self, status: u16, words: &str) -> Self {
        let reply = self.expect(status);
        let body = reply.json();
        let (error, hint) = (body["error"].as_str().unwrap_or_default(), body["hint"].as_str().unwrap_or_default());
        assert!(!error.is_empty() && !hint.is_empty(), "{body}");
        assert!(error.contains(words) || hint.contains(words), "{words:?} is not in {body}");
        reply
    }
}

impl Client {
    pub fn new(address: SocketAddr, token: Option<&str>) -> Self {
        Self { address, token: token.map(str::to_owned) }
    }

    /// The same client with another token, or none.
    pub fn with_token(&self, token: Option<&str>) -> Self {
        Self::new(self.address, token)
    }

    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    pub fn get(&self, path: &str) -> Reply {
        self.request("GET", path, &[], None)
    }

    pub fn put(&self, path: &str, body: &Value) -> Reply {
        self.request("PUT", path, &[], Some(body.to_string().as_bytes()))
    }

    pub fn patch(&self, path: &str, kind: &str, body: &Value) -> Reply {
        self.request("PATCH", path, &[("content-type", kind)], Some(body.to_string().as_bytes()))
    }

    pub fn delete(&self, path: &str) -> Reply {
        self.request("DELETE", path, &[], None)
    }

    #[track_caller]
    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&[u8]>) -> Reply {
        self.try_request(method, path, headers, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// As [`Client::request`], where the server may not be there.
    pub fn try_request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> io::Result<Reply> {
        let mut stream = self.connect()?;
        let mut head = self.head(method, path, headers);
        if let Some(body) = body {
            head += &format!("content-length: {}\r\n", body.len());
        }
        head += "connection: close\r\n\r\n";
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body.unwrap_or_default());
        stream.write_all(&bytes)?;
        read_reply(&mut BufReader::new(stream), method)
    }

    /// The first lines of a request, without the blank line that ends them.
    pub fn head(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> String {
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n", self.address);
        if let Some(token) = &self.token {
            head += &format!("authorization: Bearer {token}\r\n");
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head
    }

    /// A connection on which nothing has been said.
    pub fn connect(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&self.address, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(READ_TIMEOUT))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Opens a change feed.
    pub fn changes(&self, query: &str, headers: &[(&str, &str)]) -> Events {
        let mut stream = self.connect().unwrap();
        stream.write_all((self.head("GET", &format!("/api/changes{query}"), headers) + "\r\n").as_bytes()).unwrap();
        let mut reader = BufReader::new(stream);
        let (status, headers) = read_head(&mut reader).unwrap();
        assert_eq!(status, 200, "{headers:?}");
        assert!(headers.contains(&("content-type".to_owned(), "text/event-stream".to_owned())), "{headers:?}");
        Events { reader, text: String::new() }
    }
}

/// Reads a whole answer.
pub fn read_reply(reader: &mut impl BufRead, method: &str) -> io::Result<Reply> {
    loop {
        let (status, headers) = read_head(reader)?;
        if status == 100 {
            continue;
        }
        let mut reply = Reply { status, headers, body: Vec::new() };
        if method == "HEAD" || status == 304 || status == 204 {
            return Ok(reply);
        }
        if reply.header("transfer-encoding").is_some() {
            while let Some(chunk) = read_chunk(reader)? {
                reply.body.extend(chunk);
            }
        } else if let Some(length) = reply.header("content-length") {
            reply.body.resize(length.parse().map_err(io::Error::other)?, 0);
            reader.read_exact(&mut reply.body)?;
        } else {
            reader.read_to_end(&mut reply.body)?;
        }
        return Ok(reply);
    }
}

fn read_head(reader: &mut impl BufRead) -> io::Result<(u16, Vec<(String, String)>)> {
    let line = read_line(reader)?;
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| io::Error::other(format!("not a status line: {line:?}")))?;
    let mut headers = Vec::new();
    loop {
        let line = read_line(reader)?;
        match line.split_once(':') {
            Some((name, value)) => headers.push((name.to_ascii_lowercase(), value.trim().to_owned())),
            None => return Ok((status, headers)),
        }
    }
}

/// A line without its end; an error where the stream ends instead.
fn read_line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn read_chunk(reader: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let length = usize::from_str_radix(&read_line(reader)?, 16).map_err(io::Error::other)?;
    let mut chunk = vec![0; length];
    reader.read_exact(&mut chunk)?;
    read_line(reader)?;
    Ok((length > 0).then_some(chunk))
}

/// A change feed that is being read.
#[derive(Debug)]
pub struct Events {
    reader: BufReader<TcpStream>,
    text: String,
}

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub name: String,
    pub id: Option<String>,
    pub data: Value,
}

impl Events {
    /// The next event; none where the feed has ended.
    pub fn next(&mut self) -> Option<Event> {
        loop {
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let event = parse_event(block);
                self.text = rest.to_owned();
                if event.is_some() {
                    return event;
                }
            }
            let chunk = read_chunk(&mut self.reader).expect("the feed is framed as HTTP says")?;
            self.text += &String::from_utf8(chunk).unwrap();
        }
    }

    /// The next event, which has this name; heartbeats are passed over.
    #[track_caller]
    pub fn expect(&mut self, name: &str) -> Event {
        loop {
            let event = self.next().unwrap_or_else(|| panic!("the feed ended before {name}"));
            if event.name == name {
                return event;
            }
            assert_eq!(event.name, "heartbeat", "waiting for {name}: {event:?}");
        }
    }

    /// The changes up to the end of the snapshot, and the event that ends it.
    pub fn snapshot(&mut self) -> (Vec<Event>, Event) {
        let mut changes = Vec::new();
        loop {
            let event = self.next().expect("the snapshot has an end");
            match event.name.as_str() {
                "change" => changes.push(event),
                "snapshot-end" => return (changes, event),
                name => assert_eq!(name, "heartbeat", "{event:?}"),
            }
        }
    }
}

/// An event from its lines; none where they only set the retry time.
fn parse_event(block: &str) -> Option<Event> {
    let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let name = field("event")?.to_owned();
    let data = serde_json::from_str(field("data").unwrap_or("null")).unwrap();
    Some(Event { name, id: field("id").map(str::to_owned), data })
}
