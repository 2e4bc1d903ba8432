//! Words of an instruction: splitting with quotes in place, and substitution of variables with a shell's modifiers.
//!
//! Source: Docker's Dockerfile reference ("Environment replacement"), POSIX sh, section 2.6.2.

/// What a variable holds, if it is set.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Splits at blanks outside of quotes; quotes and escapes stay in the words.
pub fn split(text: &str, escape: char) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if quote.is_none() && character.is_whitespace() {
            if !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
            continue;
        }
        word.push(character);
        if character == escape && quote != Some('\'') {
            word.extend(characters.next());
        } else if quote == Some(character) {
            quote = None;
        } else if quote.is_none() && matches!(character, '"' | '\'') {
            quote = Some(character);
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// Substitutes variables in one word and takes its quotes off.
pub fn expand(word: &str, escape: char, lookup: Lookup) -> Result<String, String> {
    Ok(Expander::run(word, escape, lookup)?.text)
}

/// The same, split at blanks outside of quotes; those out of a variable count.
pub fn expand_split(text: &str, escape: char, lookup: Lookup) -> Result<Vec<String>, String> {
    Ok(Expander::run(text, escape, lookup)?.words)
}

/// Substitutions inside of substitutions; more is no Dockerfile that anybody wrote.
const DEPTH_MAX: usize = 50;

struct Expander<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    escape: char,
    lookup: Lookup<'a>,
    depth: usize,
}

/// Text so far, whole and as words.
#[derive(Default)]
struct Out {
    text: String,
    words: Vec<String>,
    word: Option<String>,
}

impl Out {
    fn quoted(&mut self, text: &str) {
        self.text.push_str(text);
        self.word.get_or_insert_default().push_str(text);
    }

    fn push(&mut self, character: char) {
        self.text.push(character);
        match character.is_whitespace() {
            true => self.words.extend(self.word.take()),
            false => self.word.get_or_insert_default().push(character),
        }
    }
}

impl<'a> Expander<'a> {
    fn run(text: &'a str, escape: char, lookup: Lookup<'a>) -> Result<Out, String> {
        let mut expander = Expander { rest: text.chars().peekable(), escape, lookup, depth: 0 };
        let mut out = expander.until(None).map_err(|error| format!("{error} in {text:?}"))?;
        out.words.extend(out.word.take());
        Ok(out)
    }

    /// Up to the end, or to `stop`, which is taken off.
    fn until(&mut self, stop: Option<char>) -> Result<Out, String> {
        let mut out = Out::default();
        while let Some(character) = self.rest.next() {
            match character {
                _ if Some(character) == stop => return Ok(out),
                '\'' => self.single_quoted(&mut out)?,
                '"' => self.double_quoted(&mut out)?,
                '$' => {
                    let value = self.variable()?;
                    value.chars().for_each(|character| out.push(character));
                }
                // An escape at the very end stands for nothing.
                _ if character == self.escape => {
                    let next = self.rest.next().map(String::from);
                    out.quoted(&next.unwrap_or_default());
                }
                _ => out.push(character),
            }
        }
        match stop {
            Some(stop) => Err(format!("unexpected end, {stop:?} is missing")),
            None => Ok(out),
        }
    }

    fn single_quoted(&mut self, out: &mut Out) -> Result<(), String> {
        out.quoted("");
        loop {
            match self.rest.next() {
                Some('\'') => return Ok(()),
                Some(character) => out.quoted(character.encode_utf8(&mut [0; 4])),
                None => return Err("unexpected end, a single quote is missing".into()),
            }
        }
    }

    fn double_quoted(&mut self, out: &mut Out) -> Result<(), String> {
        out.quoted("");
        loop {
            match self.rest.next() {
                Some('"') => return Ok(()),
                Some('$') => out.quoted(&self.variable()?),
                Some(character) => {
                    let mut text = String::from(character);
                    if character == self.escape {
                        // Only what means something inside of quotes can be escaped there.
                        let special = |next: &char| matches!(next, '"' | '$') || *next == character;
                        if let Some(next) = self.rest.next_if(special) {
                            text = next.into();
                        }
                    }
                    out.quoted(&text);
                }
                None => return Err("unexpected end, a double quote is missing".into()),
            }
        }
    }

    /// What follows a `$`.
    fn variable(&mut self) -> Result<String, String> {
        if self.depth == DEPTH_MAX {
            return Err(format!("more than {DEPTH_MAX} nested substitutions"));
        }
        self.depth += 1;
        let value = self.substitution()?;
        self.depth -= 1;
        Ok(value)
    }

