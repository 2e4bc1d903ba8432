//! Runs the cases against inits and shows the result as a table.

use crate::cases::{CASES, Case, Verdict};
use crate::harness::Init;

/// One init's verdicts, in the order of the cases; `None` where a case does not apply.
pub struct Column {
    pub init: Init,
    pub verdicts: Vec<Option<Verdict>>,
}

/// Runs every case whose name contains `filter` against every init, the inits side by side.
pub fn run(inits: &[Init], filter: &str) -> Vec<Column> {
    std::thread::scope(|scope| {
        let running: Vec<_> = inits.iter().map(|init| scope.spawn(move || column(init, filter))).collect();
        running.into_iter().flat_map(std::thread::ScopedJoinHandle::join).collect()
    })
}

fn column(init: &Init, filter: &str) -> Column {
    let verdict =
        |case: &Case| (case.name.contains(filter) && (init.ours || !case.ours_only)).then(|| (case.run)(init));
    Column { init: init.clone(), verdicts: CASES.iter().map(verdict).collect() }
}

/// The table as Markdown, and why a case failed.
pub fn show(columns: &[Column]) -> (String, String) {
    let names: Vec<&str> = columns.iter().map(|column| column.init.name.as_str()).collect();
    let mut text = format!("| case | {} |\n|---|{}\n", names.join(" | "), "---|".repeat(names.len()));
    let mut reasons = String::new();
    for (index, case) in CASES.iter().enumerate() {
        if columns.iter().all(|column| column.verdicts[index].is_none()) {
            continue;
        }
        text.push_str(&format!("| {} |", case.name));
        for column in columns {
            text.push_str(match &column.verdicts[index] {
                None => "  |",
                Some(Ok(())) => " yes |",
                Some(Err(_)) => " **no** |",
            });
            if let Some(Err(reason)) = &column.verdicts[index] {
                reasons.push_str(&format!("- {}: {}: {reason}\n", column.init.name, case.name));
            }
        }
        text.push('\n');
    }
    (text, reasons)
}
