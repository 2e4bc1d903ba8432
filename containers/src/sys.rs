//! The crate's only unsafe code: system calls that nix and std do not wrap.
