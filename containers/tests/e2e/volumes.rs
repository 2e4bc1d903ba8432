//! Volumes, bind mounts, tmpfs.

use crate::harness::{BUSYBOX, Engine};
use std::{fs, os::unix::fs::MetadataExt};

#[test]
fn named_and_anonymous() {
    let engine = Engine::with_busybox();
    let docker = |args: &[&str]| engine.docker(args);
    assert_eq!(docker(&["volume", "create", "--label", "k=v", "data"]).ok(), "data");
    assert_eq!(docker(&["volume", "create", "data"]).ok(), "data");
    docker(&["run", "--rm", "-v", "data:/d", BUSYBOX, "sh", "-c", "echo kept > /d/file"]).ok();
    assert_eq!(docker(&["run", "--rm", "-v", "data:/d:ro", BUSYBOX, "cat", "/d/file"]).ok(), "kept");
    docker(&["run", "--rm", "-v", "data:/d:ro", BUSYBOX, "touch", "/d/x"]).fails(1, "Read-only file system");
    assert_eq!(docker(&["volume", "ls", "-q", "--filter", "label=k=v"]).ok(), "data");
    assert_eq!(
        docker(&["volume", "inspect", "--format", "{{.Name}} {{.Driver}} {{.Scope}}", "data"]).ok(),
        "data local local"
    );
    docker(&["volume", "inspect", "none-such"]).fails(1, "get none-such: no such volume");

    let id = docker(&["create", "--name", "box", "-v", "data:/d", "-v", "/anonymous", BUSYBOX, "true"]).ok();
    docker(&["volume", "rm", "data"]).fails(1, &format!("volume is in use - [{id}]"));
    let anonymous = "{{range .Mounts}}{{if eq .Destination \"/anonymous\"}}{{.Name}}{{end}}{{end}}";
    let name = docker(&["inspect", "--format", anonymous, "box"]).ok();
    assert_eq!(name.len(), 64);
    assert_eq!(docker(&["volume", "ls", "-q", "--filter", "dangling=true"]).ok(), "");
    docker(&["rm", "box"]).ok();
    assert!(docker(&["volume", "ls", "-q", "--filter", "dangling=true"]).ok().contains(&name));
    docker(&["volume", "prune", "-f"]).ok();
    assert_eq!(docker(&["volume", "ls", "-q"]).ok(), "data");
    // --rm takes the anonymous volume with it, rm -v does, and neither takes a named one.
    docker(&["run", "--rm", "-v", "data:/d", "-v", "/anonymous", BUSYBOX, "true"]).ok();
    docker(&["run", "--name", "box", "-v", "data:/d", "-v", "/anonymous", BUSYBOX, "true"]).ok();
    docker(&["rm", "-v", "box"]).ok();
    assert_eq!(docker(&["volume", "ls", "-q"]).ok(), "data");
    docker(&["volume", "rm", "data"]).ok();
    docker(&["volume", "create", "--driver", "nfs", "other"]).fails(1, "plugin \"nfs\" not found");
    docker(&["volume", "create", "--opt", "type=tmpfs", "--opt", "device=tmpfs", "other"]).fails(1, "not implemented");
    docker(&["volume", "create", "a/b"]).fails(1, "includes invalid characters");
}

