//! All changes in one engine, each in an arm of its own beside the function's body as it is.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::Failed;
use crate::mutant::{Body, Mutant};
use crate::tree::Tree;

/// Where the engine's modules are named.
const ROOT: &str = "engine/src/lib.rs";
/// What the engine's copy asks.
const SWITCH: &str = r#"
/// Which change runs; 0 is none.
pub(crate) fn active() -> usize {
    static ACTIVE: std::sync::LazyLock<usize> = std::sync::LazyLock::new(|| {
        std::env::var("KNOT_MUTANT").map_or(0, |number| number.parse().expect("the number of a change"))
    });
    *ACTIVE
}
"#;

/// Where a change is in the copy.
#[derive(Debug)]
pub(crate) struct Arm {
    pub(crate) mutant: usize,
    pub(crate) file: String,
    /// From 1.
    pub(crate) lines: Range<usize>,
}

/// Makes the copy's engine one with these changes.
pub(crate) fn lay(tree: &Tree, mutants: &[&Mutant]) -> Result<Vec<Arm>, Failed> {
    let mut files: BTreeMap<&str, BTreeMap<Body, Vec<&Mutant>>> = BTreeMap::new();
    for mutant in mutants {
        if let Some(place) = mutant.place {
            files.entry(&mutant.file).or_default().entry(place).or_default().push(mutant);
        }
    }
    let (mut changed, mut arms) = (BTreeMap::new(), Vec::new());
    for (file, bodies) in files {
        let (text, places) = switched(tree.original(file)?, &bodies);
        changed.insert(file.to_owned(), text);
        arms.extend(places.into_iter().map(|(mutant, lines)| Arm { mutant, file: file.to_owned(), lines }));
    }
    changed.insert("engine/src/mutants.rs".to_owned(), SWITCH.to_owned());
    let root = changed.remove(ROOT).map_or_else(|| tree.original(ROOT).map(str::to_owned), Ok)?;
    changed.insert(ROOT.to_owned(), format!("{root}\nmod mutants;\n"));
    tree.lay(&changed)?;
    Ok(arms)
}

/// A file with its changes, and the lines of each.
fn switched(text: &str, bodies: &BTreeMap<Body, Vec<&Mutant>>) -> (String, Vec<(usize, Range<usize>)>) {
    let (mut new, mut arms) = (String::new(), Vec::new());
    let mut copied = 0;
    for (Body { span, function }, mutants) in bodies {
        let (body, signature) = (span.of(text), function.of(text).start);
        new.push_str(&text[copied..signature]);
        // A constant function asks for no switch. Where a constant needs it, the compiler will say so.
        new.push_str(&text[signature..body.start].replacen("const fn", "fn", 1));
        new.push_str("match crate::mutants::active() {\n");
        for mutant in mutants {
            let first = lines(&new);
            new.push_str(&format!("{} => {{\n{}\n}}\n", mutant.number, mutant.changed(text, body.clone())));
            arms.push((mutant.number, first..lines(&new)));
        }
        new.push_str(&format!("_ => {{\n{}\n}}\n}}\n", &text[body.clone()]));
        copied = body.end;
    }
    new.push_str(&text[copied..]);
    (new, arms)
}

/// The number of the line that comes next.
fn lines(text: &str) -> usize {
    text.matches('\n').count() + 1
}
