//! The disk that `vm build` writes: a boot loader, and one partition with an image's root. Nothing is mounted, and no
//! device is needed: GRUB's own first sector finds the rest of it right behind itself, where grub-mkimage's blocks say,
//! and debugfs puts kernel and initramfs into the file system.

use super::tools;
use crate::error::{Context, Error, Result};
use nix::{
    errno::Errno,
    unistd::{Whence, lseek},
};
use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
};

/// Where the partition begins, as every partitioning program has it; the boot loader is before it.
const START: u64 = 1 << 20;
const SECTOR: u64 = 512;
/// The folder of kernel and initramfs in the root; no image has one of this name.
const FOLDER: &str = "inception-boot";
/// GRUB's files for machines with a BIOS.
const GRUB: &str = "/usr/lib/grub/i386-pc";
/// What GRUB must have built in to read the kernel from the partition.
const GRUB_MODULES: [&str; 4] = ["biosdisk", "part_msdos", "ext2", "linux"];

/// The programs that a disk is made with.
pub struct Tools {
    debugfs: PathBuf,
    grub_mkimage: PathBuf,
}

impl Tools {
    /// Finds them; an error names the package of one that is missing.
    pub fn find() -> Result<Tools> {
        let boot = Path::new(GRUB).join("boot.img");
        if !boot.is_file() {
            return Err(tools::missing("GRUB, which a disk boots by,", "grub-pc-bin"));
        }
        Ok(Tools {
            debugfs: tools::find(("debugfs", "e2fsprogs"))?,
            grub_mkimage: tools::find(("grub-mkimage", "grub-common"))?,
        })
    }

    /// Writes the disk `out` with the ext4 file system `root`, which boots `kernel` with `initramfs` and the command
    /// line `append`.
    pub fn build(&self, root: &Path, kernel: &Path, initramfs: &[u8], append: &str, out: &Path) -> Result<()> {
        let folder = match out.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        let work =
            tempfile::Builder::new().prefix(".inception-disk-").tempdir_in(folder).at("create a folder in", folder)?;
        let work = work.path();
        let disk = work.join("disk");
        copy(root, &disk, START)?;
        let initramfs_file = work.join("initramfs");
        fs::write(&initramfs_file, initramfs).at("write", &initramfs_file)?;
        self.put_files(kernel, &initramfs_file, work)?;
        self.put_boot_loader(&disk, append, work)?;
        fs::rename(&disk, out).at("store", out)
    }

    /// Puts kernel and initramfs into the root.
    fn put_files(&self, kernel: &Path, initramfs: &Path, work: &Path) -> Result<()> {
        // debugfs reads words at blanks: it sees nothing but plain names.
        let kernel_copy = work.join("vmlinuz");
        fs::copy(kernel, &kernel_copy).at("copy", kernel)?;
        let script = work.join("script");
        let lines = format!(
            "mkdir {FOLDER}\ncd {FOLDER}\nwrite vmlinuz vmlinuz\nwrite initramfs initramfs\nset_inode_field vmlinuz uid 0\n\
             set_inode_field vmlinuz gid 0\nset_inode_field initramfs uid 0\nset_inode_field initramfs gid 0\n\
             set_inode_field initramfs mode 0100600\n"
        );
        fs::write(&script, lines).at("write", &script)?;
        let device = format!("disk?offset={START}");
        let mut command = Command::new(&self.debugfs);
        tools::run(command.current_dir(work).args(["-w", "-f", "script", &device]))?;
        // It says what failed, and ends as if nothing had.
        for (name, file) in [("vmlinuz", kernel_copy), ("initramfs", initramfs.to_owned())] {
            let copy = work.join(format!("{name}.copy"));
            let request = format!("dump /{FOLDER}/{name} {name}.copy");
            tools::run(Command::new(&self.debugfs).current_dir(work).args(["-R", &request, &device]))?;
            let lengths = [&copy, &file].map(|path| fs::metadata(path).map_or(0, |meta| meta.len()));
            if lengths[0] != lengths[1] {
                return Err(Error::Failed(format!(
                    "debugfs could not put {name} into the disk's file system: is it full?"
                )));
            }
        }
        Ok(())
    }

