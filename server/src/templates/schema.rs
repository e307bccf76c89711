//! What a tree may hold: names, and of what kind each is. One table is the documentation, the check and the reader.

use std::ops::Range;

use serde_json::Map;

use super::tree::{Fault, Node, Value};
use super::variables;
use crate::config::nearest;

/// What is wrong with a single value, in a sentence that says what to write.
pub(crate) type Rule = fn(&str) -> Result<(), String>;

/// A name of a table.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
}

/// What stands behind a name.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// One value of at most so many bytes.
    Text(usize, Rule),
    Flag,
    /// A whole number up to this.
    Count(u32),
    /// At most so many values of at most so many bytes each.
    Texts(usize, usize, Rule),
    Table(&'static [Key]),
    /// At most so many tables.
    Tables(usize, &'static [Key]),
    /// At most so many tables, each under a name of its own.
    Named(usize, &'static [Key]),
    /// Whatever it is, it is not looked at.
    Any,
}

/// For a text that may say anything.
pub(crate) fn any(_: &str) -> Result<(), String> {
    Ok(())
}

/// Reads trees by their tables and gathers what is wrong.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    pub(crate) faults: Vec<Fault>,
    /// Whether `${{` stands for what is filled in later; where nothing is any more, it is text like other.
    pub(crate) has_variables: bool,
}

impl Reader {
    /// What a table says; what is wrong is left out. A value that holds a variable is taken for what it should be.
    pub(crate) fn table(&mut self, node: &Node, keys: &'static [Key], path: &str) -> Map<String, serde_json::Value> {
        let mut read = Map::new();
        let Value::Map(entries) = &node.value else {
            let message = "must be a table of names and values".to_owned();
            self.fault(node.span.clone(), path, message, Some("write `name: value`".to_owned()));
            return read;
        };
        for (name, value) in entries {
            let inside = if path.is_empty() { name.text.clone() } else { format!("{path}.{}", name.text) };
            let Some(key) = keys.iter().find(|key| key.name == name.text) else {
                let hint = match nearest(&name.text, keys.iter().map(|key| key.name)) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => {
                        let names: Vec<&str> = keys.iter().map(|key| key.name).collect();
                        format!("there are {}", names.join(", "))
                    }
                };
                self.fault(name.span.clone(), &inside, "unknown key".to_owned(), Some(hint));
                continue;
            };
            if !value.is_nothing()
                && let Some(value) = self.value(value, key.kind, &inside)
            {
                read.insert(key.name.to_owned(), value);
            }
        }
        read
    }

    fn value(&mut self, node: &Node, kind: Kind, path: &str) -> Option<serde_json::Value> {
        match (kind, &node.value) {
            (Kind::Any, _) => None,
            (Kind::Text(bytes_max, rule), Value::Scalar { text, .. }) => {
                self.text(node, text, bytes_max, rule, path).then(|| text.as_str().into())
            }
            (Kind::Flag, Value::Scalar { text, is_quoted }) => match text.as_str() {
                "true" if !is_quoted => Some(true.into()),
                "false" if !is_quoted => Some(false.into()),
                text if self.is_open(text) => None,
                _ => self.refuse(node, path, "must be true or false", "write true or false, without quotes"),
            },
            (Kind::Count(max), Value::Scalar { text, is_quoted }) => match text.parse::<u32>() {
                Ok(count) if count <= max && !is_quoted => Some(count.into()),
                _ if self.is_open(text) => None,
                _ => {
                    let message = format!("must be a whole number from 0 to {max}");
                    self.refuse(node, path, &message, "write it in digits, without quotes")
                }
            },
            (Kind::Texts(count_max, bytes_max, rule), Value::List(items)) => {
                self.bounded(node, items.len(), count_max, path)?;
                let mut texts = Vec::new();
                for (at, item) in items.iter().enumerate() {
                    let path = format!("{path}[{at}]");
                    match &item.value {
                        Value::Scalar { text, .. } if self.text(item, text, bytes_max, rule, &path) => {
                            texts.push(text.as_str().into());
                        }
                        Value::Scalar { .. } => {}
                        Value::List(_) | Value::Map(_) => {
                            let hint = "write one text a line behind a `-`, in quotes where it holds `: `";
                            let message = format!("must be a text, found {}", item.kind());
                            self.fault(item.span.clone(), &path, message, Some(hint.to_owned()));
                        }
                    }
                }
                Some(serde_json::Value::Array(texts))
            }
            (Kind::Table(keys), Value::Map(_)) => Some(self.table(node, keys, path).into()),
            (Kind::Tables(count_max, keys), Value::List(items)) => {
                self.bounded(node, items.len(), count_max, path)?;
                let mut tables = Vec::new();
                for (at, item) in items.iter().enumerate() {
                    tables.push(self.table(item, keys, &format!("{path}[{at}]")).into());
                }
                Some(serde_json::Value::Array(tables))
            }
            (Kind::Named(count_max, keys), Value::Map(entries)) => {
                self.bounded(node, entries.len(), count_max, path)?;
                let mut named = Map::new();
                for (name, item) in entries {
                    let inside = format!("{path}.{}", name.text);
                    let table = if item.is_nothing() { Map::new() } else { self.table(item, keys, &inside) };
                    named.insert(name.text.clone(), table.into());
                }
                Some(named.into())
            }
            (Kind::Text(..) | Kind::Flag | Kind::Count(_), Value::List(_) | Value::Map(_)) => {
                let message = format!("must be a single value, found {}", node.kind());
                self.refuse(node, path, &message, "write one value behind the name")
            }
            (Kind::Texts(..) | Kind::Tables(..), Value::Scalar { .. } | Value::Map(_)) => {
                let message = format!("must be a list, found {}", node.kind());
                self.refuse(node, path, &message, "write each entry behind a `-` in YAML, or inside [ ]")
            }
            (Kind::Table(_) | Kind::Named(..), Value::Scalar { .. } | Value::List(_)) => {
                let message = format!("must be a table, found {}", node.kind());
                self.refuse(node, path, &message, "write names and values below it")
            }
        }
    }

    fn text(&mut self, node: &Node, text: &str, bytes_max: usize, rule: Rule, path: &str) -> bool {
        let said = if text.len() > bytes_max {
            Err(format!("has at most {bytes_max} bytes, not {}", text.len()))
        } else if text.contains('\0') {
            Err("cannot hold a zero byte".to_owned())
        } else if self.is_open(text) {
            Ok(())
        } else {
            rule(text)
        };
        let Err(message) = said else { return true };
        let (message, hint) = match message.split_once(": ") {
            Some((message, hint)) => (message.to_owned(), Some(hint.to_owned())),
            None => (message, None),
        };
        self.fault(node.span.clone(), path, message, hint);
        false
    }

    fn is_open(&self, text: &str) -> bool {
        self.has_variables && variables::holds_any(text)
    }

    fn bounded(&mut self, node: &Node, count: usize, count_max: usize, path: &str) -> Option<()> {
        if count <= count_max {
            return Some(());
        }
        self.refuse(node, path, &format!("has at most {count_max} entries, not {count}"), "remove some")
    }

    fn refuse<T>(&mut self, node: &Node, path: &str, message: &str, hint: &str) -> Option<T> {
        self.fault(node.span.clone(), path, message.to_owned(), Some(hint.to_owned()));
        None
    }

    fn fault(&mut self, span: Range<usize>, path: &str, message: String, hint: Option<String>) {
        self.faults.push(Fault { span, path: path.to_owned(), message, hint });
    }
}
