//! The builder: what the docker client, docker-compose and plain HTTP get out of `POST /build`, beside a real dockerd.

use crate::{
    harness::{BUSYBOX, Engine, Ran, busybox_archive, eventually, run, run_with_input},
    peers::{Kind, Peer},
};
use nix::sys::signal::{Signal, kill};
use serde_json::Value;
use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

/// Writes a context: paths and texts; `Dockerfile` among them.
fn context(folder: &Path, files: &[(&str, &str)]) {
    for (path, text) in files {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

/// `docker build` without a network on a folder below the engine's own.
fn build(engine: &Engine, folder: &str, options: &[&str]) -> Ran {
    let path = engine.path(folder);
    let mut words = vec!["build", "--network", "none"];
    words.extend(options);
    words.push(path.to_str().unwrap());
    engine.docker(&words)
}

/// A Dockerfile without a context.
fn build_text(engine: &Engine, text: &str, options: &[&str]) -> Ran {
    let mut words = vec!["build", "--network", "none"];
    words.extend(options);
    words.push("-");
    engine.docker_with_input(&words, text.as_bytes())
}

fn inspect(engine: &Engine, image: &str) -> Value {
    serde_json::from_str::<Value>(&engine.docker(&["image", "inspect", image]).ok()).unwrap()[0].take()
}

/// Every file of an image, as one of its own containers sees them.
fn files(docker: impl Fn(&[&str]) -> Ran, image: &str) -> String {
    let list = "find / -xdev ! -path '/proc*' ! -path '/sys*' ! -path '/dev*' ! -path /.dockerenv \
                ! -path /etc/hosts ! -path /etc/hostname ! -path /etc/resolv.conf ! -path /etc/mtab \
                -exec stat -c '%n %F %a %u:%g %h' {} + | grep -v '^/ ' | sed '/directory/s/ [0-9]*$//' | sort";
    let show = format!("{list}; cat /made/* 2>/dev/null; true");
    docker(&["run", "--rm", "--network", "none", "--user", "0", "--entrypoint", "/bin/sh", image, "-c", &show]).ok()
}

/// What a container gets from an image.
fn config(inspected: &str) -> Value {
    let mut value: Value = serde_json::from_str::<Value>(inspected).unwrap()[0]["Config"].take();
    let object = value.as_object_mut().unwrap();
    // What says nothing is written by one engine and left out by the other.
    object.retain(|_, value| !(value.is_null() || *value == false || *value == "" || *value == serde_json::json!([])));
    object.remove("Image");
    value
}

const COPIES: &str = r#"
FROM busybox:test
RUN ln -s /run /var/run && mkdir -p /run /made && chmod 700 /home && echo app:x:77:78::/:/bin/sh >>/etc/passwd && echo app:x:79: >>/etc/group
WORKDIR /made
COPY one.txt two.txt ./
COPY one.txt renamed
COPY one.txt /var/run/through-a-link
COPY --chown=app tree owned/
COPY --chown=33:44 one.txt by-number
COPY --chown=www:extra one.txt /deep/er/by-name
COPY tree /made/tree
COPY t*/in* wild/
COPY ["one.txt", "with space.txt", "/made/json/"]
COPY . /all
ADD packed.tgz /unpacked
ADD one.txt packed.tgz /added/
COPY packed.tgz /kept/
COPY tree/link /followed
"#;

const SETTINGS: &str = r#"
# escape=`
ARG BASE=busybox
FROM ${BASE}:test AS first
ARG BASE
ENV PLAIN=1 QUOTED="two words" ESCAPED=a` b REF=$PLAIN
ENV OLD form of a value
ENV REF=${REF}${PLAIN:+set}${NONE:-unset} PATH=/opt/bin:$PATH
LABEL one=1 two="second label" three=$PLAIN
EXPOSE 80 443/tcp 53/udp 9000-9002
VOLUME /data /$PLAIN/more
VOLUME ["/listed with blank"]
WORKDIR /work
WORKDIR in/side
USER www:extra
STOPSIGNAL SIGQUIT
HEALTHCHECK --interval=5s --timeout=3s --start-period=1m --retries=4 CMD test -e / `
  || exit 1
SHELL ["/bin/busybox", "sh", "-c"]
ENTRYPOINT exec entry
CMD ["a", "b c"]
ONBUILD RUN echo later
"#;

const RUNS: &str = r#"
FROM busybox:test AS base
ARG GIVEN=default
ARG UNSET
ENV KEPT=1
RUN mkdir /made && echo "$GIVEN $UNSET $KEPT $HOME $(pwd) $(id -u)" > /made/env
RUN ["/bin/sh", "-c", "echo $0 json > /made/json"]
RUN rm /bin/zcat && rm -r /usr/bin && mkdir /usr/bin && touch /usr/bin/new && mv /etc/group /etc/groups
USER www
WORKDIR /tmp
RUN id > /tmp/id && touch /tmp/mine && ln -s /tmp/mine /tmp/soft && ln /tmp/mine /tmp/hard
USER root
RUN mkdir -p /vol/kept && touch /vol/kept/before
VOLUME /vol
RUN touch /vol/dropped && rm /vol/kept/before; mkdir /vol/also
SHELL ["/bin/sh", "-ec"]
RUN false || true; \
    # a comment between
    echo shell > /made/shell
FROM scratch
COPY --from=0 / /
COPY --from=base /made /copied
COPY --from=busybox:test /etc/passwd /copied/
COPY --chown=5 --from=base /tmp/mine /copied/chowned
"#;

const PARENT: &str = r#"
FROM busybox:test
CMD parent
ONBUILD ARG X=5
ONBUILD COPY one.txt /made/
ONBUILD RUN echo triggered $X >/made/trigger
ONBUILD WORKDIR /made/here
"#;

const CHILD: &str = r#"
ARG TAG=latest
ARG OUTER=outer
FROM parent:${TAG} AS child
ARG OUTER
ARG OUTER2=${OUTER}${OUTER:+2}
ENV OUTER3=${OUTER2:-no}${NONE:-no}
RUN echo $OUTER $OUTER2 $OUTER3 $X $(pwd) >/made/child
COPY --from=busybox:test --chown=44:44 /bin/c[ap]* /etc/pass* /made/bin/
FROM child
ENTRYPOINT ["entry"]
RUN echo "$OUTER,$OUTER2,$OUTER3,$X" >/made/grandchild
"#;

fn fill(folder: &Path, dockerfile: &str) {
    context(
        folder,
        &[
            ("Dockerfile", dockerfile.trim_start()),
            ("one.txt", "1\n"),
            ("two.txt", "2\n"),
            ("with space.txt", "3\n"),
            ("tree/inner/leaf", "4\n"),
            ("tree/indeed", "5\n"),
            ("left/out/x", "6\n"),
            ("left/out/y", "7\n"),
            (".dockerignore", "# comment\nleft/out\n!left/out/y\n*.tmp\n"),
            ("x.tmp", "8\n"),
        ],
    );
    symlink("inner/leaf", folder.join("tree/link")).unwrap();
    fs::set_permissions(folder.join("tree/indeed"), fs::Permissions::from_mode(0o751)).unwrap();
    run(Command::new("tar").arg("-C").arg(folder.join("tree")).arg("-czf").arg(folder.join("packed.tgz")).arg("."))
        .ok();
}

#[test]
fn images_are_those_that_dockerd_builds() {
    let ours = Engine::with_busybox();
    let theirs = Peer::start(Kind::Docker);
    let archive = theirs.path("busybox.tar");
    busybox_archive(&archive);
    theirs.docker(&["import", archive.to_str().unwrap(), BUSYBOX]).ok();
    for (name, dockerfile) in
        [("copies", COPIES), ("settings", SETTINGS), ("runs", RUNS), ("parent", PARENT), ("child", CHILD)]
    {
        let folder = ours.path(name);
        fill(&folder, dockerfile);
        let words = ["build", "--network", "none", "--build-arg", "GIVEN=given", "-t", name, folder.to_str().unwrap()];
        ours.docker(&words).ok();
        theirs.docker(&words).ok();
        let both = [ours.docker(&["image", "inspect", name]).ok(), theirs.docker(&["image", "inspect", name]).ok()];
        assert_eq!(config(&both[0]), config(&both[1]), "{name}");
        let (our_files, their_files) =
            (files(|words| ours.docker(words), name), files(|words| theirs.docker(words), name));
        assert!(our_files.lines().count() > 100, "{our_files}");
        for (ours, theirs) in our_files.lines().zip(their_files.lines()) {
            assert_eq!(ours, theirs, "{name}");
        }
        assert_eq!(our_files, their_files, "{name}");
    }
}

#[test]
fn a_run_leaves_only_what_it_made() {
    let engine = Engine::with_busybox();
    // A root without any folder to mount on.
    context(
        &engine.path("bare"),
        &[(
            "Dockerfile",
            "FROM scratch\nCOPY --from=busybox:test /bin /bin\nRUN true\nRUN cat /etc/hosts >/made; touch /etc/own\n",
        )],
    );
    build(&engine, "bare", &["-t", "bare"]).ok();
    let layers = inspect(&engine, "bare")["RootFS"]["Layers"].as_array().unwrap().len();
    assert_eq!(layers, 2, "RUN true changes nothing");
    assert_eq!(last_layer(&engine, "bare"), ["etc/", "etc/own", "made"]);

    // A link in place of a file to mount on.
    context(
        &engine.path("linked"),
        &[("Dockerfile", "FROM busybox:test\nCOPY etc /etc\nRUN cat /etc/resolv.conf >/made\n")],
    );
    fs::create_dir(engine.path("linked/etc")).unwrap();
    symlink("../run/systemd/resolve/stub-resolv.conf", engine.path("linked/etc/resolv.conf")).unwrap();
    build(&engine, "linked", &["-t", "linked"]).ok();
    assert_eq!(last_layer(&engine, "linked"), ["made"]);
}

/// The names in an image's topmost layer.
fn last_layer(engine: &Engine, image: &str) -> Vec<String> {
    let folder = engine.path(&format!("saved-{image}"));
    fs::create_dir(&folder).unwrap();
    let archive = folder.join("archive.tar");
    engine.docker(&["save", "-o", archive.to_str().unwrap(), image]).ok();
    run(Command::new("tar").arg("-C").arg(&folder).arg("-xf").arg(&archive)).ok();
    let manifest: Value = serde_json::from_slice(&fs::read(folder.join("manifest.json")).unwrap()).unwrap();
    let last = manifest[0]["Layers"].as_array().unwrap().last().unwrap().as_str().unwrap();
    run(Command::new("tar").arg("-tf").arg(folder.join(last))).ok().lines().map(String::from).collect()
}

#[test]
fn the_cache_knows_what_matters() {
    let mut engine = Engine::with_busybox();
    let dockerfile = "FROM busybox:test AS one\nARG A=1\nCOPY data /data\nRUN echo $A >/a\n\
                      FROM busybox:test\nCOPY --from=one /data /a /\nLABEL x=y\n";
    let folder = engine.path("cached");
    context(&folder, &[("Dockerfile", dockerfile), ("data/file", "1"), ("data/other", "2"), ("beside", "3")]);
    let hits = |ran: Ran| ran.ok().matches("Using cache").count();
    let id = |engine: &Engine| inspect(engine, "cached")["Id"].as_str().unwrap().to_owned();
    assert_eq!(hits(build(&engine, "cached", &["-t", "cached"])), 0);
    let first = id(&engine);
    // Times and files that no instruction names are of no account.
    fs::File::options()
        .write(true)
        .open(folder.join("data/file"))
        .unwrap()
        .set_modified(std::time::UNIX_EPOCH)
        .unwrap();
    fs::write(folder.join("beside"), "4").unwrap();
    let begun = Instant::now();
    assert_eq!(hits(build(&engine, "cached", &["-t", "cached"])), 5);
    assert!(begun.elapsed().as_millis() < 1000, "{:?}", begun.elapsed());
    assert_eq!(id(&engine), first);
    engine.end_daemon(Signal::SIGKILL);
    engine.start_daemon();
    assert_eq!(hits(build(&engine, "cached", &["-t", "cached"])), 5, "after a restart");
    // An argument counts from the first RUN that sees it.
    assert_eq!(hits(build(&engine, "cached", &["--build-arg", "A=2"])), 2);
    // The same contents give the same result, so that what comes after a rebuilt stage is taken from the cache.
    assert_eq!(hits(build(&engine, "cached", &["--no-cache"])), 0);
    // The prune takes the first stage, which has no name, and the newest images of the last one's steps; those that the
    // name holds are found all the same, by what the first stage gives when it is built again.
    engine.docker(&["image", "prune", "-f"]).ok();
    assert_eq!(hits(build(&engine, "cached", &["-t", "cached"])), 2, "after a prune");
    assert_eq!(id(&engine), first);
    fs::set_permissions(folder.join("data/file"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(hits(build(&engine, "cached", &[])), 1, "a mode has changed");
    engine.docker(&["builder", "prune", "-f"]).ok();
    assert_eq!(hits(build(&engine, "cached", &[])), 0, "pruned");
}

#[test]
fn failures_point_at_their_line() {
    let engine = Engine::with_busybox();
    for (text, code, expected) in [
        ("FROM busybox:test\n\nRNU x\n", 1, "Dockerfile:3: unknown instruction: RNU (did you mean RUN?)"),
        ("FROM busybox:test\nRUN echo before; \\\n exit 7\n", 7, "Dockerfile:2: RUN echo before;  exit 7: The command"),
        ("FROM busybox:test\nRUN echo last words; exit 7\n", 7, "its last output:\n  last words"),
        ("FROM busybox:test\nRUN nosuchprogram\n", 127, "returned a non-zero code: 127"),
        ("FROM busybox:test\nRUN [\"/nosuch\"]\n", 127, "Dockerfile:2: RUN [\"/nosuch\"]:"),
        ("FROM busybox:test\nUSER nobody1\nRUN true\n", 1, "unable to find user nobody1"),
        ("FROM busybox:test\nCOPY none /\n", 1, "Dockerfile:2: COPY none /: file not found in build context"),
        ("FROM busybox:test\nCOPY ../x /\n", 1, "forbidden path outside the build context: ../x"),
        ("FROM busybox:test\nCOPY --from=nosuch:1 / /\n", 1, "No such image: nosuch:1"),
        ("FROM busybox:test\nCOPY --from=busybox:test /none /\n", 1, "file not found in the image: stat /none"),
        ("FROM busybox:test\nRUN <<EOF\ntrue\nEOF\n", 1, "Dockerfile:2: RUN: heredocs"),
        ("FROM busybox:test\nRUN --mount=type=cache,target=/x true\n", 1, "--mount is not there yet"),
        ("FROM busybox:test\nENV x=\"${y:?must be set}\"\n", 1, "y: must be set"),
        ("FROM nosuch:1\n", 1, "Dockerfile:1: FROM nosuch:1: No such image: nosuch:1"),
        ("FROM scratch\n", 1, "No image was generated"),
        ("FROM busybox:test\nADD http://127.0.0.1/x /\n", 1, "a URL as source is not there yet"),
    ] {
        build_text(&engine, text, &[]).fails(code, expected);
    }
    build_text(&engine, "FROM busybox:test AS a\n", &["--target", "b"]).fails(1, "failed to reach build target b");
    // Nothing of all that is left behind.
    for folder in ["data/image/tmp", "exec/build", "data/build/contexts"] {
        let left: Vec<_> = fs::read_dir(engine.path(folder)).unwrap().collect();
        assert!(left.is_empty(), "{folder}: {left:?}");
    }
}

/// Processes whose command line has `text` in it.
fn running(text: &str) -> usize {
    let lines =
        fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).replace('\0', " ").contains(text)).count()
}

#[test]
fn a_build_ends_with_its_client_and_with_its_daemon() {
    let mut engine = Engine::with_busybox();
    for (number, by_daemon) in [(31_001, false), (31_002, true)] {
        let folder = format!("long{number}");
        // Written into a script, so that the client's own command line does not count.
        context(&engine.path(&folder), &[("Dockerfile", &format!("FROM busybox:test\nRUN exec sleep {number}\n"))]);
        let sleeping = format!("sleep {number}");
        let mut client = engine
            .docker_command()
            .args(["build", "--network", "none"])
            .arg(engine.path(&folder))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        eventually(20, "the command runs", || (running(&sleeping) > 0).then_some(()));
        if by_daemon {
            engine.end_daemon(Signal::SIGKILL);
            client.wait().unwrap();
            engine.start_daemon();
        } else {
            kill(nix::unistd::Pid::from_raw(client.id() as i32), Signal::SIGKILL).unwrap();
            client.wait().unwrap();
        }
        eventually(5, "the command is killed", || (running(&sleeping) == 0).then_some(()));
        eventually(5, "nothing is left", || {
            let is_empty =
                |folder: &str| fs::read_dir(engine.path(folder)).map_or(true, |mut left| left.next().is_none());
            (is_empty("data/image/tmp") && is_empty("exec/build") && is_empty("data/build/contexts")).then_some(())
        });
    }
    build_text(&engine, "FROM busybox:test\nRUN true\n", &[]).ok();
}

/// `POST /build` by curl: the status, and the answer.
fn post(engine: &Engine, query: &str, body: &[u8]) -> (String, String) {
    let mut command = Command::new("curl");
    command
        .args(["-sS", "--max-time", "60", "--data-binary", "@-", "-w", "\n%{http_code}", "--unix-socket"])
        .arg(engine.path("engine.sock"))
        .args(["-H", "Content-Type: application/x-tar", &format!("http://localhost/v1.41/build?{query}")]);
    let answer = run_with_input(&mut command, body).ok();
    let (text, status) = answer.rsplit_once('\n').unwrap();
    (status.to_owned(), text.to_owned())
}

fn archive(files: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(text.len() as u64);
        // Not append_data: it refuses the paths that an attacker would write.
        header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        tar.append(&header, text.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap()
}

#[test]
fn contexts_come_compressed_and_never_get_out() {
    let engine = Engine::with_busybox();
    let plain = archive(&[("Dockerfile", "FROM busybox:test\nCOPY x /\n"), ("x", "1")]);
    for program in ["cat", "gzip", "zstd", "xz", "bzip2"] {
        let packed = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map(|mut child| {
            use std::io::Write;
            child.stdin.take().unwrap().write_all(&plain).unwrap();
            child.wait_with_output().unwrap().stdout
        });
        let (status, text) = post(&engine, "q=1", &packed.unwrap());
        assert_eq!(status, "200", "{program}: {text}");
        assert!(text.contains("\"stream\":\"sha256:"), "{program}: {text}");
    }
    let (status, text) = post(&engine, "", &archive(&[("../../escaped", "1"), ("Dockerfile", "FROM busybox:test\n")]));
    assert_eq!(status, "400", "{text}");
    assert!(!engine.path("data/build/escaped").exists() && !engine.path("data/escaped").exists());
    // As deep as a path can be: nothing here may run out of its stack.
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_mode(0o755);
    header.set_size(0);
    tar.append_data(&mut header, format!("x{}", "/d".repeat(1900)), std::io::empty()).unwrap();
    let dockerfile = "FROM busybox:test AS a\nCOPY x /x\nFROM busybox:test\nCOPY --from=a /x /y\n";
    header.set_entry_type(tar::EntryType::Regular);
    header.set_size(dockerfile.len() as u64);
    tar.append_data(&mut header, "Dockerfile", dockerfile.as_bytes()).unwrap();
    let (status, text) = post(&engine, "", &tar.into_inner().unwrap());
    assert_eq!((status.as_str(), text.contains("Successfully built")), ("200", true), "{text}");
    let (status, text) = post(&engine, "", b"this is no archive");
    assert_eq!(status, "400", "{text}");
    let (status, text) = post(&engine, "dockerfile=none", &plain);
    assert_eq!((status.as_str(), text.contains("Cannot locate specified Dockerfile: none")), ("400", true), "{text}");
}

#[test]
fn what_would_change_the_result_is_refused_by_name() {
    let engine = Engine::with_busybox();
    let plain = archive(&[("Dockerfile", "FROM busybox:test\n")]);
    for (query, name) in [
        ("squash=1", "--squash"),
        ("memory=9999999", "memory=9999999"),
        ("version=2", "BuildKit"),
        ("remote=https%3A%2F%2Fexample.invalid%2Fx.git", "remote"),
        ("platform=linux%2Fs390x", "--platform linux/s390x"),
        ("invented=1", "invented=1"),
    ] {
        let (status, text) = post(&engine, query, &plain);
        assert_eq!(status, "501", "{query}: {text}");
        assert!(text.contains(name), "{query}: {text}");
    }
}

#[test]
fn other_clients_build_too() {
    let engine = Engine::with_busybox();
    context(
        &engine.path("project"),
        &[
            (
                "docker-compose.yml",
                "version: '3'\nservices:\n  a:\n    image: composed:1\n    network_mode: none\n    build:\n      context: .\n      args: {WHO: compose}\n      labels: {from: compose}\n",
            ),
            ("Dockerfile", "FROM busybox:test\nARG WHO\nLABEL who=$WHO\nCOPY Dockerfile /\n"),
        ],
    );
    let mut command = Command::new("docker-compose");
    command.env("DOCKER_HOST", engine.host()).env("COMPOSE_DOCKER_CLI_BUILD", "0").env("DOCKER_BUILDKIT", "0");
    run(command.current_dir(engine.path("project")).arg("build")).ok();
    let labels = inspect(&engine, "composed:1")["Config"]["Labels"].take();
    assert_eq!((&labels["who"], &labels["from"]), (&Value::from("compose"), &Value::from("compose")));

    // Debian's own client.
    if Path::new("/usr/bin/docker").exists() {
        let mut command = Command::new("/usr/bin/docker");
        command.env("DOCKER_HOST", engine.host()).env("DOCKER_BUILDKIT", "0");
        let ran = run(command
            .args(["build", "--compress", "-q", "-f"])
            .arg(engine.path("project/Dockerfile"))
            .arg(engine.path("project")));
        assert!(ran.ok().starts_with("sha256:"));
    }
}

#[test]
fn independent_stages_run_side_by_side_and_are_told_of_in_order() {
    let engine = Engine::with_busybox();
    let begun = Instant::now();
    let text = "FROM busybox:test AS one\nRUN echo first; sleep 3; echo last >/one\n\
                FROM busybox:test AS two\nRUN echo second; sleep 3; echo last >/two\n\
                FROM busybox:test\nCOPY --from=one /one /\nCOPY --from=two /two /\n";
    let said = build_text(&engine, text, &[]).ok();
    assert!(begun.elapsed().as_secs_f32() < 5.5, "{:?}", begun.elapsed());
    let steps: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("Step ")?.split(" :").next()).collect();
    assert_eq!(steps, ["1/7", "2/7", "3/7", "4/7", "5/7", "6/7", "7/7"]);
    let at = |text: &str| said.find(text).unwrap();
    assert!(at("\nfirst\n") < at("Step 3/7") && at("Step 3/7") < at("\nsecond\n"), "{said}");
    // One that fails ends the others.
    let text = "FROM busybox:test AS one\nRUN sleep 1000\nFROM busybox:test AS two\nRUN sleep 1; exit 5\n\
                FROM busybox:test\nCOPY --from=one / /\nCOPY --from=two / /\n";
    let begun = Instant::now();
    build_text(&engine, text, &[]).fails(5, "Dockerfile:4: RUN sleep 1; exit 5: The command");
    assert!(begun.elapsed().as_secs_f32() < 5.0, "{:?}", begun.elapsed());
}

#[test]
fn independent_images_are_built_side_by_side() {
    let engine = Engine::with_busybox();
    let text = |number: u8| format!("FROM busybox:test\nRUN sleep 2; echo {number} >/n\n");
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for number in 0..3 {
            let engine = &engine;
            scope.spawn(move || build_text(engine, &text(number), &["-t", &format!("side{number}")]).ok());
        }
    });
    assert!(begun.elapsed().as_secs_f32() < 5.0, "{:?}", begun.elapsed());
    for number in 0..3 {
        let image = format!("side{number}");
        assert_eq!(engine.docker(&["run", "--rm", "--network", "none", &image, "cat", "/n"]).ok(), number.to_string());
    }
}

#[test]
fn a_client_that_does_not_read_slows_the_build() {
    let engine = Engine::with_busybox();
    context(
        &engine.path("loud"),
        &[("Dockerfile", "FROM busybox:test\nRUN yes 0123456789abcdef | head -c 150000000\n")],
    );
    let mut client = engine
        .docker_command()
        .args(["build", "--network", "none"])
        .arg(engine.path("loud"))
        .stdin(Stdio::null())
        .stdout(fs::File::create(engine.path("heard")).unwrap())
        .spawn()
        .unwrap();
    eventually(20, "the command is heard", || {
        (fs::metadata(engine.path("heard")).unwrap().len() > 10_000).then_some(())
    });
    let pid = nix::unistd::Pid::from_raw(client.id() as i32);
    kill(pid, Signal::SIGSTOP).unwrap();
    std::thread::sleep(std::time::Duration::from_secs(2));
    let status = fs::read_to_string(format!("/proc/{}/status", engine.daemon_pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 64 << 10, "{peak} KiB");
    kill(pid, Signal::SIGCONT).unwrap();
    assert!(client.wait().unwrap().success());
    assert!(fs::metadata(engine.path("heard")).unwrap().len() > 150_000_000, "nothing is lost");
}