    /// Writes the first sector, with the table of one partition, and GRUB behind it.
    fn put_boot_loader(&self, disk: &Path, append: &str, work: &Path) -> Result<()> {
        let (config, core) = (work.join("grub.cfg"), work.join("core.img"));
        let lines =
            format!("set root=(hd0,msdos1)\nlinux /{FOLDER}/vmlinuz {append}\ninitrd /{FOLDER}/initramfs\nboot\n");
        fs::write(&config, lines).at("write", &config)?;
        let mut command = Command::new(&self.grub_mkimage);
        command
            .args(["-O", "i386-pc", "-d", GRUB, "-p", &format!("/{FOLDER}"), "-c"])
            .arg(&config)
            .arg("-o")
            .arg(&core);
        tools::run(command.args(GRUB_MODULES))?;
        let core = fs::read(&core).at("read", &core)?;
        if core.len() as u64 > START - SECTOR {
            return Err(Error::Failed(format!("GRUB is too large for a disk's first MiB: {} bytes", core.len())));
        }
        let path = Path::new(GRUB).join("boot.img");
        let mut sector = [0; SECTOR as usize];
        File::open(&path).at("open", &path)?.read_exact(&mut sector).at("read", &path)?;
        let file = File::options().read(true).write(true).open(disk).at("open", disk)?;
        let end = file.metadata().at("look at", disk)?.len();
        sector[446..].copy_from_slice(&partition_table(end)?);
        file.write_all_at(&core, SECTOR).at("write", disk)?;
        file.write_all_at(&sector, 0).at("write", disk)?;
        file.sync_all().at("sync", disk)
    }
}

/// The table of a disk of `length` bytes, with one partition of Linux's kind that is all but its beginning.
fn partition_table(length: u64) -> Result<[u8; 66]> {
    let sector =
        |bytes: u64| u32::try_from(bytes / SECTOR).map_err(|_| Error::Failed("a disk has 2 TiB at most".into()));
    let mut table = [0; 66];
    // Active, its addresses by numbers alone, type Linux.
    table[..8].copy_from_slice(&[0x80, 0xfe, 0xff, 0xff, 0x83, 0xfe, 0xff, 0xff]);
    table[8..12].copy_from_slice(&sector(START)?.to_le_bytes());
    table[12..16].copy_from_slice(&sector(length - START)?.to_le_bytes());
    table[64..].copy_from_slice(&[0x55, 0xaa]);
    Ok(table)
}

/// Copies a file that is mostly holes to `offset` in a new one, and leaves the holes.
pub fn copy(from: &Path, to: &Path, offset: u64) -> Result<()> {
    let mut source = File::open(from).at("open", from)?;
    let mut target = File::options().write(true).create_new(true).open(to).at("create", to)?;
    let length = source.metadata().at("look at", from)?.len();
    target.set_len(offset + length).at("make room in", to)?;
    let mut at = 0;
    loop {
        let data = match lseek(&source, at, Whence::SeekData) {
            // Nothing but a hole is left.
            Err(Errno::ENXIO) => return Ok(()),
            data => data.at("look for data in", from)?,
        };
        let hole = lseek(&source, data, Whence::SeekHole).at("look for a hole in", from)?;
        source.seek(SeekFrom::Start(data as u64)).at("go on in", from)?;
        target.seek(SeekFrom::Start(offset + data as u64)).at("go on in", to)?;
        std::io::copy(&mut (&source).take((hole - data) as u64), &mut target)
            .doing(format!("copy {}", from.display()))?;
        at = hole;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn holes_stay_holes() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        let file = File::create(&from).unwrap();
        file.set_len(64 << 20).unwrap();
        file.write_all_at(b"middle", 32 << 20).unwrap();
        copy(&from, &to, START).unwrap();
        let found = File::open(&to).unwrap();
        assert_eq!(found.metadata().unwrap().len(), START + (64 << 20));
        assert!(found.metadata().unwrap().blocks() < 1000);
        let mut bytes = [0; 6];
        found.read_exact_at(&mut bytes, START + (32 << 20)).unwrap();
        assert_eq!(&bytes, b"middle");
    }

    #[test]
    fn a_table_has_one_partition() {
        let table = partition_table(START + (3 << 20)).unwrap();
        assert_eq!(table[8..16], [0, 8, 0, 0, 0, 24, 0, 0]);
        assert_eq!(table[64..], [0x55, 0xaa]);
        assert!(partition_table(3 << 41).is_err());
    }
}
