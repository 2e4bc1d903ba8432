//! Words on the page. The templates escape; here is what they can't know.

use maud::{Markup, PreEscaped, html};
use pulldown_cmark::{CowStr, Event, Parser};

/// Without control characters, which HTML does not allow and which programs may write.
pub fn clean(text: &str) -> String {
    let visible = |char: char| if char.is_control() { char::REPLACEMENT_CHARACTER } else { char };
    text.chars().map(visible).collect()
}

/// A lesson's Markdown. HTML in it is shown as it is written.
pub fn markdown(text: &str) -> Markup {
    let plain = |event| match event {
        Event::Html(html) | Event::InlineHtml(html) => Event::Text(CowStr::from(html.into_string())),
        other => other,
    };
    let mut html = String::new();
    pulldown_cmark::html::push_html(&mut html, Parser::new(text).map(plain));
    PreEscaped(html)
}

/// One line of Markdown, without a paragraph around it.
pub fn line(text: &str) -> Markup {
    let mut parts = text.split('`');
    html! {
        (parts.next().unwrap_or_default())
        @while let Some(code) = parts.next() {
            code { (code) }
            (parts.next().unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_gets_through() {
        assert_eq!(markdown("a <script>x</script>").0, "<p>a &lt;script&gt;x&lt;/script&gt;</p>\n");
        assert_eq!(line("`<b>` & c").0, "<code>&lt;b&gt;</code> &amp; c");
        assert_eq!(clean("\x1b[1m"), "\u{fffd}[1m");
    }
}
