//! What the fuzz targets do with their bytes: each parser of the init, which must neither panic nor break its promise.

use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use inception_init::options::{self, Request};
use inception_init::personality::{self, Peer};
use inception_init::vm::settings::Settings;
use inception_init::vm::{clock, mounts, syntax};
use inception_init::{events, identity, inherited, notify, policy, signal, sys, tree};

/// Lines as arguments: the first is how many variables of the environment follow it.
fn arguments(data: &[u8]) -> (Vec<&'static OsStr>, Vec<&'static OsStr>) {
    let mut all: Vec<&'static OsStr> = data
        .split(|byte| *byte == b'\n')
        .map(|word| word.iter().copied().filter(|byte| *byte != 0).collect())
        .map(|word| &*Box::leak(std::ffi::OsString::from_vec(word).into_boxed_os_str()))
        .collect();
    let count = all[0].as_bytes().first().map_or(0, |byte| usize::from(*byte % 4)).min(all.len() - 1);
    let rest = all.split_off(1);
    let (environment, words) = rest.split_at(count);
    (std::iter::once(OsStr::new("init")).chain(words.iter().copied()).collect(), environment.to_vec())
}

fn is_sound(request: Request, args: &[&OsStr]) {
    if let Request::Run { command, .. } = request {
        assert!(command.is_sorted() && command[0] >= 1 && command[command.len() - 1] < args.len(), "{args:?}");
    }
}

pub fn own_options(data: &[u8]) {
    let (args, environment) = arguments(data);
    // These open and read files.
    let opens = |word: &&OsStr| {
        let text = word.to_string_lossy().to_ascii_lowercase();
        ["events", "secret", "env-file", "env_file"].iter().any(|name| text.contains(name))
    };
    if !args.iter().chain(&environment).any(opens) {
        is_sound(options::read(&args, environment.iter().copied()), &args);
    }
}

fn personality(peer: Peer, data: &[u8]) {
    let (args, environment) = arguments(data);
    is_sound(personality::read(peer, &args, 1, |_| environment.first().copied()), &args);
}

pub fn tini(data: &[u8]) {
    personality(Peer::Tini, data);
}

pub fn dumb_init(data: &[u8]) {
    personality(Peer::DumbInit, data);
}

pub fn catatonit(data: &[u8]) {
    personality(Peer::Catatonit, data);
}

/// Signals, times, restart policies, variables.
pub fn values(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        if let Some(number) = signal::parse(text) {
            assert!((1..=signal::HIGHEST).contains(&number));
            assert!((32..34).contains(&number) || signal::parse(&signal::name(number)) == Some(number));
        }
        let _ = (options::seconds(text), policy::Restart::parse(text), identity::variable(text));
    }
    if let Ok(variables) = identity::parse_variables("file", data) {
        assert!(variables.iter().all(|(name, value)| !name.is_empty() && !name.contains(&0) && !value.contains(&0)));
    }
}

/// What the service writes: messages of sd_notify.
pub fn messages(data: &[u8]) {
    assert!(notify::parse(data).main.is_none_or(|pid| pid > 0));
}

/// What the kernel writes: /proc and folders; the names in it are anybody's.
pub fn kernel(data: &[u8]) {
    let _ = (tree::parse(1, data), inherited::parse(data));
    assert!(sys::names(data).all(|name| name.len() <= data.len()));
}

/// A process's name in the event log is one JSON string and one word.
pub fn names(data: &[u8]) {
    let name = String::from_utf8_lossy(data);
    let json = events::escaped(&name);
    assert!(!json.chars().any(|letter| u32::from(letter) < 0x20));
    assert!(events::plain(&name).bytes().all(|byte| byte.is_ascii_graphic()));
}

/// A machine's configuration, the kernel's command line, and the files that its PID 1 reads.
pub fn machine(data: &[u8]) {
    let mut settings = Settings::default();
    let wrong = settings.take_file("file", data);
    assert!(wrong.iter().all(|message| message.starts_with("file, line ")));
    let (before, after) = syntax::kernel_words(data);
    let _ = settings.take_command_line(&before);
    let words = before.iter().chain(&after).chain(&settings.service).chain(settings.setup.iter().flatten());
    assert!(words.map(Vec::len).sum::<usize>() <= 4 * data.len());
    assert!(settings.mounts.iter().all(|mount| mount.target.starts_with('/')));
    let _ = (clock::offset(data, 1 << 31), mounts::parse_mount(&String::from_utf8_lossy(data)));
}

/// What is done with some bytes.
pub type Target = fn(&[u8]);

/// The targets by name.
pub const TARGETS: &[(&str, Target)] = &[
    ("own_options", own_options),
    ("tini", tini),
    ("dumb_init", dumb_init),
    ("catatonit", catatonit),
    ("values", values),
    ("messages", messages),
    ("kernel", kernel),
    ("names", names),
    ("machine", machine),
];

#[cfg(test)]
mod tests {
    use super::TARGETS;

    /// Without a fuzzer: seeds, cut, joined and with bytes changed at random, the same ones each time.
    #[test]
    fn seeds_and_noise() {
        let seeds: &[&[u8]] = &[
            b"1\nINCEPTION_INIT_GRACE=3\n-vv\n--grace=0.5\n--rewrite\n15:3,WINCH:0\n--\nsh",
            b"0\n-vge143\n-p\nSIGUSR1\nsh\n-v\n--\n-c",
            b"0\n--rewrite=15:3\n--sing\n-r\n1:0\nx",
            b"RTMIN+3",
            b"on-failure:3",
            b"1.25s",
            b"A=b\n#c\nD=e=f\r\n",
            b"READY=1\nMAINPID=77\nWATCHDOG_USEC=2500000",
            b"77 (a) S 1 (b)) R 5 70 60 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 123456 1 1 1",
            b"Name:\tx\nSigBlk:\t0000000000000001\nSigIgn:\t8000000000001002\nSig",
            b"arg = a\nmount = \"x y\" /z ext4 ro\nenv = A=\\x41\nrlimit = nofile 1:2\naddress = eth0 ::1/64\nstatus = vsock:7\n",
            b"quiet inception.mount=\"a /b c\" inception.arg=x -- --grace 3 sh -c \"y z\"",
            b"TZif2\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\x01\0\0\0\x04",
            b"\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x18\0\x0477\0\0\0",
        ];
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % below as u64) as usize
        };
        for (_, target) in TARGETS {
            target(b"");
            for _ in 0..3000 {
                let mut data = seeds[random(seeds.len())].to_vec();
                data.truncate(random(data.len() + 1));
                data.extend_from_slice(&seeds[random(seeds.len())][random(5)..]);
                for _ in 0..random(5) {
                    let at = random(data.len());
                    data[at] = random(256) as u8;
                }
                target(&data);
            }
        }
    }
}
