//! `inception vm run`, and the console of a machine.

use super::{
    Globals, block_on,
    connect::connect,
    need_init, output,
    run::not_run,
    run_options::{source_path, variable},
    vm_console::{Console, is_terminal},
    vm_image::{self, Source},
};
use crate::{
    compose::{client::Progress, values},
    engine::random_id,
    error::{Context, Error, Result},
    vm::{
        config::{Config, Network},
        disk, initramfs, keeper, kernel,
        machine::{Board, Folder, Forward, Machine, Share},
        modules, qemu,
        root::Kind,
        share, tools,
    },
};
use argh::{ArgsInfo, FromArgs};
use bollard_stubs::models::{ContainerCreateBody, HostConfig};
use chrono::Utc;
use std::{
    fs::File,
    io::{self, Write},
    net::TcpListener,
    path::{Path, PathBuf},
};
use tokio::task::spawn_blocking;

/// Boot an image as a virtual machine. Its console is this terminal; the exit code is the service's own.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "run",
    usage = "[OPTIONS] IMAGE [COMMAND [ARGUMENTS...]]",
    example = "inception vm run --rm debian:bookworm-slim bash\ninception vm run -d --name web -p 8443:443 nginx:0.1.0\ninception vm run --rm -v ./data:/data -m 1g --cpus 2 debian:bookworm-slim ls /data\necho x | inception vm run --rm debian:bookworm-slim cat",
    note = "On a terminal Ctrl-C goes to the service, and Ctrl-P Ctrl-Q leaves the machine to itself. Without one, the first SIGINT goes to the service, and a second one, SIGTERM and SIGHUP press the machine's power button. stdout and stderr come by the one console.",
    note = "Without --rm the machine and its disk stay: `inception vm start` runs it again, `inception vm rm` removes it.",
    error_code(125, "the machine could not be made, or ended without an exit code"),
    error_code(126, "the command is there and can't be run"),
    error_code(127, "the command is not there")
)]
pub struct Run {
    /// do not wait for it: print the machine's name
    #[argh(switch, short = 'd')]
    detach: bool,
    /// remove the machine and its disk when it ends
    #[argh(switch)]
    rm: bool,
    /// the machine's name, and its host name (default: one is made up)
    #[argh(option)]
    name: Option<String>,
    /// a variable, NAME=VALUE or NAME alone for the one here; repeatable
    #[argh(option, short = 'e')]
    env: Vec<String>,
    /// share a volume of the engine or a folder, SOURCE:TARGET[:ro]; repeatable
    #[argh(option, short = 'v')]
    volume: Vec<String>,
    /// publish a port, [[IP:]PORT:]MACHINE_PORT[/udp]; repeatable
    #[argh(option, short = 'p')]
    publish: Vec<String>,
    /// memory, as 1g (default: 512m)
    #[argh(option, short = 'm')]
    memory: Option<String>,
    /// processors (default: 1)
    #[argh(option, default = "1")]
    cpus: u32,
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
    /// what holds the root, ext4 or initramfs (default: ext4); an initramfs is memory, and gone at the end
    #[argh(option)]
    root: Option<String>,
    /// qemu's machine type, microvm or q35 (default: microvm, q35 where it is emulated)
    #[argh(option)]
    machine: Option<String>,
    /// an image
    #[argh(positional)]
    image: String,
    /// the command and its arguments, instead of the image's
    #[argh(positional, greedy, arg_name = "command")]
    command: Vec<String>,
}

/// What can be told from the command line alone.
struct Checked {
    memory: u64,
    ports: Vec<Forward>,
    root: Kind,
    board: Board,
}

impl Run {
    pub fn run(self, globals: &Globals) -> Result<u8> {
        // As `run`: what fails before the service runs is told from its own codes.
        self.check().and_then(|checked| block_on(self.go(globals, checked))).map_err(not_run)
    }

    fn check(&self) -> Result<Checked> {
        tools::check_architecture()?;
        tools::find(tools::QEMU)?;
        let memory = self.memory.as_deref().unwrap_or("512m");
        let bytes = values::bytes(memory).filter(|bytes| *bytes >= 64 << 20);
        let bytes =
            bytes.ok_or_else(|| Error::invalid(format!("--memory {memory}: a size such as 512m, 64m at least")))?;
        if !(1..=255).contains(&self.cpus) {
            return Err(Error::invalid(format!("--cpus {}: a whole number from 1 to 255", self.cpus)));
        }
        let root = match self.root.as_deref() {
            None | Some("ext4") => Kind::Ext4,
            Some("initramfs") => Kind::Initramfs,
            Some(other) => return Err(Error::invalid(format!("--root {other}: ext4 or initramfs"))),
        };
        if root == Kind::Ext4 {
            tools::find(tools::MKE2FS)?;
        }
        let board = match self.machine.as_deref() {
            None => qemu::usual_board(),
            Some("microvm") => Board::Microvm,
            Some("q35") => Board::Q35,
            Some(other) => return Err(Error::invalid(format!("--machine {other}: microvm or q35"))),
        };
        if !self.volume.is_empty() {
            share::program()?;
        }
        Ok(Checked { memory: bytes as u64 >> 20, ports: forwards(&self.publish)?, root, board })
    }

