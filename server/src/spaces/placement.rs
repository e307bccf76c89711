//! On which server a space is started: a choice from what is known, made the same way by whoever makes it.

use std::collections::BTreeMap;

use super::record::{SpaceRecord, Wanted};
use crate::templates::{Platform, Template};

/// A server that a space might run on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its id.
    pub node_id: String,
    /// What people call it.
    pub name: String,
    /// The zone it is in.
    pub zone: String,
    /// Whether it answers.
    pub is_alive: bool,
    /// What runs containers there: [`Platform::Docker`] or [`Platform::Podman`]; `None` if nothing does.
    pub runtime: Option<Platform>,
    /// What it has to carry already, see [`loads`].
    pub load: u64,
}

/// Why there is no server for a space.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unplaceable {
    /// The template is not for this zone.
    #[error(
        "template {template} is not allowed in zone {zone}: choose another zone, or have its zones ({zones}) changed"
    )]
    Zone {
        /// The template's name.
        template: String,
        /// The zone asked for.
        zone: String,
        /// Those of the template.
        zones: String,
    },
    /// Nothing runs such spaces.
    #[error("spaces of template {template} are not started by a server: its platform is {platform}")]
    Platform {
        /// The template's name.
        template: String,
        /// What it says.
        platform: String,
    },
    /// Nobody is there.
    #[error("no server is in zone {zone}: start one there, or choose another zone")]
    NoServer {
        /// The zone asked for.
        zone: String,
    },
    /// Nobody answers there.
    #[error("no server of zone {zone} answers ({servers}): start one of them, or choose another zone")]
    NoneAlive {
        /// The zone asked for.
        zone: String,
        /// The names of those that are silent.
        servers: String,
    },
    /// Nobody there can run it.
    #[error("no server of zone {zone} has {runtime} ({servers}): install it on one of them")]
    NoRuntime {
        /// The zone asked for.
        zone: String,
        /// What is missing.
        runtime: &'static str,
        /// The names of those that answer.
        servers: String,
    },
    /// The server asked for is not one of those.
    #[error("server {0} cannot run this space: leave the choice to knot, or name one of {1}")]
    NotThisOne(String, String),
}

/// The server to start a space of `template` on: of those in `zone` that answer and have what it runs on, the one that
/// carries least, and of several the one with the lowest id. `wished` is a server's id or name that a user chose.
///
/// # Errors
/// When no server will do, with what to change.
pub fn place<'a>(
    template: &Template,
    zone: &str,
    candidates: &'a [Candidate],
    wished: Option<&str>,
) -> Result<&'a Candidate, Unplaceable> {
    if !template.is_allowed_in(zone) {
        let zones = template.zones.join(", ");
        return Err(Unplaceable::Zone { template: template.name.clone(), zone: zone.to_owned(), zones });
    }
    let needed = match template.platform() {
        Some(needed @ (Platform::Docker | Platform::Podman | Platform::Container)) => needed,
        Some(Platform::Manual) | None => {
            let (template, platform) = (template.name.clone(), template.platform.clone());
            return Err(Unplaceable::Platform { template, platform });
        }
    };
    let there: Vec<&Candidate> = candidates.iter().filter(|candidate| candidate.zone == zone).collect();
    if there.is_empty() {
        return Err(Unplaceable::NoServer { zone: zone.to_owned() });
    }
    let alive: Vec<&Candidate> = there.iter().copied().filter(|candidate| candidate.is_alive).collect();
    if alive.is_empty() {
        return Err(Unplaceable::NoneAlive { zone: zone.to_owned(), servers: names(&there) });
    }
    let able: Vec<&Candidate> = alive.iter().copied().filter(|candidate| can_run(candidate, needed)).collect();
    if able.is_empty() {
        let runtime = match needed {
            Platform::Docker => "Docker",
            Platform::Podman => "Podman",
            Platform::Container | Platform::Manual => "Docker or Podman",
        };
        return Err(Unplaceable::NoRuntime { zone: zone.to_owned(), runtime, servers: names(&alive) });
    }
    if let Some(wished) = wished {
        let chosen = able.iter().find(|candidate| candidate.node_id == wished || candidate.name == wished);
        return chosen.copied().ok_or_else(|| Unplaceable::NotThisOne(wished.to_owned(), names(&able)));
    }
    let least = able.into_iter().min_by_key(|candidate| (candidate.load, &candidate.node_id));
    Ok(least.expect("one is able"))
}

