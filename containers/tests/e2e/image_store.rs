//! Images in the engine's store: names, lists, removal, archives good and bad; by the docker client.

use crate::harness::{BUSYBOX, Engine, Ran, eventually, run};
use nix::sys::signal::Signal;
use std::{
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

/// A tar of one file with `content`.
fn tar_of(engine: &Engine, content: &str) -> String {
    let folder = engine.path("source");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("file"), content).unwrap();
    let tar = engine.path(&format!("{}.tar", content.replace(' ', "-")));
    run(Command::new("tar").arg("-C").arg(&folder).arg("-cf").arg(&tar).arg("file")).ok();
    tar.display().to_string()
}

/// Imports an image of one file; its id.
fn import(engine: &Engine, content: &str, name: &str) -> String {
    engine.docker(&["import", &tar_of(engine, content), name]).ok()
}

/// What is left in the store's folders.
fn count(engine: &Engine, folder: &str) -> usize {
    fs::read_dir(engine.path("data/image").join(folder)).unwrap().count()
}

fn images(engine: &Engine, args: &[&str]) -> Vec<String> {
    let listed = engine.docker(&[&["images", "--format", "{{.Repository}}:{{.Tag}}"], args].concat()).ok();
    listed.lines().map(str::to_owned).collect()
}

#[test]
fn names_with_slashes_and_ports_reach_every_route() {
    let engine = Engine::start();
    let id = import(&engine, "x", "registry.example:5000/team/app:1.0");
    let name = "registry.example:5000/team/app:1.0";
    assert_eq!(engine.docker(&["image", "inspect", "--format", "{{.Id}}", name]).ok(), id);
    assert_eq!(engine.docker(&["history", "-q", "--no-trunc", name]).ok(), id);
    engine.docker(&["tag", name, "docker.io/library/short"]).ok();
    let mut listed = images(&engine, &[]);
    // The client leaves open in which order it shows two names of one image.
    listed.sort();
    assert_eq!(listed, [name, "short:latest"]);
    assert_eq!(
        engine.docker(&["image", "inspect", "--format", "{{.RepoTags}}", &id[7..19]]).ok(),
        format!("[{name} short:latest]")
    );
    engine.docker(&["rmi", name]).ok();
    assert_eq!(images(&engine, &[]), ["short:latest"]);
    engine.docker(&["image", "inspect", name]).fails(1, "No such image: registry.example:5000/team/app:1.0");
    engine.docker(&["tag", "nothing", "x"]).fails(1, "No such image: nothing:latest");
    engine.docker(&["tag", "short", "Bad"]).fails(1, "");
}

#[test]
fn lists_are_filtered() {
    let engine = Engine::start();
    for (content, name) in [("one", "web/one:1"), ("two", "two:1"), ("three", "two:1")] {
        import(&engine, content, name);
    }
    assert_eq!(images(&engine, &[]), ["two:1", "<none>:<none>", "web/one:1"]);
    assert_eq!(images(&engine, &["-f", "dangling=true"]), ["<none>:<none>"]);
    assert_eq!(images(&engine, &["-f", "reference=web/*"]), ["web/one:1"]);
    assert_eq!(images(&engine, &["-f", "since=web/one:1"]), ["two:1", "<none>:<none>"]);
    assert_eq!(images(&engine, &["two"]), ["two:1"]);
    engine.docker(&["images", "-f", "colour=red"]).fails(1, "invalid filter 'colour'");
    engine.docker(&["image", "prune", "-f"]).ok();
    assert_eq!(images(&engine, &[]), ["two:1", "web/one:1"]);
    engine.docker(&["image", "prune", "-a", "-f"]).ok();
    assert_eq!((images(&engine, &[]).len(), count(&engine, "layers"), count(&engine, "l")), (0, 0, 0));
    assert_eq!(count(&engine, "blobs/sha256"), 0);
}

#[test]
fn removal_follows_dockers_rules() {
    let engine = Engine::start();
    let id = import(&engine, "x", "a:1");
    engine.docker(&["tag", "a:1", "b:1"]).ok();
    engine.docker(&["rmi", &id]).fails(1, "image is referenced in multiple repositories");
    assert_eq!(engine.docker(&["rmi", "a:1"]).ok(), "Untagged: a:1");
    assert_eq!(engine.docker(&["rmi", "b:1"]).ok(), format!("Untagged: b:1\nDeleted: {id}"));
    engine.docker(&["rmi", "b:1"]).fails(1, "No such image: b:1");
}

