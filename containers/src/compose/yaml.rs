//! YAML as a tree in which every key and value knows its place, so that every complaint can point at it.

use crate::error::{Context, Error, Result};
use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use std::{collections::HashMap, fmt::Write, fs, path::Path, sync::Arc};

/// Aliases are copied: this many nodes end a file that would fill the memory with them.
const MOST_NODES: usize = 100_000;
/// Nesting that no real file has, and that recursion stands.
const DEEPEST: usize = 64;
/// A Compose file beyond this many bytes is something else.
const LARGEST: u64 = 4 << 20;

/// A file's name and text.
#[derive(Debug)]
pub struct Source {
    pub name: String,
    pub text: String,
}

/// Where something stands.
#[derive(Debug, Clone)]
pub struct Place {
    source: Arc<Source>,
    /// From 1.
    line: usize,
    /// From 0, in characters.
    column: usize,
    /// Characters to underline.
    width: usize,
}

impl Place {
    /// The complaint `message` with the line it is about and a caret below.
    pub fn error(&self, message: impl std::fmt::Display) -> Error {
        let mut text = format!("{}:{}:{}: {message}", self.source.name, self.line, self.column + 1);
        if let Some(line) = self.source.text.lines().nth(self.line.saturating_sub(1)) {
            let margin = " ".repeat(self.line.to_string().len());
            let lead: String =
                line.chars().take(self.column).map(|letter| if letter == '\t' { '\t' } else { ' ' }).collect();
            // Writing to a String can't fail.
            let _ = write!(
                text,
                "\n{margin} |\n{} | {line}\n{margin} | {lead}{}",
                self.line,
                "^".repeat(self.width.max(1))
            );
        }
        Error::Invalid(text)
    }
}

/// A key or a value.
#[derive(Debug, Clone)]
pub struct Node {
    pub at: Place,
    pub value: Value,
}

/// What a node is. Scalars stay text: interpolation comes before types.
#[derive(Debug, Clone)]
pub enum Value {
    /// `plain` is false where quotes say that it is a string.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

impl Node {
    /// A scalar made from another form, at the place of that.
    pub fn scalar(at: &Place, text: impl Into<String>) -> Node {
        Node { at: at.clone(), value: Value::Scalar { text: text.into(), plain: false } }
    }

    pub fn error(&self, message: impl std::fmt::Display) -> Error {
        self.at.error(message)
    }

    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// The value of `key`; a null counts as absent.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).filter(|node| !node.is_null())
    }

    /// The value of `key`, null or not.
    pub fn entry(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|(name, _)| name.text() == key).map(|(_, node)| node),
            _ => None,
        }
    }

    /// A scalar's text, nothing for anything else.
    pub fn text(&self) -> &str {
        match &self.value {
            Value::Scalar { text, .. } => text,
            _ => "",
        }
    }

    pub fn map(&self, what: &str) -> Result<&[(Node, Node)]> {
        match &self.value {
            Value::Map(entries) => Ok(entries),
            _ if self.is_null() => Ok(&[]),
            _ => Err(self.error(format!("{what} must be a mapping (key: value), and is {}", self.kind()))),
        }
    }

    pub fn list(&self, what: &str) -> Result<&[Node]> {
        match &self.value {
            Value::List(items) => Ok(items),
            _ if self.is_null() => Ok(&[]),
            _ => Err(self.error(format!("{what} must be a list, and is {}", self.kind()))),
        }
    }

    pub fn string(&self, what: &str) -> Result<String> {
        match &self.value {
            Value::Scalar { text, .. } => Ok(text.clone()),
            _ => Err(self.error(format!("{what} must be a string, and is {}", self.kind()))),
        }
    }

    pub fn boolean(&self, what: &str) -> Result<bool> {
        match self.text().to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "y" => Ok(true),
            "false" | "no" | "off" | "n" => Ok(false),
            _ => Err(self.error(format!("{what} must be true or false, and is {}", self.kind()))),
        }
    }

    pub fn number<T: std::str::FromStr>(&self, what: &str) -> Result<T> {
        self.text().trim().parse().map_err(|_| self.error(format!("{what} must be a number, and is {}", self.kind())))
    }

    fn kind(&self) -> String {
        match &self.value {
            _ if self.is_null() => "empty".into(),
            Value::Scalar { text, .. } => format!("{text:?}"),
            Value::List(_) => "a list".into(),
            Value::Map(_) => "a mapping".into(),
        }
    }

    /// Applies `change` to every scalar that is not a key.
    pub fn each_scalar(&mut self, change: &dyn Fn(&Place, &str) -> Result<Option<String>>) -> Result<()> {
        match &mut self.value {
            Value::Scalar { text, .. } => {
                if let Some(new) = change(&self.at, text)? {
                    *text = new;
                }
            }
            Value::List(items) => items.iter_mut().try_for_each(|item| item.each_scalar(change))?,
            Value::Map(entries) => entries.iter_mut().try_for_each(|(_, node)| node.each_scalar(change))?,
        }
        Ok(())
    }
}

