//! YAML and TOML as one kind of tree that knows where in the text each part of it stands.
//!
//! Of YAML this takes what people write by hand: no anchors, aliases, merge keys or tags, so a short text is never a
//! large tree.

use std::ops::Range;

use saphyr_parser::{Event, Parser, ScalarStyle};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Most parts of a tree.
const NODES_MAX: usize = 8_192;
/// How deep lists and maps may nest.
const DEPTH_MAX: usize = 32;

/// A part of a text and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    /// Where it stands, in bytes.
    pub(crate) span: Range<usize>,
    pub(crate) value: Value,
}

/// What a part of a text says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// Text, or a number, `true` or nothing at all where it is not quoted.
    Scalar {
        text: String,
        is_quoted: bool,
    },
    List(Vec<Node>),
    /// In the order of the text; no name comes twice.
    Map(Vec<(Name, Node)>),
}

/// A name in a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) span: Range<usize>,
    pub(crate) text: String,
}

/// Why a text is no tree, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The place in the text, in bytes.
    pub(crate) span: Range<usize>,
    /// The names that lead there, as `ports[2].name`; empty for the whole text.
    pub(crate) path: String,
    pub(crate) message: String,
    /// What to write instead.
    pub(crate) hint: Option<String>,
}

impl Fault {
    pub(crate) fn new(span: Range<usize>, message: impl Into<String>, hint: Option<&str>) -> Self {
        Self { span, path: String::new(), message: message.into(), hint: hint.map(str::to_owned) }
    }
}

impl Node {
    /// Whether nothing was written: `key:` in YAML.
    pub(crate) fn is_nothing(&self) -> bool {
        match &self.value {
            Value::Scalar { text, is_quoted } => !is_quoted && matches!(text.as_str(), "" | "~" | "null"),
            Value::List(_) | Value::Map(_) => false,
        }
    }

    /// What it is, for a sentence.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.value {
            Value::Scalar { .. } if self.is_nothing() => "nothing",
            Value::Scalar { .. } => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a table",
        }
    }
}

/// A list or map of YAML that is not closed yet.
struct Open {
    node: Node,
    /// The name whose value comes next.
    name: Option<Name>,
}

/// Reads a YAML document. An empty text is an empty map.
pub(crate) fn yaml(text: &str) -> Result<Node, Fault> {
    let places = Places::new(text);
    let mut open: Vec<Open> = Vec::new();
    let mut root = None;
    let mut nodes = 0;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            let at = places.byte(error.marker().index());
            let hint = "a value that holds `{`, `}`, `[`, `]`, `#` or `: ` has to be in quotes";
            Fault::new(at..at + 1, format!("this is no YAML: {}", error.info()), Some(hint))
        })?;
        let span = places.byte(span.start.index())..places.byte(span.end.index());
        let value = match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => continue,
            Event::DocumentStart(_) if root.is_some() => {
                return Err(Fault::new(span, "one document is enough here", Some("remove it and the `---`")));
            }
            Event::DocumentStart(_) => continue,
            Event::Alias(_) => return Err(reference(span)),
            Event::Scalar(_, _, anchor, _) | Event::SequenceStart(anchor, _) | Event::MappingStart(anchor, _)
                if anchor != 0 =>
            {
                return Err(reference(span));
            }
            Event::Scalar(_, _, _, Some(_)) | Event::SequenceStart(_, Some(_)) | Event::MappingStart(_, Some(_)) => {
                return Err(Fault::new(span, "tags are not read here", Some("remove the `!` and what belongs to it")));
            }
            Event::Scalar(text, style, ..) => {
                Value::Scalar { text: text.into_owned(), is_quoted: style != ScalarStyle::Plain }
            }
            Event::SequenceStart(..) => Value::List(Vec::new()),
            Event::MappingStart(..) => Value::Map(Vec::new()),
            Event::SequenceEnd | Event::MappingEnd => {
                let closed = open.pop().expect("what ends has begun");
                root = place(&mut open, closed.node)?.or(root);
                continue;
            }
        };
        nodes += 1;
        if nodes > NODES_MAX || open.len() >= DEPTH_MAX {
            return Err(too_large(span));
        }
        let node = Node { span, value };
        match node.value {
            Value::List(_) | Value::Map(_) => open.push(Open { node, name: None }),
            Value::Scalar { .. } => root = place(&mut open, node)?.or(root),
        }
    }
    let root = root.unwrap_or(Node { span: 0..0, value: Value::Map(Vec::new()) });
    Ok(if root.is_nothing() { Node { span: root.span, value: Value::Map(Vec::new()) } } else { root })
}