/// What each server has to carry, by its id: the compute units of the spaces that should run on it, and one for each of
/// them. `compute_units` are those of the template of an id.
pub fn loads<'a>(
    records: impl IntoIterator<Item = &'a SpaceRecord>,
    compute_units: impl Fn(&str) -> u32,
) -> BTreeMap<&'a str, u64> {
    let mut loads = BTreeMap::new();
    for record in records.into_iter().filter(|record| record.wanted == Wanted::Running) {
        *loads.entry(record.node_id.as_str()).or_default() += 1 + u64::from(compute_units(&record.template_id));
    }
    loads
}

fn can_run(candidate: &Candidate, needed: Platform) -> bool {
    match needed {
        Platform::Container => candidate.runtime.is_some(),
        Platform::Docker | Platform::Podman | Platform::Manual => candidate.runtime == Some(needed),
    }
}

fn names(candidates: &[&Candidate]) -> String {
    let mut names: Vec<&str> = candidates.iter().map(|candidate| candidate.name.as_str()).collect();
    names.sort_unstable();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(name: &str, zone: &str, is_alive: bool, runtime: Option<Platform>, load: u64) -> Candidate {
        let (node_id, name, zone) = (format!("id-{name}"), name.to_owned(), zone.to_owned());
        Candidate { node_id, name, zone, is_alive, runtime, load }
    }

    fn template(platform: &str, zones: &[&str]) -> Template {
        let zones = zones.iter().map(|&zone| zone.to_owned()).collect();
        Template { name: "php".to_owned(), platform: platform.to_owned(), zones, ..Template::default() }
    }

    fn cluster() -> Vec<Candidate> {
        vec![
            candidate("d", "gb", true, Some(Platform::Docker), 4),
            candidate("c", "gb", true, Some(Platform::Podman), 2),
            candidate("b", "gb", true, Some(Platform::Podman), 2),
            candidate("a", "gb", false, Some(Platform::Podman), 0),
            candidate("e", "gb", true, None, 0),
            candidate("f", "us", true, None, 0),
            candidate("g", "de", false, Some(Platform::Docker), 0),
        ]
    }

    #[test]
    fn the_least_loaded_server_that_can_is_chosen_whatever_the_order() {
        for (platform, wished, chosen) in [
            ("container", None, "b"),
            ("podman", None, "b"),
            ("docker", None, "d"),
            ("container", Some("c"), "c"),
            ("container", Some("id-d"), "d"),
        ] {
            let mut candidates = cluster();
            for _ in 0..candidates.len() {
                candidates.rotate_left(1);
                let placed = place(&template(platform, &[]), "gb", &candidates, wished).unwrap();
                assert_eq!(placed.name, chosen, "{platform} {wished:?}");
            }
        }
    }

    #[test]
    fn a_server_carries_what_should_run_on_it() {
        let record = |node: &str, template: &str, wanted| {
            let (node_id, template_id) = (node.to_owned(), template.to_owned());
            SpaceRecord { node_id, template_id, wanted, ..SpaceRecord::default() }
        };
        let records = [
            record("n1", "small", Wanted::Running),
            record("n1", "large", Wanted::Running),
            record("n1", "large", Wanted::Stopped),
            record("n2", "large", Wanted::Running),
        ];
        let units = |template: &str| if template == "large" { 8 } else { 0 };
        assert_eq!(loads(&records, units), [("n1", 10), ("n2", 9)].into());
    }

    #[test]
    fn why_no_server_fits_is_said_with_what_to_change() {
        for (platform, zones, zone, wished, said) in [
            ("podman", &["!gb"][..], "gb", None, "template php is not allowed in zone gb: choose another zone"),
            ("manual", &[], "gb", None, "spaces of template php are not started by a server: its platform is manual"),
            ("nomad", &[], "gb", None, "spaces of template php are not started by a server: its platform is nomad"),
            ("podman", &[], "fr", None, "no server is in zone fr: start one there"),
            ("podman", &[], "de", None, "no server of zone de answers (g): start one of them"),
            ("docker", &[], "us", None, "no server of zone us has Docker (f): install it"),
            ("container", &[], "us", None, "no server of zone us has Docker or Podman (f): install it"),
            (
                "podman",
                &[],
                "gb",
                Some("a"),
                "server a cannot run this space: leave the choice to knot, or name one of b, c",
            ),
        ] {
            let error = place(&template(platform, zones), zone, &cluster(), wished).unwrap_err().to_string();
            assert!(error.starts_with(said), "{said}\n{error}");
        }
    }
}
