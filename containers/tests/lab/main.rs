//! The lab, as a user runs it: what each lesson measures under each alternative, and that nothing is left behind.
//! As root, with tini, dumb-init and catatonit installed (`make test` sees to it).

mod check;
mod endings;
mod exercises;
mod harness;
mod lessons;