    async fn go(&self, globals: &Globals, checked: Checked) -> Result<u8> {
        let progress = Progress::new();
        let init = need_init()?;
        let kernel = find_kernel(self.kernel.as_deref()).await?;
        let docker = connect(globals).await?;
        let body = body(&self.image, &self.command, &self.entrypoint, &self.env, &self.user, &self.workdir);
        let binds = self.volume.iter().map(|text| bind(text)).collect::<Result<Vec<_>>>()?;
        let host = HostConfig { binds: Some(binds).filter(|binds| !binds.is_empty()), ..HostConfig::default() };
        let source =
            vm_image::describe(&docker, ContainerCreateBody { host_config: Some(host), ..body }, &progress).await?;
        let shares = shares(&source)?;
        let root = vm_image::root(&docker, &source, checked.root, &progress).await?;
        if !qemu::has_kvm() {
            log::warn!("KVM can't be used here (/dev/kvm): the machine is emulated, which is some ten times slower");
        }
        let name = match &self.name {
            Some(name) => name.clone(),
            None => format!("vm-{}", &random_id()?[..12]),
        };
        let wanted = wanted(checked.root, !shares.is_empty());
        let found = kernel.modules.as_deref().map(|folder| modules::load(folder, &wanted)).transpose()?;
        let found = found.unwrap_or_default();
        let terminal = std::env::var("TERM").unwrap_or_else(|_| "linux".into());
        let size = crate::sys::window_size(&io::stdout());
        let config = Config {
            service: &source.config,
            accounts: &root.accounts(),
            hostname: &name,
            root: checked.root,
            device: "/dev/vda",
            modules: &found,
            mounts: &mounts(&shares),
            terminal: is_terminal(self.detach).then_some((terminal.as_str(), size.unwrap_or((24, 80)))),
            network: Network::qemu(),
            has_port: true,
        };
        let text = config.text()?;
        let is_ext4 = checked.root == Kind::Ext4;
        let machine = Machine {
            image: source.image.clone(),
            command: [&source.config.entrypoint, &source.config.cmd].into_iter().flatten().flatten().cloned().collect(),
            created: Utc::now(),
            board: checked.board,
            memory: checked.memory,
            cpus: self.cpus,
            kernel: kernel.image,
            append: qemu::APPEND.into(),
            terminal: is_terminal(self.detach),
            root: checked.root,
            disk: is_ext4.then(|| if self.rm { root.file() } else { "disk.img".into() }),
            throwaway: self.rm,
            ports: checked.ports,
            shares,
            remove: self.rm,
            stop_timeout: config.stop_timeout() as u64 + keeper::END,
        };
        let mut folder = Folder::create(&name)?;
        let ran = async {
            if is_ext4 && !self.rm {
                disk::copy(&root.file(), &folder.path.join("disk.img"), 0)?;
            }
            write(&folder, &machine, |out| {
                let mut out = io::BufWriter::new(out);
                if checked.root == Kind::Initramfs {
                    // The kernel unpacks one archive behind the other.
                    let file = root.file();
                    io::copy(&mut File::open(&file).at("open", &file)?, &mut out).doing("write the initramfs")?;
                }
                let mut archive = initramfs::Archive::new(out);
                archive.machine(&init, &text, &found)?;
                archive.finish()?.flush().doing("write the initramfs")
            })?;
            folder.made();
            keeper::start(&folder).await
        };
        let started = match ran.await {
            Ok(started) => started,
            Err(error) => {
                // Nothing of it ran; --rm may have removed it.
                let _ = folder.remove();
                return Err(error);
            }
        };
        if self.detach {
            drop(started.go().await?);
            output::print(&format!("{name}\n"))?;
            return Ok(0);
        }
        let console = Console::open(folder).await?;
        let news = started.go().await?;
        console.follow(Some(news)).await
    }
}

/// The kernel, and what is said where it must be downloaded.
pub async fn find_kernel(asked: Option<&Path>) -> Result<kernel::Kernel> {
    let asked = asked.map(Path::to_owned);
    let found = spawn_blocking(move || kernel::find(asked.as_deref(), &mut |line| log::info!("{line}"))).await;
    found.map_err(|error| Error::Failed(format!("find a kernel: {error}")))?
}

/// What the engine is asked about.
pub fn body(
    image: &str,
    command: &[String],
    entrypoint: &Option<String>,
    env: &[String],
    user: &Option<String>,
    workdir: &Option<String>,
) -> ContainerCreateBody {
    ContainerCreateBody {
        image: Some(image.to_owned()),
        cmd: Some(command.to_vec()).filter(|command| !command.is_empty()),
        entrypoint: entrypoint.clone().map(|program| vec![program]),
        env: Some(env.iter().filter_map(|entry| variable(entry)).collect()),
        user: user.clone(),
        working_dir: workdir.clone(),
        ..ContainerCreateBody::default()
    }
}

