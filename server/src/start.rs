//! A server as a process of its own: its folder, its secrets, its threads, the signals that end it.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use knot_engine::{Seed, Wall};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::accounts::Accounts;
use crate::config::{Config, ConfigError, HostPort};
use crate::handle::Handle;
use crate::net::OsNetwork;
use crate::run::{Platform, Reloaded, RunError, Running, run};
use crate::storage::{self, JournaledStorage, SecretError, StorageError};
use crate::tls::{self, Certificate, Identity, ServerTls, TlsError, WARNED_BEFORE};
use crate::websocket::Dialer;
use crate::{Stop, config};

/// How often the files of the certificate are looked at.
const CERTIFICATE_LOOKS: Duration = Duration::from_secs(5);
/// How long a server of a cluster waits for users of others before it offers to make the first.
const SETUP_PAUSE: Duration = Duration::from_secs(3);
/// How often a certificate that is about to expire is warned of.
const WARNING_INTERVAL: Duration = Duration::from_secs(24 * 3_600);

/// Why a server process did not start, or did not end well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The data cannot be opened.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A secret in the data folder cannot be read or made.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The HTTP API's certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The system has no randomness to give.
    #[error("no randomness: {0}")]
    Random(#[from] getrandom::Error),
    /// The runtime cannot be started.
    #[error("cannot start the runtime: {0}")]
    Runtime(#[from] io::Error),
    /// The server.
    #[error(transparent)]
    Run(#[from] RunError),
}

/// Runs a server until SIGTERM or Ctrl-C, which it survives by at most 5 s; a second signal ends it at once. At SIGHUP it
/// calls `reload` and takes over the cluster's keys, which is all that can change without a restart.
///
/// # Errors
/// When it cannot start, or its storage fails.
pub fn start(
    config: Config,
    reload: impl Fn() -> Result<Config, ConfigError> + Send + 'static,
) -> Result<Stop, StartError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // From the first moment on: it ends a process that does not listen for it.
    let hang_up = {
        let _context = runtime.enter();
        signal(SignalKind::hangup())?
    };
    let storage = Arc::new(JournaledStorage::open(&config.data_dir)?);
    let (asks, asked) = mpsc::channel(1);
    let platform = Platform {
        network: OsNetwork,
        storage,
        node_key: storage::node_key(&config.data_dir)?,
        token: storage::admin_token(&config.data_dir)?.into(),
        tls: tls(&config)?,
        dialer: dialer(&config)?,
        seed: seed()?,
        wall: Arc::new(wall),
        reload: Some(asks),
        simulated: None,
    };
    let stop = runtime.block_on(until_told(config, reload, hang_up, asked, platform))?;
    Ok(stop)
}

async fn until_told(
    config: Config,
    reload: impl Fn() -> Result<Config, ConfigError> + Send + 'static,
    mut hang_up: Signal,
    mut asked: mpsc::Receiver<oneshot::Sender<Result<Reloaded, String>>>,
    platform: Platform<OsNetwork>,
) -> Result<Stop, StartError> {
    let (told, shutdown) = watch::channel(false);
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let signals = tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if told.send_replace(true) {
                tracing::warn!("told twice to stop: leaving without a goodbye");
                std::process::exit(1);
            }
            tracing::info!("stopping");
        }
    });
    let (ready, is_ready) = oneshot::channel();
    let token_file = config.data_dir.join(storage::ADMIN_TOKEN_FILE);
    let zone = config.zone.clone();
    let is_clustered = config.cluster.is_some();
    let mut present = config.clone();
    let announcing = tokio::spawn(async move {
        let Ok(Running { handle, accounts, url, advertised, .. }) = is_ready.await else { return };
        let cluster: Vec<_> = advertised.iter().map(ToString::to_string).collect();
        let cluster = Some(cluster.join(", ")).filter(|addresses| !addresses.is_empty());
        let token = token_file.display().to_string();
        tracing::info!(%url, zone, cluster, token, "serving");
        let _offering = JoinSet::from_iter([offer_setup(accounts, url, is_clustered)]);
        loop {
            let answer = tokio::select! {
                Some(()) = hang_up.recv() => None,
                Some(answer) = asked.recv() => Some(answer),
                else => return,
            };
            let outcome = match tokio::task::block_in_place(&reload) {
                Ok(wanted) => Ok(take_over(&handle, &mut present, wanted).await),
                Err(error) => {
                    tracing::error!("the configuration stays as it was: {error}");
                    Err(error.to_string())
                }
            };
            // Whoever asked may have gone.
            answer.map(|answer| answer.send(outcome));
        }
    });
    let certificate = platform.tls.as_ref().map(|tls| tokio::spawn(watch_certificate(tls.certificate.clone())));
    let outcome = run(config, platform, ready, shutdown).await;
    certificate.inspect(tokio::task::JoinHandle::abort);
    signals.abort();
    announcing.abort();
    Ok(outcome?)
}