/// Reads the one document of a file.
pub fn read(path: &Path) -> Result<Node> {
    let size = fs::metadata(path).at("read", path)?.len();
    if size > LARGEST {
        return Err(Error::Invalid(format!("{}: {size} bytes is too much for a Compose file", path.display())));
    }
    parse(&path.display().to_string(), fs::read_to_string(path).at("read", path)?)
}

/// Parses `text`, told about as `name`.
pub fn parse(name: &str, text: String) -> Result<Node> {
    let source = Arc::new(Source { name: name.to_owned(), text });
    let mut builder = Builder { source: source.clone(), anchors: HashMap::new(), nodes: 0 };
    let mut events = Events { parser: Parser::new_from_str(&source.text), source: source.clone() };
    let start = Place { source: source.clone(), line: 1, column: 0, width: 1 };
    let mut document = None;
    while let Some((event, span)) = events.next()? {
        match event {
            Event::DocumentStart(_) if document.is_some() => {
                return Err(builder.place(&span).error("a Compose file has one document, and here begins a second"));
            }
            Event::DocumentStart(_) => {
                let Some((event, span)) = events.next()? else { break };
                document = Some(builder.node(&mut events, event, &span, 0)?);
            }
            _ => {}
        }
    }
    let document = document.ok_or_else(|| start.error("the file is empty"))?;
    Ok(document)
}

struct Events<'a> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    source: Arc<Source>,
}

impl<'a> Events<'a> {
    fn next(&mut self) -> Result<Option<(Event<'a>, Span)>> {
        self.parser.next_event().transpose().map_err(|error| {
            let marker = error.marker();
            Place { source: self.source.clone(), line: marker.line(), column: marker.col(), width: 1 }
                .error(format!("not valid YAML: {}", error.info()))
        })
    }
}

struct Builder {
    source: Arc<Source>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
}

impl Builder {
    fn place(&self, span: &Span) -> Place {
        let width = if span.start.line() == span.end.line() { span.end.col() - span.start.col() } else { 1 };
        Place { source: self.source.clone(), line: span.start.line(), column: span.start.col(), width }
    }

    fn node(&mut self, events: &mut Events, event: Event, span: &Span, depth: usize) -> Result<Node> {
        let at = self.place(span);
        self.count(&at, 1)?;
        if depth > DEEPEST {
            return Err(at.error("nested too deeply"));
        }
        if let Event::Scalar(.., Some(tag)) | Event::SequenceStart(_, Some(tag)) | Event::MappingStart(_, Some(tag)) =
            &event
            && !tag.is_yaml_core_schema()
        {
            return Err(at.error(format!("the tag `{tag}` is not supported yet")));
        }
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                // `!!str` says what quotes say.
                let plain = style == ScalarStyle::Plain && tag.is_none_or(|tag| tag.suffix != "str");
                (Value::Scalar { text: text.into_owned(), plain }, anchor)
            }
            Event::SequenceStart(anchor, _) => {
                let mut items = Vec::new();
                loop {
                    match events.next()? {
                        Some((Event::SequenceEnd, _)) | None => break,
                        Some((event, span)) => items.push(self.node(events, event, &span, depth + 1)?),
                    }
                }
                (Value::List(items), anchor)
            }
            Event::MappingStart(anchor, _) => (self.mapping(events, depth)?, anchor),
            Event::Alias(id) => {
                let node = self.anchors.get(&id).cloned().ok_or_else(|| at.error("no such anchor before this"))?;
                self.count(&at, size(&node))?;
                return Ok(node);
            }
            _ => return Err(at.error("not expected here")),
        };
        let node = Node { at, value };
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn mapping(&mut self, events: &mut Events, depth: usize) -> Result<Value> {
        let mut entries: Vec<(Node, Node)> = Vec::new();
        let mut merged = Vec::new();
        loop {
            let key = match events.next()? {
                Some((Event::MappingEnd, _)) | None => break,
                Some((event, span)) => self.node(events, event, &span, depth + 1)?,
            };
            let Some((event, span)) = events.next()? else { break };
            let node = self.node(events, event, &span, depth + 1)?;
            let Value::Scalar { text, plain } = &key.value else {
                return Err(key.error("a key must be a string"));
            };
            if *plain && text == "<<" {
                merged.push(node);
            } else if let Some((first, _)) = entries.iter().find(|(other, _)| other.text() == text) {
                return Err(key.error(format!("`{text}` is there twice, first in line {}", first.at.line)));
            } else {
                entries.push((key, node));
            }
        }
        for node in merged {
            let sources = match &node.value {
                Value::List(items) => items.as_slice(),
                _ => std::slice::from_ref(&node),
            };
            for source in sources {
                let Value::Map(more) = &source.value else {
                    return Err(source.error("`<<` takes a mapping, or a list of them"));
                };
                for (key, node) in more {
                    if !entries.iter().any(|(other, _)| other.text() == key.text()) {
                        entries.push((key.clone(), node.clone()));
                    }
                }
            }
        }
        Ok(Value::Map(entries))
    }

    fn count(&mut self, at: &Place, nodes: usize) -> Result<()> {
        self.nodes += nodes;
        match self.nodes > MOST_NODES {
            true => Err(at.error("the file grows beyond all bounds by its aliases")),
            false => Ok(()),
        }
    }
}

