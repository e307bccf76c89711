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
    pub(crate) fn new(path: &Path, text: &str, span: Range<usize>, message: String, hint: Option<String>) -> Self {
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

/// From this length on, a word is as long as a key may be.
const SECRET_CHARACTERS_MIN: usize = 24;

/// A line of a configuration in which every word is starred that may be a key, quoted or not: where the line speaks of
/// keys all that is behind its first equals sign, else what is as long as one. A missing quote is a mistake like others.
fn without_secrets(line: &str) -> String {
    let speaks_of_keys = line.to_ascii_lowercase().contains("key") && !line.contains("key_file");
    let value_at = line.find('=').map_or(0, |at| at + 1);
    let mut shown = String::with_capacity(line.len());
    let mut word_at = 0;
    for part in line.split_inclusive(|c: char| c.is_whitespace() || "\"'".contains(c)) {
        let word = part.trim_end_matches(|c: char| c.is_whitespace() || "\"'".contains(c));
        let may_be_a_key = word.chars().count() >= SECRET_CHARACTERS_MIN && !word.contains('/');
        for (at, character) in word.char_indices() {
            let is_value = speaks_of_keys && word_at + at >= value_at;
            let is_shown = ",[]".contains(character) || !(may_be_a_key || is_value);
            shown.push(if is_shown { character } else { '*' });
        }
        shown.push_str(&part[word.len()..]);
        word_at += part.len();
    }
    shown
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
            ("keys = [\"one\", 'two'] # both", "keys = [\"***\", '***'] * ****"),
            ("  '0123456789abcdefghijklmnopqrstuv',", "  '********************************',"),
            ("key = 'no end", "key = '** ***"),
            ("zone = 'gb'", "zone = 'gb'"),
            ("peers = ['knot1.internal:3100']", "peers = ['knot1.internal:3100']"),
            ("cert_file = '/etc/knot/certificates/server.pem'", "cert_file = '/etc/knot/certificates/server.pem'"),
            ("zone = gb", "zone = gb"),
            ("key = 0123456789abcdefghijklmnopqrstuv", "key = ********************************"),
            ("key = \"k = \"0123456789\"", "key = \"* * \"**********\""),
            ("0123456789abcdefghijklmnopqrstuv = 1", "******************************** = 1"),
            ("key = 'a b/c' peers = []", "key = '* ***' ***** * []"),
        ] {
            assert_eq!(without_secrets(line), shown);
        }
    }
}
