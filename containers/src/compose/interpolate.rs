//! `$VARIABLE` and its modifiers, as the Compose Specification has them.

/// Looks up a variable.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// How deep `${A:-${B:-...}}` may go.
const DEEPEST: usize = 32;

/// Replaces `$V`, `${V}`, `${V:-default}`, `${V-default}`, `${V:?error}`, `${V?error}`, `${V:+other}`, `${V+other}`
/// (nested too) and `$$` in `text`. A variable that isn't set is empty, and told to `unset`. The error is a message
/// without a place.
pub fn interpolate(text: &str, lookup: Lookup, unset: &mut dyn FnMut(&str)) -> Result<String, String> {
    expand(text, lookup, unset, 0)
}

fn expand(text: &str, lookup: Lookup, unset: &mut dyn FnMut(&str), depth: usize) -> Result<String, String> {
    if depth > DEEPEST {
        return Err("variables nested too deeply".into());
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(after) = rest.strip_prefix('{') {
            let end = closing(after).ok_or_else(|| format!("`${{{after}` has no closing brace"))?;
            out.push_str(&braced(&after[..end], lookup, unset, depth)?);
            rest = &after[end + 1..];
        } else {
            let length = name_length(rest);
            if length == 0 {
                return Err("a `$` that is no variable: write `$$` for a dollar sign".into());
            }
            let name = &rest[..length];
            match lookup(name) {
                Some(value) => out.push_str(&value),
                None => unset(name),
            }
            rest = &rest[length..];
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// What stands between the braces.
fn braced(body: &str, lookup: Lookup, unset: &mut dyn FnMut(&str), depth: usize) -> Result<String, String> {
    let length = name_length(body);
    let (name, modifier) = body.split_at(length);
    if name.is_empty() {
        return Err(format!("`${{{body}}}` is no variable: write `$$` for a dollar sign"));
    }
    let (nonempty, modifier) = match modifier.strip_prefix(':') {
        Some(modifier) => (true, modifier),
        None => (false, modifier),
    };
    let value = lookup(name);
    let is_set = value.as_ref().is_some_and(|value| !nonempty || !value.is_empty());
    let mut letters = modifier.chars();
    match letters.next() {
        None if !nonempty => {
            if value.is_none() {
                unset(name);
            }
            Ok(value.unwrap_or_default())
        }
        Some('-') if is_set => Ok(value.unwrap_or_default()),
        Some('-') => expand(letters.as_str(), lookup, unset, depth + 1),
        Some('?') if is_set => Ok(value.unwrap_or_default()),
        Some('?') => {
            let message = expand(letters.as_str(), lookup, unset, depth + 1)?;
            let state = if value.is_some() { "is empty" } else { "is not set" };
            Err(match message.is_empty() {
                true => format!("the variable {name} is required, and {state}"),
                false => format!("the variable {name} is required, and {state}: {message}"),
            })
        }
        Some('+') if is_set => expand(letters.as_str(), lookup, unset, depth + 1),
        Some('+') => Ok(String::new()),
        _ => Err(format!("`${{{body}}}`: after the name come `-`, `?` or `+`, with or without a colon")),
    }
}

fn name_length(text: &str) -> usize {
    match text.bytes().next() {
        Some(first) if first.is_ascii_alphabetic() || first == b'_' => {
            text.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count()
        }
        _ => 0,
    }
}

/// Where the brace closes that stands before `text`.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut previous) = (0, 0);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' if previous == b'$' => depth += 1,
            b'}' if depth == 0 => return Some(at),
            b'}' => depth -= 1,
            _ => {}
        }
        previous = byte;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::interpolate;

    fn expand(text: &str) -> Result<String, String> {
        let lookup = |name: &str| match name {
            "A" => Some("a".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        interpolate(text, &lookup, &mut |_| ())
    }

    #[test]
    fn every_form() {
        for (text, expected) in [
            ("$A ${A} $$A $${A}", "a a $A ${A}"),
            ("${N:-d}${N-d}${EMPTY:-d}${EMPTY-d}", "ddd"),
            ("${A:-d}${A-d}", "aa"),
            ("${A:+x}${A+x}${EMPTY:+x}${EMPTY+x}${N:+x}${N+x}", "xxx"),
            ("${N:-${M:-${A}}}-${N:-a}b}", "a-ab}"),
            ("${A:?no}${EMPTY?no}|$N|", "a||"),
            ("x$A.y", "xa.y"),
        ] {
            assert_eq!(expand(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_required_and_what_is_wrong() {
        assert_eq!(expand("${N:?run setup}").unwrap_err(), "the variable N is required, and is not set: run setup");
        assert_eq!(expand("${EMPTY:?}").unwrap_err(), "the variable EMPTY is required, and is empty");
        assert!(expand("${N?x}").is_err());
        for text in ["${A", "$", "$1", "${}", "${A:}", "${A!x}", "${1}"] {
            assert!(expand(text).is_err(), "{text}");
        }
    }

    #[test]
    fn unset_variables_are_told() {
        let mut names = Vec::new();
        interpolate("$A $B ${C} ${D:-}", &|_| None, &mut |name| names.push(name.to_owned())).unwrap();
        assert_eq!(names, ["A", "B", "C"]);
    }
}
