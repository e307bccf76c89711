//! `${{ .var.name }}` inside a template: what a space's own facts and an admin's variables are called there.
//!
//! A reference is a dot and names, with `quote`, `toUpper` and `toLower` in front of it or behind a `|`. References are
//! resolved inside single values, after the text around them has been read: no value, whoever chose it, adds a key, a
//! list entry or a line to what the template says. `quote` therefore has nothing left to do.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::tree::Fault;
use crate::config::nearest;

const OPEN: &str = "${{";
const CLOSE: &str = "}}";
/// Largest value once its references are resolved, in bytes.
const RESOLVED_BYTES_MAX: usize = 1 << 16;

/// Every name that a template may use besides `.var.*` and `.custom.*`. What a server has nothing for is empty.
pub const NAMES: [&str; 16] = [
    "server.agent_endpoint",
    "server.base_image_registry",
    "server.timezone",
    "server.url",
    "server.wildcard_domain",
    "server.zone",
    "space.first_boot",
    "space.id",
    "space.name",
    "space.stack",
    "space.stack_prefix",
    "template.id",
    "template.name",
    "user.email",
    "user.id",
    "user.username",
];

/// What the names in a template stand for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// `space.id`.
    pub space_id: String,
    /// `space.name`.
    pub space_name: String,
    /// `space.first_boot`: whether it never ran before.
    pub is_first_boot: bool,
    /// `user.id`.
    pub user_id: String,
    /// `user.username`.
    pub username: String,
    /// `user.email`.
    pub email: String,
    /// `user.timezone`.
    pub user_timezone: String,
    /// `template.id`.
    pub template_id: String,
    /// `template.name`.
    pub template_name: String,
    /// `server.url`: where the API of the server that runs the space is.
    pub server_url: String,
    /// `server.zone`.
    pub zone: String,
    /// `server.timezone`.
    pub server_timezone: String,
    /// `server.wildcard_domain`.
    pub wildcard_domain: String,
    /// `server.base_image_registry`.
    pub base_image_registry: String,
    /// `custom.*`: what was filled in for the template's fields.
    pub custom: BTreeMap<String, String>,
    /// `var.*`: the template variables of the zone, see [`effective`](super::effective).
    pub variables: BTreeMap<String, String>,
}

impl Facts {
    /// What a name stands for, where there is one.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        if let Some(name) = name.strip_prefix("var.") {
            return self.variables.get(name).map(String::as_str);
        }
        if let Some(name) = name.strip_prefix("custom.") {
            return self.custom.get(name).map(String::as_str);
        }
        Some(match name {
            "space.id" => &self.space_id,
            "space.name" => &self.space_name,
            "space.first_boot" if self.is_first_boot => "true",
            "space.first_boot" => "false",
            "space.stack" | "space.stack_prefix" | "server.agent_endpoint" => "",
            "user.id" => &self.user_id,
            "user.username" => &self.username,
            "user.email" => &self.email,
            "user.timezone" => &self.user_timezone,
            "template.id" => &self.template_id,
            "template.name" => &self.template_name,
            "server.url" => &self.server_url,
            "server.zone" => &self.zone,
            "server.timezone" => &self.server_timezone,
            "server.wildcard_domain" => &self.wildcard_domain,
            "server.base_image_registry" => &self.base_image_registry,
            _ => return None,
        })
    }
}

/// Which names there are, where no space is in sight yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Names of template variables, of whichever zone. `None` where they are not known, so that any may be used.
    pub variables: Option<BTreeSet<String>>,
    /// Names of the template's custom fields.
    pub custom: BTreeSet<String>,
}

impl Known {
    fn has(&self, name: &str) -> bool {
        match name.split_once('.') {
            Some(("var", name)) => self.variables.as_ref().is_none_or(|variables| variables.contains(name)),
            Some(("custom", name)) => self.custom.contains(name),
            _ => NAMES.contains(&name),
        }
    }

    fn nearest(&self, name: &str) -> Option<String> {
        let variables = self.variables.iter().flatten().map(|name| format!("var.{name}"));
        let custom = self.custom.iter().map(|name| format!("custom.{name}"));
        let all: Vec<String> = NAMES.iter().map(|&name| name.to_owned()).chain(variables).chain(custom).collect();
        nearest(name, all.iter().map(String::as_str)).map(str::to_owned)
    }
}

/// Whether a text holds a reference, or the beginning of one.
pub(super) fn holds_any(text: &str) -> bool {
    text.contains(OPEN)
}

