//! The form of a template: its fields, and what there is to say of each.

use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;

use crate::accounts::{AccountError, Accounts, Caller, Directory, Refusal};
use crate::api::Shared;
use crate::api::error::ApiError;
use crate::templates::{Complaint, CustomField, Platform, Port, ScheduleDay, Template};
use crate::web::form::Fields;
use crate::web::merge::{Said, members};
use crate::web::page::{Problem, Shell, sentence, show_as};
use crate::web::record::{Draft, Record};
use crate::web::templates::preview::Preview;
use crate::web::users::Choice;
use crate::web::zones::{Meant, entries};

const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const UNITS: [(&str, &str); 4] = [("disabled", "no limit"), ("minute", "minutes"), ("hour", "hours"), ("day", "days")];
const CHECKS: [&str; 6] = ["none", "agent", "tcp", "http", "program", "custom"];
const PROTOCOLS: [&str; 3] = ["http", "https", "tcp"];
/// Boxes to tick, and what each is for.
const FEATURES: [(&str, &str); 6] = [
    ("with_terminal", "A terminal"),
    ("with_ssh", "SSH"),
    ("with_code_server", "An editor in the browser"),
    ("with_vscode_tunnel", "A tunnel for VS Code"),
    ("with_run_command", "Commands may be run in it"),
    ("allow_node_migration", "May start on another server than before"),
];
/// Fields that something can be said of.
const NOTED: [&str; 20] = [
    "name",
    "platform",
    "description",
    "icon_url",
    "zones",
    "groups",
    "job",
    "volumes",
    "custom_fields",
    "ports",
    "compute_units",
    "storage_units",
    "max_uptime",
    "max_uptime_unit",
    "schedule",
    "health_check_type",
    "health_check_config",
    "health_check_timeout",
    "health_check_interval",
    "health_check_max_failures",
];

/// What came of the button that was pressed.
pub(super) enum Outcome {
    None,
    /// Nothing is wrong, or what is wrong is said at its field.
    Checked,
    /// With the examples no container can be made.
    NoPreview,
    /// The container as it would be made.
    Preview(Preview),
}

#[derive(askama::Template)]
#[template(path = "template.html")]
pub(super) struct Editor {
    shell: Shell,
    problem: Option<Problem>,
    draft: Draft<Template>,
    /// Where the form is sent.
    path: String,
    groups: Vec<Choice>,
    meant: Meant,
    /// Those of the template, and empty ones to fill in.
    custom_fields: Vec<CustomField>,
    ports: Vec<Port>,
    days: Vec<(&'static str, ScheduleDay)>,
    features: Vec<(&'static str, &'static str, bool)>,
    pub(super) outcome: Outcome,
    /// What stands for the state that the form was filled from.
    opened: String,
    is_stale: bool,
}

impl Editor {
    pub(super) async fn new(api: &Shared, shell: Shell, draft: Draft<Template>) -> Result<Self, ApiError> {
        let template = &draft.record;
        let meant = Meant::new(api, &template.zones).await?;
        let flags = members(template);
        let is_set = |name: &str| flags.get(name) == Some(&true.into());
        let days = DAYS
            .into_iter()
            .zip(0..)
            .map(|(name, at): (_, usize)| (name, template.schedule.get(at).cloned().unwrap_or_default()));
        let mut editor = Self {
            shell: shell.watching(&[("watch", "templates")]),
            problem: draft.problem.clone(),
            path: draft.id.as_ref().map_or_else(|| Template::PATH.to_owned(), |id| format!("{}/{id}", Template::PATH)),
            groups: groups(&api.accounts.directory(), template),
            meant,
            custom_fields: template.custom_fields.clone(),
            ports: template.ports.clone(),
            days: days.collect(),
            features: FEATURES.map(|(name, title)| (name, title, is_set(name))).to_vec(),
            outcome: Outcome::None,
            opened: brief(&draft.was),
            is_stale: false,
            draft,
        };
        editor.custom_fields.push(CustomField::default());
        editor.ports.push(Port::default());
        Ok(editor)
    }

