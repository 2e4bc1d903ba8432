//! What a screen reader has of a page: Chromium's accessibility tree, in the order in which it is read.

use crate::webdriver::Browser;
use serde_json::{Value, json};
use std::collections::HashMap;

/// One thing that is read.
#[derive(Debug)]
pub struct Heard {
    pub role: String,
    pub name: String,
    pub description: String,
    /// Of a heading.
    pub level: Option<u64>,
    /// Whether it is read when it changes: `polite`, `assertive`.
    pub live: Option<String>,
    /// Whether it can be reached by keyboard.
    pub can_have_focus: bool,
}

/// All that is read of the page as it is now.
pub fn hear(browser: &Browser) -> Vec<Heard> {
    let tree = browser.devtools("Accessibility.getFullAXTree", json!({}));
    let nodes = tree["nodes"].as_array().unwrap();
    let by_id: HashMap<&str, &Value> = nodes.iter().map(|node| (node["nodeId"].as_str().unwrap(), node)).collect();
    let (mut heard, mut waiting) = (Vec::new(), vec![&nodes[0]]);
    while let Some(node) = waiting.pop() {
        // Plain text is read, too, but has no part in what is asserted.
        if node["ignored"] == false
            && !["StaticText", "InlineTextBox"].iter().any(|role| node["role"]["value"] == *role)
        {
            heard.push(of(node));
        }
        let children = node["childIds"].as_array().into_iter().flatten().rev();
        waiting.extend(children.filter_map(|id| by_id.get(id.as_str()?)));
    }
    heard
}

fn of(node: &Value) -> Heard {
    let text = |key: &str| node[key]["value"].as_str().unwrap_or_default().to_owned();
    let property = |name: &str| {
        let found = node["properties"].as_array()?.iter().find(|property| property["name"] == name)?;
        Some(&found["value"]["value"])
    };
    Heard {
        role: text("role"),
        name: text("name"),
        description: text("description"),
        level: property("level").filter(|_| node["role"]["value"] == "heading").and_then(Value::as_u64),
        live: property("live").and_then(Value::as_str).map(str::to_owned),
        can_have_focus: property("focusable") == Some(&json!(true)),
    }
}

/// No heading skips a level on its way down.
pub fn headings_in_order(heard: &[Heard]) {
    let mut above = 0;
    for heading in heard.iter().filter(|one| one.role == "heading") {
        let level = heading.level.expect("a level");
        assert!(level <= above + 1, "{heading:?} comes below a heading of level {above}");
        above = level;
    }
    assert!(above > 0, "no headings");
}

/// What can be used, and what is to be seen, has a name that can be said.
pub fn nothing_is_nameless(heard: &[Heard]) {
    let roles = [
        "alertdialog",
        "article",
        "button",
        "checkbox",
        "dialog",
        "DisclosureTriangle",
        "form",
        "image",
        "link",
        "radio",
    ];
    let nameless: Vec<&Heard> = heard
        .iter()
        .filter(|one| (roles.contains(&one.role.as_str()) || one.can_have_focus) && one.name.trim().is_empty())
        .collect();
    assert!(nameless.is_empty(), "{nameless:?}");
    let pictures: Vec<&Heard> = heard.iter().filter(|one| one.role == "image" && one.description.is_empty()).collect();
    assert!(pictures.is_empty(), "pictures that are not described: {pictures:?}");
}
