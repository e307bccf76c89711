//! Figures and what they are held against.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

/// Whether a larger figure is a better one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    More,
    Less,
}

/// What a figure is compared with: a bound of ours, or a rival measured in the same setup.
pub(crate) type Against = (&'static str, f64);

/// One measured figure.
#[derive(Debug)]
struct Figure {
    part: &'static str,
    name: String,
    value: f64,
    unit: &'static str,
    better: Better,
    against: Vec<Against>,
}

impl Figure {
    /// How many times better than `other` this is.
    fn ratio(&self, other: f64) -> f64 {
        let (better, worse) = match self.better {
            Better::More => (self.value, other),
            Better::Less => (other, self.value),
        };
        better / worse
    }
}

/// All figures so far.
#[derive(Debug, Default)]
pub(crate) struct Report {
    figures: Vec<Figure>,
}

impl Report {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Says on stderr what is being measured.
    pub(crate) fn progress(text: &str) {
        eprintln!("... {text}");
    }

    pub(crate) fn add(
        &mut self,
        part: &'static str,
        name: impl Into<String>,
        value: f64,
        unit: &'static str,
        better: Better,
        against: &[Against],
    ) {
        self.figures.push(Figure { part, name: name.into(), value, unit, better, against: against.to_vec() });
    }

    /// A duration in milliseconds.
    pub(crate) fn time(&mut self, part: &'static str, name: impl Into<String>, value: Duration, against: &[Against]) {
        self.add(part, name, millis(value), "ms", Better::Less, against);
    }

    pub(crate) fn table(&self) -> String {
        let mut text = "part      figure                                        measured  against: times better, so above 1 beats it\n".to_owned();
        for figure in &self.figures {
            let Figure { part, name, value, unit, .. } = figure;
            let measured = format!("{} {unit}", number(*value));
            let _ = write!(text, "{part:<9} {name:<38} {measured:>16}");
            for (other, theirs) in &figure.against {
                let _ = write!(text, "  {other} {}: {:.2}x", number(*theirs), figure.ratio(*theirs));
            }
            text.push('\n');
        }
        text
    }

    pub(crate) fn json(&self) -> Value {
        let against = |figure: &Figure| -> Vec<Value> {
            let one = |(name, value): &Against| json!({"name": name, "value": value, "ratio": figure.ratio(*value)});
            figure.against.iter().map(one).collect()
        };
        let one = |figure: &Figure| {
            json!({
                "part": figure.part,
                "figure": figure.name,
                "value": figure.value,
                "unit": figure.unit,
                "against": against(figure),
            })
        };
        self.figures.iter().map(one).collect()
    }
}

/// The value below which `percent` of the samples lie.
pub(crate) fn percentile(samples: &mut [Duration], percent: usize) -> Duration {
    samples.sort_unstable();
    let index = (samples.len() * percent / 100).min(samples.len().saturating_sub(1));
    samples.get(index).copied().unwrap_or_default()
}

pub(crate) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// With three significant digits or so, and thousands set apart.
fn number(value: f64) -> String {
    if value >= 1_000.0 {
        let digits = format!("{value:.0}");
        let grouped: Vec<&str> =
            digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
        grouped.join(",")
    } else if value >= 100.0 {
        format!("{value:.0}")
    } else if value >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.3}")
    }
}
