//! Templates: what spaces are made from.
//!
//! A template is a document like others; [`Template`] is a view of it under the names of its HTTP API. Its `job` is
//! YAML that describes a container, with `${{ }}` references to what is known only when a space starts.

mod check;
mod file;
mod job;
mod schema;
mod tree;
mod values;
mod variables;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{records, zones};

pub use self::check::{check, check_variable};
pub use self::file::{FILE_BYTES_MAX, FileError, read_file, to_toml, to_yaml};
pub(crate) use self::job::Job;
pub use self::values::{Bind, Device, PortMapping, Protocol};
pub(crate) use self::values::{bind, cpus, device, memory, port_mapping};
pub(crate) use self::variables::names_in;
pub use self::variables::{Facts, Known, NAMES};

/// The collection of templates; a document's key is the template's id.
pub const TEMPLATES: &str = "knot.templates";
/// The collection of template variables; a document's key is the variable's id.
pub const TEMPLATE_VARIABLES: &str = "knot.template-variables";

/// Longest name of a template, a variable, a group or a custom field, in bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// Longest description, in bytes.
pub const DESCRIPTION_BYTES_MAX: usize = 4 << 10;
/// Longest text of a job or of volumes, in bytes.
pub const JOB_BYTES_MAX: usize = 128 << 10;
/// Longest URL, in bytes.
pub const URL_BYTES_MAX: usize = 2 << 10;
/// Longest value of a template variable or a custom field, in bytes.
pub const VALUE_BYTES_MAX: usize = 16 << 10;
/// Most groups, ports or custom fields of a template.
pub const LIST_MAX: usize = 64;

/// What runs a template's spaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Platform {
    /// Docker.
    Docker,
    /// Podman.
    Podman,
    /// Either of them, whichever a server has.
    Container,
    /// Nothing: such a space is started by hand wherever its owner likes.
    Manual,
}

impl Platform {
    /// Every platform by the name it has in a template.
    pub const NAMES: [(&str, Self); 4] =
        [("container", Self::Container), ("docker", Self::Docker), ("manual", Self::Manual), ("podman", Self::Podman)];

    /// The platform of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, platform)| *platform)
    }
}

/// What a template says. Names in JSON are those of the HTTP API; a field that is not here stays as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Template {
    /// Its id, which is its document's key too.
    #[serde(rename = "template_id")]
    pub id: String,
    /// What people call it.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// A name of [`Platform::NAMES`], or of a platform that this version does not know.
    pub platform: String,
    /// An image to show.
    pub icon_url: String,
    /// The container, in YAML; empty where the platform is `manual`.
    pub job: String,
    /// The volumes that are kept with each space, in YAML.
    pub volumes: String,
    /// Whether spaces may be made from it.
    pub active: bool,
    /// Names of the groups whose members may use it; none is everybody.
    pub groups: Vec<String>,
    /// Where its spaces may run, see [`zones::allows`].
    pub zones: Vec<String>,
    /// What a running space costs of its owner's compute units.
    pub compute_units: u32,
    /// What a space costs of its owner's storage units.
    pub storage_units: u32,
    /// What is asked for when a space is made: `${{ .custom.name }}`.
    pub custom_fields: Vec<CustomField>,
    /// What can be reached inside its spaces.
    pub ports: Vec<Port>,
    /// Whether its spaces have a terminal.
    pub with_terminal: bool,
    /// Whether its spaces have a tunnel for VS Code.
    pub with_vscode_tunnel: bool,
    /// Whether its spaces have an editor in the browser.
    pub with_code_server: bool,
    /// Whether its spaces take SSH.
    pub with_ssh: bool,
    /// Whether commands may be run in its spaces.
    pub with_run_command: bool,
    /// Whether its spaces may be started on another server than before.
    pub allow_node_migration: bool,
    /// Whether its spaces run at certain times only.
    pub schedule_enabled: bool,
    /// Whether its spaces start by themselves when they may.
    pub auto_start: bool,
    /// The hours of each day, from Sunday.
    pub schedule: Vec<ScheduleDay>,
    /// How long a space may run, in units of `max_uptime_unit`.
    pub max_uptime: u32,
    /// `disabled`, `minute`, `hour` or `day`.
    pub max_uptime_unit: String,
    /// How health is checked: `none`, `agent`, `tcp`, `http`, `program` or `custom`.
    pub health_check_type: String,
    /// What is checked.
    pub health_check_config: String,
    /// Whether any certificate will do.
    pub health_check_skip_ssl_verify: bool,
    /// In seconds.
    pub health_check_timeout: u32,
    /// In seconds.
    pub health_check_interval: u32,
    /// How often a check may fail.
    pub health_check_max_failures: u32,
    /// Whether a space that fails is started again.
    pub health_check_auto_restart: bool,
    /// Whether what happens in a space is left uncounted.
    pub disable_user_activity: bool,
}