/// Complaints about the references in a text, which stands at `at` in a larger one, and no more than `faults_max`.
pub(super) fn check(text: &str, at: &Range<usize>, known: &Known, faults_max: usize) -> Vec<Fault> {
    let faulty = |reference: Result<Reference<'_>, Fault>| match reference {
        Ok(reference) if known.has(reference.name) => None,
        Ok(reference) => Some(unknown(reference.name, at, known)),
        Err(fault) => Some(fault),
    };
    parts(text, at).into_iter().filter_map(|part| faulty(part.reference?)).take(faults_max).collect()
}

/// The names that a text refers to.
pub(crate) fn names_in(text: &str) -> BTreeSet<&str> {
    let references = parts(text, &(0..0)).into_iter().filter_map(|part| part.reference?.ok());
    references.map(|reference| reference.name).collect()
}

/// A text with its references replaced by what they stand for. Where `is_split` the value is taken apart at its colons
/// later, so nothing that a user chose may bring one along.
pub(super) fn resolve(text: &str, at: &Range<usize>, facts: &Facts, is_split: bool) -> Result<String, Fault> {
    let mut resolved = String::with_capacity(text.len());
    for part in parts(text, at) {
        resolved.push_str(part.before);
        let Some(reference) = part.reference else { continue };
        let reference = reference?;
        let name = reference.name;
        let known = || Known {
            variables: Some(facts.variables.keys().cloned().collect()),
            custom: facts.custom.keys().cloned().collect(),
        };
        let value = facts.get(name).ok_or_else(|| unknown(name, at, &known()))?;
        let is_users = ["custom.", "space.", "user."].iter().any(|prefix| name.starts_with(prefix));
        if is_split && is_users && value.contains(':') {
            let message = format!("the value of .{name} holds a `:`, which would change what is mounted or opened");
            return Err(Fault::new(at.clone(), message, Some("choose a value without `:`")));
        }
        match reference.case {
            Case::AsIs => resolved.push_str(value),
            Case::Upper => resolved.push_str(&value.to_uppercase()),
            Case::Lower => resolved.push_str(&value.to_lowercase()),
        }
        if resolved.len() > RESOLVED_BYTES_MAX {
            let message = format!("with its variables filled in this is larger than {RESOLVED_BYTES_MAX} bytes");
            return Err(Fault::new(at.clone(), message, Some("shorten the variables")));
        }
    }
    Ok(resolved)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Case {
    AsIs,
    Upper,
    Lower,
}

struct Reference<'a> {
    name: &'a str,
    case: Case,
}

/// Text, and the reference that follows it.
struct Part<'a> {
    before: &'a str,
    reference: Option<Result<Reference<'a>, Fault>>,
}

fn parts<'a>(text: &'a str, at: &Range<usize>) -> Vec<Part<'a>> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(open) = rest.find(OPEN) {
        let (before, inside) = (&rest[..open], &rest[open + OPEN.len()..]);
        let Some(close) = inside.find(CLOSE) else {
            let fault = Fault::new(at.clone(), "`${{` is not closed", Some("write `}}` behind the name"));
            parts.push(Part { before, reference: Some(Err(fault)) });
            return parts;
        };
        parts.push(Part { before, reference: Some(reference(&inside[..close], at)) });
        rest = &inside[close + CLOSE.len()..];
    }
    parts.push(Part { before: rest, reference: None });
    parts
}

fn reference<'a>(inside: &'a str, at: &Range<usize>) -> Result<Reference<'a>, Fault> {
    let refuse = |message: String| {
        Err(Fault::new(at.clone(), message, Some("write `${{ .name }}`, with toUpper or toLower in front if need be")))
    };
    let shown = inside.trim();
    let mut name = None;
    let mut case = Case::AsIs;
    for word in inside.split_whitespace().flat_map(|word| word.split_inclusive('|')) {
        match word.strip_suffix('|').unwrap_or(word) {
            "" | "quote" => {}
            "toUpper" => case = Case::Upper,
            "toLower" => case = Case::Lower,
            word => match word.strip_prefix('.') {
                Some(rest) if !rest.is_empty() && name.is_none() && rest.split('.').all(is_word) => name = Some(rest),
                Some(_) => return refuse(format!("`{shown}` is no name")),
                None if matches!(word, "if" | "else" | "end" | "range" | "with" | "define" | "template") => {
                    return refuse(format!("`{word}` is not understood: only values are filled in"));
                }
                None => return refuse(format!("`{word}` is not understood")),
            },
        }
    }
    match name {
        Some(name) => Ok(Reference { name, case }),
        None => refuse("a name is missing".to_owned()),
    }
}

