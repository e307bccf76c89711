//! The command line. Data goes to stdout and everything else to stderr; each kind of failure has an exit code of its
//! own, so that scripts need not read messages.

pub mod client;
mod cluster;
mod connect;
pub mod demo;
mod doc;
mod events;
mod login;
mod output;
mod password;
mod people;
pub mod server;
mod space;
mod status;
mod template;
mod token;
mod versions;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use self::client::{ClientArgs, ClientError};
use self::output::print;
use crate::config::{ConfigError, KeyChangeError};

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It did what was asked.
    Ok = 0,
    /// Anything that has no code of its own.
    Failure = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// The server does not answer, or cannot be trusted.
    Unreachable = 3,
    /// The token is missing, wrong, or not enough.
    Denied = 4,
    /// There is no such document or member.
    NotFound = 5,
    /// The state is not the one the command was meant for.
    Conflict = 6,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CliError {
    /// The server could not be asked, or refused.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An argument is wrong.
    #[error("{0}")]
    Usage(String),
    /// Nobody, or nothing, is called so.
    #[error("{0}")]
    Absent(String),
    /// What was waited for has not come.
    #[error("{0}")]
    NotSo(String),
    /// Something needs a person, as has been printed.
    #[error("not all is well")]
    Unwell,
    /// The keys stay as they were.
    #[error(transparent)]
    Keys(#[from] KeyChangeError),
    /// The file was changed, and the server that reads it was not told.
    #[error("{} is changed, but the server does not know yet: {source}", path.display())]
    Untold {
        /// The file.
        path: PathBuf,
        /// Why it was not told.
        source: Box<ClientError>,
    },
    /// Reading input or writing output failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// Logging cannot be started.
    #[error(transparent)]
    Logging(#[from] crate::logging::LoggingError),
    /// The server cannot start, or had to stop.
    #[error(transparent)]
    Start(#[from] crate::start::StartError),
    /// The system has no randomness to give.
    #[error("no randomness: {0}")]
    Random(#[from] getrandom::Error),
    /// Done on the server that was asked, but not on as many as were asked for.
    #[error("stored durably on this server, but on {held_by} of {wanted} others in time")]
    NotReplicated {
        /// Others that were known to hold it.
        held_by: u64,
        /// Others that were asked for.
        wanted: usize,
    },
    /// The server ended a watch.
    #[error("the watch ended: {reason}")]
    WatchEnded {
        /// What the server said, or what broke.
        reason: String,
        /// The last event that was read.
        last: Option<String>,
    },
}

impl CliError {
    fn exit(&self) -> Exit {
        match self {
            Self::Client(error) => error.exit(),
            Self::Config(_) | Self::Usage(_) | Self::Logging(_) | Self::Keys(_) => Exit::Usage,
            Self::Untold { source, .. } => source.exit(),
            Self::Absent(_) => Exit::NotFound,
            Self::WatchEnded { .. } => Exit::Unreachable,
            Self::Io { .. }
            | Self::Start(_)
            | Self::Random(_)
            | Self::NotReplicated { .. }
            | Self::NotSo(_)
            | Self::Unwell => Exit::Failure,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Client(error) => error.hint(),
            Self::NotReplicated { .. } => {
                Some("the others get it when they can be reached; nothing is lost".to_owned())
            }
            Self::Untold { .. } => {
                Some("it takes the keys over when it starts, at SIGHUP, or when this is run again".to_owned())
            }
            Self::WatchEnded { last: Some(last), .. } => Some(format!("go on with --since {last}")),
            Self::WatchEnded { last: None, .. }
            | Self::Config(_)
            | Self::Usage(_)
            | Self::Keys(_)
            | Self::Absent(_)
            | Self::NotSo(_)
            | Self::Unwell
            | Self::Io { .. }
            | Self::Logging(_)
            | Self::Start(_)
            | Self::Random(_) => None,
        }
    }
}

const EXIT_CODES: &str = "EXIT CODES:
  0  done                3  server unreachable    5  not found
  1  any other failure   4  denied                6  conflict
  2  wrong arguments or configuration

EXAMPLES:
  knot demo                          three servers on this machine, to try things on
  knot server                        one server on 127.0.0.1:3000, data in ./knot-data
  knot user create ann --admin       the first administrator, from a terminal
  knot doc put users/ann '{\"name\": \"Ann\"}'
  knot status                        how is it?";

/// Replicated JSON documents, writable on every server, with no leader.
#[derive(Debug, Parser)]
#[command(name = "knot", version, after_help = EXIT_CODES, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a server
    #[command(after_help = server::after_help())]
    Server(server::ServerArgs),
    /// Run a cluster of three servers on this machine, to try things on
    #[command(after_help = demo::EXAMPLES)]
    Demo(demo::DemoArgs),
    /// Print a fresh cluster key
    #[command(after_help = GENKEY_EXAMPLES)]
    Genkey {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Ask a server whether it answers
    #[command(after_help = PING_EXAMPLES)]
    Ping {
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Read and write documents
    #[command(after_help = doc::EXAMPLES)]
    Doc {
        #[command(subcommand)]
        command: doc::DocCommand,
    },
    /// See and change who is in the cluster
    #[command(after_help = cluster::EXAMPLES)]
    Cluster {
        #[command(subcommand)]
        command: cluster::ClusterCommand,
    },
    /// Say on one screen how a server and its cluster are
    #[command(after_help = status::EXAMPLES)]
    Status {
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Log in, and stay so for the commands that follow
    #[command(after_help = login::LOGIN_EXAMPLES)]
    Login(login::LoginArgs),
    /// End the session that `knot login` began
    #[command(after_help = login::LOGOUT_EXAMPLES)]
    Logout {
        #[command(flatten)]
        client: ClientArgs,
    },
    /// List, make, change and delete users
    #[command(subcommand, after_help = people::USER_EXAMPLES)]
    User(people::UserCommand),
    /// List, make and delete groups
    #[command(subcommand, after_help = people::GROUP_EXAMPLES)]
    Group(people::GroupCommand),
    /// List, make, change and delete roles
    #[command(subcommand, after_help = people::ROLE_EXAMPLES)]
    Role(people::RoleCommand),
    /// List, apply, export and delete templates
    #[command(subcommand, after_help = template::EXAMPLES)]
    Template(template::TemplateCommand),
    /// Make, start, stop, share and delete spaces
    #[command(subcommand, after_help = space::EXAMPLES)]
    Space(space::SpaceCommand),
    /// List, make and revoke your API tokens
    #[command(subcommand, after_help = token::TOKEN_EXAMPLES)]
    Token(token::TokenCommand),
    /// Read the audit log, the latest first
    #[command(after_help = token::AUDIT_EXAMPLES)]
    Audit(token::AuditArgs),
    /// Print a completion script for a shell
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions {
        /// The shell
        shell: Shell,
    },
}

const GENKEY_EXAMPLES: &str = "EXAMPLES:
  knot genkey
  KNOT_CLUSTER_KEY=$(knot genkey) knot server";

const PING_EXAMPLES: &str = "EXAMPLES:
  knot ping
  knot ping --server https://knot1.internal:3000 --cacert cert.pem";

const COMPLETIONS_EXAMPLES: &str = "EXAMPLES:
  source <(knot completions bash)
  knot completions fish > ~/.config/fish/completions/knot.fish";

/// Runs the command that this process was started with.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors, and clap knows which stream each goes to.
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Ok };
            let _ = error.print();
            return exit.into();
        }
    };
    match run(cli.command) {
        Ok(()) => Exit::Ok.into(),
        Err(CliError::Unwell) => Exit::Failure.into(),
        // The reader of a pipe that has seen enough is no failure.
        Err(CliError::Io { source, .. }) if source.kind() == std::io::ErrorKind::BrokenPipe => Exit::Ok.into(),
        Err(error) => {
            eprintln!("error: {error}");
            if let Some(hint) = error.hint() {
                eprintln!("hint: {hint}");
            }
            error.exit().into()
        }
    }
}

fn run(command: Command) -> Result<(), CliError> {
    match command {
        Command::Server(args) => server::main(&args),
        Command::Demo(args) => demo::main(&args),
        Command::Genkey { json } => {
            let key = crate::genkey::generate_key()?;
            if json { print(serde_json::json!({ "key": key })) } else { print(key) }
        }
        Command::Ping { client } => block_on(cluster::ping(&client)),
        Command::Doc { command } => block_on(doc::run(command)),
        Command::Cluster { command } => block_on(cluster::run(command)),
        Command::Status { client } => {
            if block_on(status::run(&client))? {
                Ok(())
            } else {
                Err(CliError::Unwell)
            }
        }
        Command::Login(args) => block_on(login::login(&args)),
        Command::Logout { client } => block_on(login::logout(&client)),
        Command::User(command) => block_on(people::user(command)),
        Command::Group(command) => block_on(people::group(command)),
        Command::Role(command) => block_on(people::role(command)),
        Command::Template(command) => block_on(template::run(command)),
        Command::Space(command) => block_on(space::run(command)),
        Command::Token(command) => block_on(token::token(command)),
        Command::Audit(args) => block_on(token::audit(&args)),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "knot", &mut script);
            print(String::from_utf8_lossy(&script).trim_end())
        }
    }
}

/// Runs a client's part on this thread.
fn block_on<T>(work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| CliError::Io { what: "cannot start".to_owned(), source })?
        .block_on(work)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