impl Default for Template {
    fn default() -> Self {
        Self {
            id: String::new(),
            name: String::new(),
            description: String::new(),
            platform: "container".to_owned(),
            icon_url: String::new(),
            job: String::new(),
            volumes: String::new(),
            active: true,
            groups: Vec::new(),
            zones: Vec::new(),
            compute_units: 0,
            storage_units: 0,
            custom_fields: Vec::new(),
            ports: Vec::new(),
            with_terminal: false,
            with_vscode_tunnel: false,
            with_code_server: false,
            with_ssh: false,
            with_run_command: false,
            allow_node_migration: false,
            schedule_enabled: false,
            auto_start: false,
            schedule: Vec::new(),
            max_uptime: 0,
            max_uptime_unit: "disabled".to_owned(),
            health_check_type: "none".to_owned(),
            health_check_config: String::new(),
            health_check_skip_ssl_verify: false,
            health_check_timeout: 0,
            health_check_interval: 0,
            health_check_max_failures: 0,
            health_check_auto_restart: false,
            disable_user_activity: false,
        }
    }
}

/// A value that is asked for when a space is made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CustomField {
    /// Its name in `${{ .custom.name }}`.
    pub name: String,
    /// What to fill in.
    pub description: String,
}

/// A port inside a space.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Port {
    /// What people call it.
    pub name: String,
    /// Its number.
    pub port: u16,
    /// `http`, `https` or `tcp`.
    pub protocol: String,
}

/// When spaces may run on a day.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ScheduleDay {
    /// Whether they may at all.
    pub enabled: bool,
    /// As `9:00am`.
    pub from: String,
    /// As `5:30pm`.
    pub to: String,
}

impl Template {
    /// Reads a template's document; what is missing or mistyped takes its default.
    #[must_use]
    pub fn read(document: &Value) -> Self {
        records::read(document)
    }

    /// The merge patch that makes a document say this and leaves the rest of it alone; `None` where it says so already.
    #[must_use]
    pub fn patch(&self, document: &Value) -> Option<Value> {
        records::patch(document, self)
    }

    /// What runs its spaces; `None` for a platform that this version does not know.
    #[must_use]
    pub fn platform(&self) -> Option<Platform> {
        Platform::named(&self.platform)
    }

    /// Whether its spaces may be made and started in `zone`.
    #[must_use]
    pub fn is_allowed_in(&self, zone: &str) -> bool {
        zones::allows(&self.zones, zone)
    }
}

/// A value that templates may use as `${{ .var.name }}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TemplateVariable {
    /// Its id, which is its document's key too.
    #[serde(rename = "templatevar_id")]
    pub id: String,
    /// Its name in templates; several of one name differ in their zones.
    pub name: String,
    /// Where it holds, see [`zones::allows`].
    pub zones: Vec<String>,
    /// What it stands for.
    pub value: String,
    /// Whether the value is a secret that is never shown again.
    pub protected: bool,
    /// Whether it stays on the servers of its zones.
    pub restricted: bool,
    /// Whether it is this server's own; wins over all others of its name.
    pub local: bool,
}

impl TemplateVariable {
    /// Reads a variable's document; what is missing or mistyped takes its default.
    #[must_use]
    pub fn read(document: &Value) -> Self {
        records::read(document)
    }

    /// The merge patch that makes a document say this and leaves the rest of it alone; `None` where it says so already.
    #[must_use]
    pub fn patch(&self, document: &Value) -> Option<Value> {
        records::patch(document, self)
    }
}