/// The modules that a machine may need, those it can't do without first in their kind.
pub fn wanted(root: Kind, has_shares: bool) -> Vec<modules::Wanted> {
    let mut wanted = vec![("virtio_pci", true), ("virtio_console", true), ("virtio_net", true)];
    if root == Kind::Ext4 {
        // ext4 asks for its checksum by name, which only a module that is there already answers.
        wanted.extend([("virtio_blk", true), ("crc32c_generic", false), ("ext4", true)]);
    }
    if has_shares {
        wanted.push(("virtiofs", true));
    }
    wanted.extend([("evdev", false), ("button", false), ("virtio_rng", false)]);
    wanted
}

/// `SOURCE:TARGET[:ro]` as the engine takes it.
fn bind(text: &str) -> Result<String> {
    let mut parts = text.splitn(3, ':');
    let (source, target, option) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    match (target.filter(|target| target.starts_with('/')), option) {
        (Some(target), None | Some("ro" | "rw")) if !source.is_empty() => {
            let option = option.map(|option| format!(":{option}")).unwrap_or_default();
            Ok(format!("{}:{target}{option}", source_path(source)?))
        }
        _ => Err(Error::invalid(format!("-v {text}: write it as SOURCE:TARGET[:ro], TARGET beginning with a slash"))),
    }
}

/// What the engine made of `-v`: folders of the host.
fn shares(source: &Source) -> Result<Vec<Share>> {
    let of_mount = |(number, mount): (usize, &bollard_stubs::models::MountPoint)| {
        let folder = PathBuf::from(mount.source.clone().unwrap_or_default());
        if mount.typ.as_deref() == Some("volume") && !folder.is_dir() {
            return Err(Error::Failed(format!(
                "the volume {} lies in {} on the engine's machine, and not here",
                mount.name.as_deref().unwrap_or_default(),
                folder.display()
            )));
        }
        share::check(&folder)?;
        Ok(Share {
            tag: format!("share{number}"),
            source: folder,
            target: mount.destination.clone().unwrap_or_default(),
            read_only: mount.rw == Some(false),
        })
    };
    source.mounts.iter().enumerate().map(of_mount).collect()
}

fn mounts(shares: &[Share]) -> Vec<[String; 4]> {
    let mount = |share: &Share| {
        let options = if share.read_only { "ro" } else { "" };
        [share.tag.clone(), share.target.clone(), "virtiofs".into(), options.into()]
    };
    shares.iter().map(mount).collect()
}

/// `-p` as qemu takes it: IPv4, and a port of the host's for each.
fn forwards(publish: &[String]) -> Result<Vec<Forward>> {
    let mut found = Vec::new();
    for text in publish {
        for port in values::ports(text).map_err(|error| Error::invalid(format!("-p {error}")))? {
            let host_ip = port.host_ip.unwrap_or_default();
            if host_ip.contains(':') || port.protocol == "sctp" {
                return Err(Error::invalid(format!(
                    "-p {text}: a machine's ports are published by TCP and UDP over IPv4"
                )));
            }
            let host_port = match port.published {
                Some(port) => port.parse().map_err(|_| Error::invalid(format!("-p {text}: {port} is no port")))?,
                None => free_port()?,
            };
            found.push(Forward { host_ip, host_port, port: port.target, protocol: port.protocol });
        }
    }
    Ok(found)
}

/// A port that nobody has at the moment: qemu can't choose one and tell.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("0.0.0.0:0").doing("find a free port")?;
    Ok(listener.local_addr().doing("find a free port")?.port())
}

/// Writes what a keeper needs.
fn write(folder: &Folder, machine: &Machine, initramfs: impl FnOnce(File) -> Result<()>) -> Result<()> {
    let path = folder.path.join("initramfs");
    let mut options = File::options();
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    initramfs(options.create(true).write(true).truncate(true).open(&path).at("create", &path)?)?;
    folder.write_machine(machine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_those_that_qemu_can_publish() {
        let found = forwards(&["127.0.0.1:8080:80".into(), "53:53/udp".into()]).unwrap();
        let texts: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["127.0.0.1:8080->80/tcp", "0.0.0.0:53->53/udp"]);
        assert_ne!(forwards(&["80".into()]).unwrap()[0].host_port, 0);
        for text in ["[::1]:80:80", "80:80/sctp", "x"] {
            assert!(forwards(&[text.into()]).is_err(), "{text}");
        }
    }

    #[test]
    fn volumes_have_a_source_and_a_target() {
        assert_eq!(bind("data:/data:ro").unwrap(), "data:/data:ro");
        assert!(bind("./x:/x").unwrap().starts_with('/'));
        for text in ["/data", "data:data", ":/x", "a:/b:z"] {
            assert!(bind(text).is_err(), "{text}");
        }
    }
}
