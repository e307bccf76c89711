//! Clients that write to every server at once and remember what was acknowledged.
//!
//! Each writer keeps to one server. It creates and deletes documents of its own, sets fields of its own in documents
//! that all writers share, and increments counters that all writers share. Whatever a server answered with 200 or 201
//! must be found everywhere afterwards; an edit without an answer may be there or not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::cluster::{documents, wait_until_reads};
use super::{Client, Server, wait_for};

const MERGE: &str = "application/merge-patch+json";
const INCREMENT: &str = "application/vnd.knot.increment+json";
/// Edits in a round: what one depends on its place in it.
const ROUND: usize = 8;
/// Documents, and counters, that all writers share.
const SHARED: usize = 4;
/// Between two attempts at a server that does not answer.
const RETRY: Duration = Duration::from_millis(20);

/// Where writers end by themselves, and how fast they go.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Most edits of a writer.
    pub edits: usize,
    /// Longest time a writer runs.
    pub time: Duration,
    /// What a writer waits after each edit.
    pub pause: Duration,
}

/// Writers that run.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    writers: Vec<Writer>,
}

#[derive(Debug)]
struct Writer {
    acknowledged: Arc<AtomicUsize>,
    thread: Option<JoinHandle<Record>>,
}

/// What a writer did.
#[derive(Clone, Debug, Default)]
pub struct Record {
    acknowledged: usize,
    /// Created, and not deleted as far as the writer knows.
    created: BTreeMap<String, Value>,
    deleted: BTreeSet<String>,
    /// Deletes that got no answer.
    uncertain: BTreeSet<String>,
    /// The last value acknowledged and the last one tried, by document and field.
    fields: BTreeMap<(String, String), Reached>,
    /// Increments acknowledged and tried, by counter.
    counters: BTreeMap<String, Reached>,
    /// Answers that no fault excuses.
    pub refused: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Reached {
    acknowledged: usize,
    tried: usize,
}

impl Load {
    /// Starts a writer for each server. The counters they share are made first.
    pub fn start(servers: &[Server], bounds: Bounds) -> Self {
        for counter in 0..SHARED {
            let path = format!("/api/documents/counters/{counter}");
            servers[0].client().patch(&path, INCREMENT, &json!({"pointer": "/n", "by": 0})).expect(201);
            wait_until_reads(servers, &path, &json!({"n": 0}));
        }
        let stop = Arc::new(AtomicBool::new(false));
        let writer = |(index, server): (usize, &Server)| {
            let acknowledged = Arc::new(AtomicUsize::new(0));
            let (client, name) = (server.client(), format!("w{index}"));
            let (stop, count) = (Arc::clone(&stop), Arc::clone(&acknowledged));
            let thread = std::thread::spawn(move || write(&name, &client, bounds, &stop, &count));
            Writer { acknowledged, thread: Some(thread) }
        };
        Self { writers: servers.iter().enumerate().map(writer).collect(), stop }
    }

