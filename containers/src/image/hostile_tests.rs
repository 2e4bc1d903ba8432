//! Archives that lie, and that no honest archiver would write; and the round trip of everything that one would.

use super::{
    digest,
    layers::{commit_draft, unpack_draft},
    pack::pack,
    recipe,
    tests::{file, tar_of},
    unpack::{OPAQUE, Options, Whiteouts, unpack},
};
use nix::{
    sys::stat::{Mode, SFlag, mknod},
    unistd::mkfifo,
};
use std::{
    fs,
    io::Read,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
};
use tar::{EntryType, Header};

const LAYER: Options = Options { whiteouts: Whiteouts::Overlay, owner: None };

/// A header whose name is written as it is: the tar crate refuses bad ones.
fn raw(builder: &mut tar::Builder<Vec<u8>>, name: &str, kind: EntryType, link: &str, content: &[u8]) {
    let mut header = Header::new_ustar();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o755);
    header.set_size(content.len() as u64);
    header.set_mtime(1);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    builder.append(&header, content).unwrap();
}

/// Unpacks below `outer/root`, with a canary in `outer`; whether it was refused.
fn attack(archive: &[u8]) -> bool {
    let outer = tempfile::tempdir().unwrap();
    let (root, canary) = (outer.path().join("root"), outer.path().join("canary"));
    fs::create_dir(&root).unwrap();
    fs::write(&canary, "safe").unwrap();
    let refused = unpack(archive, &root, LAYER, None).is_err();
    assert_eq!(fs::read_to_string(&canary).unwrap(), "safe");
    let names: Vec<_> = fs::read_dir(outer.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    refused
}

#[test]
fn an_archive_can_not_write_outside_its_root() {
    // Absolute paths and links mean the archive's own root.
    assert!(!attack(&tar_of(|tar| raw(tar, "/canary", EntryType::Regular, "", b"evil"))));
    for target in ["..", "../..", "/", "/tmp", "/proc/self/cwd", "/proc/1/root"] {
        for inside in ["out/canary", "out/../canary", "out/sub/canary"] {
            attack(&tar_of(|tar| {
                raw(tar, "out", EntryType::Symlink, target, b"");
                raw(tar, inside, EntryType::Regular, "", b"evil");
            }));
        }
    }
    // A link to the canary is replaced, never written through.
    assert!(!attack(&tar_of(|tar| {
        raw(tar, "x", EntryType::Symlink, "../canary", b"");
        raw(tar, "x", EntryType::Regular, "", b"evil");
    })));
    for (name, kind, link) in [
        ("../canary", EntryType::Regular, ""),
        ("a/../../canary", EntryType::Regular, ""),
        ("x", EntryType::Link, "../canary"),
        ("x", EntryType::Link, "/../../canary"),
        ("x", EntryType::Link, "nothing"),
        (".wh...", EntryType::Regular, ""),
        (".wh..", EntryType::Regular, ""),
        ("..", EntryType::Directory, ""),
    ] {
        assert!(attack(&tar_of(|tar| raw(tar, name, kind, link, b""))), "{name}");
    }
    // A hard link through a symbolic link that leads out.
    assert!(attack(&tar_of(|tar| {
        raw(tar, "up", EntryType::Symlink, "..", b"");
        raw(tar, "x", EntryType::Link, "up/canary", b"");
        raw(tar, "x", EntryType::Regular, "", b"evil");
    })));
    // A long name in an extension header is looked at like any other.
    let long = format!("../{}", "a/".repeat(120));
    assert!(attack(&tar_of(|tar| {
        raw(tar, "././@LongLink", EntryType::GNULongName, "", long.as_bytes());
        raw(tar, "x", EntryType::Directory, "", b"");
    })));
    assert!(attack(&tar_of(|tar| {
        raw(tar, "pax", EntryType::XHeader, "", b"18 path=../canary\n");
        raw(tar, "x", EntryType::Regular, "", b"evil");
    })));
}

#[test]
fn lies_about_sizes_and_broken_headers_are_refused() {
    let good = tar_of(|tar| file(tar, "a", &"x".repeat(2000)));
    assert!(!attack(&good));
    for length in [1, 100, 511, 512, 700, 1536, 2500] {
        assert!(attack(&good[..length]), "cut at {length}");
    }
    let with_size = |size: &[u8]| {
        let mut tar = good.clone();
        tar[124..124 + size.len()].copy_from_slice(size);
        let mut header = Header::from_byte_slice(&tar[..512]).clone();
        header.set_cksum();
        tar[..512].copy_from_slice(header.as_bytes());
        tar
    };
    assert!(attack(&with_size(b"77777777777")));
    assert!(attack(&with_size(&[0xff; 12])), "negative");
    assert!(attack(&with_size(&[0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff])), "eight exbibytes");
    assert!(attack(&with_size(b"hello      ")));
    let mut sum = good.clone();
    sum[0] = b'b';
    assert!(attack(&sum));
    for pax in ["99999999 path=a\n", "0 path=a\n", "x path=a\n", "11 size=-1\n", "12 size=1e3\n", "9 path=a"] {
        assert!(
            attack(&tar_of(|tar| {
                raw(tar, "pax", EntryType::XHeader, "", pax.as_bytes());
                raw(tar, "x", EntryType::Regular, "", b"");
            })),
            "{pax:?}"
        );
    }
    assert!(attack(&tar_of(|tar| {
        raw(tar, "pax", EntryType::XHeader, "", &vec![b'a'; 2 << 20]);
        raw(tar, "x", EntryType::Regular, "", b"");
    })));
    assert!(attack(b"this is no archive"));
    assert!(attack(&[b'x'; 1024]));
}

#[test]
fn whiteouts_become_those_of_overlayfs_in_any_order() {
    let root = tempfile::tempdir().unwrap();
    let archive = tar_of(|tar| {
        raw(tar, ".wh.gone", EntryType::Regular, "", b"");
        raw(tar, ".wh.renewed", EntryType::Regular, "", b"");
        raw(tar, "renewed/", EntryType::Directory, "", b"");
        raw(tar, "kept/", EntryType::Directory, "", b"");
        raw(tar, ".wh.kept", EntryType::Regular, "", b"");
        raw(tar, "file", EntryType::Regular, "", b"x");
        raw(tar, ".wh.file", EntryType::Regular, "", b"");
        raw(tar, "opaque/", EntryType::Directory, "", b"");
        raw(tar, "opaque/.wh..wh..opq", EntryType::Regular, "", b"");
        raw(tar, ".wh..wh.plnk", EntryType::Regular, "", b"");
    });
    unpack(&archive[..], root.path(), LAYER, None).unwrap();
    let gone = fs::symlink_metadata(root.path().join("gone")).unwrap();
    assert_eq!((gone.mode() & 0o170000, gone.rdev()), (0o020000, 0));
    for (name, opaque) in [("renewed", true), ("kept", true), ("opaque", true), ("file", false)] {
        let mark = xattr::get(root.path().join(name), OPAQUE).unwrap();
        assert_eq!(mark.as_deref(), opaque.then_some(&b"y"[..]), "{name}");
    }
    assert_eq!(fs::read(root.path().join("file")).unwrap(), b"x");
    // As anything but a layer they are files like others.
    let plain = tempfile::tempdir().unwrap();
    unpack(&archive[..], plain.path(), Options::default(), None).unwrap();
    assert!(plain.path().join(".wh.gone").is_file());
}

#[test]
fn attributes_of_overlayfs_itself_are_not_taken_from_an_archive() {
    let root = tempfile::tempdir().unwrap();
    let archive = tar_of(|tar| {
        tar.append_pax_extensions([
            ("SCHILY.xattr.trusted.overlay.redirect", &b"/etc"[..]),
            ("SCHILY.xattr.user.kept", b"1"),
        ])
        .unwrap();
        raw(tar, "x", EntryType::Directory, "", b"");
    });
    unpack(&archive[..], root.path(), LAYER, None).unwrap();
    assert_eq!(xattr::get(root.path().join("x"), "trusted.overlay.redirect").unwrap(), None);
    assert_eq!(xattr::get(root.path().join("x"), "user.kept").unwrap().unwrap(), b"1");
}

/// A random number that is the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// Fills a folder with everything that a layer can hold.
fn grow(folder: &Path, random: &mut Random, depth: u32) {
    let mut last: Option<std::path::PathBuf> = None;
    for number in 0..2 + random.below(7) {
        let name = match random.below(6) {
            0 => format!("{}-{number}", "long".repeat(30)),
            1 => format!("h\u{e4}\u{df}lich {number}"),
            2 => format!(".{number}"),
            _ => format!("n{number}"),
        };
        let path = folder.join(name);
        match random.below(9) {
            0 | 1 if depth < 5 => {
                fs::create_dir(&path).unwrap();
                if random.below(4) == 0 {
                    xattr::set(&path, OPAQUE, b"y").unwrap();
                }
                grow(&path, random, depth + 1);
            }
            2 => symlink(["/etc/passwd", "../x", &"far/".repeat(40)][random.below(3) as usize], &path).unwrap(),
            3 => mkfifo(&path, Mode::from_bits_truncate(0o600)).unwrap(),
            4 => mknod(&path, SFlag::S_IFCHR, Mode::empty(), 0).unwrap(),
            5 => {
                mknod(&path, SFlag::S_IFBLK, Mode::from_bits_truncate(0o660), nix::sys::stat::makedev(7, 300)).unwrap()
            }
            6 if last.is_some() => fs::hard_link(last.as_ref().unwrap(), &path).unwrap(),
            _ => {
                let content: Vec<u8> = (0..random.below(3000)).map(|_| random.below(256) as u8).collect();
                fs::write(&path, content).unwrap();
                if random.below(3) == 0 {
                    xattr::set(&path, "user.mark", format!("a\n={number}").as_bytes()).unwrap();
                }
                last = Some(path.clone());
            }
        }
        let meta = fs::symlink_metadata(&path).unwrap();
        let (uid, gid) = (random.below(3) as u32 * 3_000_000, random.below(70_000) as u32);
        std::os::unix::fs::lchown(&path, Some(uid), Some(gid)).unwrap();
        if meta.is_file() || meta.is_dir() {
            let mode = random.below(0o10000) as u32 | 0o400;
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            // Linux's capability set cap_net_bind_service=ep, as setcap(8) writes it.
            if meta.is_file() && random.below(4) == 0 {
                let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
                xattr::set(&path, "security.capability", &capability).unwrap();
            }
        }
    }
}

fn packed(folder: &Path) -> Vec<u8> {
    let mut tar = Vec::new();
    pack(folder, &mut tar).unwrap();
    tar
}

#[test]
fn what_is_packed_unpacks_to_the_same() {
    for seed in 1..40 {
        let (source, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        grow(source.path(), &mut Random(0x9e37_79b9_7f4a_7c15u64.wrapping_mul(seed)), 0);
        let tar = packed(source.path());
        assert!(tar == packed(source.path()), "two runs differ, seed {seed}");
        unpack(&tar[..], copy.path(), LAYER, None).unwrap();
        assert!(tar == packed(copy.path()), "the copy differs, seed {seed}");
        // GNU tar reads it, too, and finds the same files.
        let listed = std::process::Command::new("tar").arg("tf").arg("-").stdin(spooled(&tar)).output().unwrap();
        assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
        // The recipe gives the very bytes; so does the committed layer.
        let tmp = tempfile::tempdir().unwrap();
        let draft = unpack_draft(tmp.path(), &tar[..]).unwrap();
        assert_eq!(draft.diff_id, digest::of(&tar));
        let mut again = Vec::new();
        recipe::replay(draft.folder(), &mut again).unwrap();
        assert!(again == tar, "seed {seed}");
        let upper = tmp.path().join("upper");
        fs::rename(copy.path(), &upper).unwrap();
        assert_eq!(commit_draft(tmp.path(), &upper).unwrap().unwrap().diff_id, digest::of(&tar));
        fs::create_dir(copy.path()).unwrap();
    }
}

fn spooled(content: &[u8]) -> fs::File {
    use std::io::{Seek, Write};
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    file.rewind().unwrap();
    file
}

/// GNU tar's own formats, sparse files among them, and an archive that replaces its own files.
#[test]
fn archives_of_other_programs_are_made_again_byte_by_byte() {
    let source = tempfile::tempdir().unwrap();
    let file = fs::File::create(source.path().join("sparse")).unwrap();
    for piece in [0u64, 100_000, 300_000, 450_000, 600_000, 750_000, 900_000] {
        std::os::unix::fs::FileExt::write_all_at(&file, b"data", piece).unwrap();
    }
    file.set_len(1_200_000).unwrap();
    fs::create_dir_all(source.path().join("d/".repeat(80))).unwrap();
    fs::write(source.path().join("d/f"), "one").unwrap();
    fs::hard_link(source.path().join("d/f"), source.path().join("d/g")).unwrap();
    symlink("s".repeat(150), source.path().join("link")).unwrap();
    let formats: [&[&str]; 7] = [
        &["--format=gnu"],
        &["--format=oldgnu", "--sparse"],
        &["--format=posix", "--xattrs"],
        &["--format=posix", "--sparse", "--sparse-version=0.0"],
        &["--format=posix", "--sparse", "--sparse-version=0.1"],
        &["--format=posix", "--sparse", "--sparse-version=1.0"],
        // The same files twice: the second ones replace the first.
        &["--format=posix", "./d", "./sparse"],
    ];
    for format in formats {
        let mut tar = std::process::Command::new("tar");
        tar.arg("-C").arg(source.path()).arg("-cf").arg("-").args(format).arg(".");
        let output = tar.output().unwrap();
        assert!(output.status.success(), "{format:?}: {}", String::from_utf8_lossy(&output.stderr));
        let tmp = tempfile::tempdir().unwrap();
        let draft = unpack_draft(tmp.path(), &output.stdout[..]).unwrap();
        let mut again = Vec::new();
        recipe::replay(draft.folder(), &mut again).unwrap();
        assert!(again == output.stdout, "{format:?}");
        let diff = draft.folder().join("diff");
        let mut content = Vec::new();
        fs::File::open(diff.join("sparse")).unwrap().read_to_end(&mut content).unwrap();
        assert!(content == fs::read(source.path().join("sparse")).unwrap(), "{format:?}");
        assert_eq!(fs::metadata(diff.join("d/f")).unwrap().ino(), fs::metadata(diff.join("d/g")).unwrap().ino());
        assert_eq!(fs::read_link(diff.join("link")).unwrap().as_os_str().len(), 150);
        assert!(diff.join("d/".repeat(80)).is_dir());
    }
}

#[test]
fn layers_in_one_folder_hide_what_they_would_hide_in_a_mount() {
    let root = tempfile::tempdir().unwrap();
    let put = |archive: &[u8]| {
        unpack(archive, root.path(), Options { whiteouts: Whiteouts::Applied, owner: None }, None).unwrap();
    };
    put(&tar_of(|tar| {
        for name in ["gone", "kept", "folder/old", "folder/again", "opaque/old", "opaque/deep/old", "file"] {
            raw(tar, name, EntryType::Regular, "", b"below");
        }
        raw(tar, "link", EntryType::Symlink, "folder", b"");
    }));
    put(&tar_of(|tar| {
        raw(tar, ".wh.gone", EntryType::Regular, "", b"");
        raw(tar, ".wh.never-there", EntryType::Regular, "", b"");
        raw(tar, ".wh.link", EntryType::Regular, "", b"");
        // Before and behind its whiteout, what this layer itself brings stays.
        raw(tar, "opaque/new", EntryType::Regular, "", b"above");
        raw(tar, "opaque/deep/new", EntryType::Regular, "", b"above");
        raw(tar, "opaque/.wh..wh..opq", EntryType::Regular, "", b"");
        raw(tar, "opaque/late", EntryType::Regular, "", b"above");
        raw(tar, ".wh.folder", EntryType::Regular, "", b"");
        raw(tar, "folder/new", EntryType::Regular, "", b"above");
        raw(tar, "file", EntryType::Directory, "", b"");
        raw(tar, "file/below", EntryType::Regular, "", b"above");
    }));
    let mut found: Vec<String> = walkdir::WalkDir::new(root.path())
        .into_iter()
        .map(|entry| entry.unwrap())
        .filter(|entry| !entry.file_type().is_dir())
        .map(|entry| entry.path().strip_prefix(root.path()).unwrap().display().to_string())
        .collect();
    found.sort();
    assert_eq!(found, ["file/below", "folder/new", "kept", "opaque/deep/new", "opaque/late", "opaque/new"]);
}
