//! How a configuration is written: lines of `key = value`, values as they stand or in quotes, and the kernel's command
//! line. What the keys mean is `settings`' business.

/// A line: its number from 1 on, its key and its value as it is written.
#[derive(Debug, PartialEq, Eq)]
pub struct Line<'a> {
    pub number: usize,
    pub key: &'a str,
    pub value: &'a [u8],
}

/// The lines of a file that say something; for one that has no key and `=`, its number and what is wrong.
pub fn lines(content: &[u8]) -> impl Iterator<Item = Result<Line<'_>, (usize, &'static str)>> {
    content.split(|byte| *byte == b'\n').enumerate().filter_map(|(index, line)| {
        let (number, line) = (index + 1, line.trim_ascii());
        if line.is_empty() || line[0] == b'#' {
            return None;
        }
        let wanted = (number, "`key = value` is wanted");
        Some(match line.iter().position(|byte| *byte == b'=') {
            Some(end) => match std::str::from_utf8(&line[..end]) {
                Ok(key) => Ok(Line { number, key: key.trim_ascii_end(), value: line[end + 1..].trim_ascii() }),
                Err(_) => Err(wanted),
            },
            None => Err(wanted),
        })
    })
}

/// A value that is one text: as it stands, or all of it in quotes.
pub fn text(value: &[u8]) -> Result<Vec<u8>, &'static str> {
    if value.first() != Some(&b'"') {
        return if value.contains(&0) { Err("a NUL, which nothing can take") } else { Ok(value.to_vec()) };
    }
    let (text, rest) = quoted(value)?;
    if rest.is_empty() { Ok(text) } else { Err("something follows the closing quote") }
}

/// A value that is several words, separated by blanks.
pub fn words(mut value: &[u8]) -> Result<Vec<Vec<u8>>, &'static str> {
    let mut words = Vec::new();
    loop {
        value = value.trim_ascii_start();
        if value.is_empty() {
            return Ok(words);
        }
        let (word, rest) = if value[0] == b'"' {
            quoted(value)?
        } else {
            let end = value.iter().position(u8::is_ascii_whitespace).unwrap_or(value.len());
            (text(&value[..end])?, &value[end..])
        };
        if rest.first().is_some_and(|byte| !byte.is_ascii_whitespace()) {
            return Err("a blank is wanted after the closing quote");
        }
        words.push(word);
        value = rest;
    }
}

/// The text from an opening quote to its closing one, and what follows.
fn quoted(value: &[u8]) -> Result<(Vec<u8>, &[u8]), &'static str> {
    let mut text = Vec::new();
    let mut at = 1;
    loop {
        let byte = *value.get(at).ok_or("the closing quote is missing")?;
        at += 1;
        match byte {
            b'"' => return Ok((text, &value[at..])),
            b'\\' => {
                let escape = *value.get(at).ok_or("the closing quote is missing")?;
                at += 1;
                text.push(match escape {
                    b'"' | b'\\' => escape,
                    b'n' => b'\n',
                    b't' => b'\t',
                    b'x' => {
                        let digits = value.get(at..at + 2).and_then(|digits| std::str::from_utf8(digits).ok());
                        at += 2;
                        let wrong = "two hexadecimal digits are wanted after \\x, and not 00";
                        digits
                            .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
                            .and_then(|digits| u8::from_str_radix(digits, 16).ok())
                            .filter(|byte| *byte != 0)
                            .ok_or(wrong)?
                    }
                    _ => return Err("after \\ only \", \\, n, t and xNN are known"),
                });
            }
            0 => return Err("a NUL, which nothing can take"),
            _ => text.push(byte),
        }
    }
}

/// The words of the kernel's command line, as the kernel itself splits them: blanks between quotes don't separate, and
/// quotes around a word or around a value are taken off (next_arg in the kernel's lib/cmdline.c). Those before a `--`,
/// and those after it.
pub fn kernel_words(line: &[u8]) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let (mut before, mut after) = (Vec::new(), Vec::new());
    let mut is_after = false;
    let mut rest = line.trim_ascii();
    while !rest.is_empty() {
        let mut in_quotes = false;
        let is_end = |byte: &u8| {
            in_quotes ^= *byte == b'"';
            byte.is_ascii_whitespace() && !in_quotes
        };
        let end = rest.iter().position(is_end).unwrap_or(rest.len());
        let word = unquoted(&rest[..end]);
        rest = rest[end..].trim_ascii_start();
        match is_after {
            false if word == b"--" => is_after = true,
            false => before.push(word),
            true => after.push(word),
        }
    }
    (before, after)
}

fn unquoted(word: &[u8]) -> Vec<u8> {
    let strip = |part: &[u8]| match part.strip_prefix(b"\"") {
        Some(inner) => inner.strip_suffix(b"\"").unwrap_or(inner).to_vec(),
        None => part.to_vec(),
    };
    if word.first() == Some(&b'"') {
        return strip(word);
    }
    match word.iter().position(|byte| *byte == b'=') {
        Some(equals) => [&word[..=equals], strip(&word[equals + 1..]).as_slice()].concat(),
        None => word.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_keys() {
        let file = b"# a remark\n\nhostname =  web \narg=a = b\nnonsense\n  env = A=\"x\"\r\n\xff = 1\n=\n";
        let read: Vec<_> = lines(file).collect();
        let line = |number, key, value| Ok(Line { number, key, value });
        let wrong = |number| Err((number, "`key = value` is wanted"));
        let wanted = [
            line(3, "hostname", &b"web"[..]),
            line(4, "arg", b"a = b"),
            wrong(5),
            line(6, "env", b"A=\"x\""),
            wrong(7),
            line(8, "", b""),
        ];
        assert_eq!(read, wanted);
    }

    #[test]
    fn values() {
        assert_eq!(text(b"daemon off;").unwrap(), b"daemon off;");
        assert_eq!(text(br#""a \"b\"\\\n\t\xff ""#).unwrap(), b"a \"b\"\\\n\t\xff ");
        for wrong in [&b"\"a"[..], b"\"a\" b", b"\"\\", b"\"\\q\"", b"\"\\x0\"", b"\"\\x00\"", b"\"\\x+1\"", b"a\0b"] {
            assert!(text(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(words(b" a  \"b c\"\td").unwrap(), [&b"a"[..], b"b c", b"d"]);
        assert!(words(b"").unwrap().is_empty());
        assert!(words(b"\"a\"b").is_err() && words(b"a \"b").is_err());
    }

    #[test]
    fn the_kernels_command_line() {
        let line =
            b"quiet inception.mount=\"data /data virtiofs\" \"x y=z\" ro -- nginx -g \"daemon off;\" -- a=\"b c\"\n";
        let (before, after) = kernel_words(line);
        assert_eq!(before, [&b"quiet"[..], b"inception.mount=data /data virtiofs", b"x y=z", b"ro"]);
        assert_eq!(after, [&b"nginx"[..], b"-g", b"daemon off;", b"--", b"a=b c"]);
        assert_eq!(kernel_words(b""), (vec![], vec![]));
    }
}