    pub(super) fn show(&self) -> Response {
        show_as(self.problem.as_ref().map_or(StatusCode::OK, |problem| problem.status), self)
    }

    /// Says on an open page whether the template has changed since.
    pub(super) fn was_opened_with(&mut self, opened: &str) {
        if !opened.is_empty() && opened != self.opened {
            self.is_stale = true;
            opened.clone_into(&mut self.opened);
        }
    }

    /// Keeps the empty rows that there were, and adds one where that was asked for.
    pub(super) fn add_rows(&mut self, fields: &Fields) {
        let rows = |name: &str, column: &str| {
            fields.list(column).len() + usize::from(fields.get("action").strip_prefix("more-") == Some(name))
        };
        let (custom_fields, ports) = (rows("custom_fields", "custom_fields.name"), rows("ports", "ports.name"));
        self.custom_fields.resize(custom_fields.max(self.custom_fields.len()), CustomField::default());
        self.ports.resize(ports.max(self.ports.len()), Port::default());
    }

    /// What is wrong with a field.
    fn wrong(&self, field: &str) -> Vec<String> {
        self.draft.complaints.iter().filter(|complaint| root(complaint) == field).map(said).collect()
    }

    /// Fields of which something is wrong, in the order of the form.
    fn wrong_fields(&self) -> Vec<&'static str> {
        NOTED.into_iter().filter(|field| !self.wrong(field).is_empty()).collect()
    }

    /// Parts of the page that change when it is checked.
    fn noted() -> String {
        NOTED.map(|field| format!("#n-{field}")).join(",")
    }

    /// The platforms to choose from.
    fn platforms(&self) -> Vec<&str> {
        choices(Platform::NAMES.map(|(name, _)| name), &self.draft.record.platform)
    }

    /// What times are counted in, each with its title.
    fn units(&self) -> Vec<(&str, &str)> {
        let title = |unit| UNITS.iter().find(|(known, _)| *known == unit).map_or(unit, |(_, title)| *title);
        let units = choices(UNITS.map(|(unit, _)| unit), &self.draft.record.max_uptime_unit);
        units.into_iter().map(|unit| (unit, title(unit))).collect()
    }

    /// How health can be checked.
    fn checks(&self) -> Vec<&str> {
        choices(CHECKS, &self.draft.record.health_check_type)
    }

    /// What can be spoken at a port.
    fn protocols(port: &Port) -> Vec<&str> {
        choices(PROTOCOLS, &port.protocol)
    }
}

/// What can be chosen; what a record says that this version does not know stays. A new row says nothing yet.
fn choices<'a, const N: usize>(known: [&'a str; N], held: &'a str) -> Vec<&'a str> {
    let unknown = (!held.is_empty() && !known.contains(&held)).then_some(held);
    known.into_iter().chain(unknown).collect()
}

/// Groups to choose from; those that the template names and nobody knows are among them.
fn groups(directory: &Directory, template: &Template) -> Vec<Choice> {
    let mut names: Vec<String> = directory.groups().map(|group| directory.group_name(group).into_owned()).collect();
    names.extend(template.groups.iter().filter(|name| !names.contains(name)).cloned().collect::<Vec<_>>());
    names.sort_by_cached_key(|name| name.to_lowercase());
    let choice = |name: String| Choice { is_chosen: template.groups.contains(&name), id: name.clone(), name };
    names.into_iter().map(choice).collect()
}

fn brief(was: &str) -> String {
    blake3::hash(was.as_bytes()).to_hex().chars().take(16).collect()
}

/// The field of a form that a complaint is about.
fn root(complaint: &Complaint) -> &str {
    complaint.field.split(['[', '.']).next().unwrap_or_default()
}