pub(super) fn is_word(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

fn unknown(name: &str, at: &Range<usize>, known: &Known) -> Fault {
    let hint = match (known.nearest(name), name.split_once('.')) {
        (Some(near), _) => format!("did you mean `.{near}`?"),
        (None, Some(("var", name))) => format!("create a template variable `{name}`, or allow it in this zone"),
        (None, Some(("custom", name))) => format!("add a custom field `{name}` to the template"),
        (None, _) => format!("there are .var.*, .custom.* and .{}", NAMES.join(", .")),
    };
    Fault::new(at.clone(), format!("there is no variable `.{name}`"), Some(&hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            space_name: "web".to_owned(),
            username: "ann".to_owned(),
            custom: [("Branch".to_owned(), "main: \"x\"".to_owned())].into(),
            variables: [("registry".to_owned(), "r.example:5000".to_owned())].into(),
            ..Facts::default()
        }
    }

    #[test]
    fn references_are_replaced_by_what_they_stand_for() {
        for (text, resolved) in [
            ("no reference, $HOME and ${X}", "no reference, $HOME and ${X}"),
            ("${{ .space.name }}-${{.user.username}}", "web-ann"),
            ("${{ .var.registry }}/image", "r.example:5000/image"),
            ("X=${{ quote .custom.Branch }}", "X=main: \"x\""),
            ("${{ .space.name | toUpper }} ${{ toUpper .user.username|toLower }}", "WEB ann"),
            ("${{ .space.first_boot }}${{ .space.stack }}", "false"),
        ] {
            assert_eq!(resolve(text, &(0..1), &facts(), false).unwrap(), resolved, "{text}");
        }
    }

    #[test]
    fn what_is_no_reference_is_refused_with_what_to_write() {
        let known = Known { variables: Some(["registry".to_owned()].into()), custom: ["Branch".to_owned()].into() };
        for (text, said) in [
            ("${{ .space.name", "`${{` is not closed / write `}}`"),
            ("${{ }}", "a name is missing / write `${{ .name }}`"),
            ("${{ .var.regstry }}", "there is no variable `.var.regstry` / did you mean `.var.registry`?"),
            ("${{ .custom.branhc }}", "there is no variable `.custom.branhc` / did you mean `.custom.Branch`?"),
            ("${{ .var.other_thing }}", "there is no variable `.var.other_thing` / create a template variable"),
            ("${{ .nomad.dc }}", "there is no variable `.nomad.dc` / there are .var.*"),
            ("${{ if .space.first_boot }}", "`if` is not understood: only values are filled in / write"),
            ("${{ space.name }}", "`space.name` is not understood / write"),
            ("${{ .space.name .user.id }}", "`.space.name .user.id` is no name / write"),
            ("${{ .space..name }}", "`.space..name` is no name / write"),
        ] {
            let faults = check(text, &(3..9), &known, 9);
            let [fault] = faults.as_slice() else { panic!("{text}: {faults:?}") };
            let found = format!("{} / {}", fault.message, fault.hint.as_deref().unwrap_or_default());
            assert!(found.starts_with(said), "{text}: {found}");
            assert_eq!(fault.span, 3..9);
        }
        assert_eq!(check("${{ .var.anything }}", &(0..1), &Known::default(), 9), []);
    }

    #[test]
    fn every_name_stands_for_something() {
        for name in NAMES {
            assert!(facts().get(name).is_some(), "{name}");
            assert!(Known::default().has(name), "{name}");
        }
    }

    #[test]
    fn no_value_of_a_user_brings_a_colon_into_what_is_split_at_colons() {
        let facts = facts();
        let refused = resolve("${{ .custom.Branch }}:/data", &(0..1), &facts, true).unwrap_err();
        assert!(refused.message.contains("holds a `:`"), "{refused:?}");
        assert_eq!(resolve("${{ .var.registry }}:/data", &(0..1), &facts, true).unwrap(), "r.example:5000:/data");
        let huge = Facts { space_name: "x".repeat(RESOLVED_BYTES_MAX), ..Facts::default() };
        assert!(resolve("${{ .space.name }}y${{ .space.name }}", &(0..1), &huge, false).is_err());
    }
}