    fn substitution(&mut self) -> Result<String, String> {
        if self.rest.next_if_eq(&'{').is_none() {
            let name = self.name();
            return Ok(if name.is_empty() { "$".into() } else { (self.lookup)(&name).unwrap_or_default() });
        }
        let name = self.name();
        if name.is_empty() {
            return Err("bad substitution: ${ needs a name".into());
        }
        let value = (self.lookup)(&name);
        let colon = self.rest.next_if_eq(&':').is_some();
        // With a colon an empty variable counts as one that is not set.
        let set = value.as_ref().filter(|value| !colon || !value.is_empty()).cloned();
        match (self.rest.next(), colon) {
            (Some('}'), false) => Ok(value.unwrap_or_default()),
            (Some('-'), _) => Ok(set.unwrap_or(self.operand()?)),
            (Some('+'), _) => {
                let operand = self.operand()?;
                Ok(if set.is_some() { operand } else { String::new() })
            }
            (Some('?'), _) => {
                let message = self.operand()?;
                let missing = if colon { "is not set or empty" } else { "is not set" };
                set.ok_or_else(|| match message.is_empty() {
                    true => format!("{name}: {missing}"),
                    false => format!("{name}: {message}"),
                })
            }
            (Some(side @ ('#' | '%')), false) => {
                let greedy = self.rest.next_if_eq(&side).is_some();
                let pattern = self.pattern('}')?;
                Ok(trim(&value.unwrap_or_default(), &pattern, side == '#', greedy))
            }
            (Some('/'), false) => {
                let all = self.rest.next_if_eq(&'/').is_some();
                let pattern = self.pattern('/')?;
                let replacement = self.operand()?;
                Ok(replace(&value.unwrap_or_default(), &pattern, &replacement, all))
            }
            (Some(other), _) => {
                let colon = if colon { ":" } else { "" };
                Err(format!("unsupported modifier {colon}{other} in substitution of {name}"))
            }
            (None, _) => Err("unexpected end, } is missing".into()),
        }
    }

    fn operand(&mut self) -> Result<String, String> {
        Ok(self.until(Some('}'))?.text)
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        // A number or a sign is a shell's own parameter: never set here.
        if let Some(sign) = self.rest.next_if(|next| "@*#?-$!".contains(*next)) {
            name.push(sign);
            return name;
        }
        while let Some(digit) = self.rest.next_if(char::is_ascii_digit) {
            name.push(digit);
        }
        if !name.is_empty() {
            return name;
        }
        while let Some(character) = self.rest.next_if(|next| next.is_ascii_alphanumeric() || *next == '_') {
            name.push(character);
        }
        name
    }

    /// A shell pattern up to `end`, variables substituted: what was escaped or quoted stands for itself.
    fn pattern(&mut self, end: char) -> Result<Vec<Piece>, String> {
        let mut pieces = Vec::new();
        loop {
            match self.rest.next() {
                Some(character) if character == end => return Ok(pieces),
                Some('*') => pieces.push(Piece::Any),
                Some('?') => pieces.push(Piece::One),
                Some('$') => pieces.extend(self.variable()?.chars().map(Piece::of)),
                Some(character) if character == self.escape => pieces.extend(self.rest.next().map(Piece::Is)),
                Some(character) => pieces.push(Piece::Is(character)),
                None => return Err(format!("unexpected end, {end:?} is missing")),
            }
        }
    }
}

/// A part of a shell pattern.
#[derive(Debug, Clone, Copy)]
enum Piece {
    Any,
    One,
    Is(char),
}

impl Piece {
    fn of(character: char) -> Piece {
        match character {
            '*' => Piece::Any,
            '?' => Piece::One,
            other => Piece::Is(other),
        }
    }
}

fn matches(text: &[char], pattern: &[Piece]) -> bool {
    // Which beginnings of the text fit the pieces so far.
    let mut fits: Vec<bool> = (0..=text.len()).map(|length| length == 0).collect();
    for piece in pattern {
        let before = std::mem::replace(&mut fits, vec![false; text.len() + 1]);
        for length in 0..=text.len() {
            fits[length] = match piece {
                Piece::Any => before[length] || (length > 0 && fits[length - 1]),
                Piece::One => length > 0 && before[length - 1],
                Piece::Is(character) => length > 0 && before[length - 1] && text[length - 1] == *character,
            };
        }
    }
    fits[text.len()]
}

