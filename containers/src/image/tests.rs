//! The store with real folders: needs root, as overlayfs's whiteouts do.

use super::*;
use std::{fs, os::unix::fs::MetadataExt};

pub(super) fn tar_of(build: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    build(&mut builder);
    builder.into_inner().unwrap()
}

pub(super) fn file(builder: &mut tar::Builder<Vec<u8>>, path: &str, content: &str) {
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o640);
    header.set_mtime(1_700_000_000);
    header.set_uid(33);
    header.set_gid(44);
    builder.append_data(&mut header, path, content.as_bytes()).unwrap();
}

fn simple(content: &str) -> Vec<u8> {
    tar_of(|builder| file(builder, "etc/a", content))
}

/// A store that was dropped just now. A child that another test has forked at that moment has a copy of its lock until it
/// executes its program.
fn reopened(folder: &std::path::Path) -> Store {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        match Store::open(folder) {
            Err(crate::error::Error::Conflict(_)) if std::time::Instant::now() < deadline => {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            other => return other.unwrap(),
        }
    }
}

#[test]
fn an_imported_image_is_found_again_by_every_name() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let config = bollard_stubs::models::ImageConfig { cmd: Some(vec!["sh".into()]), ..Default::default() };
    let image = store.import(&simple("x")[..], config, "hello").unwrap();
    store.tag(&image.id, "docker.io/library/base").unwrap();
    for name in ["base", "base:latest", "docker.io/library/base", &image.id, &image.id[7..], &image.id[7..15]] {
        assert_eq!(store.get(name).unwrap().id, image.id, "{name}");
    }
    for name in ["other", "base:1", "0123456789abcdef"] {
        let error = store.get(name).unwrap_err();
        assert_eq!(error.status(), 404, "{name}: {error}");
    }
    assert!(Store::open(folder.path()).is_err(), "a second daemon must be refused");
    let lower = store.lower(&image).unwrap();
    assert_eq!(fs::read_to_string(lower[0].join("etc/a")).unwrap(), "x");
    let meta = fs::metadata(lower[0].join("etc/a")).unwrap();
    assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777, meta.mtime()), (33, 44, 0o640, 1_700_000_000));
    drop(store);
    let store = reopened(folder.path());
    let again = store.get("base").unwrap();
    assert_eq!((again.id, again.tags, again.size), (image.id, vec!["base:latest".to_owned()], 1));
    assert_eq!(again.document.config.cmd.unwrap(), ["sh"]);
}

#[test]
fn a_committed_upper_directory_becomes_a_layer() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let base = store.import(&simple("x")[..], Default::default(), "").unwrap();
    let scratch = store.scratch().unwrap();
    let overlay = store.overlay(&base, scratch.path(), true).unwrap();
    assert_eq!(store.commit(&overlay.upper).unwrap(), None, "nothing changed");
    fs::write(overlay.upper.join("new"), "y").unwrap();
    let diff_id = store.commit(&overlay.upper).unwrap().unwrap();
    let mut document = base.document.clone();
    document.rootfs.diff_ids.push(diff_id);
    let image = store.create(&document, Some(&base.id)).unwrap();
    assert_eq!(store.create(&document, Some(&base.id)).unwrap().id, image.id);
    assert_eq!(store.lower(&image).unwrap().len(), 2);
    assert_eq!(image.size, 2);
    for layer in &image.layers {
        let mut tar = Vec::new();
        layer.write(&mut tar).unwrap();
        assert_eq!(digest::of(&tar), layer.meta.diff_id);
    }
}

#[test]
fn removal_keeps_what_is_needed() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let base = store.import(&simple("x")[..], Default::default(), "").unwrap();
    store.tag(&base.id, "a:1").unwrap();
    store.tag(&base.id, "b:1").unwrap();
    let held = store.get("a:1").unwrap();
    let used = [InUse { image: base.id.clone(), container: "c".repeat(64), running: true }];
    let error = store.remove(&base.id, false, false, &[]).unwrap_err().to_string();
    assert!(error.contains("referenced in multiple repositories"), "{error}");
    assert_eq!(store.remove("a:1", false, false, &used).unwrap()[0].untagged.as_deref(), Some("a:1"));
    let error = store.remove("b:1", false, false, &used).unwrap_err().to_string();
    assert!(error.contains("is using its referenced image"), "{error}");
    let error = store.remove("b:1", true, false, &used).unwrap_err().to_string();
    assert!(error.contains("being used by running container cccccccccccc"), "{error}");
    let items = store.remove("b:1", false, false, &[]).unwrap();
    assert_eq!(items[1].deleted.as_deref(), Some(base.id.as_str()));
    assert!(store.lower(&held).unwrap()[0].join("etc/a").exists(), "removed under a holder's feet");
    drop((held, base));
    let other = store.import(&simple("y")[..], Default::default(), "").unwrap().id;
    store.remove(&other, false, false, &[]).unwrap();
    assert_eq!(fs::read_dir(folder.path().join("layers")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(folder.path().join("l")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(folder.path().join("blobs/sha256")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(folder.path().join("tmp")).unwrap().count(), 0);
}

#[test]
fn a_damaged_layer_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let image = store.import(&simple("x")[..], Default::default(), "").unwrap();
    fs::write(store.lower(&image).unwrap()[0].join("etc/a"), "z").unwrap();
    let error = image.layers[0].write(std::io::sink()).unwrap_err().to_string();
    assert!(error.contains("damaged"), "{error}");
}

/// An image of two layers, with a name.
fn two_layers(store: &Store) -> Image {
    let base = store.import(&simple("x")[..], Default::default(), "").unwrap();
    let scratch = store.scratch().unwrap();
    let overlay = store.overlay(&base, scratch.path(), true).unwrap();
    fs::write(overlay.upper.join("new"), "y").unwrap();
    let mut document = base.document.clone();
    document.rootfs.diff_ids.push(store.commit(&overlay.upper).unwrap().unwrap());
    let image = store.create(&document, None).unwrap();
    store.tag(&image.id, "r.example:5000/team/app:v1").unwrap();
    store.get(&image.id).unwrap()
}

#[test]
fn a_saved_image_loads_as_the_same_image() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (store, other) = (Store::open(one.path()).unwrap(), Store::open(two.path()).unwrap());
    let image = two_layers(&store);
    let mut archive = Vec::new();
    store.save(&image.tags).unwrap().write(&mut archive).unwrap();
    for archive in [archive.clone(), zstd::encode_all(&archive[..], 1).unwrap()] {
        let mut told = String::new();
        let loaded = other.load(&archive[..], |line| told.push_str(line)).unwrap();
        assert_eq!(loaded, image.tags);
        assert_eq!(told, "Loaded image: r.example:5000/team/app:v1\n");
        let again = other.get(&image.id).unwrap();
        assert_eq!((again.tags, again.size), (image.tags.clone(), image.size));
    }
    let mut second = Vec::new();
    other.save(&image.tags).unwrap().write(&mut second).unwrap();
    assert!(archive == second, "a save of the loaded image is the same archive");
}

