//! Each system call of the init failed in turn: no hang, nobody left behind, no signal lost, the exit code as documented.

use init_tests::faults;
use init_tests::harness::Init;

mod built;

#[test]
fn every_failed_call_is_survived() {
    // SAFETY: before any thread of this test's own.
    unsafe { std::env::set_var("INIT_TESTS_PROBE", env!("CARGO_BIN_EXE_init-tests")) };
    let problems = faults::run(&Init::new(built::init(), None));
    let list: Vec<_> = problems.iter().map(|problem| format!("{}: {}", problem.fault, problem.problem)).collect();
    assert!(list.is_empty(), "{}", list.join("\n"));
}
