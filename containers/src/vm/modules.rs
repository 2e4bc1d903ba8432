//! Which modules a machine's kernel needs, and in which order (modules.dep(5)).

use crate::{
    error::{Context, Error, Result},
    image::compression,
};
use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

/// A module for an initramfs, unpacked.
#[derive(Debug, Clone)]
pub struct Module {
    pub name: String,
    pub content: Vec<u8>,
}

/// A module by its name, and whether a machine can't do without it.
pub type Wanted = (&'static str, bool);

/// The wanted modules of the kernel whose modules.dep lies in `folder`, each behind those that it needs. What is built
/// in is left out.
pub fn load(folder: &Path, wanted: &[Wanted]) -> Result<Vec<Module>> {
    order(folder, wanted)?
        .into_iter()
        .map(|path| {
            let file = folder.join(&path);
            let mut content = Vec::new();
            let opened = File::open(&file).at("open the module", &file)?;
            compression::decompress(opened)?.read_to_end(&mut content).at("read the module", &file)?;
            Ok(Module { name: name(&path), content })
        })
        .collect()
}

fn order(folder: &Path, wanted: &[Wanted]) -> Result<Vec<PathBuf>> {
    let path = folder.join("modules.dep");
    let text = fs::read_to_string(&path).at("read", &path)?;
    let needs: HashMap<&str, Vec<&str>> = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(module, needs)| (module, needs.split_whitespace().collect()))
        .collect();
    let by_name: HashMap<String, &str> = needs.keys().map(|path| (name(Path::new(path)), *path)).collect();
    let built_in = fs::read_to_string(folder.join("modules.builtin")).unwrap_or_default();
    let built_in: HashSet<String> = built_in.lines().map(|path| name(Path::new(path))).collect();
    let (mut paths, mut seen) = (Vec::new(), HashSet::new());
    for (module, is_needed) in wanted {
        match by_name.get(*module) {
            Some(path) => {
                // modules.dep names what is to be loaded first at the end.
                for path in needs[path].iter().rev().chain([path]) {
                    if seen.insert(*path) {
                        paths.push(PathBuf::from(path));
                    }
                }
            }
            None if built_in.contains(*module) || !is_needed => {}
            None => {
                return Err(Error::Failed(format!(
                    "the kernel whose modules are in {} has no {module}, neither built in nor as a module, which the machine needs",
                    folder.display()
                )));
            }
        }
    }
    Ok(paths)
}

/// `kernel/drivers/virtio/virtio-pci.ko.xz` is virtio_pci.
fn name(path: &Path) -> String {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    file.split('.').next().unwrap_or_default().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_module_stands_behind_those_that_it_needs() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(
            folder.path().join("modules.dep"),
            "a/virtio.ko:\na/virtio_ring.ko: a/virtio.ko\na/virtio-pci.ko.xz: a/virtio_ring.ko a/virtio.ko\nb/net.ko: a/virtio.ko\n",
        )
        .unwrap();
        fs::write(folder.path().join("modules.builtin"), "fs/ext4.ko\n").unwrap();
        let wanted = [("net", true), ("virtio_pci", true), ("ext4", true), ("button", false)];
        let paths = order(folder.path(), &wanted).unwrap();
        let paths: Vec<_> = paths.iter().map(|path| path.to_str().unwrap()).collect();
        assert_eq!(paths, ["a/virtio.ko", "b/net.ko", "a/virtio_ring.ko", "a/virtio-pci.ko.xz"]);
        let error = order(folder.path(), &[("virtiofs", true)]).unwrap_err().to_string();
        assert!(error.contains("has no virtiofs"), "{error}");
    }
}
