//! Everything that is wrong with a template, at once.

use serde_json::Value;

use super::file::{KEYS, portable};
use super::schema::Reader;
use super::tree::{self, Fault};
use super::variables::is_word;
use super::{Complaint, Known, NAME_BYTES_MAX, Platform, Template, TemplateVariable, VALUE_BYTES_MAX, job};
use crate::zones;

/// Every complaint about a template, none of which depends on a space: what the fields hold, the zones, the job and its
/// volumes and the variables in them. `variables` are the names of the template variables there are, `None` where that
/// is not known.
#[must_use]
pub fn check(template: &Template, variables: Option<&[String]>) -> Vec<Complaint> {
    let record: Value = portable(template).into_iter().collect();
    let mut reader = Reader::default();
    reader.table(&tree::json(&record), &KEYS, "");
    let mut complaints: Vec<Complaint> = reader.faults.into_iter().map(of_field).collect();
    complaints.extend(content(template, variables));
    complaints
}

/// Every complaint about a template variable.
#[must_use]
pub fn check_variable(variable: &TemplateVariable) -> Vec<Complaint> {
    let mut complaints = of_zones(&variable.zones);
    if !is_word(&variable.name) || variable.name.len() > NAME_BYTES_MAX {
        let hint = format!("use 1 to {NAME_BYTES_MAX} letters, digits, '_' and '-'");
        complaints.push(Complaint::of("name", "is no name for a variable", &hint));
    }
    if variable.value.len() > VALUE_BYTES_MAX {
        let message = format!("has at most {VALUE_BYTES_MAX} bytes, not {}", variable.value.len());
        complaints.push(Complaint::of("value", &message, "shorten it"));
    }
    complaints
}

fn of_zones(zones: &[String]) -> Vec<Complaint> {
    let complaint = |wrong: zones::ZonesError| {
        let field = match &wrong {
            zones::ZonesError::NoZone { at, .. }
            | zones::ZonesError::Both { at, .. }
            | zones::ZonesError::Unknown { at, .. } => format!("zones[{at}]"),
            zones::ZonesError::TooMany(_) => "zones".to_owned(),
        };
        let said = wrong.to_string();
        let (message, hint) = said.split_once(": ").unwrap_or((&said, "write fewer"));
        Complaint::of(&field, message, hint)
    };
    zones::check(zones).into_iter().map(complaint).collect()
}

fn of_field(fault: Fault) -> Complaint {
    Complaint { field: fault.path, line: None, path: String::new(), message: fault.message, hint: fault.hint }
}

