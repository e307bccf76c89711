//! The container runtime of this server: Docker or Podman, through the socket that both have.
//!
//! A container is knot's by its labels, which say of which cluster, server, space and start it is; nothing else is ever
//! touched. Every call ends within a named time. A container is never restarted by the runtime itself: after a crash of
//! the machine its space may have been started elsewhere.

mod error;
mod find;
mod read;
mod request;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use bollard::auth::DockerCredentials;
use bollard::models::{CreateImageInfo, VolumeCreateRequest};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, CreateImageOptionsBuilder, ListVolumesOptionsBuilder, RemoveContainerOptionsBuilder,
    RemoveVolumeOptions, StartContainerOptions, StopContainerOptionsBuilder,
};
use futures_util::StreamExt;
use tokio::sync::Mutex;

pub use self::error::{Missing, RuntimeError};
pub use self::find::sockets;
use self::read::{Details, Phase, Summary, Unread, encoded};
use self::request::image_and_tag;
use super::agent::{Container, Here, Seen};
use super::spec::ContainerSpec;
use crate::templates::Platform;

/// Most containers of a server that are knot's; beyond it none is made.
pub const CONTAINERS_MAX: usize = 2_000;
/// How long a runtime may take to say who it is.
pub const GREETING_TIMEOUT: Duration = Duration::from_secs(5);
/// How long it may take for what is done in a moment.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a container has to end by itself before it is killed.
pub const STOP_GRACE: Duration = Duration::from_secs(10);
/// How long a pull may say nothing.
pub const PULL_IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a pull may take.
pub const PULL_TIMEOUT: Duration = Duration::from_secs(1800);

const LABEL_CLUSTER: &str = "knot.cluster";
const LABEL_NODE: &str = "knot.node";
const LABEL_SPACE: &str = "knot.space";
const LABEL_GENERATION: &str = "knot.generation";

const NOT_FOUND: u16 = 404;
const CONFLICT: u16 = 409;

/// Whose containers these are. Servers that share a machine, of one cluster or of several, leave each other's alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The cluster's name, or what stands for it on a server of its own.
    pub cluster: String,
    /// The server's id.
    pub node_id: String,
}

/// A start of a space.
#[derive(Clone, Copy, Debug)]
pub struct Start<'a> {
    /// The space.
    pub space_id: &'a str,
    /// Which start it is.
    pub generation: u64,
    /// What to run.
    pub spec: &'a ContainerSpec,
}

/// What a pull has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The part of the image that this is about; empty for the whole.
    pub part: String,
    /// What happens to it, in the runtime's words.
    pub status: String,
    /// How many bytes are here, and of how many.
    pub bytes: Option<(i64, i64)>,
}

/// A runtime that has answered.
#[derive(Clone, Debug)]
pub struct Runtime {
    docker: Docker,
    socket: PathBuf,
    platform: Platform,
    version: String,
    owner: Owner,
    /// Held while a container is made: between its name and its place in the list there is a gap in which a second
    /// start of the same space would see the one and not the other.
    making: Arc<Mutex<()>>,
}

impl Runtime {
    /// The first of these sockets behind which a runtime answers.
    ///
    /// # Errors
    /// When none does: what was looked for, what was found there, and what to do.
    pub async fn find(sockets: &[PathBuf], owner: Owner) -> Result<Self, Missing> {
        find::find(sockets, owner).await
    }

    /// What it is: [`Platform::Docker`] or [`Platform::Podman`].
    #[must_use]
    pub fn platform(&self) -> Platform {
        self.platform
    }

    /// What it is, for people: `Podman 4.3.1`.
    #[must_use]
    pub fn name(&self) -> String {
        let name = if self.platform == Platform::Podman { "Podman" } else { "Docker" };
        format!("{name} {}", self.version)
    }