/// Says how to make the first administrator where there are no users. It goes to standard output, since the log may be
/// kept by others.
async fn offer_setup(accounts: Arc<Accounts>, url: String, is_clustered: bool) {
    if is_clustered {
        // Others may have users, and tell.
        tokio::time::sleep(SETUP_PAUSE).await;
    }
    if let Ok(Some(code)) = accounts.open_setup().await {
        let link = format!("{url}/setup?code={}", code.reveal());
        // Who started the server may have closed it.
        let _ = writeln!(io::stdout(), "No users yet. Within one hour, make the first administrator at\n  {link}");
    }
}

/// Takes a new certificate from its files when those change, and warns of one that is about to expire, once a day.
async fn watch_certificate(certificate: Arc<Certificate>) {
    let mut looks = tokio::time::interval(CERTIFICATE_LOOKS);
    let mut warned: Option<tokio::time::Instant> = None;
    loop {
        looks.tick().await;
        match tokio::task::block_in_place(|| certificate.renew()) {
            Ok(None) => {}
            Ok(Some(Identity { fingerprint, .. })) => {
                warned = None;
                tracing::info!(certificate = %certificate.file().display(), fingerprint, "shows the new certificate");
            }
            Err(error) => tracing::error!("the certificate stays as it was: {error}"),
        }
        let now_s = u64::try_from(wall().0 / 1_000).unwrap_or_default();
        let Some(left) = certificate.identity().left(now_s).filter(|left| *left < WARNED_BEFORE) else { continue };
        if warned.is_none_or(|at| at.elapsed() > WARNING_INTERVAL) {
            warned = Some(tokio::time::Instant::now());
            let (file, days) = (certificate.file().display(), left.as_secs() / (24 * 3_600));
            if left.is_zero() {
                tracing::error!(certificate = %file, "the certificate has expired: clients refuse it; put a new one in its files, no restart is needed");
            } else {
                tracing::warn!(certificate = %file, days, "the certificate expires soon: put a new one in its files, no restart is needed");
            }
        }
    }
}

/// Takes over what of a configuration can change while the server runs, and says what cannot.
async fn take_over(handle: &Handle, present: &mut Config, wanted: Config) -> Reloaded {
    let keys = |config: &Config| config.cluster.as_ref().map(|cluster| cluster.keys.clone());
    if let (Some(old), Some(new)) = (keys(present), keys(&wanted))
        && let Some(cluster) = &mut present.cluster
        && old != new
    {
        let ids: Vec<_> = new.iter().map(|key| key.id().to_string()).collect();
        cluster.keys = new.clone();
        if handle.set_keys(new).await.is_ok() {
            tracing::info!(keys = ids.join(", "), "takes over these cluster keys, the first to begin with");
        }
    }
    if *present == wanted {
        tracing::info!("the configuration is as the file says");
        Reloaded::Whole
    } else {
        tracing::warn!("settings have changed that need a restart: all do but which keys the cluster has");
        Reloaded::Keys
    }
}

fn tls(config: &Config) -> Result<Option<ServerTls>, TlsError> {
    let Some(tls) = &config.tls else { return Ok(None) };
    let mut names = vec![config::host_name(), config.listen.host().to_owned()];
    names.extend(config.url.as_deref().and_then(url_host));
    let tls = tls::server_tls(tls, &config.data_dir, &names)?;
    let Identity { fingerprint, .. } = tls.certificate.identity();
    tracing::info!(certificate = %tls.certificate.file().display(), fingerprint, "TLS");
    Ok(Some(tls))
}

fn dialer(config: &Config) -> Result<Dialer, TlsError> {
    let trust = config.cluster.as_ref().map(|cluster| cluster.trust.clone()).unwrap_or_default();
    if trust.skip_verify {
        tracing::warn!(
            "`skip_verify` in [server.cluster.tls] is on: any certificate will do at wss:// addresses, and whoever stands in between can cut this server off; what servers say stays sealed"
        );
    }
    Ok(Dialer::new(&trust)?.with_proxies_of_environment())
}

fn url_host(url: &str) -> Option<String> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split('/').next()?;
    HostPort::parse(authority, config::HTTP_PORT).ok().map(|host| host.host().to_owned())
}

fn seed() -> Result<Seed, getrandom::Error> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)?;
    Ok(seed)
}

fn wall() -> Wall {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