#[test]
fn a_new_volume_gets_the_images_files_with_their_owners() {
    let engine = Engine::with_busybox();
    let context = engine.path("context");
    fs::create_dir(&context).unwrap();
    let text = format!(
        "FROM {BUSYBOX}\nRUN mkdir -p /srv/sub && echo here > /srv/sub/file && ln -s sub /srv/link && chown -R www:extra /srv && chmod 2750 /srv\nVOLUME /srv\n"
    );
    fs::write(context.join("Dockerfile"), text).unwrap();
    engine.docker(&["build", "-q", "-t", "filled", context.to_str().unwrap()]).ok();
    let look = "stat -c '%U:%G %a' /srv; stat -c '%U:%G' /srv/sub/file; cat /srv/link/file";
    for options in [&["-v", "data:/srv"][..], &["--mount", "type=volume,src=other,dst=/srv"], &[]] {
        let said = engine.docker(&[&["run", "--rm"], options, &["filled", "sh", "-c", look]].concat()).ok();
        assert_eq!(said, "www:extra 2750\nwww:extra\nhere", "{options:?}");
    }
    // Only once: what was deleted stays deleted.
    engine.docker(&["run", "--rm", "-v", "data:/srv", "filled", "rm", "-r", "/srv/sub", "/srv/link"]).ok();
    assert_eq!(engine.docker(&["run", "--rm", "-v", "data:/srv", "filled", "ls", "/srv"]).ok(), "");
    // nocopy, and a volume that has something already.
    let said = engine.docker(&["run", "--rm", "-v", "bare:/srv:nocopy", "filled", "ls", "/srv"]).ok();
    assert_eq!(said, "");
    engine.docker(&["run", "--rm", "-v", "own:/x", BUSYBOX, "touch", "/x/mine"]).ok();
    assert_eq!(engine.docker(&["run", "--rm", "-v", "own:/srv", "filled", "ls", "/srv"]).ok(), "mine");
}

#[test]
fn folders_of_the_machine_and_tmpfs() {
    let engine = Engine::with_busybox();
    let folder = engine.path("shared");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("file"), "from outside\n").unwrap();
    let path = folder.to_str().unwrap();
    let run = |options: &[&str], script: &str| {
        engine.docker(&[&["run", "--rm"], options, &[BUSYBOX, "sh", "-c", script]].concat())
    };
    assert_eq!(run(&["-v", &format!("{path}:/m")], "cat /m/file; touch /m/made").ok(), "from outside");
    assert_eq!(fs::metadata(folder.join("made")).unwrap().uid(), 0);
    run(&["-v", &format!("{path}:/m:ro")], "touch /m/x").fails(1, "Read-only file system");
    run(&["--mount", &format!("type=bind,src={path},dst=/m,readonly")], "touch /m/x").fails(1, "Read-only file system");
    // -v makes a folder that is missing, --mount does not.
    let missing = engine.path("made/by/v");
    run(&["-v", &format!("{}:/m", missing.display())], "true").ok();
    assert!(missing.is_dir());
    // A single file.
    assert_eq!(run(&["-v", &format!("{path}/file:/etc/one")], "cat /etc/one").ok(), "from outside");

    let device = format!("device={path}");
    engine.docker(&["volume", "create", "--opt", "type=none", "--opt", "o=bind", "--opt", &device, "bound"]).ok();
    assert_eq!(run(&["-v", "bound:/m"], "cat /m/file").ok(), "from outside");
    engine.docker(&["volume", "rm", "bound"]).ok();
    assert!(folder.join("file").exists(), "removing the volume leaves the folder alone");
    engine
        .docker(&["volume", "create", "--opt", "type=none", "--opt", "o=bind", "--opt", "device=/no/such", "lost"])
        .ok();
    run(&["-v", "lost:/m"], "true").fails(125, "/no/such");

    let said =
        run(&["--tmpfs", "/t:size=1m,mode=1777"], "stat -c %a /t; df -k /t | tail -1 | tr -s ' ' | cut -d' ' -f1,2")
            .ok();
    assert_eq!(said, "1777\ntmpfs 1024");
    let said =
        run(&["--mount", "type=tmpfs,dst=/t,tmpfs-size=2m"], "df -k /t | tail -1 | tr -s ' ' | cut -d' ' -f2").ok();
    assert_eq!(said, "2048");
    run(&["--read-only", "--tmpfs", "/t"], "touch /t/x && touch /x").fails(1, "Read-only file system");
    engine.docker(&["run", "-d", "--name", "first", "-v", "data:/d", BUSYBOX, "sleep", "1000"]).ok();
    assert_eq!(run(&["--volumes-from", "first"], "touch /d/x; ls /d").ok(), "x");
}
