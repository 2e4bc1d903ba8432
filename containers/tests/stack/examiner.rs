//! The rules of the exercise that the stack descends from, checked as an examiner would: with grep, curl, openssl and the
//! docker client.

use crate::{
    harness::run,
    stack::{Stack, repository},
};
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const SERVICES: [&str; 3] = ["nginx", "wordpress", "mariadb"];

/// What can be seen in the files alone.
pub fn files() {
    let folder = repository().join("Dockerfiles");
    let mut dockerfiles = 0;
    for file in files_below(&folder) {
        let name = file.strip_prefix(&folder).unwrap().display().to_string();
        if name == ".env" || name.starts_with("secrets/") {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        let code: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.starts_with('#')).collect();
        for line in &code {
            for word in [
                "tail -f",
                "sleep infinity",
                "while true",
                "while :",
                "--link",
                "network_mode",
                "links:",
                "network: host",
            ] {
                assert!(!line.contains(word), "{name}: {word:?} in: {line}");
            }
            let command = ["CMD", "ENTRYPOINT", "entrypoint:", "command:"].iter().any(|key| line.starts_with(key));
            assert!(!(command && line.contains("bash")), "{name}: bash in: {line}");
            assert!(!line.contains(":latest"), "{name}: latest in: {line}");
            let background = line.ends_with(" &") || line.contains("nohup ") || line.contains("setsid ");
            assert!(!background, "{name}: something is left in the background: {line}");
        }
        if name.ends_with("Dockerfile") && name != "init/Dockerfile" {
            dockerfiles += 1;
            for base in code.iter().filter_map(|line| line.strip_prefix("FROM ")) {
                assert!(
                    base == "debian:bookworm-slim" || base.starts_with("inception-init:0."),
                    "{name}: a base other than Debian's penultimate stable: {base}"
                );
            }
            let secret = code.iter().find(|line| line.to_uppercase().contains("PASSWORD"));
            assert!(secret.is_none(), "{name}: a password in: {secret:?}");
        }
    }
    assert!(dockerfiles >= SERVICES.len(), "one Dockerfile a service");
    let tracked = run(Command::new("git").arg("-C").arg(repository()).args([
        "ls-files",
        "Dockerfiles/.env",
        "Dockerfiles/secrets",
    ]));
    assert_eq!(tracked.ok(), "", "settings and secrets are in git");
}

/// What can be seen of a running stack.
pub fn running(stack: &Stack) {
    entry(stack);
    tls(stack);
    site(stack);
    containers(stack);
    volumes(stack);
    database(stack);
    secrets(stack);
}

/// nginx is the only way in, and speaks no plain HTTP.
fn entry(stack: &Stack) {
    for service in SERVICES {
        let ports = stack.inspect(service, "{{json .HostConfig.PortBindings}}");
        let published = ports.contains("HostPort");
        assert_eq!(published, service == "nginx", "{service} publishes {ports}");
        if published {
            assert!(ports.contains("443/tcp") && ports.matches("HostPort").count() == 1, "one port, 443: {ports}");
        }
    }
    let plain = run(stack.place.command("curl").args(["--silent", "--max-time", "5", "--output", "/dev/null"]).args([
        "--write-out",
        "%{http_code}",
        "--resolve",
        &format!("{}:80:127.0.0.1", stack.domain),
        &format!("http://{}/", stack.domain),
    ]));
    assert_ne!(plain.code, 0, "http:// is answered on port 80 with {}", plain.stdout);
    let plain = run(stack.place.command("curl").args(["--silent", "--max-time", "5", "--output", "/dev/null"]).args([
        "--write-out",
        "%{http_code}",
        &format!("http://127.0.0.1:{}/", stack.port),
    ]));
    assert_eq!(plain.stdout, "400", "plain HTTP on the TLS port is refused");
}