/// Puts what is complete into what is open; gives it back where nothing is.
fn place(open: &mut [Open], node: Node) -> Result<Option<Node>, Fault> {
    let Some(Open { node: parent, name }) = open.last_mut() else {
        return Ok(Some(node));
    };
    parent.span.end = parent.span.end.max(node.span.end);
    match (&mut parent.value, name.take()) {
        (Value::List(items), _) => items.push(node),
        (Value::Map(entries), Some(name)) => entries.push((name, node)),
        (Value::Map(entries), None) => match node.value {
            Value::Scalar { text, .. } if entries.iter().any(|(earlier, _)| earlier.text == text) => {
                let message = format!("`{text}` is here a second time");
                return Err(Fault::new(node.span, message, Some("remove one of the two")));
            }
            Value::Scalar { text, .. } => *name = Some(Name { span: node.span, text }),
            Value::List(_) | Value::Map(_) => {
                return Err(Fault::new(node.span, "a name is a single word", Some("write `name: value`")));
            }
        },
        (Value::Scalar { .. }, _) => unreachable!("a single value is never open"),
    }
    Ok(None)
}

fn reference(span: Range<usize>) -> Fault {
    Fault::new(span, "anchors and aliases are not read here", Some("write the value out wherever it is needed"))
}

fn too_large(span: Range<usize>) -> Fault {
    let message = format!("more than {NODES_MAX} values, or more than {DEPTH_MAX} inside each other");
    Fault::new(span, message, Some("write less"))
}

/// Where what a path such as `ports[2].name` leads to stands, or as much of it as there is.
pub(crate) fn find(root: &Node, path: &str) -> Option<Range<usize>> {
    let mut node = root;
    let mut found = None;
    for word in path.split(['.', '[']) {
        let (span, next) = match &node.value {
            Value::Map(entries) => {
                let (name, next) = entries.iter().find(|(name, _)| name.text == word)?;
                (name.span.clone(), next)
            }
            Value::List(items) => {
                let next = word.strip_suffix(']').and_then(|at| items.get(at.parse::<usize>().ok()?));
                (next.map_or(node.span.clone(), |next| next.span.clone()), next.unwrap_or(node))
            }
            Value::Scalar { .. } => break,
        };
        found = Some(span);
        node = next;
    }
    found
}

/// What stands behind a name at the top.
pub(crate) fn value<'a>(root: &'a Node, name: &str) -> Option<&'a Node> {
    match &root.value {
        Value::Map(entries) => entries.iter().find(|(found, _)| found.text == name).map(|(_, node)| node),
        Value::Scalar { .. } | Value::List(_) => None,
    }
}

/// A JSON value as a tree, which stands nowhere.
pub(crate) fn json(value: &serde_json::Value) -> Node {
    let plain = |text: String| Value::Scalar { text, is_quoted: false };
    let value = match value {
        serde_json::Value::Null => plain(String::new()),
        serde_json::Value::Bool(flag) => plain(flag.to_string()),
        serde_json::Value::Number(number) => plain(number.to_string()),
        serde_json::Value::String(text) => Value::Scalar { text: text.clone(), is_quoted: true },
        serde_json::Value::Array(items) => Value::List(items.iter().map(json).collect()),
        serde_json::Value::Object(fields) => {
            let entry =
                |(name, value): (&String, &serde_json::Value)| (Name { span: 0..0, text: name.clone() }, json(value));
            Value::Map(fields.iter().map(entry).collect())
        }
    };
    Node { span: 0..0, value }
}

/// Reads a TOML document.
pub(crate) fn toml(text: &str) -> Result<Node, Fault> {
    let table = DeTable::parse(text).map_err(|error| {
        Fault::new(error.span().unwrap_or(0..0), format!("this is no TOML: {}", error.message()), None)
    })?;
    let mut nodes = 0;
    from_toml_table(table.get_ref(), 0..text.len(), 0, &mut nodes)
}

fn from_toml_table(table: &DeTable<'_>, span: Range<usize>, depth: usize, nodes: &mut usize) -> Result<Node, Fault> {
    let entry = |(name, value): (&Spanned<std::borrow::Cow<'_, str>>, &Spanned<DeValue<'_>>)| {
        let name = Name { span: name.span(), text: name.get_ref().clone().into_owned() };
        Ok((name, from_toml(value, depth + 1, nodes)?))
    };
    let mut entries = table.iter().map(entry).collect::<Result<Vec<_>, Fault>>()?;
    entries.sort_by_key(|(name, _)| name.span.start);
    Ok(Node { span, value: Value::Map(entries) })
}

