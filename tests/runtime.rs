//! Spaces in a real container runtime: Podman, where this machine can run it.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test ends where what it needs is not there")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use knot_server::spaces::agent::{self, Container, Knowledge, Step};
use knot_server::spaces::record::{Report, Server, Shown, SpaceRecord, State, Wanted, shown};
use knot_server::spaces::runtime::{Owner, Runtime, Start};
use knot_server::spaces::spec::{ContainerSpec, container};
use knot_server::templates::{Facts, Platform, Template};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;

use crate::support::podman::{BUSYBOX, IMAGE, Podman, SERVICE_TIMEOUT};
use crate::support::wait_for;

/// What knot has of it, as a server of this name.
async fn runtime_of(podman: &Podman, node: &str) -> Runtime {
    let owner = Owner { cluster: "test".to_owned(), node_id: node.to_owned() };
    Runtime::find(&[podman.socket()], owner).await.unwrap()
}

/// A space that runs until it is stopped.
fn spec(script: &str) -> ContainerSpec {
    ContainerSpec {
        image: IMAGE.to_owned(),
        hostname: "space".to_owned(),
        network: "none".to_owned(),
        command: [BUSYBOX, "sh", "-c", script].map(str::to_owned).into(),
        ..ContainerSpec::default()
    }
}

/// Ends at once when it is told to.
const WAIT: &str = "trap 'exit 0' TERM; while true; do /bin/busybox sleep 0.1; done";

async fn start(runtime: &Runtime, generation: u64, spec: &ContainerSpec) -> Result<String, String> {
    let started = runtime.start(Start { space_id: "s1", generation, spec }, &mut |_| ()).await;
    started.map_err(|error| error.to_string())
}

