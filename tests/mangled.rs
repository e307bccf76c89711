//! Something between two servers spoils the bytes of their streams: sessions end and are opened anew, servers stay up, and
//! they hold the same as soon as it stops.

#![allow(clippy::unwrap_used, reason = "a test ends where what it needs is not there")]

mod support;

use std::time::Duration;

use serde_json::json;
use support::cluster::{self, JOIN_TIMEOUT, wait_until_alive, wait_until_equal, wait_until_reads};
use support::proxy::{Mischief, Proxy};
use support::{Server, Setup, wait_for};

/// How long spoilt streams may take to be opened anew: an attempt to connect backs off.
const REOPEN_TIMEOUT: Duration = Duration::from_secs(60);
/// Chunks that are spoilt before it stops.
const SPOILT: usize = 6;
/// How long two servers may take to hold the same after it has stopped: half a minute for a segment whose length was
/// altered, then the wait to connect again, then a repair.
const MEND_TIMEOUT: Duration = Duration::from_secs(60);

/// Two servers that talk through proxies alone.
fn pair() -> (Vec<Server>, Vec<Proxy>) {
    let mut setups = Setup::cluster(&["au", "gb"]);
    let proxies = Proxy::before(&mut setups);
    (cluster::start(setups), proxies)
}

/// Writes to both servers until enough has been spoilt.
fn write_through(servers: &[Server], proxies: &[Proxy], collection: &str) {
    let clients: Vec<_> = servers.iter().map(Server::client).collect();
    let spoilt = || proxies.iter().map(Proxy::spoilt).sum::<usize>();
    let (before, mut number) = (spoilt(), 0);
    wait_for(&format!("{collection}: bytes are spoilt"), REOPEN_TIMEOUT, || {
        for (index, client) in clients.iter().enumerate() {
            let path = format!("/api/documents/{collection}/{index}-{number}");
            client.put(&path, &json!({"n": number, "text": "some more text to be sent"})).expect(201);
            // The same document too, so that there is something to merge.
            let shared = format!("/api/documents/{collection}/shared");
            client.patch(&shared, "application/merge-patch+json", &json!({ index.to_string(): number }));
        }
        number += 1;
        (spoilt() >= before + SPOILT).then_some(())
    });
}

#[test]
fn what_spoils_streams_ends_sessions_and_nothing_else() {
    let (mut servers, proxies) = pair();
    let ends_sessions =
        [Mischief::Rewrite, Mischief::Truncate, Mischief::Stretch, Mischief::Reorder, Mischief::Repeat, Mischief::Cut];
    for mischief in ends_sessions {
        let name = format!("{mischief:?}").to_lowercase();
        let opened = || proxies.iter().map(Proxy::streams).sum::<usize>();
        let before = opened();
        proxies.iter().for_each(|proxy| proxy.set(mischief));
        write_through(&servers, &proxies, &name);
        wait_for(&format!("{name}: a session is opened anew"), REOPEN_TIMEOUT, || (opened() > before).then_some(()));
        proxies.iter().for_each(|proxy| proxy.set(Mischief::Honest));
        wait_until_equal(&servers, MEND_TIMEOUT);
        wait_until_alive(&servers);
        let said = json!({"mischief": name});
        servers[0].client().put(&format!("/api/documents/after/{name}"), &said).expect(201);
        wait_until_reads(&servers, &format!("/api/documents/after/{name}"), &said);
    }
    for server in &mut servers {
        assert_eq!(server.exit_status(), None);
        let log = server.log();
        assert!(!log.contains("panicked"), "{log}");
    }
    let told = servers.iter().any(|server| server.log().contains("closed a stream"));
    assert!(told, "an operator can read why sessions ended");
}

#[test]
fn late_bytes_are_waited_for() {
    let (servers, proxies) = pair();
    wait_for("a stream is open", JOIN_TIMEOUT, || proxies.iter().any(|proxy| proxy.streams() > 0).then_some(()));
    proxies.iter().for_each(|proxy| proxy.set(Mischief::Delay));
    write_through(&servers, &proxies, "late");
    wait_until_equal(&servers, MEND_TIMEOUT);
    for server in &servers {
        assert!(!server.log().contains("misbehaved"), "{}", server.log());
    }
}
