//! What people do with the site: log in, publish, comment, edit a page; in a real browser.

use crate::{harness::eventually, stack::Stack, webdriver::Browser};
use std::path::Path;

/// What was written, to be looked for later.
pub struct Written {
    /// The post's address.
    pub post: String,
    pub title: String,
    pub comment: String,
}

/// The administrator publishes a post, the second user comments on it, the page shows both; then the administrator edits
/// a page. Screenshots go to `pictures`.
pub fn publish_and_comment(stack: &Stack, pictures: &Path) -> Written {
    std::fs::create_dir_all(pictures).unwrap();
    let browser = Browser::start(|program| stack.place.command(program), &stack.domain);
    let title = format!("Written at {}", std::process::id());
    let comment = format!("Read by the second user, {}", std::process::id());

    browser.go(&stack.address("/"));
    browser.screenshot(&pictures.join("1-front-page.png"));
    log_in(stack, &browser, &stack.setting("SITE_OWNER"), &stack.secret("site_owner_password"));
    browser.screenshot(&pictures.join("2-dashboard.png"));

    browser.go(&stack.address("/wp-admin/post-new.php"));
    browser.find(".editor-post-title__input");
    close_welcome(&browser);
    browser.type_into(".editor-post-title__input", &title);
    browser.type_into(".editor-post-title__input", "\u{E007}Over TLS, from a container each.");
    browser.click(".editor-post-publish-panel__toggle");
    browser.click(".editor-post-publish-panel .editor-post-publish-button");
    browser.find(".post-publish-panel__postpublish");
    browser.screenshot(&pictures.join("3-published.png"));
    let post = browser.attribute(".post-publish-panel__postpublish-header a", "href");

    browser.forget_cookies();
    log_in(stack, &browser, &stack.setting("SITE_USER"), &stack.secret("site_user_password"));
    browser.go(&post);
    browser.type_into("#comment", &comment);
    browser.click("#commentform #submit");
    let both = eventually(20, "the page with the comment", || {
        let text = browser.text();
        (text.contains(&comment) && browser.find_now("#comment").is_some()).then_some(text)
    });
    assert!(both.contains(&title), "the page shows the post too:\n{both}");
    assert!(!both.contains("awaiting moderation"), "the comment is public:\n{both}");
    browser.screenshot(&pictures.join("4-post-and-comment.png"));

    browser.forget_cookies();
    browser.go(&post);
    let text = browser.text();
    assert!(text.contains(&title) && text.contains(&comment), "a visitor sees post and comment:\n{text}");

    log_in(stack, &browser, &stack.setting("SITE_OWNER"), &stack.secret("site_owner_password"));
    browser.go(&stack.address("/wp-admin/post.php?post=2&action=edit"));
    browser.find(".editor-post-title__input");
    close_welcome(&browser);
    browser.type_into(".editor-post-title__input", " edited");
    browser.click(".editor-post-publish-button");
    browser.find(".components-snackbar");
    browser.go(&stack.address("/?page_id=2"));
    assert!(browser.text().contains("edited"), "the edited page:\n{}", browser.text());
    browser.screenshot(&pictures.join("5-edited-page.png"));
    Written { post, title, comment }
}

fn log_in(stack: &Stack, browser: &Browser, user: &str, password: &str) {
    browser.go(&stack.address("/wp-login.php"));
    // The page moves the focus into the first field a moment after it is shown, which would swallow what is typed.
    browser.script("window.wp_attempt_focus = () => {}");
    std::thread::sleep(std::time::Duration::from_millis(400));
    browser.type_into("#user_login", user);
    browser.type_into("#user_pass", password);
    browser.click("#wp-submit");
    eventually(20, &format!("{user} is logged in (at {})", browser.address()), || {
        browser.find_now("#wpadminbar").map(|_| ())
    });
}

/// The editor greets a new user with a dialog.
fn close_welcome(browser: &Browser) {
    browser.script(
        "const preferences = wp.data.dispatch('core/preferences');
         preferences.set('core/edit-post', 'welcomeGuide', false);
         preferences.set('core/edit-post', 'fullscreenMode', false);",
    );
}