/// What each name stands for in a zone: a local variable wins over one limited to zones, that over one for all, and of
/// two alike the one with the lower id.
#[must_use]
pub fn effective(variables: &[TemplateVariable], zone: &str) -> BTreeMap<String, String> {
    let rank = |variable: &TemplateVariable| (!variable.local, variable.zones.is_empty(), variable.id.clone());
    let mut best: BTreeMap<&str, &TemplateVariable> = BTreeMap::new();
    for variable in variables.iter().filter(|variable| zones::allows(&variable.zones, zone)) {
        let held = best.entry(&variable.name).or_insert(variable);
        if rank(variable) < rank(held) {
            *held = variable;
        }
    }
    best.into_iter().map(|(name, variable)| (name.to_owned(), variable.value.clone())).collect()
}

/// Something that is wrong with a template, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Complaint {
    /// The field of the template: `job`, `zones[1]`, `ports[0].protocol`.
    pub field: String,
    /// The line in the field's text, from 1, where the field is a text of several lines.
    pub line: Option<usize>,
    /// What of that text is meant: `ports[0]`; may be empty.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
}

impl Complaint {
    /// About a field as a whole.
    pub(crate) fn of(field: &str, message: &str, hint: &str) -> Self {
        let (field, message, hint) = (field.to_owned(), message.to_owned(), Some(hint.to_owned()));
        Self { field, line: None, path: String::new(), message, hint }
    }

    /// About a place in a text of several lines.
    fn in_text(field: &str, text: &str, fault: tree::Fault) -> Self {
        let before = text.get(..fault.span.start).unwrap_or(text);
        Self {
            field: field.to_owned(),
            line: Some(before.matches('\n').count() + 1),
            path: fault.path,
            message: fault.message,
            hint: fault.hint,
        }
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.field)?;
        if let Some(line) = self.line {
            write!(f, " line {line}")?;
        }
        if !self.path.is_empty() {
            write!(f, ", {}", self.path)?;
        }
        write!(f, ": {}", self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_template_reads_what_it_knows_and_leaves_the_rest() {
        let document = json!({
            "template_id": "t1", "name": "php", "platform": "podman", "zones": ["!gb"], "compute_units": "many",
            "custom_fields": [{"name": "branch"}], "startup_script_id": "s1", "health": {"a": 1},
        });
        let mut template = Template::read(&document);
        assert_eq!((template.id.as_str(), template.platform()), ("t1", Some(Platform::Podman)));
        assert!(template.active && template.is_allowed_in("us") && !template.is_allowed_in("gb"));
        assert_eq!((template.compute_units, template.custom_fields[0].name.as_str()), (0, "branch"));
        assert_eq!(template.patch(&document), None);
        template.description = "a".to_owned();
        template.zones.clear();
        assert_eq!(template.patch(&document), Some(json!({"description": "a", "zones": []})));
        let new = Template { id: "t2".to_owned(), name: "a".to_owned(), ..Template::default() };
        assert_eq!(new.patch(&json!({})), Some(json!({"template_id": "t2", "name": "a"})));
    }

    #[test]
    fn of_variables_of_one_name_the_closest_holds() {
        let variable = |id: &str, zones: &[&str], local| TemplateVariable {
            id: id.to_owned(),
            name: "registry".to_owned(),
            zones: zones.iter().map(|&zone| zone.to_owned()).collect(),
            value: id.to_owned(),
            local,
            ..TemplateVariable::default()
        };
        let all = [
            variable("for-all", &[], false),
            variable("in-gb", &["gb"], false),
            variable("also-for-all", &[], false),
            variable("not-in-us", &["!us"], false),
        ];
        for (zone, value) in [("gb", "in-gb"), ("us", "also-for-all"), ("de", "not-in-us")] {
            assert_eq!(effective(&all, zone)["registry"], value, "{zone}");
        }
        assert_eq!(effective(&[all[1].clone(), variable("own", &[], true)], "gb")["registry"], "own");
        assert!(effective(&all[1..2], "us").is_empty());
    }
}