/// What the table of keys does not say.
pub(super) fn content(template: &Template, variables: Option<&[String]>) -> Vec<Complaint> {
    let mut complaints = of_zones(&template.zones);
    let mut complain = |field: String, message: &str, hint: &str| complaints.push(Complaint::of(&field, message, hint));
    if template.name.is_empty() {
        complain("name".to_owned(), "is missing", "give the template a name");
    }
    let named =
        |at: usize| template.custom_fields[..at].iter().any(|other| other.name == template.custom_fields[at].name);
    for (at, field) in template.custom_fields.iter().enumerate() {
        if field.name.is_empty() || named(at) {
            let message = if field.name.is_empty() { "has no name" } else { "has the name of another" };
            complain(format!("custom_fields[{at}]"), message, "give each field a name of its own");
        }
    }
    for (at, port) in template.ports.iter().enumerate().filter(|(_, port)| port.port == 0) {
        complain(format!("ports[{at}].port"), &format!("{} is no port", port.port), "write one from 1 to 65535");
    }
    match template.platform() {
        Some(Platform::Manual) => {}
        Some(Platform::Docker | Platform::Podman | Platform::Container) => {
            let known = Known {
                variables: variables.map(|names| names.iter().cloned().collect()),
                custom: template.custom_fields.iter().map(|field| field.name.clone()).collect(),
            };
            complaints.extend(job::check(&template.job, &template.volumes, &known));
        }
        // The table of keys has said so.
        None => {}
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::super::{CustomField, Port};
    use super::*;

    fn said(template: &Template) -> Vec<String> {
        check(template, Some(&["registry".to_owned()])).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_template_that_can_be_run_has_nothing_wrong_with_it() {
        let template = Template {
            name: "php".to_owned(),
            job: "image: ${{ .var.registry }}/php:8\nvolumes:\n  - ${{.space.id}}-home:/home\n".to_owned(),
            volumes: "volumes:\n  ${{ .space.id }}-home:\n    size: 5G\n".to_owned(),
            zones: vec!["!gb".to_owned()],
            ..Template::default()
        };
        assert_eq!(said(&template), [] as [&str; 0]);
        let manual = Template { name: "mine".to_owned(), platform: "manual".to_owned(), ..Template::default() };
        assert_eq!(said(&manual), [] as [&str; 0]);
    }

    #[test]
    fn every_complaint_is_made_at_once_with_what_to_write() {
        let template = Template {
            platform: "dokcer".to_owned(),
            description: "x".repeat(5000),
            zones: vec!["gb".to_owned(), "!gb".to_owned(), "g b".to_owned()],
            custom_fields: vec![
                CustomField::default(),
                CustomField { name: "a b".to_owned(), ..CustomField::default() },
            ],
            ports: vec![Port { name: "web".to_owned(), port: 0, protocol: "ftp".to_owned() }],
            max_uptime_unit: "week".to_owned(),
            ..Template::default()
        };
        let said = said(&template);
        for expected in [
            "description: has at most 4096 bytes, not 5000",
            "platform: is no platform; did you mean docker?",
            "max_uptime_unit: is no unit; write one of disabled, minute, hour, day",
            "ports[0].protocol: is no protocol; write one of http, https, tcp",
            "custom_fields[1].name: is no name; use 1 to 64 letters, digits, '.', '_' and '-'",
            "name: is missing; give the template a name",
            "zones[1]: gb is both named and excluded, so it is excluded; remove one of \"gb\" and \"!gb\"",
            "zones[2]: \"g b\" is no zone; write 1 to 64",
            "custom_fields[0]: has no name; give each field a name of its own",
            "ports[0].port: 0 is no port; write one from 1 to 65535",
        ] {
            assert!(said.iter().any(|said| said.starts_with(expected)), "{expected}: {said:#?}");
        }
        assert_eq!(said.len(), 10, "{said:#?}");
    }

    #[test]
    fn a_variable_has_a_name_that_a_template_can_write() {
        let variable = |name: &str, value: String, zones: &[&str]| TemplateVariable {
            name: name.to_owned(),
            value,
            zones: zones.iter().map(|&zone| zone.to_owned()).collect(),
            ..TemplateVariable::default()
        };
        assert_eq!(check_variable(&variable("registry_user-2", String::new(), &["!gb"])), []);
        for (variable, said) in [
            (variable("registry.user", String::new(), &[]), "name: is no name for a variable; use 1 to 64 letters"),
            (variable("", String::new(), &[]), "name: is no name for a variable; use 1 to 64 letters"),
            (
                variable("a", "x".repeat(VALUE_BYTES_MAX + 1), &[]),
                "value: has at most 16384 bytes, not 16385; shorten it",
            ),
            (variable("a", String::new(), &["g b"]), "zones[0]: \"g b\" is no zone; write 1 to 64"),
        ] {
            let complaints = check_variable(&variable);
            assert!(complaints.len() == 1 && complaints[0].to_string().starts_with(said), "{said}: {complaints:?}");
        }
    }

    #[test]
    fn a_job_is_complained_of_by_line() {
        let template = Template {
            name: "php".to_owned(),
            job: "imgae: php\nports:\n  - 80\n  - 8080:80\nvolumes:\n  - home:/home\nX: ${{ .var.regsitry }}\n"
                .to_owned(),
            ..Template::default()
        };
        assert_eq!(
            said(&template),
            ["job line 7, X: there is no variable `.var.regsitry`; did you mean `.var.registry`?"]
        );
        let template = Template { job: template.job.replace("X: ${{ .var.regsitry }}\n", ""), ..template };
        assert_eq!(
            said(&template),
            [
                "job line 1, imgae: unknown key; did you mean `image`?",
                "job line 3, ports[0]: is no port; write `host:container`, as `8080:80` or `5353:53/udp`",
            ]
        );
    }
}
