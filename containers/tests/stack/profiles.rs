//! The services that run only when their profile is named.

use crate::{
    harness::{eventually, run},
    stack::Stack,
};
use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

const SERVICES: [&str; 4] = ["redis", "ftp", "website", "adminer"];

/// Names every profile in the stack's settings.
pub fn choose(stack: &Stack) {
    stack.set("COMPOSE_PROFILES", "redis,ftp,website,adminer");
    stack.set("REDIS_HOST", "redis");
    stack.set("FTP_PORT", &crate::stack::free_port().to_string());
}

pub fn all(stack: &Stack) {
    let ftp_port = stack.setting("FTP_PORT");
    stack.up();
    let stored = || stack.exec("redis", &["redis-cli", "dbsize"]).ok().parse::<u32>().unwrap();
    eventually(10, "the site's objects are in the cache", || (stack.status("/") == 200 && stored() > 10).then_some(()));

    assert!(stack.page("/website/").contains("inception-init"));
    assert!(stack.page("/adminer/").contains("Login - Adminer"));

    let upload = stack.file("upload.txt");
    fs::write(&upload, "by ftp\n").unwrap();
    let ftp = |arguments: &[&str], user: &str| {
        let mut command: Command = stack.place.command("curl");
        command.args(["--silent", "--insecure", "--max-time", "20", "--user", user]).args(arguments);
        run(command.arg(format!("ftp://127.0.0.1:{ftp_port}/wp-content/upload.txt")))
    };
    let user = format!("ftp-user:{}", stack.secret("ftp_password"));
    let file = upload.to_str().unwrap();
    eventually(10, "an upload", || (ftp(&["--ssl-reqd", "--upload-file", file], &user).code == 0).then_some(()));
    assert_eq!(stack.page("/wp-content/upload.txt"), "by ftp");
    assert_ne!(ftp(&[], &user).code, 0, "a password in the clear is refused");
    assert_ne!(ftp(&["--ssl-reqd"], "ftp-user:wrong").code, 0);
    assert_ne!(ftp(&["--ssl-reqd"], &format!("root:{}", stack.secret("ftp_password"))).code, 0);

    for service in SERVICES {
        assert_eq!(stack.exec(service, &["cat", "/proc/1/comm"]).ok(), "inception-init", "PID 1 of {service}");
        let began = Instant::now();
        stack.docker(&["stop", &stack.container(service)]).ok();
        assert!(began.elapsed() < Duration::from_secs(1), "{service} stopped after {:?}", began.elapsed());
    }
    // The site does without them.
    assert_eq!(stack.status("/"), 200);
    assert_eq!((stack.status("/website/"), stack.status("/adminer/")), (404, 404));
}
