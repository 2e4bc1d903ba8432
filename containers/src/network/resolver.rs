//! resolv.conf(5): what a container's says, and where names that are not this engine's are asked for.

use std::{fmt::Write, fs, net::IpAddr};

/// The machine's servers, search list and options.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolver {
    pub servers: Vec<IpAddr>,
    pub search: Vec<String>,
    pub options: Vec<String>,
}

/// The address of the engine's name service inside a container, as Docker's.
pub const NAME_SERVICE: &str = "127.0.0.11";

impl Resolver {
    /// As /etc/resolv.conf says; where that names only systemd-resolved's stub on loopback, as the file behind it says.
    pub fn of_the_machine() -> Resolver {
        let read = |path: &str| Resolver::parse(&fs::read_to_string(path).unwrap_or_default());
        let resolver = read("/etc/resolv.conf");
        if resolver.servers.iter().all(IpAddr::is_loopback) {
            let behind = read("/run/systemd/resolve/resolv.conf");
            if !behind.servers.is_empty() {
                return behind;
            }
        }
        resolver
    }

    fn parse(text: &str) -> Resolver {
        let mut resolver = Resolver::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    // An address with a zone (fe80::1%eth0) means nothing in another namespace.
                    resolver.servers.extend(words.next().and_then(|word| word.parse::<IpAddr>().ok()));
                }
                // The last one counts, and `domain` is an old form of it.
                Some("search" | "domain") => resolver.search = words.map(String::from).collect(),
                Some("options") => resolver.options.extend(words.map(String::from)),
                _ => {}
            }
        }
        resolver
    }

    /// A container's own: what `--dns`, `--dns-search` and `--dns-option` say, the rest from the machine.
    pub fn for_container(dns: &[String], search: &[String], options: &[String]) -> Resolver {
        let machine = Resolver::of_the_machine();
        let given: Vec<IpAddr> = dns.iter().filter_map(|server| server.parse().ok()).collect();
        Resolver {
            servers: if given.is_empty() { machine.servers } else { given },
            search: match search {
                [] => machine.search,
                // Docker's way to say "none".
                [one] if one == "." => Vec::new(),
                list => list.into(),
            },
            options: if options.is_empty() { machine.options } else { options.into() },
        }
    }

    /// Whether the engine's name service answers in the container: on user-defined networks, and where the machine's own
    /// servers listen on its loopback, out of a container's reach.
    pub fn is_named(&self, user_defined: bool) -> bool {
        user_defined || self.servers.iter().all(IpAddr::is_loopback)
    }

    /// The file's text. `named`: the engine's name service answers, and asks the servers itself.
    pub fn text(&self, named: bool) -> String {
        let mut text = String::new();
        if named {
            let _ = writeln!(text, "nameserver {NAME_SERVICE}");
        } else {
            for server in self.servers.iter().filter(|server| !server.is_loopback()) {
                let _ = writeln!(text, "nameserver {server}");
            }
        }
        if !self.search.is_empty() {
            let _ = writeln!(text, "search {}", self.search.join(" "));
        }
        let mut options = self.options.clone();
        // Names of containers have no dot: they are asked for as they are before the search list is tried.
        if named && !options.iter().any(|option| option.starts_with("ndots:")) {
            options.push("ndots:0".into());
        }
        if !options.is_empty() {
            let _ = writeln!(text, "options {}", options.join(" "));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_is_read_and_written() {
        let resolver = Resolver::parse(
            "# x\nnameserver 127.0.0.53\nnameserver 192.0.2.1\nsearch a\nsearch b c\noptions ndots:2\n",
        );
        assert_eq!(resolver.search, ["b", "c"]);
        assert_eq!(resolver.text(false), "nameserver 192.0.2.1\nsearch b c\noptions ndots:2\n");
        assert_eq!(resolver.text(true), "nameserver 127.0.0.11\nsearch b c\noptions ndots:2\n");
    }
}