/// `${x#pattern}` and its three relatives.
fn trim(value: &str, pattern: &[Piece], front: bool, greedy: bool) -> String {
    let text: Vec<char> = value.chars().collect();
    let mut lengths: Vec<usize> = (0..=text.len()).collect();
    if greedy {
        lengths.reverse();
    }
    for length in lengths {
        let (part, rest) = match front {
            true => text.split_at(length),
            false => {
                let (rest, part) = text.split_at(text.len() - length);
                (part, rest)
            }
        };
        if matches(part, pattern) {
            return rest.iter().collect();
        }
    }
    value.to_owned()
}

/// `${x/pattern/replacement}`, and with `all` `${x//pattern/replacement}`; the longest match at the first place.
fn replace(value: &str, pattern: &[Piece], replacement: &str, all: bool) -> String {
    let text: Vec<char> = value.chars().collect();
    let (mut out, mut at, mut done) = (String::new(), 0, pattern.is_empty());
    while at < text.len() {
        let found = (at + 1..=text.len()).rev().find(|end| !done && matches(&text[at..*end], pattern));
        match found {
            Some(end) => {
                out.push_str(replacement);
                at = end;
                done = !all;
            }
            None => {
                out.push(text[at]);
                at += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(name: &str) -> Option<String> {
        let value = match name {
            "a" => "1",
            "empty" => "",
            "two" => "x y",
            "path" => "/usr/local/lib",
            "PWD_1" => "p",
            _ => return None,
        };
        Some(value.into())
    }

    #[test]
    fn substitution_as_the_reference_has_it() {
        for (word, result) in [
            ("plain", "plain"),
            ("$a", "1"),
            ("${a}b", "1b"),
            ("$ab", ""),
            ("$PWD_1/x", "p/x"),
            ("\\$a", "$a"),
            ("\\${a}", "${a}"),
            ("'$a'", "$a"),
            ("\"$a\"", "1"),
            ("\"\\$a\"", "$a"),
            ("\"a\\b\\\\\\\"\"", "a\\b\\\""),
            ("'a\\'b", "a\\b"),
            ("a\\ b", "a b"),
            ("x\\", "x"),
            ("$12x", "x"),
            ("${12:-d}", "d"),
            ("$", "$"),
            ("$/x", "$/x"),
            ("$1x", "x"),
            ("${none:-d}", "d"),
            ("${empty:-d}", "d"),
            ("${empty-d}", ""),
            ("${none-d}", "d"),
            ("${a:+d}", "d"),
            ("${empty:+d}", ""),
            ("${empty+d}", "d"),
            ("${none+d}", ""),
            ("${none:-${a}x}", "1x"),
            ("${none:-\"}\"}", "}"),
            ("${a:?}", "1"),
            ("${empty?no}", ""),
            ("${path#*/}", "usr/local/lib"),
            ("${path##*/}", "lib"),
            ("${path%/*}", "/usr/local"),
            ("${path%%/l*}", "/usr"),
            ("${path/l/L}", "/usr/Local/lib"),
            ("${path//l/L}", "/usr/LocaL/Lib"),
            ("${path//u?r/X}", "/X/local/lib"),
            ("${path%*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*x}", "/usr/local/lib"),
        ] {
            assert_eq!(expand(word, '\\', &environment).as_deref(), Ok(result), "{word}");
        }
        assert_eq!(expand("`$a \\$a", '`', &environment).as_deref(), Ok("$a \\1"));
    }

    #[test]
    fn bad_substitutions_are_errors() {
        for (word, text) in [
            ("${a", "} is missing"),
            ("${}", "needs a name"),
            ("${a:x}", "unsupported modifier :x"),
            ("${none:?tell why}", "none: tell why"),
            ("${empty:?}", "empty: is not set or empty"),
            (&"${none:-".repeat(60), "nested"),
            ("'a", "single quote"),
            ("\"a", "double quote"),
        ] {
            let error = expand(word, '\\', &environment).unwrap_err();
            assert!(error.contains(text), "{word}: {error}");
        }
    }

    #[test]
    fn words_split_outside_of_quotes() {
        assert_eq!(split("a=\"b c\"  d='e f' g\\ h", '\\'), ["a=\"b c\"", "d='e f'", "g\\ h"]);
        assert_eq!(split("a='x\\' b", '\\'), ["a='x\\'", "b"]);
        assert_eq!(expand_split("80 $two \"p q\" '' $none", '\\', &environment).unwrap(), ["80", "x", "y", "p q", ""]);
    }
}