    /// Where it answers.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What of this server's it holds.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn list(&self) -> Result<Here, RuntimeError> {
        let mut here = Here::default();
        for summary in self.containers(&[]).await? {
            if let Some(seen) = self.seen(summary).await? {
                here.containers.push(seen);
            }
        }
        let volumes = self.volumes(&format!("{LABEL_CLUSTER}={}", self.owner.cluster)).await?;
        here.kept = volumes.into_iter().filter_map(|(_, mut labels)| labels.remove(LABEL_SPACE)).collect();
        Ok(here)
    }

    /// Has what a container is made of here: fetches the image if it is not.
    ///
    /// # Errors
    /// When the runtime cannot.
    pub async fn prepare(
        &self,
        spec: &ContainerSpec,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<(), RuntimeError> {
        if self.has_image(&spec.image).await? { Ok(()) } else { self.pull(spec, progress).await }
    }

    /// Has this start of a space run, once: a container of it that is here is started if need be, one of an earlier
    /// start makes room. Gives the container's id. An image is pulled only if it is not here.
    ///
    /// # Errors
    /// When the runtime cannot, or a later start of the space is here already.
    pub async fn start(
        &self,
        start: Start<'_>,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<String, RuntimeError> {
        if let Some(id) = self.make_room(start).await? {
            return self.start_container(&id).await;
        }
        for volume in &start.spec.volumes {
            self.keep_volume(start.space_id, volume).await?;
        }
        self.prepare(start.spec, progress).await?;
        let held = self.containers(&[]).await?.len();
        if held >= CONTAINERS_MAX {
            return Err(RuntimeError::TooMany { found: held });
        }
        let id = self.create(start).await?;
        match self.start_container(&id).await {
            Ok(id) => Ok(id),
            Err(error) => {
                // It would be in the way of the next start; what is said is why it did not start.
                let _ = self.remove_container(&id).await;
                Err(error)
            }
        }
    }

    /// Ends a space's containers and leaves them there.
    ///
    /// # Errors
    /// When the runtime cannot.
    pub async fn stop(&self, space_id: &str) -> Result<(), RuntimeError> {
        for container in self.containers_of(space_id).await? {
            if container.phase() == Phase::Runs {
                self.stop_container(&container.id).await?;
            }
        }
        Ok(())
    }

    /// Ends and removes a space's containers, and its volumes when asked.
    ///
    /// # Errors
    /// When the runtime cannot.
    pub async fn remove(&self, space_id: &str, with_volumes: bool) -> Result<(), RuntimeError> {
        for container in self.containers_of(space_id).await? {
            self.remove_container(&container.id).await?;
        }
        if !with_volumes {
            return Ok(());
        }
        for (name, labels) in self.volumes(&format!("{LABEL_SPACE}={space_id}")).await? {
            if labels.get(LABEL_CLUSTER) == Some(&self.owner.cluster) {
                let removed = self.docker.remove_volume(&name, None::<RemoveVolumeOptions>);
                gone(self.within(&format!("remove volume {name}"), CALL_TIMEOUT, removed).await)?;
            }
        }
        Ok(())
    }

    /// Gives the container of this start if it is here, and removes those of earlier ones.
    async fn make_room(&self, start: Start<'_>) -> Result<Option<String>, RuntimeError> {
        let containers = self.containers_of(start.space_id).await?;
        let newest = containers.iter().map(generation_of).max().unwrap_or_default();
        if newest > start.generation {
            let (space, asked) = (start.space_id.to_owned(), start.generation);
            return Err(RuntimeError::Newer { space, asked, here: newest });
        }
        let mut current = None;
        for container in &containers {
            if generation_of(container) == start.generation {
                current = Some(container.id.clone());
            } else {
                self.remove_container(&container.id).await?;
            }
        }
        Ok(current)
    }

    async fn create(&self, start: Start<'_>) -> Result<String, RuntimeError> {
        let _alone = self.making.lock().await;
        if let Some(id) = self.make_room(start).await? {
            return Ok(id);
        }
        let name = match start.spec.name.as_str() {
            "" => format!("knot-{}-{}", start.space_id, start.generation),
            name => name.to_owned(),
        };
        let options = CreateContainerOptionsBuilder::new().name(&name).build();
        let labels = HashMap::from([
            (LABEL_CLUSTER.to_owned(), self.owner.cluster.clone()),
            (LABEL_NODE.to_owned(), self.owner.node_id.clone()),
            (LABEL_SPACE.to_owned(), start.space_id.to_owned()),
            (LABEL_GENERATION.to_owned(), start.generation.to_string()),
        ]);
        let created = self.docker.create_container(Some(options), request::body(start.spec, labels));
        match self.within(&format!("make container {name}"), CALL_TIMEOUT, created).await {
            Ok(created) => Ok(created.id),
            // Podman says of a name in use that something went wrong inside it.
            Err(RuntimeError::Refused { status, message, .. })
                if status == CONFLICT || message.contains("already in use") =>
            {
                self.make_room(start).await?.ok_or(RuntimeError::NameTaken { name })
            }
            Err(error) => Err(error),
        }
    }

    async fn start_container(&self, id: &str) -> Result<String, RuntimeError> {
        let started = self.docker.start_container(id, None::<StartContainerOptions>);
        self.within("start the container", CALL_TIMEOUT, started).await?;
        Ok(id.to_owned())
    }

    async fn stop_container(&self, id: &str) -> Result<(), RuntimeError> {
        let seconds = i32::try_from(STOP_GRACE.as_secs()).unwrap_or(i32::MAX);
        let options = StopContainerOptionsBuilder::new().t(seconds).build();
        let stopped = self.docker.stop_container(id, Some(options));
        gone(self.within("stop the container", STOP_GRACE + CALL_TIMEOUT, stopped).await)
    }

    async fn remove_container(&self, id: &str) -> Result<(), RuntimeError> {
        self.stop_container(id).await?;
        let options = RemoveContainerOptionsBuilder::new().force(true).build();
        let removed = self.docker.remove_container(id, Some(options));
        match gone(self.within("remove the container", CALL_TIMEOUT, removed).await) {
            // Somebody else is about to.
            Err(RuntimeError::Refused { status: CONFLICT, message, .. }) if message.contains("in progress") => Ok(()),
            removed => removed,
        }
    }

    async fn keep_volume(&self, space_id: &str, name: &str) -> Result<(), RuntimeError> {
        let found = self.docker.inspect_volume(name);
        match found_or_not(self.within(&format!("look at volume {name}"), CALL_TIMEOUT, found).await)? {
            Some(volume) => {
                let owner = volume.labels.get(LABEL_SPACE).cloned().unwrap_or_default();
                let is_ours = owner == space_id && volume.labels.get(LABEL_CLUSTER) == Some(&self.owner.cluster);
                if is_ours { Ok(()) } else { Err(RuntimeError::ForeignVolume { name: name.to_owned(), owner }) }
            }
            None => {
                let labels = HashMap::from([
                    (LABEL_CLUSTER.to_owned(), self.owner.cluster.clone()),
                    (LABEL_SPACE.to_owned(), space_id.to_owned()),
                ]);
                let request =
                    VolumeCreateRequest { name: Some(name.to_owned()), labels: Some(labels), ..Default::default() };
                let made = self.docker.create_volume(request);
                self.within(&format!("make volume {name}"), CALL_TIMEOUT, made).await.map(drop)
            }
        }
    }

    async fn has_image(&self, image: &str) -> Result<bool, RuntimeError> {
        let found = self.docker.inspect_image(image);
        Ok(found_or_not(self.within(&format!("look for image {image}"), CALL_TIMEOUT, found).await)?.is_some())
    }

    async fn pull(
        &self,
        spec: &ContainerSpec,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<(), RuntimeError> {
        let (name, tag) = image_and_tag(&spec.image);
        let options = CreateImageOptionsBuilder::new().from_image(name).tag(tag).build();
        let credentials = spec.registry.as_ref().map(|registry| DockerCredentials {
            username: Some(registry.username.clone()),
            password: Some(registry.password.clone()),
            ..Default::default()
        });
        let refused = |message: String| RuntimeError::NoImage { image: spec.image.clone(), message };
        let whole = async {
            let mut said = self.docker.create_image(Some(options), None, credentials);
            loop {
                let next = tokio::time::timeout(PULL_IDLE_TIMEOUT, said.next()).await;
                let next = next.map_err(|_| refused(format!("nothing came for {PULL_IDLE_TIMEOUT:?}")))?;
                match next {
                    None => return Ok(()),
                    Some(Ok(info)) => progress(progress_of(info)),
                    Some(Err(error)) => return Err(refused(error::message(error))),
                }
            }
        };
        let pulled = tokio::time::timeout(PULL_TIMEOUT, whole).await;
        pulled.map_err(|_| refused(format!("it took longer than {PULL_TIMEOUT:?}")))??;
        // Podman ends a pull that failed as it ends others.
        if self.has_image(&spec.image).await? { Ok(()) } else { Err(refused("it did not arrive".to_owned())) }
    }

    async fn containers_of(&self, space_id: &str) -> Result<Vec<Summary>, RuntimeError> {
        self.containers(&[format!("{LABEL_SPACE}={space_id}")]).await
    }

    async fn containers(&self, labels: &[String]) -> Result<Vec<Summary>, RuntimeError> {
        let mut wanted =
            vec![format!("{LABEL_CLUSTER}={}", self.owner.cluster), format!("{LABEL_NODE}={}", self.owner.node_id)];
        wanted.extend_from_slice(labels);
        let filters = encoded(&serde_json::json!({ "label": wanted }).to_string());
        let path = format!("containers/json?all=true&filters={filters}");
        let mut found: Vec<Summary> = self.read("list containers", &path).await?;
        found.retain(|container| generation_of(container) > 0);
        Ok(found)
    }

    async fn volumes(&self, label: &str) -> Result<Vec<(String, HashMap<String, String>)>, RuntimeError> {
        let filters = HashMap::from([("label", vec![label])]);
        let options = ListVolumesOptionsBuilder::new().filters(&filters).build();
        let listed = self.within("list volumes", CALL_TIMEOUT, self.docker.list_volumes(Some(options))).await?;
        Ok(listed.volumes.unwrap_or_default().into_iter().map(|volume| (volume.name, volume.labels)).collect())
    }

    /// `None` for one that is gone by now.
    async fn seen(&self, summary: Summary) -> Result<Option<Seen>, RuntimeError> {
        let state = match summary.phase() {
            Phase::Made => Container::Created,
            Phase::Runs => Container::Running,
            Phase::Leaves => return Ok(None),
            Phase::Ended => {
                let path = format!("containers/{}/json", summary.id);
                match found_or_not(self.read::<Details>("look at a container", &path).await)? {
                    Some(details) => Container::Exited(details.state.exit_code),
                    None => return Ok(None),
                }
            }
        };
        Ok(Some(Seen {
            space_id: summary.label(LABEL_SPACE).to_owned(),
            generation: generation_of(&summary),
            state,
            started_at: summary.created.saturating_mul(1000),
            container_id: summary.id,
        }))
    }

    /// Asks what is asked by hand.
    async fn read<T: serde::de::DeserializeOwned>(&self, what: &str, path: &str) -> Result<T, RuntimeError> {
        let version = self.docker.client_version();
        let path = format!("/v{}.{}/{path}", version.major_version, version.minor_version);
        match tokio::time::timeout(CALL_TIMEOUT, read::get(&self.socket, &path)).await {
            Ok(Ok(read)) => Ok(read),
            Ok(Err(Unread::Refused(status, message))) => {
                let message = error::shortened(&message);
                Err(RuntimeError::Refused { runtime: self.name(), what: what.to_owned(), status, message })
            }
            Ok(Err(Unread::Unreachable(message))) => {
                Err(RuntimeError::Unreachable { runtime: self.name(), socket: self.socket.clone(), message })
            }
            Err(_) => Err(RuntimeError::Timeout { runtime: self.name(), what: what.to_owned(), limit: CALL_TIMEOUT }),
        }
    }

    /// Has a call end in time, and says what went wrong with it.
    async fn within<T>(
        &self,
        what: &str,
        limit: Duration,
        call: impl Future<Output = Result<T, bollard::errors::Error>>,
    ) -> Result<T, RuntimeError> {
        match tokio::time::timeout(limit, call).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(RuntimeError::of(error, what, &self.name(), &self.socket)),
            Err(_) => Err(RuntimeError::Timeout { runtime: self.name(), what: what.to_owned(), limit }),
        }
    }
}

/// What is not there any more is as good as removed.
fn gone(done: Result<(), RuntimeError>) -> Result<(), RuntimeError> {
    found_or_not(done).map(drop)
}

fn found_or_not<T>(looked: Result<T, RuntimeError>) -> Result<Option<T>, RuntimeError> {
    match looked {
        Ok(found) => Ok(Some(found)),
        Err(RuntimeError::Refused { status: NOT_FOUND, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// 0 for a container whose label says nothing, which is none of knot's.
fn generation_of(container: &Summary) -> u64 {
    container.label(LABEL_GENERATION).parse().unwrap_or_default()
}

fn progress_of(info: CreateImageInfo) -> Progress {
    let bytes = info.progress_detail.and_then(|detail| Some((detail.current?, detail.total?)));
    Progress { part: info.id.unwrap_or_default(), status: info.status.unwrap_or_default(), bytes }
}
