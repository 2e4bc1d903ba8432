//! Virtual machines: an image of the engine's store as a machine of its own, with inception-init as its PID 1.
//!
//! ```text
//! inception vm run ── image, options ──► root (ext4), initramfs, machine.json      this program, then gone or attached
//!        │                                   │
//!        └── starts ──► inception vm-keeper ─┴─► qemu-system-x86_64, virtiofsd     one keeper a machine
//! ```
//! The keeper is to a machine what a shim is to a container: it owns qemu, hears the exit status, and lives on when the
//! command that started it is gone. A machine is a folder that a person can read; docs/vm-run.md describes it.
//!
//! Blocking, but for the keeper: callers on the runtime use `spawn_blocking`.

pub mod config;
pub mod disk;
pub mod initramfs;
pub mod keeper;
pub mod kernel;
pub mod machine;
pub mod modules;
pub mod qemu;
mod qmp;
pub mod root;
pub mod share;
pub mod tools;
