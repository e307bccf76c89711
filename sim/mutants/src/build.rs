//! What cargo makes of the copy.

use std::ops::Range;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::Failed;
use crate::tree::Tree;

pub(crate) enum Build {
    /// The campaign's binary.
    Done(PathBuf),
    /// At least one.
    Failed(Vec<Complaint>),
}

/// An error of the compiler.
#[derive(Debug)]
pub(crate) struct Complaint {
    code: String,
    file: String,
    line: usize,
    pub(crate) rendered: String,
}

impl Complaint {
    pub(crate) fn is_in(&self, file: &str, lines: &Range<usize>) -> bool {
        self.file == file && lines.contains(&self.line)
    }

    /// A constant calls a function that is constant no more.
    pub(crate) fn wants_constant(&self, function: Option<&str>) -> bool {
        let first = self.rendered.lines().next().unwrap_or_default();
        self.code == "E0015" && function.is_some_and(|name| first.contains(&format!("{name}`")))
    }

    fn of(message: &Value) -> Option<Self> {
        if message["level"] != "error" {
            return None;
        }
        // Of a macro, where it is used.
        let mut span = message["spans"].as_array()?.iter().find(|span| span["is_primary"] == true)?;
        while span["expansion"].is_object() {
            span = &span["expansion"]["span"];
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Some(Self {
            code: text(&message["code"]["code"]),
            file: text(&span["file_name"]),
            line: usize::try_from(span["line_start"].as_u64()?).ok()?,
            rendered: text(&message["rendered"]),
        })
    }
}

/// Builds the campaign.
pub(crate) fn campaign(tree: &Tree) -> Result<Build, Failed> {
    let output = Command::new("cargo")
        .args(["test", "--profile", "mutants", "--package", "knot-sim", "--features", "mutation"])
        .args(["--test", "mutation", "--no-run", "--message-format", "json"])
        .arg("--target-dir")
        .arg(tree.target())
        .current_dir(tree.folder())
        .stderr(Stdio::inherit())
        .output()?;
    let messages = String::from_utf8(output.stdout)?;
    let (mut complaints, mut binary) = (Vec::new(), None);
    for message in messages.lines() {
        let message: Value = serde_json::from_str(message)?;
        if message["reason"] == "compiler-message" {
            complaints.extend(Complaint::of(&message["message"]));
        } else if message["target"]["name"] == "mutation" {
            binary = message["executable"].as_str().map(PathBuf::from).or(binary);
        }
    }
    match binary {
        Some(binary) if output.status.success() => Ok(Build::Done(binary)),
        _ if !complaints.is_empty() => Ok(Build::Failed(complaints)),
        _ => Err("cargo could not build the campaign, and said above why".into()),
    }
}
