//! Several files over one another, the later one winning, by the Compose Specification's rules.

use super::yaml::{Node, Place, Value};

/// Replaced as a whole.
const REPLACED: &[&str] = &["command", "entrypoint", "test", "ipam"];
/// Lists of KEY=VALUE or mappings: one entry a key.
const PAIRS: &[&str] =
    &["environment", "labels", "args", "sysctls", "annotations", "extra_hosts", "options", "driver_opts"];

/// `over` laid over `base`.
pub fn merge(base: Node, over: Node) -> Node {
    merge_at("", base, over)
}

fn merge_at(key: &str, base: Node, over: Node) -> Node {
    if over.is_null() {
        return base;
    }
    if REPLACED.contains(&key) || base.is_null() {
        return over;
    }
    let (base, over) = match key {
        _ if PAIRS.contains(&key) => (keyed(base), keyed(over)),
        // A list and a mapping of the same names.
        "depends_on" | "networks" if is_map(&base) != is_map(&over) => (named(base), named(over)),
        "build" => (built(base), built(over)),
        _ => (base, over),
    };
    let at = over.at.clone();
    let value = match (base.value, over.value) {
        (Value::Map(mut entries), Value::Map(more)) => {
            for (name, node) in more {
                match entries.iter().position(|(other, _)| other.text() == name.text()) {
                    Some(found) => {
                        let (_, old) = entries.swap_remove(found);
                        let merged = merge_at(name.text(), old, node);
                        entries.push((name, merged));
                    }
                    None => entries.push((name, node)),
                }
            }
            Value::Map(entries)
        }
        (Value::List(mut items), Value::List(more)) => {
            for node in more {
                let same = identity(key, &node);
                items.retain(|item| identity(key, item) != same);
                items.push(node);
            }
            Value::List(items)
        }
        (_, value) => value,
    };
    Node { at, value }
}

fn is_map(node: &Node) -> bool {
    matches!(node.value, Value::Map(_))
}

/// What makes two items of a list the same one.
fn identity(key: &str, node: &Node) -> String {
    let field = |name: &str| node.get(name).map(|value| value.text().to_owned()).unwrap_or_default();
    match (key, &node.value) {
        ("volumes", Value::Scalar { text, .. }) => text.split(':').nth(1).unwrap_or(text).to_owned(),
        ("volumes", Value::Map(_)) => field("target"),
        ("secrets" | "configs", Value::Map(_)) => field("source"),
        ("ports", Value::Map(_)) => {
            format!("{}:{}:{}/{}", field("host_ip"), field("published"), field("target"), field("protocol"))
        }
        (_, Value::Scalar { text, .. }) => text.clone(),
        // Anything else is like nothing else.
        _ => format!("{:?}", node.at),
    }
}

/// A list of KEY=VALUE as a mapping.
fn keyed(node: Node) -> Node {
    let Value::List(items) = node.value else { return node };
    let null = |at: &Place| Node { at: at.clone(), value: Value::Scalar { text: String::new(), plain: true } };
    let entries = items.iter().map(|item| match item.text().split_once('=') {
        Some((key, value)) => (Node::scalar(&item.at, key), Node::scalar(&item.at, value)),
        None => match item.text().split_once(':') {
            Some((key, value)) => (Node::scalar(&item.at, key), Node::scalar(&item.at, value)),
            None => (Node::scalar(&item.at, item.text()), null(&item.at)),
        },
    });
    Node { at: node.at, value: Value::Map(entries.collect()) }
}

/// A list of names as a mapping to nothing.
fn named(node: Node) -> Node {
    let Value::List(items) = node.value else { return node };
    let null = |at: &Place| Node { at: at.clone(), value: Value::Scalar { text: String::new(), plain: true } };
    let entries = items.into_iter().map(|item| (item.clone(), null(&item.at)));
    Node { at: node.at, value: Value::Map(entries.collect()) }
}

/// `build: FOLDER` in its long form.
fn built(node: Node) -> Node {
    let Value::Scalar { text, .. } = &node.value else { return node };
    let context = (Node::scalar(&node.at, "context"), Node::scalar(&node.at, text));
    Node { at: node.at.clone(), value: Value::Map(vec![context]) }
}

#[cfg(test)]
mod tests {
    use super::{super::yaml::parse, *};

    fn show(node: &Node) -> String {
        match &node.value {
            Value::Scalar { text, .. } => text.clone(),
            Value::List(items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(",")),
            Value::Map(entries) => {
                let mut entries: Vec<_> = entries.iter().map(|(k, v)| format!("{}:{}", k.text(), show(v))).collect();
                entries.sort();
                format!("{{{}}}", entries.join(","))
            }
        }
    }

    #[test]
    fn by_kind_of_key() {
        for (base, over, expected) in [
            ("command: [a, b]", "command: c", "{command:c}"),
            ("environment: [A=1, B=2]", "environment: {B: 3, C: 4}", "{environment:{A:1,B:3,C:4}}"),
            ("ports: ['1:1']", "ports: ['1:1', '2:2']", "{ports:[1:1,2:2]}"),
            ("volumes: ['a:/x', 'b:/y']", "volumes: ['c:/x']", "{volumes:[b:/y,c:/x]}"),
            ("depends_on: [a]", "depends_on: {b: {condition: c}}", "{depends_on:{a:,b:{condition:c}}}"),
            ("build: dir", "build: {target: t}", "{build:{context:dir,target:t}}"),
            ("image: a", "image:", "{image:a}"),
        ] {
            let merged = merge(parse("f", base.into()).unwrap(), parse("g", over.into()).unwrap());
            assert_eq!(show(&merged), expected);
        }
    }
}