fn from_toml(value: &Spanned<DeValue<'_>>, depth: usize, nodes: &mut usize) -> Result<Node, Fault> {
    let span = value.span();
    *nodes += 1;
    if *nodes > NODES_MAX || depth > DEPTH_MAX {
        return Err(too_large(span));
    }
    let plain = |text: String| Value::Scalar { text, is_quoted: false };
    let value = match value.get_ref() {
        DeValue::String(text) => Value::Scalar { text: text.clone().into_owned(), is_quoted: true },
        DeValue::Integer(number) => {
            let number = i64::from_str_radix(&number.as_str().replace('_', ""), number.radix());
            plain(number.map_err(|_| Fault::new(span.clone(), "this number is too large", None))?.to_string())
        }
        DeValue::Float(number) => plain(number.as_str().to_owned()),
        DeValue::Boolean(flag) => plain(flag.to_string()),
        DeValue::Datetime(time) => plain(time.to_string()),
        DeValue::Array(items) => {
            Value::List(items.iter().map(|item| from_toml(item, depth + 1, nodes)).collect::<Result<_, _>>()?)
        }
        DeValue::Table(table) => return from_toml_table(table, span, depth, nodes),
    };
    Ok(Node { span, value })
}

/// Where the characters of a text are.
struct Places {
    /// The byte at which each character begins; empty where each takes one.
    bytes: Vec<usize>,
    end: usize,
}

impl Places {
    fn new(text: &str) -> Self {
        let bytes = if text.is_ascii() { Vec::new() } else { text.char_indices().map(|(at, _)| at).collect() };
        Self { bytes, end: text.len() }
    }

    fn byte(&self, character: usize) -> usize {
        let at = if self.bytes.is_empty() { Some(character) } else { self.bytes.get(character).copied() };
        at.unwrap_or(self.end).min(self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(node: &Node) -> String {
        match &node.value {
            Value::Scalar { text, is_quoted: true } => format!("{text:?}"),
            Value::Scalar { text, is_quoted: false } => text.clone(),
            Value::List(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(" ")),
            Value::Map(entries) => {
                let entries = entries.iter().map(|(name, value)| format!("{}={}", name.text, shown(value)));
                format!("{{{}}}", entries.collect::<Vec<_>>().join(" "))
            }
        }
    }

    #[test]
    fn yaml_and_toml_become_the_same_tree() {
        let from_yaml = yaml("name: \"a\"\nlist:\n  - 1\n  - \"two\"\ndeep: {on: true}\n").unwrap();
        let from_toml = toml("name = 'a'\nlist = [1, 'two']\ndeep = { on = true }\n").unwrap();
        assert_eq!(shown(&from_yaml), r#"{name="a" list=[1 "two"] deep={on=true}}"#);
        assert_eq!(shown(&from_toml), shown(&from_yaml));
        assert_eq!(shown(&yaml("").unwrap()), "{}");
        assert_eq!(shown(&yaml("# nothing\n").unwrap()), "{}");
    }

    #[test]
    fn each_part_knows_its_place_in_bytes() {
        let text = "é: ü\nimage: \"x\"\n";
        let Value::Map(entries) = yaml(text).unwrap().value else { panic!("no map") };
        let places: Vec<_> =
            entries.iter().map(|(name, node)| (&text[name.span.clone()], &text[node.span.clone()])).collect();
        assert_eq!(places, [("é", "ü"), ("image", "\"x\"")]);
    }

    #[test]
    fn what_is_not_read_is_refused_with_its_place() {
        for (text, place, said) in [
            ("a: &x 1\nb: *x\n", "&x", "anchors and aliases"),
            ("a: !!str 1\n", "!!str", "tags"),
            ("a: 1\nb: 2\na: 3\n", "a", "second time"),
            ("a: 1\n---\nb: 2\n", "---", "one document"),
            ("[a]: 1\n", "[", "single word"),
            ("a: [1\n", "", "no YAML"),
            ("a: b: c\n", "", "no YAML"),
        ] {
            let fault = yaml(text).unwrap_err();
            assert!(fault.message.contains(said), "{text}: {fault:?}");
            assert!(place.is_empty() || text[fault.span.clone()].starts_with(place), "{text}: {fault:?}");
        }
        assert!(yaml(&"[".repeat(DEPTH_MAX + 2)).is_err());
        assert!(yaml(&"- 1\n".repeat(NODES_MAX + 1)).unwrap_err().message.contains("more than"));
        assert!(toml("a = 1\na = 2\n").unwrap_err().message.contains("no TOML"));
        assert!(toml("a = 99999999999999999999\n").unwrap_err().message.contains("too large"));
    }
}