/// What a server holds: generations, and how they are.
async fn held(runtime: &Runtime) -> Vec<(u64, Container)> {
    let here = runtime.list().await.unwrap();
    here.containers.iter().map(|seen| (seen.generation, seen.state)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_space_started_twice_is_one_container_and_a_later_start_takes_its_place() {
    let Some(podman) = Podman::start() else { return };
    let runtime = runtime_of(&podman, "n1").await;
    assert_eq!(runtime.platform(), Platform::Podman);
    assert!(runtime.name().starts_with("Podman "), "{}", runtime.name());
    let spec = spec(WAIT);
    let (one, other) = tokio::join!(start(&runtime, 1, &spec), start(&runtime, 1, &spec));
    assert_eq!((one.clone().unwrap(), held(&runtime).await), (other.unwrap(), vec![(1, Container::Running)]));
    assert_eq!(start(&runtime, 1, &spec).await, one);
    let later = start(&runtime, 2, &spec).await.unwrap();
    assert_eq!((Ok(later) == one, held(&runtime).await), (false, vec![(2, Container::Running)]));
    let error = start(&runtime, 1, &spec).await.unwrap_err();
    assert_eq!(error, "start 2 of space s1 is here already, so start 1 is over: start the space again");
    // A server that shares the machine sees nothing of it, and has a name of its own for its container.
    let other = runtime_of(&podman, "n2").await;
    assert_eq!(held(&other).await, []);
    other.remove("s1", false).await.unwrap();
    assert_eq!(held(&runtime).await, [(2, Container::Running)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_behind_knots_back_is_seen_and_can_be_set_right() {
    let Some(podman) = Podman::start() else { return };
    let runtime = runtime_of(&podman, "n1").await;
    let spec = spec(WAIT);
    let id = start(&runtime, 1, &spec).await.unwrap();
    podman.run(&["kill", "--signal", "KILL", &id]);
    let killed = || podman.run(&["inspect", "--format", "{{.State.Status}}", &id]) == "exited";
    wait_for("the end of a container that was killed", SERVICE_TIMEOUT, || killed().then_some(()));
    assert_eq!(held(&runtime).await, [(1, Container::Exited(137))]);
    assert_eq!(start(&runtime, 1, &spec).await.unwrap(), id);
    assert_eq!(held(&runtime).await, [(1, Container::Running)]);
    podman.run(&["rm", "--force", "--time=0", &id]);
    assert_eq!(held(&runtime).await, []);
    // Nothing is there any more, and that is fine.
    runtime.stop("s1").await.unwrap();
    runtime.remove("s1", true).await.unwrap();
    assert!(start(&runtime, 2, &spec).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_outlive_containers_and_go_when_asked() {
    let Some(podman) = Podman::start() else { return };
    let runtime = runtime_of(&podman, "n1").await;
    let template = Template {
        job: format!(
            "image: {IMAGE}\nnetwork: none\nmemory: 64M\nvolumes:\n  - ${{{{ .space.id }}}}-home:/home\nenvironment:\n  - \"WORD=${{{{ .custom.word }}}}\"\ncommand:\n  - {BUSYBOX}\n  - sh\n  - -c\n  - echo $WORD >> /home/words; {WAIT}\n"
        ),
        volumes: "volumes:\n  ${{ .space.id }}-home: {}\n".to_owned(),
        ..Template::default()
    };
    for (generation, word) in [(1, "one: \"1\""), (2, "two\nlines")] {
        let custom = BTreeMap::from([("word".to_owned(), word.to_owned())]);
        let spec = container(&template, &Facts { space_id: "s1".to_owned(), custom, ..Facts::default() }).unwrap();
        let id = start(&runtime, generation, &spec).await.unwrap();
        let last = word.split_whitespace().last().unwrap();
        let words = || podman.run(&["exec", &id, BUSYBOX, "cat", "/home/words"]);
        let said =
            wait_for("what a space writes", SERVICE_TIMEOUT, || Some(words()).filter(|words| words.ends_with(last)));
        assert!(said.starts_with("one: \"1\""), "{said}");
    }
    runtime.stop("s1").await.unwrap();
    assert_eq!(held(&runtime).await, [(2, Container::Exited(0))]);
    runtime.remove("s1", false).await.unwrap();
    let kept = runtime.list().await.unwrap().kept;
    assert_eq!(kept.into_iter().collect::<Vec<_>>(), ["s1"]);
    let theirs = ContainerSpec { volumes: vec!["theirs".to_owned()], ..spec(WAIT) };
    podman.run(&["volume", "create", "theirs"]);
    let error = start(&runtime, 3, &theirs).await.unwrap_err();
    assert_eq!(error, "volume theirs belongs to something else: let its name hold ${{ .space.id }}");
    runtime.remove("s1", true).await.unwrap();
    assert!(runtime.list().await.unwrap().kept.is_empty());
    assert_eq!(podman.run(&["volume", "ls", "--quiet"]), "theirs");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_started_says_why_and_leaves_nothing() {
    let Some(podman) = Podman::start() else { return };
    let runtime = runtime_of(&podman, "n1").await;
    let named = |name: &str| ContainerSpec { name: name.to_owned(), ..spec(WAIT) };
    podman.run(&["create", "--name", "taken", IMAGE, BUSYBOX, "true"]);
    for (spec, said) in [
        (
            ContainerSpec { image: "localhost/knot-none:1".to_owned(), ..spec(WAIT) },
            "image localhost/knot-none:1 is not on this server and could not be fetched: ",
        ),
        (ContainerSpec { command: vec!["/bin/nothing".to_owned()], ..spec(WAIT) }, "did not start the container: "),
        (ContainerSpec { network: "nowhere".to_owned(), ..spec(WAIT) }, "Podman "),
        (named("taken"), "another container is called taken: let the template's container_name hold ${{ .space.id }}"),
    ] {
        let error = start(&runtime, 1, &spec).await.unwrap_err();
        assert!(error.contains(said), "{said}\n{error}");
        assert_eq!(held(&runtime).await, [], "{said}");
    }
}

/// Does what a server would until nothing is left to do; gives what people see then.
async fn settle(runtime: &Runtime, record: &SpaceRecord, report: &mut Option<Report>, spec: &ContainerSpec) -> Shown {
    const LOOKS_MAX: usize = 8;
    for _ in 0..LOOKS_MAX {
        let here = runtime.list().await.unwrap();
        let records = BTreeMap::from([("s1".to_owned(), record.clone())]);
        let reports: agent::Reports =
            report.iter().map(|report| ("s1".to_owned(), [("n1".to_owned(), report.clone())].into())).collect();
        let missed = BTreeSet::new();
        let known = Knowledge { node_id: "n1", records: &records, reports: &reports, missed: &missed };
        let steps = agent::decide(known, &here);
        if steps.is_empty() {
            return shown(record, report.as_ref(), Server::Alive);
        }
        for step in steps {
            match step {
                Step::Start { generation, .. } => {
                    *report = Some(agent::starting(record));
                    if let Err(error) = start(runtime, generation, spec).await {
                        *report = Some(agent::failed(record, &error));
                    }
                }
                Step::Stop { space_id } => runtime.stop(&space_id).await.unwrap(),
                Step::Remove { space_id, with_volumes } => runtime.remove(&space_id, with_volumes).await.unwrap(),
                Step::Report { report: told, .. } => *report = Some(told),
            }
        }
    }
    panic!("there is no end to it: {report:?}");
}

/// The start that was reported last.
fn last(report: &Option<Report>) -> u64 {
    report.as_ref().map_or(0, |report| report.generation)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_brings_its_runtime_to_what_the_record_says() {
    let Some(podman) = Podman::start() else { return };
    let runtime = runtime_of(&podman, "n1").await;
    let (mut record, mut report) = (SpaceRecord { id: "s1".to_owned(), ..SpaceRecord::default() }, None::<Report>);
    let runs = ContainerSpec { volumes: vec!["s1-home".to_owned()], ..spec(WAIT) };
    record.start("n1", last(&report));
    assert_eq!(settle(&runtime, &record, &mut report, &runs).await, Shown::Running);
    record.wanted = Wanted::Stopped;
    assert_eq!(settle(&runtime, &record, &mut report, &runs).await, Shown::Stopped);
    record.start("n1", last(&report));
    let broken = ContainerSpec { command: vec!["/bin/nothing".to_owned()], ..runs.clone() };
    let failed = settle(&runtime, &record, &mut report, &broken).await;
    assert!(matches!(&failed, Shown::Failed { error } if error.contains("/bin/nothing")), "{failed:?}");
    record.start("n1", last(&report));
    settle(&runtime, &record, &mut report, &spec("exit 3")).await;
    podman.run(&["wait", &report.as_ref().unwrap().container_id]);
    let error = "its container ended with status 3: see its log, then start it again".to_owned();
    assert_eq!(settle(&runtime, &record, &mut report, &spec("exit 3")).await, Shown::Failed { error });
    record.start("n1", last(&report));
    assert_eq!(settle(&runtime, &record, &mut report, &runs).await, Shown::Running);
    // Started elsewhere meanwhile: what runs here ends, and this server reports no more.
    record.start("n2", last(&report));
    assert_eq!(settle(&runtime, &record, &mut report, &runs).await, Shown::Pending);
    assert_eq!((held(&runtime).await, report.clone().unwrap().state), (vec![], State::Running));
    record.wanted = Wanted::Deleted;
    settle(&runtime, &record, &mut report, &runs).await;
    assert!(runtime.list().await.unwrap().kept.is_empty());
}

/// A socket in a folder of its own, and what is behind it.
fn listener() -> (tempfile::TempDir, PathBuf, UnixListener) {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("it.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    (folder, socket, listener)
}

/// Answers each connection with what `answer` makes of its first bytes; says nothing where that is nothing.
fn answering(listener: UnixListener, answer: fn(&str) -> &'static str) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut asked = [0; 4096];
            let count = stream.read(&mut asked).await.unwrap_or_default();
            let text = answer(&String::from_utf8_lossy(&asked[..count]));
            if text.is_empty() {
                held.push(stream);
            } else {
                let _ = stream.write_all(text.as_bytes()).await;
            }
        }
    })
}

async fn missing(sockets: &[PathBuf]) -> String {
    let owner = Owner { cluster: "test".to_owned(), node_id: "n1".to_owned() };
    Runtime::find(sockets, owner).await.unwrap_err().to_string()
}

#[tokio::test]
async fn where_no_runtime_is_that_is_said_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let nothing = folder.path().join("nothing.sock");
    let error = missing(std::slice::from_ref(&nothing)).await;
    let said = format!("no container runtime was found at {}: install Podman and run", nothing.display());
    assert!(error.starts_with(&said), "{error}");

    let (_folder, socket, listener) = listener();
    let server = answering(listener, |_| "HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\nhello\n");
    let error = missing(&[nothing, socket.clone()]).await;
    assert!(error.starts_with(&format!("{} is no container runtime: ", socket.display())), "{error}");
    assert!(error.ends_with("start a runtime there, or say in DOCKER_HOST where one is"), "{error}");
    server.abort();
    assert!(server.await.is_err());
    let error = missing(&[socket]).await;
    assert!(error.ends_with("nothing listens there; start the runtime"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_socket_that_says_nothing_is_given_up() {
    let (_folder, socket, listener) = listener();
    let server = answering(listener, |_| "");
    let error = missing(&[socket]).await;
    assert!(
        error.ends_with("it takes connections and said nothing within 5s; restart whatever listens there"),
        "{error}"
    );
    server.abort();
}

#[tokio::test(start_paused = true)]
async fn a_runtime_that_falls_silent_holds_nobody_up() {
    const VERSION: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\
        content-length: 41\r\n\r\n{\"Version\": \"27.1\", \"ApiVersion\": \"1.41\"}";
    let (_folder, socket, listener) = listener();
    let server = answering(listener, |asked| if asked.contains("/version") { VERSION } else { "" });
    let owner = Owner { cluster: "test".to_owned(), node_id: "n1".to_owned() };
    let runtime = Runtime::find(&[socket], owner).await.unwrap();
    assert_eq!((runtime.platform(), runtime.name().as_str()), (Platform::Docker, "Docker 27.1"));
    let said =
        "Docker 27.1 did not list containers within 60s: see whether it still works, with `podman ps` or `docker ps`";
    assert_eq!(runtime.list().await.unwrap_err().to_string(), said);
    assert_eq!(start(&runtime, 1, &spec(WAIT)).await.unwrap_err(), said);
    server.abort();
}
