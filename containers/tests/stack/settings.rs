//! `Dockerfiles/setup` and `Dockerfiles/summary`: first use, second use, and what they refuse.

use crate::harness::{Ran, run};
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
};

/// The two scripts in a folder of their own, with a home of their own.
struct Copy {
    folder: tempfile::TempDir,
}

impl Copy {
    fn new() -> Copy {
        let folder = tempfile::tempdir().unwrap();
        let source = crate::stack::repository().join("Dockerfiles");
        for name in ["setup", "summary", ".env.example"] {
            // Not by fs::copy: a child that another test forks at that moment has the file open for writing for a moment,
            // and a file that is open so can't be run (ETXTBSY).
            run(Command::new("cp").arg(source.join(name)).arg(folder.path())).ok();
        }
        Copy { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, script: &str, environment: &[(&str, &str)]) -> Ran {
        let mut command = Command::new(self.path(script));
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", self.folder.path());
        run(command.envs(environment.iter().copied()))
    }

    fn settings(&self) -> String {
        fs::read_to_string(self.path(".env")).unwrap()
    }

    fn secrets(&self) -> Vec<(PathBuf, String)> {
        let mut files: Vec<_> = fs::read_dir(self.path("secrets")).unwrap().map(|file| file.unwrap().path()).collect();
        files.sort();
        files.into_iter().map(|file| (file.clone(), fs::read_to_string(file).unwrap())).collect()
    }
}

#[test]
fn first_use_makes_settings_passwords_and_folders() {
    let copy = Copy::new();
    let said = copy.run("setup", &[]).ok();
    let data = copy.path("data/inception");
    assert!(copy.settings().contains(&format!("\nDATA_DIR={}\n", data.display())), "{}", copy.settings());
    assert!(copy.settings().contains("\nDOMAIN=inception.localhost\n"));
    for folder in ["database", "site", "certificate"] {
        assert!(data.join(folder).is_dir(), "{folder}");
    }
    let secrets = copy.secrets();
    assert_eq!(secrets.len(), 5);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&copy.path("secrets")), 0o700);
    for (file, secret) in &secrets {
        assert_eq!(mode(file), 0o600, "{file:?}");
        assert_eq!(secret.trim_end().len(), 24, "{file:?}");
        assert!(!said.contains(secret.trim_end()));
        assert_eq!(secrets.iter().filter(|(_, other)| other == secret).count(), 1, "each has its own password");
    }
    assert_ne!(
        secrets[0].1,
        {
            let other = Copy::new();
            other.run("setup", &[]).ok();
            other.secrets()[0].1.clone()
        },
        "random"
    );
}

#[test]
fn second_use_changes_nothing() {
    let copy = Copy::new();
    copy.run("setup", &[]).ok();
    fs::write(copy.path(".env"), copy.settings().replace("SITE_TITLE=Inception", "SITE_TITLE=\"My own, & mine\""))
        .unwrap();
    let (settings, secrets) = (copy.settings(), copy.secrets());
    let inode = fs::metadata(copy.path(".env")).unwrap().ino();
    assert_eq!(copy.run("setup", &[]).ok(), "");
    assert_eq!((copy.settings(), copy.secrets()), (settings, secrets));
    assert_eq!(fs::metadata(copy.path(".env")).unwrap().ino(), inode);

    // What a kill left out is made, the rest stays.
    let (lost, _) = copy.secrets().remove(2);
    fs::write(&lost, "").unwrap();
    let before = copy.secrets();
    copy.run("setup", &[]).ok();
    for ((file, old), (_, new)) in before.iter().zip(copy.secrets()) {
        assert_eq!(*file == lost, *old != new, "{file:?}");
    }
}

#[test]
fn settings_in_the_environment_are_written_down() {
    let copy = Copy::new();
    let data = copy.path("elsewhere");
    copy.run("setup", &[("LOGIN", "wil"), ("HTTPS_PORT", "8443"), ("DATA_DIR", data.to_str().unwrap())]).ok();
    for line in ["DOMAIN=wil.42.fr", "HTTPS_PORT=8443", &format!("DATA_DIR={}", data.display())] {
        assert!(copy.settings().lines().any(|own| own == line), "{line} in {}", copy.settings());
    }
    assert!(data.join("database").is_dir());
    let said = copy.run("summary", &[]).ok();
    assert!(said.contains("https://wil.42.fr:8443/") && said.contains("127.0.0.1 wil.42.fr"), "{said}");
    assert!(said.contains("owner") && said.contains("secrets/site_owner_password"), "{said}");

    copy.run("setup", &[("DOMAIN", "site.localhost"), ("HTTPS_PORT", "443")]).ok();
    let said = copy.run("summary", &[]).ok();
    assert!(said.contains("https://site.localhost/") && !said.contains("/etc/hosts"), "{said}");
}

#[test]
fn bad_settings_are_refused_by_name() {
    for (name, value, message) in [
        ("SITE_OWNER", "superAdmin", "must not contain \"admin\""),
        ("SITE_OWNER", "reader", "are the same"),
        ("DOMAIN", "a b", "not a host name"),
        ("DOMAIN", "a/../b", "not a host name"),
        ("HTTPS_PORT", "https", "not a port"),
        ("HTTPS_PORT", "0", "not a port"),
        ("HTTPS_PORT", "65536", "not a port"),
        ("DATA_DIR", "data", "must begin with /"),
        ("SITE_TITLE", "two\nlines", "not possible here"),
        ("SITE_TITLE", "\"quoted\"", "not possible here"),
    ] {
        let copy = Copy::new();
        copy.run("setup", &[(name, value)]).fails(1, message);
        assert!(!copy.path("secrets").exists(), "{name}={value} was refused too late");
        // And is not written down.
        copy.run("setup", &[]).ok();
    }
}

#[test]
fn a_database_of_other_passwords_is_told_before_anything_is_made() {
    let copy = Copy::new();
    fs::create_dir_all(copy.path("data/inception/database/mysql")).unwrap();
    copy.run("setup", &[]).fails(1, "holds a database whose passwords are not in");
    assert!(!copy.path("secrets").exists());
    // Elsewhere there is none; and with the passwords it is the clone's own.
    let elsewhere = copy.path("elsewhere");
    copy.run("setup", &[("DATA_DIR", elsewhere.to_str().unwrap())]).ok();
    copy.run("setup", &[("DATA_DIR", copy.path("data/inception").to_str().unwrap())]).ok();
}
