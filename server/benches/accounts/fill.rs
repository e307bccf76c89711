//! Fills a data folder. The measured user, her token and all templates are made as requests make them; the other users
//! and tokens are written as the documents that requests would write, many at a time, which takes seconds where requests
//! would take minutes.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use knot_engine::documents::{DocumentId, Edit, Scope};
use knot_engine::{EditRequest, Wall};
use knot_server::accounts::{
    ADMINISTRATOR, Caller, NewUser, PASSWORDS, Permissions, Secret, TOKENS, Token, USERS, User, Who,
};
use knot_server::config::Config;
use knot_server::handle::Handle;
use knot_server::net::OsNetwork;
use knot_server::storage::{self, JournaledStorage};
use knot_server::templates::Template;
use knot_server::websocket::Dialer;
use knot_server::{Platform, Running, run};
use serde_json::Value;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

const USERS_MADE: usize = 10_000;
const TOKENS_A_USER: usize = 10;
const TEMPLATES_MADE: usize = 1_000;
/// Documents that are written at once.
const WRITES: usize = 512;

pub(crate) const PASSWORD: &str = "correct horse battery staple";

/// What the measuring needs to know.
#[derive(Debug)]
pub(crate) struct Filled {
    /// Ann's, who may do everything.
    pub(crate) token: String,
}

/// Runs a server inside this process on the folder, and ends it again.
pub(crate) fn fill(config: &Path, data_dir: &Path) -> Filled {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime starts");
    runtime.block_on(async {
        let config = Config::load(Some(config)).expect("the configuration is good").config;
        let platform = Platform {
            network: OsNetwork,
            storage: Arc::new(JournaledStorage::open(data_dir).expect("the folder can be written")),
            node_key: storage::node_key(data_dir).expect("a key can be made"),
            token: storage::admin_token(data_dir).expect("a token can be made").into(),
            tls: None,
            dialer: Dialer::new(&knot_server::config::Trust::default()).expect("nobody is trusted"),
            seed: [7; 32],
            wall: Arc::new(wall),
            reload: None,
            simulated: None,
        };
        let (ready, is_ready) = oneshot::channel();
        let (stop, stopped) = watch::channel(false);
        let server = tokio::spawn(run(config, platform, ready, stopped));
        let running = is_ready.await.expect("the server starts");
        let filled = write(&running).await;
        stop.send_replace(true);
        server.await.expect("the server does not panic").expect("the server ends well");
        filled
    })
}

fn wall() -> Wall {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

async fn write(running: &Running) -> Filled {
    let Running { handle, accounts, .. } = running;
    accounts.ready().await.expect("the server runs");
    let new = NewUser {
        username: "ann".to_owned(),
        email: "ann@example.org".to_owned(),
        password: Secret::new(PASSWORD),
        roles: BTreeSet::from([ADMINISTRATOR.to_owned()]),
        active: true,
        ..NewUser::default()
    };
    let id = accounts.create_user(&Caller::machine(), new).await.expect("ann is made");
    let who = Who::User { id: id.clone(), username: "ann".to_owned(), session: None };
    let ann = Caller { who, permissions: Permissions::all(), limits: None };
    let mut token = None;
    for number in 0..TOKENS_A_USER {
        let made = accounts.create_token(&ann, format!("token {number}"), BTreeSet::new(), None).await;
        token = Some(made.expect("a token is made").1);
    }
    for number in 0..TEMPLATES_MADE {
        let template = |new: Template| {
            let job = format!("image: registry.example.org/desktop:{number}\ncpus: 2\nmemory: 4G\n");
            let description = "A desktop with an editor and a shell, for tests of many of them".to_owned();
            Ok(Template { name: format!("template-{number}"), description, job, ..new })
        };
        accounts.put_template(&ann, None, template).await.expect("a template is made");
    }
    let password = handle.read(document(PASSWORDS, &id), false).await.expect("the server runs").expect("ann has one");
    let numbers = 1..USERS_MADE;
    let passwords = numbers.clone().map(|number| (document(PASSWORDS, &id_of(number)), password.value.clone()));
    write_all(handle, passwords).await;
    write_all(handle, numbers.clone().map(user)).await;
    write_all(handle, numbers.flat_map(|number| (0..TOKENS_A_USER).map(move |nth| self::token(number, nth)))).await;
    Filled { token: token.map(|secret| secret.reveal().to_owned()).unwrap_or_default() }
}

fn document(collection: &str, key: &str) -> DocumentId {
    DocumentId::new(Scope::Global, collection, key).expect("its name is good")
}

fn id_of(number: usize) -> String {
    format!("{number:032x}")
}

fn user(number: usize) -> (DocumentId, Value) {
    let now = wall().0;
    let user = User {
        id: id_of(number),
        username: format!("user{number:05}"),
        username_at: now,
        email: format!("user{number:05}@example.org"),
        email_at: now,
        active: true,
        timezone: "Australia/Sydney".to_owned(),
        preferred_shell: "bash".to_owned(),
        created_at: now,
        updated_at: now,
        ..User::default()
    };
    (document(USERS, &user.id), user.document())
}

fn token(number: usize, nth: usize) -> (DocumentId, Value) {
    let secret = Secret::new(format!("token {nth} of {number}"));
    let (id, user, name) = (secret.digest(), id_of(number), format!("token {nth}"));
    let token = Token { id, user, name, created_at: wall().0, ..Token::default() };
    (document(TOKENS, &token.id), token.document())
}

async fn write_all(handle: &Handle, documents: impl Iterator<Item = (DocumentId, Value)>) {
    let mut writes = JoinSet::new();
    for (id, value) in documents {
        if writes.len() >= WRITES {
            writes.join_next().await;
        }
        let handle = handle.clone();
        writes.spawn(async move {
            let edit = EditRequest::new(id, Edit::Put(value));
            handle.edit(edit).await.expect("the server runs").expect("the document is taken");
        });
    }
    writes.join_all().await;
}
