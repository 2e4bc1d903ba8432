//! A Dockerfile's text as instructions: parser directives, comments, continued lines, flags, line numbers.
//!
//! Source: Docker's Dockerfile reference ("Format", "Parser directives").

use super::Failure;
use std::collections::HashSet;

/// Every instruction there is.
pub const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// One instruction as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instruction {
    /// Of its first line, counted from 1.
    pub line: usize,
    /// In capitals; one of [`KEYWORDS`].
    pub keyword: &'static str,
    /// `--name=value` before the arguments; None where there is no `=`.
    pub flags: Vec<(String, Option<String>)>,
    /// What follows, continued lines joined, without blanks around it.
    pub rest: String,
    /// The whole instruction, continued lines joined.
    pub text: String,
}

/// A parsed file: the escape character (`\` or, by a directive, a backtick) and its instructions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lines {
    pub escape: char,
    pub instructions: Vec<Instruction>,
}

/// Splits a Dockerfile; `file` names it in errors.
pub fn parse(text: &str, file: &str) -> Result<Lines, Failure> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let escape = directives(text, file)?;
    let mut instructions = Vec::new();
    let mut current: Option<(usize, String)> = None;
    for (number, line) in (1..).zip(text.lines()) {
        let trimmed = line.trim_start();
        // Comments and empty lines are left out even between the lines of one instruction.
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        let (piece, goes_on) = continued(line, escape);
        let (first, mut whole) = current.take().unwrap_or_default();
        let first = if first == 0 { number } else { first };
        whole.push_str(if whole.is_empty() { piece.trim_start() } else { piece });
        if goes_on {
            current = Some((first, whole));
        } else {
            instructions.push(instruction(&whole, first, file, escape)?);
        }
    }
    if let Some((first, whole)) = current.filter(|(_, whole)| !whole.trim().is_empty()) {
        instructions.push(instruction(&whole, first, file, escape)?);
    }
    match instructions.is_empty() {
        true => Err(Failure::at(file, 0, "the Dockerfile cannot be empty")),
        false => Ok(Lines { escape, instructions }),
    }
}

/// One instruction out of a string: what ONBUILD holds.
pub fn parse_one(text: &str, line: usize, file: &str, escape: char) -> Result<Instruction, Failure> {
    instruction(text, line, file, escape)
}

/// The lines of the form `# name=value` at the very top; only `escape` matters here (`syntax` asks BuildKit for another
/// front end, `check` for its linter). The first line of another form ends them.
fn directives(text: &str, file: &str) -> Result<char, Failure> {
    let mut escape = '\\';
    let mut seen = HashSet::new();
    for (number, line) in (1..).zip(text.lines()) {
        let directive = line.trim_start().strip_prefix('#').and_then(|rest| rest.split_once('='));
        let Some((name, value)) = directive else { break };
        let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
        if !["escape", "syntax", "check"].contains(&name.as_str()) {
            break;
        }
        if !seen.insert(name.clone()) {
            return Err(Failure::at(file, number, format!("only one {name} parser directive can be used")));
        }
        if name == "escape" {
            escape = match value {
                "\\" => '\\',
                "`" => '`',
                other => {
                    return Err(Failure::at(
                        file,
                        number,
                        format!("invalid escape directive {other:?}: it must be ` or \\"),
                    ));
                }
            };
        }
    }
    Ok(escape)
}

/// A line without its continuation mark (the escape character, blanks after it allowed, none before it), and whether
/// it had one.
fn continued(line: &str, escape: char) -> (&str, bool) {
    match line.trim_end_matches([' ', '\t']).strip_suffix(escape) {
        Some(piece) if !piece.ends_with(escape) => (piece, true),
        _ => (line, false),
    }
}

fn instruction(text: &str, line: usize, file: &str, escape: char) -> Result<Instruction, Failure> {
    let text = text.trim();
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let upper = word.to_ascii_uppercase();
    let Some(&keyword) = KEYWORDS.iter().find(|keyword| **keyword == upper) else {
        let nearest = KEYWORDS
            .iter()
            .map(|keyword| (strsim::damerau_levenshtein(keyword, &upper), keyword))
            .filter(|(distance, keyword)| *distance <= keyword.len().div_ceil(3))
            .min();
        let hint = nearest.map(|(_, keyword)| format!(" (did you mean {keyword}?)")).unwrap_or_default();
        return Err(Failure::at(file, line, format!("unknown instruction: {word}{hint}")));
    };
    let (flags, rest) = flags(rest.trim_start(), escape);
    if matches!(keyword, "RUN" | "COPY" | "ADD") && has_heredoc(rest) {
        return Err(Failure::at(
            file,
            line,
            format!("{keyword}: heredocs (<<) are not there yet; write the lines with {escape} at their ends"),
        ));
    }
    Ok(Instruction { line, keyword, flags, rest: rest.to_owned(), text: text.to_owned() })
}

/// Takes `--name[=value]` words off the front; a lone `--` ends them.
fn flags(mut rest: &str, escape: char) -> (Vec<(String, Option<String>)>, &str) {
    let mut flags = Vec::new();
    while rest.starts_with("--") {
        let (word, tail) = flag(rest, escape);
        rest = tail.trim_start();
        let name = &word[2..];
        if name.is_empty() {
            break;
        }
        flags.push(match name.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (name.to_owned(), None),
        });
    }
    (flags, rest)
}

