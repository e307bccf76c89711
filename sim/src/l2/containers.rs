//! What a simulated server has for a container runtime: its machine's place in the yard, slow and now and then unable.

use std::time::Duration;

use knot_server::spaces::agent::Here;
use knot_server::spaces::runtime::{Progress, RuntimeError, Start};
use knot_server::spaces::spec::ContainerSpec;
use knot_server::spaces::{Containers, Doing};
use knot_server::templates::Platform;

use super::host::now;
use crate::checker::Invariant;
use crate::draw::Draw;
use crate::servers::{Findings, Yard};
use crate::shared::Shared;

/// How long a list takes at most, in milliseconds.
const LIST_MS: u64 = 20;
/// How long an image takes to come at most, in milliseconds.
const START_MS: u64 = 3_000;
/// How often of a thousand an image cannot be had.
const NO_IMAGE_PERMILLE: u64 = 50;
/// How often of a thousand looks a program ends by itself.
const ENDS_PERMILLE: u64 = 10;

#[derive(Clone, Debug)]
pub(super) struct SimContainers {
    pub(super) node: usize,
    pub(super) yard: Shared<Yard>,
    pub(super) findings: Shared<Findings>,
    pub(super) draw: Shared<Draw>,
}

impl SimContainers {
    async fn takes(&self, most_ms: u64) {
        let long = self.draw.get().between(0, most_ms);
        tokio::time::sleep(Duration::from_millis(long)).await;
    }
}

impl Containers for SimContainers {
    fn platform(&self) -> Platform {
        Platform::Podman
    }

    fn name(&self) -> String {
        "Podman 0".to_owned()
    }

    fn list(&self) -> Doing<'_, Here> {
        Box::pin(async move {
            self.takes(LIST_MS).await;
            let ends = {
                let mut draw = self.draw.get();
                draw.chance(ENDS_PERMILLE).then(|| draw.index(usize::MAX))
            };
            let mut yard = self.yard.get();
            if let Some(at) = ends {
                yard.end(self.node, at, 1);
            }
            Ok(yard.list(self.node))
        })
    }

    fn prepare<'a>(
        &'a self,
        spec: &'a ContainerSpec,
        _progress: &'a mut (dyn FnMut(Progress) + Send),
    ) -> Doing<'a, ()> {
        Box::pin(async move {
            self.takes(START_MS).await;
            if self.draw.get().chance(NO_IMAGE_PERMILLE) {
                let (image, message) = (spec.image.clone(), "the registry is away".to_owned());
                return Err(RuntimeError::NoImage { image, message });
            }
            Ok(())
        })
    }

    fn start<'a>(&'a self, start: Start<'a>) -> Doing<'a, String> {
        Box::pin(async move {
            let now = now();
            let now_ms = i64::try_from(now.as_micros() / 1_000).unwrap_or(i64::MAX);
            let (started, wrong) = self.yard.get().start(self.node, start.space_id, start.generation, now_ms);
            if let Some(wrong) = wrong {
                let mut findings = self.findings.get();
                // What its disk has lost it cannot know.
                if wrong.is_never_excused || !findings.losses().iter().any(|loss| loss.node == self.node) {
                    findings.end_with(Invariant::Spaces, now, self.node, wrong.says);
                }
            }
            self.takes(LIST_MS).await;
            started
        })
    }

    fn stop<'a>(&'a self, space_id: &'a str) -> Doing<'a, ()> {
        Box::pin(async move {
            self.takes(LIST_MS).await;
            self.yard.get().stop(self.node, space_id);
            Ok(())
        })
    }

    fn remove<'a>(&'a self, space_id: &'a str, with_volumes: bool) -> Doing<'a, ()> {
        Box::pin(async move {
            self.takes(LIST_MS).await;
            self.yard.get().remove(self.node, space_id, with_volumes);
            Ok(())
        })
    }
}
