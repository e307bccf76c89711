//! What is wrong with a configuration, and where.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Why a configuration was refused. Shown to the person who wrote it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is no configuration.
    #[error("{} is larger than {bytes_max} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        bytes_max: u64,
    },
    /// Something in the file is wrong.
    #[error("{excerpt}")]
    File {
        /// Where, what, and what to do.
        excerpt: Box<Excerpt>,
    },
    /// A variable is wrong.
    #[error("variable {name}: {message}")]
    Variable {
        /// Its name.
        name: &'static str,
        /// What is wrong with it.
        message: String,
    },
}

/// A place in a file with what is wrong there, printed as compilers do.
#[derive(Debug)]
pub struct Excerpt {
    path: PathBuf,
    line: usize,
    column: usize,
    source_line: String,
    width: usize,
    message: String,
    hint: Option<String>,
}

impl Excerpt {
    /// Cuts the first line of `span` out of `text`, without what may be a secret: it may end in a log.
    pub(super) fn new(path: &Path, text: &str, span: Range<usize>, message: String, hint: Option<String>) -> Self {
        let start = floor_boundary(text, span.start);
        let before = &text[..start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let end = floor_boundary(text, span.end).clamp(start, line_end);
        Self {
            path: path.to_owned(),
            line: before.matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            source_line: without_secrets(text[line_start..line_end].trim_end_matches('\r')),
            width: text[start..end].chars().count().max(1),
            message,
            hint,
        }
    }
}

/// From this length on, a quoted text is as long as a key may be.
const SECRET_CHARACTERS_MIN: usize = 24;

/// A line of a configuration in which whatever is quoted is starred if it may be a key: where the line speaks of one, or
/// the text is as long as one.
fn without_secrets(line: &str) -> String {
    let speaks_of_keys = line.to_ascii_lowercase().contains("key") && !line.contains("key_file");
    let mut shown = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, quote, quoted)) =
        rest.find(['"', '\'']).map(|at| (&rest[..at], &rest[at..=at], &rest[at + 1..]))
    {
        // A quote that is missing leaves all that follows in doubt.
        let end = quoted.find(quote).unwrap_or(quoted.len());
        let characters = quoted[..end].chars().count();
        shown.push_str(before);
        shown.push_str(quote);
        if speaks_of_keys || characters >= SECRET_CHARACTERS_MIN && !quoted[..end].contains('/') {
            shown.push_str(&"*".repeat(characters));
        } else {
            shown.push_str(&quoted[..end]);
        }
        rest = &quoted[end..];
        if let Some(after) = rest.strip_prefix(quote) {
            shown.push_str(quote);
            rest = after;
        }
    }
    shown + rest
}

fn floor_boundary(text: &str, at: usize) -> usize {
    text.floor_char_boundary(at.min(text.len()))
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gutter = self.line.to_string().len();
        let tabs_kept: String =
            self.source_line.chars().take(self.column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        let carets = "^".repeat(self.width);
        writeln!(f, "{}:{}:{}: {}", self.path.display(), self.line, self.column, self.message)?;
        writeln!(f, "{:gutter$} |", "")?;
        writeln!(f, "{} | {}", self.line, self.source_line)?;
        write!(f, "{:gutter$} | {tabs_kept}{carets}", "")?;
        match &self.hint {
            Some(hint) => write!(f, "\n{:gutter$} = {hint}", ""),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_a_key_is_not_shown() {
        for (line, shown) in [
            ("key = 'short'", "key = '*****'"),
            ("keys = [\"one\", 'two'] # both", "keys = [\"***\", '***'] # both"),
            ("  '0123456789abcdefghijklmnopqrstuv',", "  '********************************',"),
            ("key = 'no end", "key = '******"),
            ("zone = 'gb'", "zone = 'gb'"),
            ("peers = ['knot1.internal:3100']", "peers = ['knot1.internal:3100']"),
            ("cert_file = '/etc/knot/certificates/server.pem'", "cert_file = '/etc/knot/certificates/server.pem'"),
            ("zone = gb", "zone = gb"),
        ] {
            assert_eq!(without_secrets(line), shown);
        }
    }
}
