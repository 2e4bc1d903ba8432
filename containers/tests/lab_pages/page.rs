//! `inception lab --html`

use crate::{
    harness::{INCEPTION, run},
    spoken::{headings_in_order, hear, nothing_is_nameless},
    webdriver::Browser,
};
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Raises at the first thing that the HTML standard calls a parse error.
const VALIDATOR: &str = "import html5lib, sys; html5lib.HTMLParser(strict=True).parse(open(sys.argv[1], 'rb').read())";

/// Fails where the file is no valid HTML.
pub fn validate(file: &Path) {
    run(Command::new("/usr/bin/python3").args(["-c", VALIDATOR]).arg(file)).ok();
}

/// Where photographs stay for a person to look at.
pub fn photograph(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("lab-{name}.png"))
}

/// Makes the page as wide as a device, light or dark.
pub fn put_on(browser: &Browser, width: u32, scheme: &str) {
    let device = json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600});
    browser.devtools("Emulation.setDeviceMetricsOverride", device);
    let scheme = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
    browser.devtools("Emulation.setEmulatedMedia", scheme);
}

/// Words that overlap others by more than a touch, in the pictures and out of them; things wider than the screen.
const UNREADABLE: &str = r#"
    const found = [];
    const wide = document.documentElement.scrollWidth;
    if (wide > innerWidth) found.push(`the page is ${wide} wide on ${innerWidth}`);
    for (const lane of document.querySelectorAll("svg.lane")) {
        const size = lane.getBoundingClientRect();
        const boxes = [...lane.querySelectorAll("text.name, text.tick, g.number circle, .network text, .layers text")].map((one) => {
            const box = one.getBoundingClientRect();
            if (box.left < size.left - 1 || one.matches("text.tick, circle, .network text, .layers text") && box.right > size.right + 1)
                found.push(`${one.textContent} leaves ${lane.ariaLabel}`);
            return [one, box];
        });
        boxes.forEach(([one, a], index) => {
            for (const [other, b] of boxes.slice(index + 1)) {
                const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
                const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
                if (across > 3 && down > 5) found.push(`${one.textContent} over ${other.textContent} in ${lane.ariaLabel}`);
            }
        });
    }
    return found;
"#;

#[test]
fn self_contained_valid_and_readable() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lab.html");
    let lessons = ["sigterm", "zombies", "orphans", "clean-up", "worker"];
    let mut command = Command::new(INCEPTION);
    command.arg("lab").args(lessons).args(["--yes", "--html"]).arg(&file);
    run(&mut command).ok();
    validate(&file);
    let text = fs::read_to_string(&file).unwrap();
    for foreign in ["http://", "https://", "src=", "@import", "<script", "<link"] {
        let found = text.find(foreign);
        assert_eq!(found.map(|at| &text[at..(at + 80).min(text.len())]), None, "{foreign}");
    }

    let browser = Browser::start(|program| Command::new(program), "lab.test");
    browser.go(&format!("file://{}", file.display()));
    let count =
        |css: &str| browser.script(&format!("return document.querySelectorAll({css:?}).length")).as_u64().unwrap();
    assert_eq!(count("svg.lane"), 6 * lessons.len() as u64);
    assert!(count("#zombies rect.bar.zombie") > 0 && count("#sigterm path.signal.dropped") >= 2);
    assert!(count("#sigterm path.head.forwarded") >= 4 && count("#clean-up circle.adopt") >= 1);
    // Lanes share the axis: what waits out the grace period ends far to the right of what does not.
    let end = |alternative: &str| {
        let script = format!(
            "const bar = document.querySelector('#sigterm-{alternative} rect.bar.alive'), lane = bar.closest('svg.lane'); \
             return (bar.getBoundingClientRect().right - lane.getBoundingClientRect().left) / lane.clientWidth"
        );
        browser.script(&script).as_f64().unwrap()
    };
    assert!(end("tini") < end("none") - 0.2 && end("tini") < end("sh") - 0.2, "{} {}", end("none"), end("tini"));
    for (width, scheme) in [(390, "light"), (390, "dark"), (1280, "light"), (1280, "dark")] {
        put_on(&browser, width, scheme);
        browser.photograph(&photograph(&format!("page-{width}-{scheme}")));
        assert_eq!(browser.script(UNREADABLE), json!([]), "{width} {scheme}");
        let paper = browser.script("return getComputedStyle(document.body).backgroundColor");
        let is_dark = paper.as_str().unwrap().contains("(20, 23, 27)");
        assert_eq!(is_dark, scheme == "dark", "{paper}");
    }
}

/// The lessons whose pictures are not of processes alone.
#[test]
fn networks_and_layers() {
    let folder = tempfile::tempdir().unwrap();
    let (file, drawing) = (folder.path().join("lab.html"), folder.path().join("lab.svg"));
    let mut command = Command::new(INCEPTION);
    command.args(["lab", "networks", "layers", "--yes", "--html"]).arg(&file).arg("--svg").arg(&drawing);
    run(&mut command).ok();
    validate(&file);
    let drawing = fs::read_to_string(&drawing).unwrap();
    assert!(drawing.matches("class=\"probe ").count() == 24 && drawing.contains("<desc"), "{drawing}");

    let browser = Browser::start(|program| Command::new(program), "lab.test");
    browser.go(&format!("file://{}", file.display()));
    let count =
        |css: &str| browser.script(&format!("return document.querySelectorAll({css:?}).length")).as_u64().unwrap();
    assert_eq!(count("#networks-bridge .probe.reached .tip"), 5);
    assert_eq!((count("#networks-bridge .cable"), count("#networks-none .cable")), (2, 1));
    assert_eq!(count("#networks-macvlan .cable"), 2);
    // No colour alone: what is no connection is dashed and ends in a cross.
    assert_eq!((count("#networks .probe.missed .cross"), count("#networks .probe.missed .tip")), (11, 0));
    assert_eq!((count("#networks-host .container.shared"), count(".container.shared")), (1, 1));
    assert_eq!((count("#layers rect.layer"), count("#layers rect.layer.config")), (6, 1));
    for (width, scheme) in [(390, "light"), (390, "dark"), (1280, "light"), (1280, "dark")] {
        put_on(&browser, width, scheme);
        browser.photograph(&photograph(&format!("network-{width}-{scheme}")));
        assert_eq!(browser.script(UNREADABLE), json!([]), "{width} {scheme}");
    }

    let heard = hear(&browser);
    headings_in_order(&heard);
    nothing_is_nameless(&heard);
    let heading = |level| heard.iter().filter(move |one| one.level == Some(level)).map(|one| one.name.as_str());
    assert_eq!(heading(1).collect::<Vec<_>>(), ["What PID 1 does"]);
    assert_eq!(heading(2).count(), 2);
    let described = |name: &str| {
        let found = heard.iter().find(|one| one.role == "image" && one.name == name);
        found.unwrap_or_else(|| panic!("no picture “{name}”")).description.clone()
    };
    let words = described("The network of web and probe-bridge, and who reached whom");
    for part in
        ["eth0 198.19.", " and its bridge inc-", "probe-bridge reached web at web:8080", "did not reach host at 127"]
    {
        assert!(words.contains(part), "{part}: {words}");
    }
    let words = described("The image's layers, the last instruction on top");
    assert!(words.contains("RUN rm: 0 KiB, adds 0 files, hides 1 file below; again: ✓ from cache"), "{words}");
    let lanes = heard.iter().find(|one| one.role == "image" && one.name.starts_with("host: one process in "));
    assert!(lanes.is_some_and(|one| one.description.starts_with("httpd[1], outside ")), "{lanes:?}");
}
