//! The lab's pages, as a person sees them: in a browser, at a phone's and at a desk's width, light and dark, by mouse and
//! by keyboard. As root, with the packages that `make test` installs. Photographs stay in the target folder's tmp.

#[path = "../e2e/harness.rs"]
mod harness;
#[path = "../lab/harness.rs"]
#[allow(dead_code, reason = "the lab's own tests use all of it")]
mod lab;
mod page;
#[path = "../e2e/peers.rs"]
mod peers;
mod refusals;
mod served;
mod server;
mod spoken;
#[path = "../stack/webdriver.rs"]
mod webdriver;