fn tls(stack: &Stack) {
    let handshake = |version: &str| {
        // The client's own security level would refuse old versions before the server has a say.
        let ran = run(stack
            .place
            .command("openssl")
            .args(["s_client", "-connect", &format!("127.0.0.1:{}", stack.port), "-servername", &stack.domain])
            .args([version, "-cipher", "DEFAULT@SECLEVEL=0"]));
        (ran.code, ran.stdout + &ran.stderr)
    };
    for version in ["-tls1_2", "-tls1_3"] {
        let (code, said) = handshake(version);
        assert!(code == 0 && said.contains("Server certificate"), "{version}: {said}");
        assert!(said.contains(&format!("CN = {}", stack.domain)), "the certificate names the domain: {said}");
    }
    for version in ["-tls1", "-tls1_1"] {
        let (code, said) = handshake(version);
        assert!(
            code != 0 && said.contains("alert protocol version"),
            "{version} must be refused by the server: {said}"
        );
    }
}

fn site(stack: &Stack) {
    let front = stack.page("/");
    assert!(front.contains(&format!("<title>{}</title>", stack.setting("SITE_TITLE"))), "the front page:\n{front}");
    assert!(!front.contains("install.php"), "the front page is the install page");
    assert!(stack.page("/wp-admin/install.php").contains("already installed"));
    for (path, status) in [
        ("/wp-config.php", 403),
        ("//wp-config.php", 403),
        ("/wp-config.php.bak", 403),
        ("/.htaccess", 403),
        ("/wp-content/uploads/x.php", 403),
        ("/nothing-here", 404),
        ("/nothing-here.php", 404),
        ("/wp-includes/css/buttons.min.css", 200),
        ("/wp-login.php", 200),
        ("/wp-json/", 200),
    ] {
        assert_eq!(stack.status(path), status, "{path}");
    }
}

fn containers(stack: &Stack) {
    for service in SERVICES {
        let image = stack.inspect(service, "{{.Config.Image}}");
        let name = image.trim_start_matches("localhost/").trim_start_matches("docker.io/library/");
        assert!(name.starts_with(&format!("{service}:")) && !name.ends_with(":latest"), "{service} runs {image}");
        let init = stack.exec(service, &["cat", "/proc/1/comm"]).ok();
        assert_eq!(init, "inception-init", "PID 1 of {service}");
        let same = "[ $(readlink /proc/self/ns/net) = $(readlink /proc/1/ns/net) ]";
        assert_eq!(stack.exec(service, &["sh", "-c", same]).code, 0, "exec is outside of {service}'s network");
        assert_eq!(stack.inspect(service, "{{json .HostConfig.Links}}").replace("[]", "null"), "null");
        let mode = stack.inspect(service, "{{.HostConfig.NetworkMode}}");
        assert!(!["host", "default", "none"].contains(&mode.as_str()), "{service}: network {mode}");
        let networks =
            stack.inspect(service, "{{range $name, $network := .NetworkSettings.Networks}}{{$name}} {{end}}");
        assert_eq!(networks.trim(), format!("{}_inception", stack.project), "{service}");
        let restart = stack.inspect(service, "{{.HostConfig.RestartPolicy.Name}}");
        assert!(["always", "unless-stopped"].contains(&restart.as_str()), "{service}: restart {restart}");
    }
    // Each does its own duty only.
    let absent = |service: &str, program: &str| {
        assert_ne!(
            stack.exec(service, &["sh", "-c", &format!("command -v {program}")]).code,
            0,
            "{program} in {service}"
        );
    };
    absent("wordpress", "nginx");
    absent("wordpress", "mariadbd");
    absent("mariadb", "nginx");
    absent("nginx", "php-fpm8.2");
}

fn volumes(stack: &Stack) {
    for (volume, folder) in [("database", "database"), ("site", "site")] {
        let said = stack.docker(&["volume", "inspect", &format!("{}_{volume}", stack.project)]).ok();
        let path = stack.data().join(folder);
        assert!(said.contains(&path.display().to_string()), "volume {volume} is not at {path:?}: {said}");
    }
    assert!(stack.data().join("database/mysql").is_dir(), "the database is in the data folder");
    assert!(stack.data().join("site/wp-config.php").is_file(), "the site is in the data folder");
}

