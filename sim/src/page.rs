//! A run as one file that any browser shows: no network, no library, at most [`BYTES_MAX`].

mod data;
mod thin;

use knot_engine::Faults;

use self::data::{Data, Share};
use crate::recording::Recording;
use crate::report::Report;
use crate::scenario::Scenario;

/// Longest page.
pub const BYTES_MAX: usize = 1_000_000;

const TEMPLATE: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str =
    concat!(include_str!("page/model.js"), include_str!("page/lanes.js"), include_str!("page/page.js"));

/// What a page shows.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    /// What people call the run.
    pub name: &'a str,
    /// What it was made of.
    pub scenario: &'a Scenario,
    /// The bugs that were planted.
    pub planted: Faults,
    /// What it came to.
    pub report: &'a Report,
    /// What happened.
    pub recording: &'a Recording,
    /// The line that runs it again.
    pub replay: &'a str,
    /// The line that makes it small, if it failed.
    pub shrink: Option<&'a str>,
}

impl Page<'_> {
    /// The file.
    #[must_use]
    pub fn html(&self) -> String {
        let room = BYTES_MAX.saturating_sub(TEMPLATE.len() + STYLE.len() + SCRIPT.len() + 4 * self.name.len());
        let mut share = Share::default();
        let mut data = json(&Data::new(self, share));
        while data.len() > room
            && let Some(smaller) = share.smaller()
        {
            share = smaller;
            data = json(&Data::new(self, share));
        }
        // In the order of the template, so that nothing that was put in is looked at again.
        let mut rest = TEMPLATE;
        let mut page = String::with_capacity(BYTES_MAX);
        let title = escaped(self.name);
        for (mark, content) in
            [("{{title}}", title.as_str()), ("{{style}}", STYLE), ("{{data}}", &data), ("{{script}}", SCRIPT)]
        {
            let (before, after) = rest.split_once(mark).unwrap_or((rest, ""));
            page.push_str(before);
            page.push_str(content);
            rest = after;
        }
        page.push_str(rest);
        page
    }
}

/// JSON that ends no script element, whatever a name in it says.
fn json(data: &Data<'_>) -> String {
    // Maps with text keys and numbers: writing them into memory has no way to fail.
    serde_json::to_string(data).unwrap_or_default().replace('<', "\\u003c")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
