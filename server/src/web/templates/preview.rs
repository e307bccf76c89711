//! The container that a template would become, with examples for what only a space knows.

use std::collections::BTreeSet;

use crate::accounts::{Caller, Permission};
use crate::api::Shared;
use crate::api::error::ApiError;
use crate::spaces::spec::{ContainerSpec, container};
use crate::templates::{Complaint, Facts, Platform, Protocol, Template, TemplateVariable, effective, names_in};

/// What stands for what is filled in by people.
const EXAMPLE: &str = "example";
/// What stands for a value that is not shown.
const HIDDEN: &str = "hidden";
const EXAMPLE_ID: &str = "0123456789abcdef0123456789abcdef";

/// A container, and what it was made with.
pub(super) struct Preview {
    /// What the container has, by what that is; nothing where there is no container.
    pub(super) parts: Vec<(&'static str, Vec<String>)>,
    /// What the names of the template stood for.
    pub(super) facts: Vec<(String, String)>,
    pub(super) zone: String,
    /// Whether values were left out.
    pub(super) has_hidden: bool,
}

impl Preview {
    /// Of a template that nothing is wrong with. Fails with what does not go together with the examples.
    pub(super) async fn new(
        api: &Shared,
        by: &Caller,
        template: &Template,
    ) -> Result<Result<Self, Vec<Complaint>>, ApiError> {
        let url = api.handle.look(|engine, _| engine.me().record.url.clone()).await?;
        let (facts, has_hidden) = example(api, by, template, url);
        let zone = api.zone.to_string();
        if template.platform() == Some(Platform::Manual) {
            return Ok(Ok(Self { parts: Vec::new(), facts: Vec::new(), zone, has_hidden: false }));
        }
        let made = container(template, &facts);
        Ok(made.map(|spec| Self { parts: parts(&spec), facts: named(&facts), zone, has_hidden }))
    }
}

/// Facts of a space that does not exist, with those variables that the template names, and whether values were hidden.
fn example(api: &Shared, by: &Caller, template: &Template, server_url: String) -> (Facts, bool) {
    let directory = api.accounts.directory();
    let user = by.user().and_then(|id| directory.user(id)).cloned().unwrap_or_default();
    let or_example = |text: &str| if text.is_empty() { EXAMPLE.to_owned() } else { text.to_owned() };
    let may_see = by.may(Permission::ManageVariables);
    let used: BTreeSet<&str> = [&template.job, &template.volumes].into_iter().flat_map(|text| names_in(text)).collect();
    let is_used = |variable: &&TemplateVariable| used.contains(format!("var.{}", variable.name).as_str());
    let variables = directory.variables().filter(is_used);
    let all: Vec<TemplateVariable> = variables.map(|variable| shown(variable, may_see)).collect();
    let variables = effective(&all, &api.zone);
    let has_hidden = variables.values().any(|value| value == HIDDEN);
    let facts = Facts {
        space_id: EXAMPLE_ID.to_owned(),
        space_name: EXAMPLE.to_owned(),
        is_first_boot: true,
        user_id: or_example(&user.id),
        username: or_example(&user.username),
        email: user.email,
        user_timezone: user.timezone,
        template_id: if template.id.is_empty() { EXAMPLE_ID.to_owned() } else { template.id.clone() },
        template_name: template.name.clone(),
        server_url,
        zone: api.zone.to_string(),
        custom: template.custom_fields.iter().map(|field| (field.name.clone(), EXAMPLE.to_owned())).collect(),
        variables,
        ..Facts::default()
    };
    (facts, has_hidden)
}

/// A variable as it is shown: a protected one to nobody, others to those who manage them.
fn shown(variable: &TemplateVariable, may_see: bool) -> TemplateVariable {
    let is_shown = may_see && !variable.protected;
    TemplateVariable { value: if is_shown { variable.value.clone() } else { HIDDEN.to_owned() }, ..variable.clone() }
}

fn named(facts: &Facts) -> Vec<(String, String)> {
    let custom = facts.custom.keys().map(|name| format!("custom.{name}"));
    let variables = facts.variables.keys().map(|name| format!("var.{name}"));
    let names = crate::templates::NAMES.iter().map(|&name| name.to_owned()).chain(custom).chain(variables);
    let fact = |name: String| {
        let value = facts.get(&name)?.to_owned();
        (!value.is_empty()).then(|| (format!(".{name}"), value))
    };
    names.filter_map(fact).collect()
}

fn parts(spec: &ContainerSpec) -> Vec<(&'static str, Vec<String>)> {
    let text = |text: &str| if text.is_empty() { Vec::new() } else { vec![text.to_owned()] };
    let port = |port: &crate::templates::PortMapping| {
        let protocol = match port.protocol {
            Protocol::Tcp => "",
            Protocol::Udp => "/udp",
        };
        format!("{} on the server leads to {}{protocol}", port.host, port.container)
    };
    let bind = |bind: &crate::templates::Bind| {
        let options = bind.options.as_ref().map(|options| format!(" ({options})")).unwrap_or_default();
        format!("{} at {}{options}", bind.source, bind.target)
    };
    let all = [
        ("Image", text(&spec.image)),
        ("Logs in to its registry as", spec.registry.iter().map(|login| login.username.clone()).collect()),
        ("Name", text(&spec.name)),
        ("Host name", text(&spec.hostname)),
        ("Command", spec.command.clone()),
        ("Environment", spec.environment.clone()),
        ("Ports", spec.ports.iter().map(port).collect()),
        ("Mounts", spec.binds.iter().map(bind).collect()),
        ("Volumes that are kept", spec.volumes.clone()),
        ("Devices", spec.devices.iter().map(|device| format!("{} at {}", device.host, device.container)).collect()),
        ("Network", text(&spec.network)),
        ("Name servers", spec.dns.clone()),
        ("Domains to look in", spec.dns_search.clone()),
        ("Hosts", spec.extra_hosts.clone()),
        ("Memory", spec.memory_bytes.iter().map(|bytes| format!("{} MiB", bytes >> 20)).collect()),
        ("CPUs", spec.nano_cpus.iter().map(|nano| cores(*nano)).collect()),
        ("May do besides", spec.cap_add.clone()),
        ("May not do", spec.cap_drop.clone()),
        ("Privileged", text(if spec.is_privileged { "yes: it may do all that the server may" } else { "" })),
    ];
    all.into_iter().filter(|(_, entries)| !entries.is_empty()).collect()
}

/// Billionths of a core as cores.
fn cores(nano: i64) -> String {
    let text = format!("{}.{:09}", nano / 1_000_000_000, nano % 1_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_protected_is_hidden_from_all_and_the_rest_from_those_who_do_not_manage_it() {
        let variable =
            |protected| TemplateVariable { value: "s3cret".to_owned(), protected, ..TemplateVariable::default() };
        for (protected, may_see, value) in
            [(true, true, HIDDEN), (true, false, HIDDEN), (false, false, HIDDEN), (false, true, "s3cret")]
        {
            assert_eq!(shown(&variable(protected), may_see).value, value);
        }
    }

    #[test]
    fn parts_of_a_container_are_named_where_it_has_them() {
        let template = Template {
            job: "image: php:8\ncpus: 1.5\nmemory: 2G\nports: [\"5353:53/udp\"]\nauth: {username: ann, password: s3cret}\n"
                .to_owned(),
            ..Template::default()
        };
        let spec = container(&template, &Facts::default()).unwrap();
        let shown = parts(&spec);
        let part = |name: &str| shown.iter().find(|(known, _)| *known == name).map(|(_, entries)| entries.join(" "));
        assert_eq!(part("CPUs").as_deref(), Some("1.5"));
        assert_eq!(part("Memory").as_deref(), Some("2048 MiB"));
        assert_eq!(part("Ports").as_deref(), Some("5353 on the server leads to 53/udp"));
        assert_eq!(part("Privileged"), None);
        assert!(!format!("{shown:?}").contains("s3cret"));
    }
}