/// A complaint as it is said at its field.
fn said(complaint: &Complaint) -> String {
    let rest = complaint.field.get(root(complaint).len()..).unwrap_or_default();
    let row = rest.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let (row, column) = row.map_or((None, rest), |(at, column)| (at.parse::<usize>().ok(), column));
    let places = [
        row.map(|at| format!("entry {}", at + 1)),
        Some(column.trim_start_matches('.').to_owned()).filter(|column| !column.is_empty()),
        complaint.line.map(|line| format!("line {line}")),
        Some(complaint.path.clone()).filter(|path| !path.is_empty()),
    ];
    let place = places.into_iter().flatten().collect::<Vec<_>>().join(", ");
    let place = if place.is_empty() { place } else { format!("{place}: ") };
    let hint = complaint.hint.as_deref().map(|hint| format!(" {}", sentence(hint))).unwrap_or_default();
    format!("{}{hint}", sentence(&format!("{place}{}", complaint.message)))
}

impl Record for Template {
    const PATH: &'static str = "/templates";
    const KIND: &'static str = "template";

    fn find(directory: &Directory, id: &str) -> Option<Self> {
        directory.template(id).cloned()
    }

    fn filled(fields: &Fields) -> Said {
        let text = |name: &str| fields.get(name).replace('\r', "");
        let number = |name: &str| fields.count(name);
        let mut said = members(&json!({
            "name": fields.text("name"),
            "description": text("description"),
            "platform": fields.text("platform"),
            "icon_url": fields.text("icon_url"),
            "job": text("job"),
            "volumes": text("volumes"),
            "groups": fields.all("groups"),
            "zones": entries(fields.get("zones")),
            "compute_units": number("compute_units"),
            "storage_units": number("storage_units"),
            "custom_fields": custom_fields(fields),
            "ports": ports(fields),
            "schedule": schedule(fields),
            "max_uptime": number("max_uptime"),
            "max_uptime_unit": fields.text("max_uptime_unit"),
            "health_check_type": fields.text("health_check_type"),
            "health_check_config": text("health_check_config"),
            "health_check_timeout": number("health_check_timeout"),
            "health_check_interval": number("health_check_interval"),
            "health_check_max_failures": number("health_check_max_failures"),
        }));
        let flags = [
            "active",
            "schedule_enabled",
            "auto_start",
            "health_check_skip_ssl_verify",
            "health_check_auto_restart",
            "disable_user_activity",
        ];
        let flags = flags.into_iter().chain(FEATURES.map(|(name, _)| name));
        said.extend(flags.map(|name| (name.to_owned(), fields.has(name).into())));
        said
    }

    /// A form has all days, of which some may have been left out.
    fn shown(&self) -> Said {
        let on_form = Self::filled(&Fields::default());
        let days = Self { schedule: all_days(self.schedule.clone()), ..self.clone() };
        members(&days).into_iter().filter(|(name, _)| on_form.contains_key(name)).collect()
    }

    async fn page(api: &Shared, shell: Shell, draft: Draft<Self>) -> Result<impl askama::Template + Send, ApiError> {
        Editor::new(api, shell, draft).await
    }

    async fn put(
        accounts: &Accounts,
        by: &Caller,
        id: Option<&str>,
        change: impl FnOnce(Self) -> Result<Self, Refusal> + Send,
    ) -> Result<String, AccountError> {
        accounts.put_template(by, id, change).await
    }

    async fn delete(accounts: &Accounts, by: &Caller, id: &str) -> Result<(), AccountError> {
        accounts.delete_template(by, id).await
    }
}

/// Rows that hold anything.
fn custom_fields(fields: &Fields) -> Vec<CustomField> {
    let columns = fields.list("custom_fields.name").into_iter().zip(fields.list("custom_fields.description"));
    let rows = columns.map(|(name, description)| CustomField {
        name: name.trim().to_owned(),
        description: description.trim().to_owned(),
    });
    rows.filter(|row| *row != CustomField::default()).collect()
}

/// Rows that hold anything besides the protocol, which is always one.
fn ports(fields: &Fields) -> Vec<Port> {
    let columns =
        fields.list("ports.name").into_iter().zip(fields.list("ports.port")).zip(fields.list("ports.protocol"));
    let rows = columns.map(|((name, port), protocol)| Port {
        name: name.trim().to_owned(),
        port: port.trim().parse().unwrap_or(0),
        protocol: protocol.to_owned(),
    });
    rows.filter(|row| row.port != 0 || !row.name.is_empty()).collect()
}

