//! Names of what a lab makes outside of itself (folders, tracefs instances): they say whose it is, so that the next lab
//! can remove what a killed one left.

use super::processes::started_at;

/// `inception-lab-PID-STARTED-…`
const PREFIX: &str = "inception-lab-";

/// The beginning of the names of this lab's things.
pub fn own_prefix() -> String {
    let own = std::process::id() as i32;
    format!("{PREFIX}{own}-{}-", started_at(own).unwrap_or_default())
}

/// Whether this is the name of a thing whose lab is gone.
pub fn is_left_behind(name: &str) -> bool {
    let Some(rest) = name.strip_prefix(PREFIX) else { return false };
    let mut numbers = rest.split('-').map(|number| number.parse::<u64>());
    let (Some(Ok(pid)), Some(Ok(started))) = (numbers.next(), numbers.next()) else { return false };
    started_at(pid as i32) != Some(started)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_it_is() {
        assert!(!is_left_behind(&(own_prefix() + "x")));
        assert!(is_left_behind("inception-lab-1-1-x"));
        assert!(!is_left_behind("inception-lab-pools") && !is_left_behind("other-1-1"));
    }
}