/// The database as root inside its container sees it, and as the service's user does from another one.
fn database(stack: &Stack) {
    let query = |sql: &str| stack.exec("mariadb", &["mariadb", "--batch", "--skip-column-names", "-e", sql]).ok();
    let posts: u32 = query("SELECT COUNT(*) FROM wordpress.wp_posts").parse().unwrap();
    assert!(posts > 0, "the database is empty");
    let users = query("SELECT user_login FROM wordpress.wp_users ORDER BY ID");
    assert_eq!(users, format!("{}\n{}", stack.setting("SITE_OWNER"), stack.setting("SITE_USER")));
    let administrators = query(
        "SELECT user_login FROM wordpress.wp_users JOIN wordpress.wp_usermeta ON ID = user_id \
         WHERE meta_key = 'wp_capabilities' AND meta_value LIKE '%administrator%'",
    );
    assert_eq!(administrators, stack.setting("SITE_OWNER"));
    assert!(!administrators.to_lowercase().contains("admin"), "{administrators}");
    let accounts = query("SELECT CONCAT(User, '@', Host) FROM mysql.global_priv ORDER BY 1");
    assert_eq!(accounts, "mariadb.sys@localhost\nroot@localhost\nwordpress@%", "no account without a purpose");
    let stranger = stack
        .exec("mariadb", &["setpriv", "--reuid=www-data", "--clear-groups", "mariadb", "-u", "root", "-e", "SELECT 1"]);
    assert_ne!(stranger.code, 0, "root's account is open to every user in the container");
}

/// No password anywhere but in its file and in the process that needs it.
fn secrets(stack: &Stack) {
    let secrets = stack.secrets();
    assert_eq!(secrets.len(), 5);
    let clean = |what: &str, text: &str| {
        for secret in &secrets {
            assert!(!text.contains(secret.as_str()), "a password in {what}");
        }
    };
    use std::os::unix::fs::PermissionsExt;
    for file in fs::read_dir(stack.file("secrets")).unwrap() {
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", file.path());
    }
    clean(".env", &fs::read_to_string(stack.file(".env")).unwrap());
    let again = stack.setup(&[]);
    clean("setup's output", &format!("{}{}", again.stdout, again.stderr));
    clean("the summary", &run(&mut Command::new(stack.file("summary"))).ok());
    for service in SERVICES {
        let container = stack.container(service);
        let image = stack.inspect(service, "{{.Image}}");
        clean("a container's inspect", &stack.docker(&["inspect", &container]).ok());
        clean("an image's inspect", &stack.docker(&["image", "inspect", &image]).ok());
        clean("an image's history", &stack.docker(&["history", "--no-trunc", &image]).ok());
        let logs = stack.docker(&["logs", &container]);
        clean("a log", &format!("{}{}", logs.stdout, logs.stderr));
        clean(
            "an environment",
            &stack.exec(service, &["sh", "-c", "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline"]).stdout,
        );
        let differences = stack.docker(&["diff", &container]);
        assert!(differences.code != 0 || !differences.stdout.contains("settings.php"), "the settings are on disk");
        assert!(!image_contains(stack, &image, &secrets), "a password in a layer of {service}");
    }
    let site = fs::read_to_string(stack.data().join("site/wp-config.php")).unwrap();
    clean("wp-config.php", &site);
    assert!(site.matches("define('").count() >= 9, "wp-config.php has its salts: {site}");
    // The rule above can fail: the secrets are where they should be.
    let settings = stack.exec("wordpress", &["cat", "/run/wordpress/settings.php"]).ok();
    assert!(settings.contains(&stack.secret("db_password")));
    let stranger =
        stack.exec("wordpress", &["setpriv", "--reuid=nobody", "--clear-groups", "cat", "/run/wordpress/settings.php"]);
    assert_ne!(stranger.code, 0, "everybody in the container can read the settings");
}

/// Looks for the secrets in everything that `docker save` writes.
fn image_contains(stack: &Stack, image: &str, secrets: &[String]) -> bool {
    let mut patterns = tempfile::NamedTempFile::new().unwrap();
    patterns.write_all(secrets.join("\n").as_bytes()).unwrap();
    let mut save = Command::new("docker")
        .env("DOCKER_HOST", &stack.host)
        .args(["save", image])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut grep = Command::new("grep")
        .args(["--text", "--fixed-strings", "--count", "--file"])
        .arg(patterns.path())
        .stdin(save.stdout.take().unwrap())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut count = String::new();
    BufReader::new(grep.stdout.take().unwrap()).read_line(&mut count).unwrap();
    let _ = grep.wait();
    assert!(save.wait().unwrap().success(), "docker save {image}");
    count.trim() != "0"
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files
}