/// The first word of `rest`, its quotes taken off and escapes resolved, and what follows it.
fn flag(rest: &str, escape: char) -> (String, &str) {
    let (mut word, mut quote) = (String::new(), None);
    let mut characters = rest.char_indices();
    while let Some((at, character)) = characters.next() {
        match quote {
            None if character.is_whitespace() => return (word, &rest[at..]),
            None if matches!(character, '"' | '\'') => quote = Some(character),
            Some(open) if character == open => quote = None,
            _ if character == escape && quote != Some('\'') => word.extend(characters.next().map(|(_, next)| next)),
            _ => word.push(character),
        }
    }
    (word, "")
}

/// BuildKit's `<<EOF`, `<<-EOF`, `<<"EOF"` as a word of its own, outside of quotes. `<<<` is a shell's here-string, and
/// a shift in `$((1<<2))` names no delimiter.
fn has_heredoc(rest: &str) -> bool {
    let mut quote = None;
    let mut before = ' ';
    for (at, character) in rest.char_indices() {
        match quote {
            Some(open) if character == open => quote = None,
            Some(_) => {}
            None if matches!(character, '"' | '\'') => quote = Some(character),
            None if character == '<' && (before.is_whitespace() || before.is_ascii_digit()) => {
                let name = rest[at..].strip_prefix("<<").map(|name| name.strip_prefix('-').unwrap_or(name));
                let name = name.map(|name| name.trim_start_matches(['"', '\'']));
                if name.is_some_and(|name| name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_'))
                {
                    return true;
                }
            }
            None => {}
        }
        before = character;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<(usize, String)> {
        let lines = parse(text, "Dockerfile").unwrap();
        lines.instructions.into_iter().map(|it| (it.line, it.text)).collect()
    }

    fn error(text: &str) -> String {
        parse(text, "Dockerfile").unwrap_err().to_string()
    }

    #[test]
    fn continued_lines_are_joined_and_keep_their_first_line_number() {
        let text = "# top\n\nFROM a\nRUN one && \\\n# between\n\n  two \\ \n   # also\n && three\nCMD x\n";
        assert_eq!(texts(text), [(3, "FROM a".into()), (4, "RUN one &&   two  && three".into()), (10, "CMD x".into())]);
    }

    #[test]
    fn two_escapes_at_the_end_are_no_continuation() {
        assert_eq!(texts("FROM a\nRUN echo \\\\\nRUN b").len(), 3);
    }

    #[test]
    fn a_file_may_end_inside_an_instruction_and_lines_in_crlf() {
        assert_eq!(
            texts("FROM a\r\nRUN b \\\r\n  c\r\nRUN d \\"),
            [(1, "FROM a".into()), (2, "RUN b   c".into()), (4, "RUN d".into())]
        );
    }

    #[test]
    fn the_escape_directive_is_one_only_at_the_top() {
        let lines = parse("# escape=`\n# syntax=docker/dockerfile:1\nFROM a\nRUN c:\\ `\n d", "f").unwrap();
        assert_eq!((lines.escape, lines.instructions[1].rest.as_str()), ('`', "c:\\  d"));
        assert_eq!(parse("# a comment\n# escape=`\nFROM a", "f").unwrap().escape, '\\');
        assert_eq!(parse("FROM a\n# escape=`\n", "f").unwrap().escape, '\\');
        assert!(error("# escape=x\nFROM a").starts_with("Dockerfile:1: invalid escape"), "{}", error("# escape=x"));
        assert!(error("#escape=\\\n#escape=`\nFROM a").starts_with("Dockerfile:2: only one escape"));
    }

    #[test]
    fn flags_come_off_the_front() {
        let one = &parse("COPY --from=a --chown=\"b c\" --x -- --y z", "f").unwrap().instructions[0];
        assert_eq!(
            one.flags,
            [("from".into(), Some("a".into())), ("chown".into(), Some("b c".into())), ("x".into(), None)]
        );
        assert_eq!(one.rest, "--y z");
    }

    #[test]
    fn an_unknown_instruction_gets_its_line_and_the_nearest_one() {
        assert_eq!(
            error("FROM a\n\nENTRYPIONT b"),
            "Dockerfile:3: unknown instruction: ENTRYPIONT (did you mean ENTRYPOINT?)"
        );
        assert_eq!(error("FORM a"), "Dockerfile:1: unknown instruction: FORM (did you mean FROM?)");
        assert_eq!(error("FROM a\nqqqqqq b"), "Dockerfile:2: unknown instruction: qqqqqq");
        assert!(error("# only a comment\n").contains("cannot be empty"));
    }

    #[test]
    fn heredocs_are_refused_by_name_and_shifts_are_not() {
        assert!(error("FROM a\nRUN <<EOF\necho\nEOF").contains("Dockerfile:2: RUN: heredocs"));
        assert!(error("FROM a\nCOPY <<-\"EOF\" /x\n").contains("heredocs"));
        for fine in ["RUN echo $((1<<2))", "RUN cat <<<x", "RUN echo '<<EOF'", "RUN echo a<<2", "CMD cat <<EOF"] {
            assert!(parse(fine, "f").is_ok(), "{fine}");
        }
    }
}