#[test]
fn a_save_of_two_images_shares_their_layer_and_loads_again() {
    let engine = Engine::start();
    let id = import(&engine, "x", "a:1");
    engine.docker(&["tag", "a:1", "r.example/b:2"]).ok();
    let archive = engine.path("two.tar").display().to_string();
    engine.docker(&["save", "-o", &archive, "a:1", "r.example/b:2"]).ok();
    let layers = run(Command::new("tar").args(["-tvf", &archive])).ok();
    assert_eq!(layers.lines().filter(|line| line.contains("blobs/sha256/")).count(), 3, "{layers}");
    engine.docker(&["rmi", "a:1", "r.example/b:2"]).ok();
    for compress in ["cat", "gzip", "zstd", "xz", "bzip2"] {
        let packed = engine.path("packed");
        let from = File::open(&archive).unwrap();
        let status = Command::new(compress).stdin(from).stdout(File::create(&packed).unwrap()).status();
        if status.as_ref().is_err() {
            // Docker, too, leaves xz and bzip2 to the programs of these names.
            continue;
        }
        assert!(status.unwrap().success());
        let told = engine.docker(&["load", "-i", packed.to_str().unwrap()]).ok();
        assert_eq!(told, "Loaded image: a:1\nLoaded image: r.example/b:2", "{compress}");
        assert_eq!(engine.docker(&["image", "inspect", "--format", "{{.Id}}", "r.example/b:2"]).ok(), id);
    }
}

#[test]
fn bad_archives_are_told_and_leave_nothing() {
    let engine = Engine::start();
    import(&engine, &"x".repeat(100), "a:1");
    let archive = engine.path("a.tar");
    engine.docker(&["save", "-o", archive.to_str().unwrap(), "a:1"]).ok();
    let layers = count(&engine, "layers");
    let whole = fs::read(&archive).unwrap();
    let load = |content: &[u8]| -> Ran {
        let path = engine.path("bad.tar");
        fs::write(&path, content).unwrap();
        engine.docker(&["load", "-i", path.to_str().unwrap()])
    };
    engine.docker(&["rmi", "a:1"]).ok();
    load(&whole[..whole.len() / 2]).fails(1, "cut short");
    let at = whole.windows(10).position(|window| window == b"xxxxxxxxxx").unwrap();
    let mut damaged = whole.clone();
    damaged[at] = b'y';
    load(&damaged).fails(1, "is damaged: its digest should be sha256:");
    load(b"no archive at all").fails(1, "");
    // A plain tar is no image.
    load(&fs::read(tar_of(&engine, "plain")).unwrap()).fails(1, "");
    let evil = engine.path("evil.tar");
    run(Command::new("tar").arg("-C").arg(engine.path("source")).arg("-Pcf").arg(&evil).args([
        "--transform",
        "s,file,../../../../../../../../../../tmp/inception-e2e-escaped,",
        "file",
    ]))
    .ok();
    engine.docker(&["import", evil.to_str().unwrap(), "evil:1"]).fails(1, "leads out of the archive's root");
    assert!(!Path::new("/tmp/inception-e2e-escaped").exists());
    assert_eq!(images(&engine, &[]), [""; 0]);
    assert_eq!((layers, count(&engine, "layers"), count(&engine, "tmp")), (1, 0, 0));
    load(&whole).ok();
}

#[test]
fn a_damaged_layer_is_told_by_save() {
    let engine = Engine::start();
    import(&engine, "x", "a:1");
    let layer = fs::read_dir(engine.path("data/image/layers")).unwrap().next().unwrap().unwrap().path();
    fs::write(layer.join("diff/file"), "y").unwrap();
    let archive = engine.path("a.tar");
    let saved = engine.docker(&["save", "-o", archive.to_str().unwrap(), "a:1"]);
    assert_ne!(saved.code, 0);
    assert!(!archive.exists(), "the client keeps nothing of a save that failed");
    assert!(engine.log().contains("is damaged"), "{}", engine.log());
}

