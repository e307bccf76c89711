//! What a runtime says of its containers.
//!
//! Read by hand: Podman has words for a container's state that are in no list (`stopped`, for a moment), and one
//! container in such a state must not make all others unreadable.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;

use bytes::Bytes;
use futures_util::future::join;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

/// Largest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 32 << 20;

/// A container in a list.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Summary {
    pub(super) id: String,
    pub(super) state: String,
    /// In seconds since 1970.
    pub(super) created: i64,
    pub(super) labels: Option<HashMap<String, String>>,
}

/// How a container is, for knot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It has not run yet.
    Made,
    /// Something of it runs, or will again.
    Runs,
    /// It has ended, and its status says how.
    Ended,
    /// It is on its way out.
    Leaves,
}

impl Summary {
    pub(super) fn phase(&self) -> Phase {
        match self.state.as_str() {
            "created" | "configured" | "initialized" => Phase::Made,
            "running" | "paused" | "restarting" | "stopping" => Phase::Runs,
            "removing" => Phase::Leaves,
            _ => Phase::Ended,
        }
    }

    /// The value of a label; empty where there is none.
    pub(super) fn label(&self, name: &str) -> &str {
        self.labels.as_ref().and_then(|labels| labels.get(name)).map_or("", String::as_str)
    }
}

/// What is read of one container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Details {
    pub(super) state: Ending,
}

/// How a container ended.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Ending {
    pub(super) exit_code: i64,
}

/// Why nothing was read.
pub(super) enum Unread {
    /// The runtime said no.
    Refused(u16, String),
    /// It could not be asked.
    Unreachable(String),
}

#[derive(Deserialize)]
struct Complaint {
    message: String,
}

/// Asks for a path and reads the answer.
pub(super) async fn get<T: DeserializeOwned>(socket: &Path, path: &str) -> Result<T, Unread> {
    let (status, body) = exchange(socket, path).await.map_err(|error| Unread::Unreachable(error.to_string()))?;
    if !(200..300).contains(&status) {
        let said = serde_json::from_slice(&body).map(|Complaint { message }| message);
        return Err(Unread::Refused(status, said.unwrap_or_else(|_| String::from_utf8_lossy(&body).into_owned())));
    }
    serde_json::from_slice(&body)
        .map_err(|error| Unread::Refused(status, format!("its answer is not understood: {error}")))
}

async fn exchange(socket: &Path, path: &str) -> Result<(u16, Bytes), Box<dyn std::error::Error + Send + Sync>> {
    let stream = TokioIo::new(UnixStream::connect(socket).await?);
    let (mut sender, connection) = http1::handshake(stream).await?;
    let request =
        Request::get(path).header("host", "localhost").header("connection", "close").body(Empty::<Bytes>::new())?;
    let asked = async move {
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await?.to_bytes();
        Ok((status, body))
    };
    // What became of the connection shows in the answer.
    let (answer, _) = join(asked, connection).await;
    answer
}

/// A value as it may stand in a query.
pub(super) fn encoded(value: &str) -> String {
    let mut text = String::with_capacity(value.len() * 3);
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_for_a_state_is_understood() {
        let json = r#"[{"Id": "a", "State": "stopped", "Labels": null, "Ports": []},
            {"Id": "b", "State": "running", "Created": 7, "Labels": {"knot.space": "s1"}}, {"Id": "c", "State": "removing"}]"#;
        let listed: Vec<Summary> = serde_json::from_str(json).unwrap();
        let phases: Vec<Phase> = listed.iter().map(Summary::phase).collect();
        assert_eq!(phases, [Phase::Ended, Phase::Runs, Phase::Leaves]);
        assert_eq!((listed[0].label("knot.space"), listed[1].label("knot.space")), ("", "s1"));
        let details: Details = serde_json::from_str(r#"{"State": {"Status": "stopped", "ExitCode": 3}}"#).unwrap();
        assert_eq!(details.state.exit_code, 3);
    }

    #[test]
    fn a_query_holds_no_bytes_that_end_it() {
        assert_eq!(encoded(r#"{"a":["é&"]}"#), "%7B%22a%22%3A%5B%22%C3%A9%26%22%5D%7D");
    }
}
