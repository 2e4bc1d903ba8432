//! Images as virtual machines, as people use them: small ones here, the stack's in `tests/stack/`. Needs root, and the
//! packages that `make test` installs. Machines are emulated where there is no KVM: some seconds each.

mod disk;
#[path = "../e2e/harness.rs"]
mod harness;
mod host;
mod life;
#[path = "../e2e/peers.rs"]
mod peers;
mod refusals;
mod run;
#[path = "../e2e/sessions.rs"]
mod sessions;
