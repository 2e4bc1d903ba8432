//! `inception vm build`.

use super::{
    Globals, block_on,
    connect::connect,
    need_init, vm_image,
    vm_run::{body, find_kernel, wanted},
};
use crate::{
    compose::client::Progress,
    error::{Error, Result},
    vm::{
        config::{Config, Network},
        disk,
        initramfs::Archive,
        modules, qemu,
        root::Kind,
        tools,
    },
};
use argh::{ArgsInfo, FromArgs};
use ipnet::IpNet;
use std::{net::IpAddr, path::PathBuf};

/// Write an image as a disk that boots by itself, on a machine with a BIOS: qemu's, a cloud's, a real one.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "build",
    usage = "[OPTIONS] -o DISK IMAGE [--] [COMMAND [ARGUMENTS...]]",
    example = "inception vm build nginx:0.1.0 -o disk.img\nqemu-system-x86_64 -m 512 -nographic -drive file=disk.img,format=raw,if=virtio -nic user,model=virtio,hostfwd=tcp::8443-:443",
    note = "The disk has holes, and 8 GiB of room. Its console is the first serial line. Where it is not given another one, its address is what qemu's user network expects; a machine without a network starts, too.",
    note = "Needs grub-pc-bin and e2fsprogs."
)]
pub struct Build {
    /// the disk; one that is there is replaced
    #[argh(option, short = 'o')]
    output: PathBuf,
    /// a variable, NAME=VALUE or NAME alone for the one here; repeatable
    #[argh(option, short = 'e')]
    env: Vec<String>,
    /// user, or user:group
    #[argh(option, short = 'u')]
    user: Option<String>,
    /// folder to run in
    #[argh(option, short = 'w')]
    workdir: Option<String>,
    /// the program instead of the image's entrypoint
    #[argh(option)]
    entrypoint: Option<String>,
    /// a kernel, its modules in lib/modules beside it or on this machine (default: Debian's cloud kernel)
    #[argh(option)]
    kernel: Option<PathBuf>,
    /// the machine's host name (default: the image's name)
    #[argh(option, short = 'h')]
    hostname: Option<String>,
    /// the machine's address, as 192.0.2.7/24 (default: 10.0.2.15/24)
    #[argh(option)]
    address: Option<IpNet>,
    /// the way out of its network (with --address; default: none)
    #[argh(option)]
    gateway: Option<IpAddr>,
    /// a name server (with --address; default: none); repeatable
    #[argh(option)]
    nameserver: Vec<IpAddr>,
    /// an image
    #[argh(positional)]
    image: String,
    /// the command and its arguments, instead of the image's; behind `--` where one begins with a dash
    #[argh(positional, arg_name = "command")]
    command: Vec<String>,
}

impl Build {
    pub fn run(self, globals: &Globals) -> Result<u8> {
        tools::check_architecture()?;
        tools::find(tools::MKE2FS)?;
        let disk_tools = disk::Tools::find()?;
        if self.address.is_none() && (self.gateway.is_some() || !self.nameserver.is_empty()) {
            return Err(Error::invalid("--gateway and --nameserver are of a network of your own: give --address, too"));
        }
        block_on(self.go(globals, &disk_tools))
    }

    async fn go(&self, globals: &Globals, disk_tools: &disk::Tools) -> Result<u8> {
        let progress = Progress::new();
        let init = need_init()?;
        let kernel = find_kernel(self.kernel.as_deref()).await?;
        let docker = connect(globals).await?;
        let body = body(&self.image, &self.command, &self.entrypoint, &self.env, &self.user, &self.workdir);
        let source = vm_image::describe(&docker, body, &progress).await?;
        let root = vm_image::root(&docker, &source, Kind::Ext4, &progress).await?;
        let task = progress.task(format!("Disk {}", self.output.display()));
        task.doing("writing");
        let mut wanted = wanted(Kind::Ext4, false);
        // What a disk may hang on beside virtio.
        wanted.extend(["virtio_scsi", "ata_piix", "ata_generic", "ahci", "nvme", "sd_mod"].map(|name| (name, false)));
        let found = kernel.modules.as_deref().map(|folder| modules::load(folder, &wanted)).transpose()?;
        let found = found.unwrap_or_default();
        let config = Config {
            service: &source.config,
            accounts: &root.accounts(),
            hostname: &self.host_name(),
            root: Kind::Ext4,
            device: DEVICES,
            modules: &found,
            mounts: &[],
            terminal: None,
            network: self.network(),
            has_port: false,
        };
        let mut archive = Archive::new(zstd::Encoder::new(Vec::new(), 3).map_err(failed)?);
        archive.machine(&init, &config.text()?, &found)?;
        let initramfs = archive.finish()?.finish().map_err(failed)?;
        disk_tools.build(&root.file(), &kernel.image, &initramfs, qemu::APPEND, &self.output)?;
        task.done("Written");
        Ok(0)
    }

    /// `nginx:0.1.0` is nginx.
    fn host_name(&self) -> String {
        let name = || self.image.rsplit('/').next().unwrap_or_default().split([':', '@']).next().unwrap_or_default();
        self.hostname.clone().unwrap_or_else(|| name().to_owned())
    }

    fn network(&self) -> Network {
        match self.address {
            None => Network { is_optional: true, ..Network::qemu() },
            Some(address) => Network {
                address: address.to_string(),
                gateway: self.gateway.map(|gateway| gateway.to_string()),
                nameservers: self.nameserver.iter().map(ToString::to_string).collect(),
                is_optional: true,
            },
        }
    }
}

/// The partition, whatever the disk hangs on.
const DEVICES: &str = "/dev/vda1,/dev/sda1,/dev/nvme0n1p1";

fn failed(error: std::io::Error) -> Error {
    Error::Io { doing: "pack the initramfs".into(), source: error }
}