/// Every byte of an archive counts: with one changed it is refused, or loads as the very same image (padding, names).
#[test]
fn a_damaged_archive_is_refused_and_leaves_nothing() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (store, other) = (Store::open(one.path()).unwrap(), Store::open(two.path()).unwrap());
    let image = two_layers(&store);
    let mut archive = Vec::new();
    store.save(&image.tags).unwrap().write(&mut archive).unwrap();
    let mut refused = 0;
    for at in (0..archive.len()).step_by(97) {
        let mut damaged = archive.clone();
        damaged[at] ^= 0x15;
        match other.load(&damaged[..], |_| {}) {
            Err(_) => refused += 1,
            Ok(loaded) => {
                let id = other.get(&loaded[0]).unwrap().id;
                assert_eq!(id, image.id, "byte {at}");
                other.remove(&id, true, false, &[]).unwrap();
            }
        }
    }
    assert!(refused > 10, "{refused}");
    for cut in (1..archive.len() - 2048).step_by(511) {
        assert!(other.load(&archive[..cut], |_| {}).is_err(), "cut at {cut}");
    }
    assert!(other.list().unwrap().is_empty());
    assert_eq!(fs::read_dir(two.path().join("tmp")).unwrap().count(), 0);
    drop(other);
    reopened(two.path());
    assert_eq!(fs::read_dir(two.path().join("layers")).unwrap().count(), 0);
}

/// A machine that goes down before the files are on the disk: what is whole stays, what is not is told and goes, and
/// can come again.
#[test]
fn a_layer_that_did_not_reach_the_disk_is_noticed_after_a_reboot() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    for (name, content) in [("whole:1", "x"), ("lost:1", "y")] {
        let image = store.import(&simple(content)[..], Default::default(), "").unwrap();
        store.tag(&image.id, name).unwrap();
    }
    let lost = store.get("lost:1").unwrap();
    fs::write(store.lower(&lost).unwrap()[0].join("etc/a"), "").unwrap();
    let mut archive = Vec::new();
    store.save(&["whole:1".into()]).unwrap().write(&mut archive).unwrap();
    drop(store);
    for layer in fs::read_dir(folder.path().join("layers")).unwrap() {
        let path = layer.unwrap().path().join("layer.json");
        let mut meta: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        meta["boot"] = "another".into();
        fs::write(&path, meta.to_string()).unwrap();
    }
    let store = reopened(folder.path());
    assert!(store.get("whole:1").is_ok());
    assert!(store.get("lost:1").is_err());
    let again = store.import(&simple("y")[..], Default::default(), "").unwrap();
    assert_eq!(fs::read(store.lower(&again).unwrap()[0].join("etc/a")).unwrap(), b"y");
}

/// A disk that is too small, in a mount namespace of the test's own.
#[test]
fn a_full_disk_is_told_and_loses_nothing() {
    use nix::{
        mount::{MsFlags, mount},
        sched::{CloneFlags, unshare},
    };
    let test = || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        let folder = tempfile::tempdir().unwrap();
        mount(Some("none"), folder.path(), Some("tmpfs"), MsFlags::empty(), Some("size=8M")).unwrap();
        let store = Store::open(&folder.path().join("image")).unwrap();
        let kept = store.import(&simple("x")[..], Default::default(), "").unwrap().id;
        let error = store.import(&simple(&"y".repeat(16 << 20))[..], Default::default(), "").unwrap_err();
        assert!(error.to_string().contains("No space left on device"), "{error}");
        assert!(error.to_string().contains("etc/a"), "{error}");
        assert_eq!(fs::read_dir(folder.path().join("image/tmp")).unwrap().count(), 0);
        store.import(&simple(&"z".repeat(1 << 20))[..], Default::default(), "").unwrap();
        drop(store);
        // A child that another test has just forked holds the lock, too, until it executes its program.
        let reopened = (0..500).find_map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            Store::open(&folder.path().join("image")).ok()
        });
        assert!(reopened.unwrap().get(&kept).is_ok());
        nix::mount::umount2(folder.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
    };
    std::thread::spawn(test).join().unwrap();
}
