//! The clock's zone, and the entropy that a machine has left over from its last run.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::{sys, warning};

/// Random bytes in a seed.
const SEED_SIZE: usize = 256;

/// Sets the kernel's zone to that of a name, as it is now. The service gets TZ, which needs no file to be set.
pub fn set_zone(name: &str) {
    let file = Path::new("/usr/share/zoneinfo").join(name);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let set = match fs::read(&file) {
        Ok(content) => offset(&content, now as i64)
            .ok_or_else(|| "not a zone's file".to_owned())
            .and_then(|east| sys::vm::set_zone(-(east / 60)).map_err(|error| sys::reason(error).to_owned())),
        Err(error) => Err(error.to_string()),
    };
    if let Err(message) = set {
        warning!("zone {name}: {}: {message}", file.display());
    }
}

/// Seconds east of Greenwich at a time, by a TZif file (RFC 8536). After the last change that the file lists, what that
/// change made.
pub fn offset(file: &[u8], time: i64) -> Option<i32> {
    const HEADER: usize = 44;
    let count = |header: &[u8], index: usize| -> Option<usize> {
        let bytes = header.get(20 + index * 4..24 + index * 4)?;
        Some(u32::from_be_bytes(bytes.try_into().ok()?) as usize)
    };
    if !file.starts_with(b"TZif") {
        return None;
    }
    let counts = |header: &[u8]| -> Option<[usize; 6]> {
        let mut counts = [0; 6];
        for (index, value) in counts.iter_mut().enumerate() {
            *value = count(header, index)?;
        }
        Some(counts)
    };
    // The first part has times of 32 bits; from version 2 on a second one follows, of 64.
    let (body, width) = if file.get(4) == Some(&0) {
        (file, 4)
    } else {
        let [utc, standard, leap, times, types, letters] = counts(file)?;
        (file.get(HEADER + times * 5 + types * 6 + letters + leap * 8 + standard + utc..)?, 8)
    };
    let [_, _, _, times, types, _] = counts(body)?;
    let data = body.get(HEADER..)?;
    let at = |index: usize| -> Option<i64> {
        let bytes = data.get(index * width..(index + 1) * width)?;
        Some(if width == 4 {
            i32::from_be_bytes(bytes.try_into().ok()?).into()
        } else {
            i64::from_be_bytes(bytes.try_into().ok()?)
        })
    };
    let passed = (0..times).take_while(|index| at(*index).is_some_and(|change| change <= time)).count();
    let kind = match passed.checked_sub(1) {
        Some(last) => usize::from(*data.get(times * width + last)?),
        None => 0,
    };
    let record = times * (width + 1) + kind * 6;
    (kind < types).then_some(())?;
    Some(i32::from_be_bytes(data.get(record..record + 4)?.try_into().ok()?))
}

/// Loads the seed and puts a new one in its place. One that stays as it is, because its file can't be written, would
/// come again at the next start: it is mixed in, and not counted as random.
pub fn load_seed(file: &str) {
    let old = fs::read(file).unwrap_or_default();
    let device = match sys::open(c"/dev/urandom", libc::O_RDWR) {
        Ok(device) => device,
        Err(error) => return warning!("seed {file}: /dev/urandom: {}", sys::reason(error)),
    };
    let gone = old.is_empty() || (fs::remove_file(file).is_ok() && sync_folder(file));
    if gone && !old.is_empty() {
        if let Err(error) = sys::vm::add_entropy(device, &old) {
            warning!("seed {file}: {}", sys::reason(error));
        }
    } else {
        sys::print(device, &old);
    }
    sys::close(device);
    let mut new = [0; SEED_SIZE];
    if !sys::vm::random(&mut new) {
        return warning!("seed {file}: the kernel has no randomness yet, and no new seed is written");
    }
    let written = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(file)
        .and_then(|mut file| file.write_all(&new).and_then(|()| file.sync_all()));
    if let Err(error) = written {
        warning!("seed {file}: {error}");
    }
}

fn sync_folder(file: &str) -> bool {
    let folder = Path::new(file).parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.is_some_and(|folder| fs::File::open(folder).and_then(|folder| folder.sync_all()).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones() {
        // Version 1: one change at 100, from +1 h to +2 h.
        let mut file = b"TZif".to_vec();
        file.resize(20, 0);
        for count in [0u32, 0, 0, 1, 2, 4] {
            file.extend(count.to_be_bytes());
        }
        file.extend(100i32.to_be_bytes());
        file.push(1);
        for seconds in [3600i32, 7200] {
            file.extend(seconds.to_be_bytes());
            file.extend([0, 0]);
        }
        file.extend(b"CET\0");
        assert_eq!((offset(&file, 99), offset(&file, 100)), (Some(3600), Some(7200)));
        for length in 0..file.len() - 10 {
            assert_eq!(offset(&file[..length], 100), None);
        }
        assert_eq!(offset(b"nonsense", 0), None);
        if let Ok(file) = fs::read("/usr/share/zoneinfo/Asia/Tokyo") {
            assert_eq!(offset(&file, 1_800_000_000), Some(32400));
        }
    }
}