#[test]
fn sigkill_during_a_load_loses_nothing_and_leaves_nothing() {
    let mut engine = Engine::start();
    let kept = import(&engine, "kept", "kept:1");
    // Something big enough to be killed in its middle.
    let folder = engine.path("big");
    fs::create_dir(&folder).unwrap();
    for number in 0..400 {
        fs::write(folder.join(number.to_string()), vec![number as u8; 200_000]).unwrap();
    }
    let big = engine.path("big.tar");
    run(Command::new("tar").arg("-C").arg(&folder).arg("-cf").arg(&big).arg(".")).ok();
    for wait in [20, 60, 120, 200] {
        let mut client = engine.docker_command();
        client.args(["import", big.to_str().unwrap(), "big:1"]).stdout(Stdio::null()).stderr(Stdio::null());
        let mut client = client.spawn().unwrap();
        std::thread::sleep(Duration::from_millis(wait));
        engine.end_daemon(Signal::SIGKILL);
        let acknowledged = client.wait().unwrap().success();
        engine.start_daemon();
        let listed = images(&engine, &[]);
        assert!(listed.contains(&"kept:1".to_owned()), "{listed:?}");
        assert!(!acknowledged || listed.contains(&"big:1".to_owned()), "{listed:?}");
        assert_eq!(count(&engine, "tmp"), 0);
        assert_eq!(count(&engine, "layers"), images(&engine, &["-aq", "--no-trunc"]).len());
    }
    assert_eq!(engine.docker(&["image", "inspect", "--format", "{{.Id}}", "kept:1"]).ok(), kept);
}

#[test]
fn an_import_takes_changes() {
    let engine = Engine::start();
    let tar = tar_of(&engine, "x");
    let changes = ["-c", "CMD [\"a\", \"b\"]", "-c", "ENV K=v", "-c", "LABEL l=1", "-m", "hello"];
    engine.docker(&[&["import"], &changes[..], &[&tar, "x:1"]].concat()).ok();
    let format = "{{.Config.Cmd}} {{.Config.Env}} {{.Config.Labels}} {{.Comment}}";
    assert_eq!(engine.docker(&["image", "inspect", "--format", format, "x:1"]).ok(), "[a b] [K=v] map[l:1] hello");
    engine.docker(&["import", "-c", "RUN x", &tar, "y:1"]).fails(1, "");
}

#[test]
fn an_image_in_use_is_not_deleted() {
    let engine = Engine::with_busybox();
    engine.docker(&["create", "--name", "user", BUSYBOX, "true"]).ok();
    engine.docker(&["rmi", BUSYBOX]).fails(1, "(must force) - container");
    engine.docker(&["image", "prune", "-af"]).ok();
    assert_eq!(images(&engine, &[]), [BUSYBOX]);
    engine.docker(&["rmi", "-f", BUSYBOX]).ok();
    engine.docker(&["start", "-a", "user"]).ok();
    engine.docker(&["rm", "user"]).ok();
    engine.docker(&["image", "prune", "-f"]).ok();
    assert_eq!((images(&engine, &[]).len(), count(&engine, "layers")), (0, 0));
}

/// Debian's registry on a port of its own; gone at the end.
struct Registry {
    process: std::process::Child,
    authority: String,
}

impl Registry {
    fn start(engine: &Engine) -> Registry {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let authority = format!("localhost:{port}");
        let config = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"127.0.0.1:{port}\"}}\n",
            engine.path("registry").display()
        );
        fs::write(engine.path("registry.yml"), config).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(engine.path("registry.yml")).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().expect("the package docker-registry");
        eventually(10, "the registry answers", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        Registry { process, authority }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn an_image_goes_to_a_registry_and_comes_back() {
    let engine = Engine::start();
    let registry = Registry::start(&engine);
    let id = import(&engine, "x", "a:1");
    let name = format!("{}/team/a:1", registry.authority);
    engine.docker(&["tag", "a:1", &name]).ok();
    let pushed = engine.docker(&["push", &name]).ok();
    assert!(pushed.contains("1: digest: sha256:"), "{pushed}");
    engine.docker(&["rmi", "a:1", &name]).ok();
    let pulled = engine.docker(&["pull", &name]).ok();
    assert!(pulled.contains("Downloaded newer image"), "{pulled}");
    assert_eq!(engine.docker(&["image", "inspect", "--format", "{{.Id}}", &name]).ok(), id);
    let pulled = engine.docker(&["pull", &name]).ok();
    assert!(pulled.contains("Image is up to date"), "{pulled}");
    engine.docker(&["pull", &format!("{}/team/a:2", registry.authority)]).fails(1, "manifest unknown");
    engine.docker(&["pull", "r.example/a:1"]).fails(1, "reaches registries on this machine only");

    // A registry that gives other bytes than it was asked for.
    engine.docker(&["rmi", &name]).ok();
    let blobs = run(Command::new("find").arg(engine.path("registry")).args(["-name", "data", "-size", "+2k"])).ok();
    let layer = blobs.lines().next().unwrap();
    let mut content = fs::read(layer).unwrap();
    content[512] ^= 1;
    fs::write(layer, content).unwrap();
    engine.docker(&["pull", &name]).fails(1, "is damaged");
    assert_eq!((images(&engine, &[]).len(), count(&engine, "layers"), count(&engine, "tmp")), (0, 0, 0));
}
