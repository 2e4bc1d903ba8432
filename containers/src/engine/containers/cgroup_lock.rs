//! A wait of the runtime's that is had beforehand.
//!
//! Whoever moves a process to another cgroup takes a kernel-wide lock whose readers, fork and exit, cost nothing until
//! it is taken: the first taker after a pause waits for an RCU grace period, 10 to 30 ms, a third of a start by runc.
//! For about as long again, further takers wait for nothing. So the engine takes it as soon as it is about to start a
//! container, by moving itself to where it is already, and the wait passes while the files, the shim and the runtime's
//! own start are under way. Source: kernel/cgroup/cgroup.c (cgroup_procs_write_start), kernel/rcu/sync.c.

use std::{
    fs,
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

/// Between two takes: shorter than a grace period, after which the next taker waits again.
const PAUSE: Duration = Duration::from_millis(5);
/// The most takes for one start: a runtime that hangs does not keep the lock busy.
const MOST: usize = 100;

/// How many starts want the lock taken.
static WANTED: AtomicUsize = AtomicUsize::new(0);

/// The lock is taken again and again while this lives.
pub struct Taken(());

impl Taken {
    /// Begins in the background. Where it can't be done, the runtime waits as it would have.
    pub fn begin() -> Taken {
        if WANTED.fetch_add(1, Ordering::AcqRel) == 0 {
            let _ = thread::Builder::new().name("cgroup lock".into()).spawn(take);
        }
        Taken(())
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        WANTED.fetch_sub(1, Ordering::AcqRel);
    }
}

fn take() {
    let Some(path) = own_cgroup() else { return };
    for _ in 0..MOST {
        if WANTED.load(Ordering::Acquire) == 0 || fs::write(&path, "0").is_err() {
            return;
        }
        thread::sleep(PAUSE);
    }
}

/// The cgroup.procs of the cgroup that this process is in, of the first hierarchy that has one.
fn own_cgroup() -> Option<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    text.lines()
        .filter_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let controllers = fields.next()?;
            let folder = PathBuf::from("/sys/fs/cgroup").join(controllers.trim_start_matches("name="));
            Some(folder.join(fields.next()?.trim_start_matches('/')).join("cgroup.procs"))
        })
        .find(|path| path.exists())
}
