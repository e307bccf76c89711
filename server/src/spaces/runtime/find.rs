//! Where a container runtime listens, and which one it is.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bollard::errors::Error;
use bollard::models::SystemVersion;
use bollard::{API_DEFAULT_VERSION, Docker};

use super::{CALL_TIMEOUT, GREETING_TIMEOUT, Missing, Owner, PULL_IDLE_TIMEOUT, Runtime, STOP_GRACE, error};
use crate::templates::Platform;

/// Where to look, best first, given the variables `DOCKER_HOST` and `XDG_RUNTIME_DIR`. Who sets the former means that
/// one alone.
///
/// # Errors
/// When `DOCKER_HOST` names no socket of this machine.
pub fn sockets(docker_host: Option<&str>, runtime_dir: Option<&str>) -> Result<Vec<PathBuf>, Missing> {
    if let Some(host) = docker_host.filter(|host| !host.is_empty()) {
        let path = host.strip_prefix("unix://").unwrap_or(host);
        if !path.starts_with('/') {
            return Err(Missing::NotLocal(host.to_owned()));
        }
        return Ok(vec![PathBuf::from(path)]);
    }
    let of_user = runtime_dir.filter(|folder| folder.starts_with('/'));
    let of_user = of_user.map(|folder| Path::new(folder).join("podman/podman.sock"));
    let podman = std::iter::once(PathBuf::from("/run/podman/podman.sock")).chain(of_user);
    Ok(podman.chain([PathBuf::from("/var/run/docker.sock")]).collect())
}

/// The first that answers as a runtime does. One that is there and does not is told of only if no other one does.
pub(super) async fn find(sockets: &[PathBuf], owner: Owner) -> Result<Runtime, Missing> {
    let mut wrong = None;
    for socket in sockets {
        match greet(socket).await {
            Ok((docker, version)) => {
                let (platform, version) = identify(&version);
                let making = Arc::default();
                return Ok(Runtime { docker, socket: socket.clone(), platform, version, owner, making });
            }
            Err(None) => {}
            Err(Some(message)) => {
                wrong = wrong.or(Some(Missing::NotOne { socket: socket.clone(), message }));
            }
        }
    }
    let places: Vec<String> = sockets.iter().map(|socket| socket.display().to_string()).collect();
    Err(wrong.unwrap_or(Missing::Nowhere { places: places.join(", ") }))
}

/// Nothing where nothing is there, else what is wrong.
async fn greet(socket: &Path) -> Result<(Docker, SystemVersion), Option<String>> {
    let path = socket.to_str().ok_or_else(|| Some("its path is no text: choose another".to_owned()))?;
    // Longer than any call has: calls are ended by their own limits.
    let longest: Duration = PULL_IDLE_TIMEOUT + CALL_TIMEOUT + STOP_GRACE;
    let docker = match Docker::connect_with_unix(path, longest.as_secs(), API_DEFAULT_VERSION) {
        Ok(docker) => docker,
        Err(Error::SocketNotFoundError(_)) => return Err(None),
        Err(error) => return Err(Some(error::message(error))),
    };
    let greeting = async {
        let docker = docker.negotiate_version().await?;
        let version = docker.version().await?;
        Ok((docker, version))
    };
    match tokio::time::timeout(GREETING_TIMEOUT, greeting).await {
        Ok(Ok(greeted)) => Ok(greeted),
        Ok(Err(error)) => Err(Some(explained(error))),
        Err(_) => Err(Some(format!(
            "it takes connections and said nothing within {GREETING_TIMEOUT:?}; restart whatever listens there"
        ))),
    }
}

fn explained(error: Error) -> String {
    let message = error::message(error);
    let fix = if message.contains("ermission denied") {
        "let knot's user use it, by the group that owns it"
    } else if message.contains("onnection refused") {
        "nothing listens there; start the runtime"
    } else {
        "start a runtime there, or say in DOCKER_HOST where one is"
    };
    format!("{message}; {fix}")
}

fn identify(version: &SystemVersion) -> (Platform, String) {
    let components = version.components.as_deref().unwrap_or_default();
    let podman = components.iter().find(|component| component.name.to_ascii_lowercase().contains("podman"));
    match podman {
        Some(podman) => (Platform::Podman, podman.version.clone()),
        None => (Platform::Docker, version.version.clone().unwrap_or_else(|| "of no known version".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_places_are_looked_at_unless_one_is_named() {
        let paths = |docker_host, runtime_dir| {
            let sockets = sockets(docker_host, runtime_dir).unwrap();
            sockets.iter().map(|socket| socket.display().to_string()).collect::<Vec<_>>()
        };
        let usual = ["/run/podman/podman.sock", "/var/run/docker.sock"];
        assert_eq!(paths(None, None), usual);
        assert_eq!(paths(Some(""), Some("")), usual);
        assert_eq!(paths(None, Some("/run/user/7"))[1], "/run/user/7/podman/podman.sock");
        assert_eq!(paths(Some("unix:///tmp/d.sock"), Some("/run/user/7")), ["/tmp/d.sock"]);
        let error = sockets(Some("tcp://10.0.0.5:2375"), None).unwrap_err().to_string();
        assert!(error.starts_with("DOCKER_HOST is tcp://10.0.0.5:2375, and knot"), "{error}");
    }
}
