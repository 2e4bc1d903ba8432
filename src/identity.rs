//! Who the service runs as, where, and with which variables: names and files resolved before it is started.

use std::ffi::CString;

use crate::spawn::Identity;

/// Resolves names by /etc/passwd and /etc/group as they are in this file system; no name service is asked.
pub fn resolve(
    user: Option<&str>,
    group: Option<&str>,
    folder: Option<&str>,
    umask: Option<&str>,
) -> Result<Identity, String> {
    let mut identity = Identity::default();
    let (user, own_group) = match user.and_then(|user| user.split_once(':')) {
        Some((user, group)) => (Some(user), Some(group)),
        None => (user, None),
    };
    if let Some(user) = user {
        let passwd = lines("/etc/passwd");
        let entry = passwd.iter().find(|entry| field(entry, 0) == Some(user) || field(entry, 2) == Some(user));
        let number = entry.and_then(|entry| field(entry, 2)).unwrap_or(user);
        identity.user = Some(number.parse().map_err(|_| format!("--user {user}: not in /etc/passwd"))?);
        let name = entry.and_then(|entry| field(entry, 0)).unwrap_or(user);
        identity.group = entry.and_then(|entry| field(entry, 3)?.parse().ok());
        // Never the init's own groups: root's would come along.
        identity.groups = Some(groups_of(name, identity.group));
    }
    if let Some(group) = group.or(own_group) {
        let groups = lines("/etc/group");
        let entry = groups.iter().find(|entry| field(entry, 0) == Some(group));
        let number = entry.and_then(|entry| field(entry, 2)).unwrap_or(group);
        identity.group = Some(number.parse().map_err(|_| format!("--group {group}: not in /etc/group"))?);
        identity.groups.get_or_insert_default();
    }
    if identity.user.is_some() && identity.group.is_none() {
        return Err("--user with a number that is not in /etc/passwd: say the group too, USER:GROUP".into());
    }
    if let Some(folder) = folder {
        identity.folder = Some(CString::new(folder).map_err(|_| "--workdir: a NUL in the name".to_owned())?);
    }
    if let Some(umask) = umask {
        let mask = u32::from_str_radix(umask, 8).ok().filter(|mask| *mask <= 0o777);
        identity.umask = Some(mask.ok_or_else(|| format!("--umask {umask}: an octal number up to 777 is wanted"))?);
    }
    Ok(identity)
}

fn lines(file: &str) -> Vec<String> {
    std::fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn field(entry: &str, index: usize) -> Option<&str> {
    entry.split(':').nth(index)
}

/// The groups that list the user, and the user's own.
fn groups_of(user: &str, own: Option<u32>) -> Vec<u32> {
    let lists = |entry: &String| field(entry, 3).is_some_and(|members| members.split(',').any(|member| member == user));
    let mut groups: Vec<u32> = own.into_iter().collect();
    for entry in lines("/etc/group").iter().filter(|entry| lists(entry)) {
        if let Some(group) = field(entry, 2).and_then(|number| number.parse().ok())
            && !groups.contains(&group)
        {
            groups.push(group);
        }
    }
    groups
}

/// A variable's name and value.
pub type Variable = (Vec<u8>, Vec<u8>);

/// The variables in a file.
pub fn read_variables(file: &str) -> Result<Vec<Variable>, String> {
    let content = std::fs::read(file).map_err(|error| format!("--env-file {file}: {error}"))?;
    parse_variables(file, &content)
}

/// NAME=VALUE lines; empty ones and those that start with # are left out, a value is taken as it stands.
pub fn parse_variables(file: &str, content: &[u8]) -> Result<Vec<Variable>, String> {
    let mut variables = Vec::new();
    for (index, line) in content.split(|byte| *byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() || line[0] == b'#' {
            continue;
        }
        let wrong = || format!("--env-file {file}, line {}: NAME=VALUE is wanted", index + 1);
        let end = line.iter().position(|byte| *byte == b'=').filter(|end| *end > 0).ok_or_else(wrong)?;
        if line.contains(&0) {
            return Err(wrong());
        }
        variables.push((line[..end].to_vec(), line[end + 1..].to_vec()));
    }
    Ok(variables)
}

/// `NAME=VALUE`.
pub fn variable(pair: &str) -> Result<Variable, String> {
    let (name, value) = pair
        .split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(|| format!("--env {pair}: NAME=VALUE is wanted"))?;
    Ok((name.into(), value.into()))
}

/// `NAME=FILE`: the file's content without the newline at its end. The value is never part of an error.
pub fn read_secret(pair: &str) -> Result<Variable, String> {
    let (name, file) = pair
        .split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(|| format!("--secret {pair}: NAME=FILE is wanted"))?;
    let mut value = std::fs::read(file).map_err(|error| format!("--secret {name}={file}: {error}"))?;
    if value.last() == Some(&b'\n') {
        value.pop();
    }
    if value.contains(&0) {
        return Err(format!("--secret {name}={file}: the file holds a NUL, which no variable can"));
    }
    Ok((name.into(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        let root = resolve(Some("root"), None, None, Some("027")).unwrap();
        assert_eq!((root.user, root.group, root.umask), (Some(0), Some(0), Some(0o27)));
        let pair = resolve(Some("4242:4343"), None, None, None).unwrap();
        assert_eq!((pair.user, pair.group, pair.groups), (Some(4242), Some(4343), Some(Vec::new())));
        for (user, umask) in
            [(Some("4242"), None), (Some("no-such-user"), None), (None, Some("1000")), (None, Some("9"))]
        {
            assert!(resolve(user, None, None, umask).is_err());
        }
    }
}
