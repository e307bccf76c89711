//! An HTTP/1.1 client that costs next to nothing: one connection, one request at a time, no more parsing than needed.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest answer that is taken.
const ANSWER_BYTES_MAX: usize = 64 << 20;
const READ_BYTES: usize = 16 << 10;

/// A connection that is kept between requests.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    token: String,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr, token: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, token: token.to_owned(), request: Vec::new(), answer: Vec::new() })
    }

    /// Puts a document, which must be taken.
    pub(crate) async fn put(&mut self, path: &str, body: &[u8]) -> io::Result<()> {
        match self.ask("PUT", path, body).await? {
            (200 | 201, _) => Ok(()),
            (status, body) => Err(refused(status, body)),
        }
    }

    /// Gets a text, which must be there.
    pub(crate) async fn get(&mut self, path: &str) -> io::Result<String> {
        match self.ask("GET", path, &[]).await? {
            (200, body) => Ok(String::from_utf8_lossy(body).into_owned()),
            (status, body) => Err(refused(status, body)),
        }
    }

    pub(crate) async fn get_json(&mut self, path: &str) -> io::Result<Value> {
        Ok(serde_json::from_str(&self.get(path).await?)?)
    }

    /// The status of an answer, and its body.
    pub(crate) async fn ask(&mut self, method: &str, path: &str, body: &[u8]) -> io::Result<(u16, &[u8])> {
        self.send(method, path, body).await?;
        self.answer.clear();
        let (status, head, length) = loop {
            self.read().await?;
            if let Some(head) = head_len(&self.answer) {
                let text = std::str::from_utf8(&self.answer[..head]).map_err(io::Error::other)?;
                break (status(text)?, head, content_length(text)?);
            }
        };
        let end = head + length.min(ANSWER_BYTES_MAX);
        while self.answer.len() < end {
            self.read().await?;
        }
        Ok((status, &self.answer[head..end]))
    }

    async fn send(&mut self, method: &str, path: &str, body: &[u8]) -> io::Result<()> {
        use std::io::Write as _;
        self.request.clear();
        write!(
            self.request,
            "{method} {path} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {}\r\ncontent-length: {}\r\n\r\n",
            self.token,
            body.len()
        )?;
        self.request.extend_from_slice(body);
        self.stream.write_all(&self.request).await
    }

    async fn read(&mut self) -> io::Result<()> {
        self.answer.reserve(READ_BYTES);
        match self.stream.read_buf(&mut self.answer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Turns the connection into the server's feed of changes.
    pub(crate) async fn changes(mut self) -> io::Result<Feed> {
        self.send("GET", "/api/changes", &[]).await?;
        let mut feed = Feed { connection: self, at: 0 };
        let first = feed.line().await?;
        if status(&first)? != 200 {
            return Err(io::Error::other(first));
        }
        Ok(feed)
    }
}

/// The feed of changes. The server sends whole events in a chunk, so lines are never cut and chunk sizes, which are
/// lines of their own, are passed over.
#[derive(Debug)]
pub(crate) struct Feed {
    connection: Connection,
    at: usize,
}

impl Feed {
    /// Waits until the feed has told everything that was there before.
    pub(crate) async fn skip_snapshot(&mut self) -> io::Result<()> {
        while self.line().await? != "event: snapshot-end" {}
        Ok(())
    }

    /// The key of the next document that changed, and when it was heard of.
    pub(crate) async fn next(&mut self) -> io::Result<(String, Instant)> {
        while self.line().await? != "event: change" {}
        loop {
            let line = self.line().await?;
            if let Some(data) = line.strip_prefix("data: ") {
                let heard = Instant::now();
                let change: Value = serde_json::from_str(data)?;
                return Ok((change["key"].as_str().unwrap_or_default().to_owned(), heard));
            }
        }
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            let rest = &self.connection.answer[self.at..];
            if let Some(len) = rest.iter().position(|byte| *byte == b'\n') {
                let line = String::from_utf8_lossy(&rest[..len]).trim_end().to_owned();
                self.at += len + 1;
                return Ok(line);
            }
            self.connection.answer.drain(..self.at);
            self.at = 0;
            self.connection.read().await?;
        }
    }
}

fn refused(status: u16, body: &[u8]) -> io::Error {
    io::Error::other(format!("{status} {}", String::from_utf8_lossy(body)))
}

fn head_len(answer: &[u8]) -> Option<usize> {
    answer.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

fn status(head: &str) -> io::Result<u16> {
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.ok_or_else(|| io::Error::other(format!("not an answer: {head:?}")))
}

fn content_length(head: &str) -> io::Result<usize> {
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    length.ok_or_else(|| io::Error::other("an answer without content-length"))
}
