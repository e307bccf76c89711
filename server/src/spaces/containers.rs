//! What holds containers for a server: a runtime, or what a simulator has in its place.

use std::fmt;
use std::pin::Pin;

use super::agent::Here;
use super::runtime::{Progress, Runtime, RuntimeError, Start};
use super::spec::ContainerSpec;
use crate::templates::Platform;

/// What a runtime is asked to do.
pub type Doing<'a, T> = Pin<Box<dyn Future<Output = Result<T, RuntimeError>> + Send + 'a>>;

/// Containers of one server. Calls for one space come one after another.
pub trait Containers: fmt::Debug + Send + Sync {
    /// Which templates it is for.
    fn platform(&self) -> Platform;

    /// What it is, for people.
    fn name(&self) -> String;

    /// What it holds.
    fn list(&self) -> Doing<'_, Here>;

    /// Has what a container is made of here, which may take long.
    fn prepare<'a>(&'a self, spec: &'a ContainerSpec, progress: &'a mut (dyn FnMut(Progress) + Send)) -> Doing<'a, ()>;

    /// Has this start of a space run, once; gives the container's id.
    fn start<'a>(&'a self, start: Start<'a>) -> Doing<'a, String>;

    /// Ends a space's containers and leaves them there.
    fn stop<'a>(&'a self, space_id: &'a str) -> Doing<'a, ()>;

    /// Ends and removes a space's containers, and its volumes when asked.
    fn remove<'a>(&'a self, space_id: &'a str, with_volumes: bool) -> Doing<'a, ()>;
}

impl Containers for Runtime {
    fn platform(&self) -> Platform {
        Self::platform(self)
    }

    fn name(&self) -> String {
        Self::name(self)
    }

    fn list(&self) -> Doing<'_, Here> {
        Box::pin(Self::list(self))
    }

    fn prepare<'a>(&'a self, spec: &'a ContainerSpec, progress: &'a mut (dyn FnMut(Progress) + Send)) -> Doing<'a, ()> {
        Box::pin(Self::prepare(self, spec, progress))
    }

    fn start<'a>(&'a self, start: Start<'a>) -> Doing<'a, String> {
        Box::pin(async move { Self::start(self, start, &mut |_| ()).await })
    }

    fn stop<'a>(&'a self, space_id: &'a str) -> Doing<'a, ()> {
        Box::pin(Self::stop(self, space_id))
    }

    fn remove<'a>(&'a self, space_id: &'a str, with_volumes: bool) -> Doing<'a, ()> {
        Box::pin(Self::remove(self, space_id, with_volumes))
    }
}
