//! `USER` and `--user`: names and numbers, looked up in the image's own /etc/passwd and /etc/group (passwd(5), group(5)).

use crate::{
    error::{Error, Result},
    image::rooted::Root,
};
use nix::fcntl::OFlag;
use std::{fs::File, io::Read, path::PathBuf};

/// A user as `USER` and `--user` name it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    pub additional_gids: Vec<u32>,
    pub home: String,
}

/// No account file is longer than this; what an image says is not trusted.
const LONGEST: u64 = 4 << 20;

/// Looks up `user[:group]` in the layers, the topmost first. Empty: root. Unknown names fail in Docker's words.
pub fn user(spec: &str, layers: &[PathBuf]) -> Result<User> {
    let passwd = account_file(layers, "etc/passwd");
    let group_file = account_file(layers, "etc/group");
    resolve(spec, &passwd, &group_file)
}

fn resolve(spec: &str, passwd: &str, groups: &str) -> Result<User> {
    let (user, group) = match spec.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (spec, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let number = user.parse::<u32>().ok();
    let entry = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .filter(|fields| fields.len() >= 6)
        .find(|fields| fields[0] == user || (number.is_some() && fields[2].parse().ok() == number));
    let mut found = User { home: "/".into(), ..User::default() };
    let name = match (&entry, number) {
        (Some(fields), _) => {
            found.uid = fields[2].parse().map_err(|_| unknown_user(user))?;
            found.gid = fields[3].parse().map_err(|_| unknown_user(user))?;
            found.home = if fields[5].is_empty() { "/".into() } else { fields[5].into() };
            fields[0]
        }
        (None, Some(number)) => {
            found.uid = number;
            ""
        }
        (None, None) => return Err(unknown_user(user)),
    };
    let entries = || groups.lines().map(|line| line.split(':').collect::<Vec<_>>()).filter(|fields| fields.len() >= 4);
    match group.filter(|group| !group.is_empty()) {
        Some(group) => {
            found.gid = entries()
                .find(|fields| fields[0] == group)
                .and_then(|fields| fields[2].parse().ok())
                .or_else(|| group.parse().ok())
                .ok_or_else(|| {
                    Error::Invalid(format!("unable to find group {group}: no matching entries in group file"))
                })?;
        }
        None if !name.is_empty() => {
            found.additional_gids = entries()
                .filter(|fields| fields[3].split(',').any(|member| member == name))
                .filter_map(|fields| fields[2].parse().ok())
                .filter(|gid| *gid != found.gid)
                .collect();
        }
        None => {}
    }
    // The group itself too, as every login has it: without it a process could leave its group and pass a test that keeps
    // this group out (CVE-2022-36109).
    found.additional_gids.insert(0, found.gid);
    Ok(found)
}

/// The gid of a group by name or number; for `--group-add`.
pub fn group(name: &str, layers: &[PathBuf]) -> Result<u32> {
    Ok(resolve(&format!("0:{name}"), "", &account_file(layers, "etc/group"))?.gid)
}

fn unknown_user(user: &str) -> Error {
    Error::Invalid(format!("unable to find user {user}: no matching entries in passwd file"))
}

/// The file as the topmost layer that has it says; links stay inside that layer's root.
fn account_file(layers: &[PathBuf], path: &str) -> String {
    for layer in layers {
        let opened = Root::open(layer).and_then(|root| root.file(path.as_bytes(), OFlag::O_RDONLY | OFlag::O_NONBLOCK));
        let Ok(file) = opened.map(File::from) else { continue };
        if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
            // A whiteout: the file was deleted in this layer.
            return String::new();
        }
        let mut text = Vec::new();
        let _ = file.take(LONGEST).read_to_end(&mut text);
        return String::from_utf8_lossy(&text).into_owned();
    }
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nwww:x:33:34::/srv:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nwww:x:34:\nextra:x:44:www,other\n";

    #[test]
    fn names_numbers_groups() {
        assert_eq!(resolve("", PASSWD, GROUP).unwrap().home, "/root");
        let www = resolve("www", PASSWD, GROUP).unwrap();
        assert_eq!((www.uid, www.gid, www.additional_gids.as_slice()), (33, 34, &[34, 44][..]));
        assert_eq!(resolve("33", PASSWD, GROUP).unwrap(), www);
        assert_eq!(resolve("1000:extra", PASSWD, GROUP).unwrap().gid, 44);
        assert_eq!(
            resolve("1000:1001", "", "").unwrap(),
            User { uid: 1000, gid: 1001, additional_gids: vec![1001], home: "/".into() }
        );
        assert!(resolve("nobody", PASSWD, GROUP).unwrap_err().to_string().contains("unable to find user nobody"));
        assert!(resolve("www:none", PASSWD, GROUP).unwrap_err().to_string().contains("unable to find group none"));
    }
}