fn size(node: &Node) -> usize {
    1 + match &node.value {
        Value::Scalar { .. } => 0,
        Value::List(items) => items.iter().map(size).sum(),
        Value::Map(entries) => entries.iter().map(|(_, node)| 1 + size(node)).sum(),
    }
}

/// Checks a mapping's keys: one that is `later` is refused by name, an unknown one with the nearest known one.
pub fn check_keys(node: &Node, what: &str, known: &[&str], later: &[&str]) -> Result<()> {
    for (key, value) in node.map(what)? {
        let name = key.text();
        if known.contains(&name) || name.starts_with("x-") || (later.contains(&name) && value.is_null()) {
            continue;
        }
        if later.contains(&name) {
            return Err(key.error(format!("`{name}` in {what} is not supported yet")));
        }
        let nearest = known
            .iter()
            .chain(later)
            .map(|other| (strsim::damerau_levenshtein(name, other), other))
            .min()
            .filter(|(distance, other)| *distance <= 1 + other.len().min(name.len()) / 3);
        let hint = match nearest {
            Some((_, other)) => format!("did you mean `{other}`?"),
            None => format!("it takes {}", known.join(", ")),
        };
        return Err(key.error(format!("unknown key `{name}` in {what}; {hint}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merge_keys_and_anchors() {
        let node = parse("f", "x-a: &a {b: 1, c: 2}\nd:\n  <<: *a\n  c: '3'\n".into()).unwrap();
        let d = node.get("d").unwrap();
        assert_eq!((d.get("b").unwrap().text(), d.get("c").unwrap().text()), ("1", "3"));
    }

    #[test]
    fn a_bomb_of_aliases_is_refused() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..9 {
            let items = vec![format!("*a{}", level - 1); 10].join(", ");
            text += &format!("a{level}: &a{level} [{items}]\n");
        }
        assert!(parse("f", text).unwrap_err().to_string().contains("beyond all bounds"));
    }

    #[test]
    fn unknown_keys_point_at_themselves() {
        let node = parse("compose.yaml", "imaeg: x\n".into()).unwrap();
        let error = check_keys(&node, "service web", &["image", "build"], &["pull_policy"]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "compose.yaml:1:1: unknown key `imaeg` in service web; did you mean `image`?\n  |\n1 | imaeg: x\n  | ^^^^^"
        );
    }

    #[test]
    fn tags_are_refused_by_name() {
        let error = parse("f", "ports: !reset []\n".into()).unwrap_err().to_string();
        assert!(error.contains("f:1:") && error.contains("`!reset` is not supported yet"), "{error}");
        assert!(!parse("f", "a: !!str null\n".into()).unwrap().get("a").unwrap().is_null());
    }

    #[test]
    fn a_key_twice_and_no_yaml() {
        assert!(parse("f", "a: 1\na: 2\n".into()).unwrap_err().to_string().contains("f:2:1: `a` is there twice"));
        assert!(parse("f", "a: [1\n".into()).unwrap_err().to_string().contains("not valid YAML"));
    }
}
