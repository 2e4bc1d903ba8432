//! `init-tests [--init PATH]… [--as NAME] [--case TEXT] [--bench]`: a matrix of cases, or figures, of any container init.

use std::path::PathBuf;

use argh::FromArgs;
use init_tests::harness::Init;
use init_tests::{bench, bench_vm, matrix, probe, written};

/// Runs container inits through the same cases and prints a matrix. Needs root (pid namespaces).
#[derive(FromArgs)]
struct Options {
    /// an init to run; may be repeated. Default: target/init/inception-init and the peers that are installed
    #[argh(option)]
    init: Vec<PathBuf>,
    /// the personality that the init is asked for, by its option --as
    #[argh(option, long = "as")]
    personality: Option<String>,
    /// only the cases whose name contains this
    #[argh(option, default = "String::new()")]
    case: String,
    /// instead of the cases: size, memory, time and calls side by side
    #[argh(switch)]
    bench: bool,
    /// instead of the cases: times and memory as the PID 1 of virtual machines; the init without the feature `vm`
    #[argh(option, arg_name = "init")]
    bench_vm: Option<PathBuf>,
    /// put the table into this page, between its markers; may be repeated
    #[argh(option)]
    write: Vec<PathBuf>,
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == "probe") && probe::run(&words[1..]) {
        return;
    }
    let options: Options = argh::from_env();
    let inits: Vec<Init> = if options.init.is_empty() {
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
        let ours = std::env::var_os("INCEPTION_INIT").map_or_else(|| target.join("init/inception-init"), PathBuf::from);
        let peers =
            ["/usr/bin/tini", "/usr/bin/tini-static", "/usr/bin/dumb-init", "/usr/bin/catatonit"].map(PathBuf::from);
        let there = std::iter::once(ours).chain(peers).filter(|path| path.is_file());
        // The static tini is measured; in the cases it is the other one again.
        let there = there.filter(|path| options.bench || !path.ends_with("tini-static"));
        there.map(|path| Init::new(&path, None)).collect()
    } else {
        options.init.iter().map(|path| Init::new(path, options.personality.as_deref())).collect()
    };
    let (command, text, failed) = if let Some(without) = &options.bench_vm {
        match bench_vm::run(&inits[0].path, without) {
            Ok(text) => {
                print!("{text}");
                ("make bench-vm", text, false)
            }
            Err(message) => {
                eprintln!("init-tests: {message}");
                std::process::exit(1);
            }
        }
    } else if options.bench {
        let text = bench::run(&inits);
        print!("{text}");
        ("make bench-init", text, false)
    } else {
        let columns = matrix::run(&inits, &options.case);
        let (table, reasons) = matrix::show(&columns);
        print!("{table}\n{reasons}");
        let is_bad = |column: &matrix::Column| column.init.ours && column.verdicts.iter().flatten().any(Result::is_err);
        ("make matrix", table, columns.iter().any(is_bad))
    };
    for page in options.write {
        if let Err(error) = written::replace(&page, command, &text) {
            eprintln!("init-tests: write {}: {error}", page.display());
            std::process::exit(1);
        }
    }
    std::process::exit(i32::from(failed));
}
