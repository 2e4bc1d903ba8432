//! The daemon's options, validated once: nothing reads arguments or the environment after this.

use ipnet::Ipv4Net;
use std::{collections::BTreeMap, path::PathBuf};

/// Validated options of `inception daemon`; names and meanings are dockerd's.
#[derive(Debug, Clone)]
pub struct Config {
    /// The API's unix socket.
    pub host: PathBuf,
    /// What must survive a reboot.
    pub data_root: PathBuf,
    /// What must not.
    pub exec_root: PathBuf,
    pub pidfile: PathBuf,
    /// Address and prefix of the default bridge; None: the first free one of the pools.
    pub bip: Option<Ipv4Net>,
    /// (base, prefix length of a network cut from it)
    pub default_address_pools: Vec<(Ipv4Net, u8)>,
    /// name → program
    pub runtimes: BTreeMap<String, PathBuf>,
    pub default_runtime: String,
    /// The static inception-init that `--init` puts into a container.
    pub init_path: PathBuf,
    pub debug: bool,
}

impl Config {
    /// A short name that is this engine's alone, for bridges, nftables tables and cgroups: the first 8 hex digits of
    /// the data root's SHA-256.
    pub fn instance(&self) -> String {
        use sha2::{Digest, Sha256};
        let digest = Sha256::digest(self.data_root.as_os_str().as_encoded_bytes());
        digest[..4].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