fn schedule(fields: &Fields) -> Vec<ScheduleDay> {
    let enabled = fields.all("schedule.enabled");
    let times = fields.list("schedule.from").into_iter().zip(fields.list("schedule.to")).zip(0..DAYS.len());
    let days = times.map(|((from, to), at)| ScheduleDay {
        enabled: enabled.contains(&at.to_string()),
        from: from.trim().to_owned(),
        to: to.trim().to_owned(),
    });
    all_days(days.collect())
}

/// Every day, or none where nothing is said of any.
fn all_days(mut schedule: Vec<ScheduleDay>) -> Vec<ScheduleDay> {
    if schedule.iter().all(|day| *day == ScheduleDay::default()) {
        return Vec::new();
    }
    schedule.resize(DAYS.len(), ScheduleDay::default());
    schedule
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::path::encode;
    use crate::web::merge::{Marks, Merged, with};

    fn fields(text: &str) -> Fields {
        Fields::of(&format!("/templates?{text}").parse().unwrap())
    }

    #[test]
    fn a_form_says_all_of_a_template_and_leaves_out_empty_rows() {
        let said = Template::filled(&fields(&format!(
            "name=php&platform=docker&active&zones=!gb,us&groups=web&groups=db&job={}&ports.name=Web&ports.port=80\
             &ports.protocol=http&ports.name=&ports.port=&ports.protocol=http&custom_fields.name=&custom_fields.description=\
             &with_ssh&schedule.enabled=1&schedule.from=&schedule.from=9:00am&schedule.to=&schedule.to=5:00pm",
            encode("image: php\r\n")
        )));
        let template: Template = with(&Template::default(), said).unwrap();
        assert_eq!((template.name.as_str(), template.job.as_str()), ("php", "image: php\n"));
        assert_eq!((template.zones.len(), template.groups.len(), template.custom_fields.len()), (2, 2, 0));
        assert_eq!((template.ports.len(), template.ports[0].port), (1, 80));
        assert!(template.active && template.with_ssh && !template.with_terminal);
        assert_eq!((template.schedule.len(), template.schedule[1].to.as_str()), (7, "5:00pm"));
        assert!(template.schedule[1].enabled && !template.schedule[0].enabled);
    }

    #[test]
    fn every_member_of_a_template_is_on_the_form() {
        let all = members(&Template::default());
        let on_form = Template::filled(&Fields::default());
        let lacking: Vec<&String> = all.keys().filter(|name| !on_form.contains_key(*name)).collect();
        assert_eq!(lacking, ["template_id"]);
        assert!(NOTED.iter().all(|field| on_form.contains_key(*field)));
    }

    #[test]
    fn a_form_in_which_nothing_was_changed_changes_nothing() {
        let day = ScheduleDay { enabled: true, from: "9:00am".to_owned(), to: String::new() };
        for schedule in [Vec::new(), vec![ScheduleDay::default()], vec![day.clone()]] {
            let template = Template { schedule: schedule.clone(), ..Template::default() };
            let mine = template.shown();
            let merged = Merged::new(&Marks::of(&mine), &mine, &template.shown(), &members(&template));
            assert_eq!(merged, Merged::default(), "{schedule:?}");
        }
    }

    #[test]
    fn complaints_are_said_at_their_field() {
        let complaint = |field: &str, line, path: &str| {
            let complaint = Complaint::of(field, "is no port", "write one from 1 to 65535");
            let complaint = Complaint { line, path: path.to_owned(), ..complaint };
            (root(&complaint).to_owned(), said(&complaint))
        };
        let hint = "Write one from 1 to 65535.";
        for ((field, line, path), expected) in [
            (("ports[0].port", None, ""), ("ports", "Entry 1, port: is no port.")),
            (("job", Some(3), "ports[0]"), ("job", "Line 3, ports[0]: is no port.")),
            (("zones[1]", None, ""), ("zones", "Entry 2: is no port.")),
            (("name", None, ""), ("name", "Is no port.")),
        ] {
            assert_eq!(complaint(field, line, path), (expected.0.to_owned(), format!("{} {hint}", expected.1)));
        }
    }
}
