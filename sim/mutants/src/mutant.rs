//! A change of the engine, as cargo-mutants lists it.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;

use crate::Failed;

/// One change, and where its function's body is.
#[derive(Debug)]
pub(crate) struct Mutant {
    /// From 1, as 0 means that nothing is changed.
    pub(crate) number: usize,
    pub(crate) file: String,
    pub(crate) span: Span,
    /// In words, on one line.
    name: String,
    replacement: String,
    function: Option<Function>,
    /// None where it changes a constant.
    pub(crate) place: Option<Body>,
}

/// The outermost function that holds a change, and its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Body {
    pub(crate) span: Span,
    pub(crate) function: Span,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Function {
    #[serde(rename = "function_name")]
    name: String,
    return_type: String,
    span: Span,
}

/// Lines and columns from 1; the end is past the last character.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    start: Place,
    end: Place,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    line: usize,
    column: usize,
}

/// What `cargo mutants --list --json` says of one.
#[derive(Debug, Deserialize)]
struct Listed {
    file: String,
    function: Option<Function>,
    genre: String,
    replacement: String,
    span: Span,
}

impl Span {
    /// Which bytes of a text it is.
    pub(crate) fn of(self, text: &str) -> Range<usize> {
        let offset = |place: Place| {
            let before: usize = text.split_inclusive('\n').take(place.line - 1).map(str::len).sum();
            let line = &text[before..];
            before + line.char_indices().nth(place.column - 1).map_or(line.len(), |(offset, _)| offset)
        };
        offset(self.start)..offset(self.end)
    }

    pub(crate) fn holds(self, other: Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }
}

impl Mutant {
    /// Constants cannot ask for a switch, and what is only named by a trait has to be of one type.
    pub(crate) fn is_switchable(&self) -> bool {
        let function = self.function.as_ref().filter(|_| self.place.is_some());
        function.is_some_and(|function| !function.return_type.contains("impl "))
    }

    /// The last part of its path.
    pub(crate) fn function_name(&self) -> Option<&str> {
        let name = &self.function.as_ref()?.name;
        Some(name.rsplit("::").next().unwrap_or(name))
    }

    /// A part of its file, or all, changed.
    pub(crate) fn changed(&self, text: &str, part: Range<usize>) -> String {
        let span = self.span.of(text);
        [&text[part.start..span.start], &self.replacement, " ", &text[span.end..part.end]].concat()
    }
}

impl fmt::Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, span, name, .. } = self;
        write!(f, "{file}:{}:{}: {name}", span.start.line, span.start.column)
    }
}

impl Listed {
    fn name(&self, workspace: &Path) -> Result<String, Failed> {
        let Self { file, function, genre, replacement, span } = self;
        let function = function.as_ref().map_or("a constant", |function| &function.name);
        if genre == "FnValue" {
            return Ok(format!("replace {function} with {replacement}"));
        }
        let text = std::fs::read_to_string(workspace.join(file))?;
        let replaced = text[span.of(&text)].split_whitespace().collect::<Vec<_>>().join(" ");
        Ok(match &replacement[..] {
            "" => format!("delete {replaced} in {function}"),
            _ => format!("replace {replaced} with {replacement} in {function}"),
        })
    }
}

/// All that cargo-mutants would change.
pub(crate) fn listed(workspace: &Path) -> Result<Vec<Mutant>, Failed> {
    let arguments = ["mutants", "--list", "--json", "--package", "knot-engine"];
    let output = Command::new("cargo").args(arguments).current_dir(workspace).output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{said}(to install it: cargo install --locked cargo-mutants)").into());
    }
    let listed: Vec<Listed> = serde_json::from_slice(&output.stdout)?;
    let mut bodies: BTreeMap<(String, Span), Span> = BTreeMap::new();
    for Listed { file, function, genre, span, .. } in &listed {
        if let (Some(function), "FnValue") = (function, &genre[..]) {
            bodies.insert((file.clone(), function.span), *span);
        }
    }
    // The body of a function within a function is a part of that one's.
    let place = |file: &str, function: &Function| {
        let all = bodies.iter().filter(|((other, _), _)| other == file);
        let own = bodies.get(&(file.to_owned(), function.span))?;
        let holding = all.filter(|(_, body)| body.holds(*own));
        let outermost = holding.min_by_key(|(_, body)| (body.start, std::cmp::Reverse(body.end)));
        outermost.map(|((_, function), body)| Body { span: *body, function: *function })
    };
    let mutants = listed.into_iter().zip(1..).map(|(listed, number)| {
        let name = listed.name(workspace)?;
        let Listed { file, function, span, replacement, .. } = listed;
        let place = function.as_ref().and_then(|function| place(&file, function));
        Ok(Mutant { number, file, span, name, replacement, function, place })
    });
    mutants.collect()
}

/// `count` of those that are meant, drawn by a seed. More of them begin with the same ones.
pub(crate) fn drawn(known: &[Mutant], seed: u64, is_meant: impl Fn(&str) -> bool, count: usize) -> Vec<&Mutant> {
    let draw = |mutant: &Mutant| *blake3::hash(format!("{seed} {mutant}").as_bytes()).as_bytes();
    let mut meant: Vec<_> = known.iter().filter(|mutant| is_meant(&mutant.to_string())).collect();
    meant.sort_by_key(|mutant| draw(mutant));
    meant.truncate(count);
    meant
}