    /// How many edits this writer has had acknowledged.
    pub fn acknowledged(&self, writer: usize) -> usize {
        self.writers[writer].acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until each of these writers has had `more` edits acknowledged since now.
    pub fn wait_for_more(&self, writers: &[usize], more: usize, timeout: Duration) {
        let goals: Vec<(usize, usize)> =
            writers.iter().map(|writer| (*writer, self.acknowledged(*writer) + more)).collect();
        for (writer, goal) in goals {
            let what = format!("writer {writer} has {goal} edits acknowledged");
            wait_for(&what, timeout, || (self.acknowledged(writer) >= goal).then_some(()));
        }
    }

    /// Ends all writers and gives what they did.
    pub fn stop(mut self) -> Vec<Record> {
        self.stop.store(true, Ordering::Relaxed);
        let threads = self.writers.iter_mut().filter_map(|writer| writer.thread.take());
        threads.map(|thread| thread.join().expect("the writer ran to its end")).collect()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Edits acknowledged in all.
pub fn total(records: &[Record]) -> usize {
    records.iter().map(|record| record.acknowledged).sum()
}

/// Checks that a server holds all that was acknowledged, and nothing that nobody wrote.
///
/// # Panics
/// When it does not, naming what is missing.
pub fn check(records: &[Record], server: &Server) {
    let (name, client) = (&server.setup.name, server.client());
    let mut wrong = Vec::new();
    let own = documents(&client, "load");
    for record in records {
        wrong.extend(record.refused.iter().map(|refused| format!("refused: {refused}")));
        for (key, value) in &record.created {
            if own.get(key) != Some(value) {
                wrong.push(format!("{key} was acknowledged as {value} and is {:?}", own.get(key)));
            }
        }
        wrong.extend(record.deleted.iter().filter(|key| own.contains_key(*key)).map(|key| format!("{key} came back")));
    }
    let shared = documents(&client, "shared");
    for ((document, field), reached) in records.iter().flat_map(|record| &record.fields) {
        let found = shared.get(document).and_then(|value| value[field].as_u64()).unwrap_or_default();
        if !reached.allows(usize::try_from(found).unwrap()) {
            wrong.push(format!("{field} of shared/{document}: {reached:?}, found {found}"));
        }
    }
    let counters = documents(&client, "counters");
    for counter in counters.keys() {
        let mut sum = Reached::default();
        for reached in records.iter().filter_map(|record| record.counters.get(counter)) {
            sum = Reached { acknowledged: sum.acknowledged + reached.acknowledged, tried: sum.tried + reached.tried };
        }
        let found = counters[counter]["n"].as_u64().unwrap();
        if !sum.allows(usize::try_from(found).unwrap()) {
            wrong.push(format!("counter {counter}: {sum:?}, found {found}"));
        }
    }
    assert!(wrong.is_empty(), "{name} is wrong in {} places: {:#?}", wrong.len(), &wrong[..wrong.len().min(20)]);
}

impl Reached {
    fn allows(self, found: usize) -> bool {
        (self.acknowledged..=self.tried).contains(&found)
    }
}

fn write(name: &str, client: &Client, bounds: Bounds, stop: &AtomicBool, acknowledged: &AtomicUsize) -> Record {
    let (mut record, deadline) = (Record::default(), Instant::now() + bounds.time);
    for n in 1..=bounds.edits {
        if stop.load(Ordering::Relaxed) || Instant::now() > deadline {
            break;
        }
        let pause = match record.edit(name, n, client) {
            Some(true) => {
                acknowledged.fetch_add(1, Ordering::Relaxed);
                bounds.pause
            }
            Some(false) => bounds.pause,
            None => RETRY,
        };
        std::thread::sleep(pause);
    }
    record
}

impl Record {
    /// Makes the edit number `n`; true when it was acknowledged, none when there was no answer.
    fn edit(&mut self, name: &str, n: usize, client: &Client) -> Option<bool> {
        match n % ROUND {
            0 => self.delete(&format!("{name}-{}", n - 4), client),
            1 | 3 => self.set(name, n, client),
            2 => self.increment(&(n / ROUND % SHARED).to_string(), client),
            _ => self.create(format!("{name}-{n}"), json!({"writer": name, "n": n}), client),
        }
    }

    fn create(&mut self, key: String, value: Value, client: &Client) -> Option<bool> {
        let body = value.to_string();
        let done = self.send(client, "PUT", &format!("/api/documents/load/{key}"), &[], Some(body.as_bytes()))?;
        if done {
            self.created.insert(key, value);
        }
        Some(done)
    }

    fn delete(&mut self, key: &str, client: &Client) -> Option<bool> {
        if self.created.remove(key).is_none() {
            return Some(false);
        }
        self.uncertain.insert(key.to_owned());
        let done = self.send(client, "DELETE", &format!("/api/documents/load/{key}"), &[], None)?;
        if done {
            self.uncertain.remove(key);
            self.deleted.insert(key.to_owned());
        }
        Some(done)
    }

    fn set(&mut self, name: &str, n: usize, client: &Client) -> Option<bool> {
        let document = (n / ROUND % SHARED).to_string();
        let place = (document.clone(), name.to_owned());
        self.fields.entry(place.clone()).or_default().tried = n;
        let body = json!({name: n}).to_string();
        let path = format!("/api/documents/shared/{document}");
        let done = self.send(client, "PATCH", &path, &[("content-type", MERGE)], Some(body.as_bytes()))?;
        if done {
            self.fields.entry(place).or_default().acknowledged = n;
        }
        Some(done)
    }

    fn increment(&mut self, counter: &str, client: &Client) -> Option<bool> {
        self.counters.entry(counter.to_owned()).or_default().tried += 1;
        let body = json!({"pointer": "/n", "by": 1}).to_string();
        let path = format!("/api/documents/counters/{counter}");
        let done = self.send(client, "PATCH", &path, &[("content-type", INCREMENT)], Some(body.as_bytes()))?;
        if done {
            self.counters.entry(counter.to_owned()).or_default().acknowledged += 1;
        }
        Some(done)
    }

    /// True for 200 and 201, false for other answers, none without one.
    fn send(
        &mut self,
        client: &Client,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Option<bool> {
        let reply = client.try_request(method, path, headers, body).ok()?;
        match reply.status {
            200 | 201 => {
                self.acknowledged += 1;
                Some(true)
            }
            // A server that is overloaded says so, and is not held to anything.
            503 => None,
            status => {
                self.refused.push(format!("{method} {path}: {status} {}", reply.text()));
                Some(false)
            }
        }
    }
}
