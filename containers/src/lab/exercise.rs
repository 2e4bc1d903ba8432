//! Exercises: broken Dockerfiles and entrypoints that the learner mends in an editor, and that are judged by running them.
//! Each is a Markdown file in `exercises/`: task, files, hints.

use super::{
    Lab,
    check::{Report, Subject, Verdict},
    folder::Folder,
    lesson::{Program, programs, section},
};
use crate::{
    build,
    error::{Context, Error, Result},
};
use std::{fs, os::unix::fs::PermissionsExt, path::Path, sync::LazyLock};

pub struct Exercise {
    /// As typed: `shell-form`.
    pub name: String,
    pub title: String,
    pub task: String,
    /// What is broken; the Dockerfile is among them.
    pub files: Vec<Program>,
    /// From a nudge to the solution.
    pub hints: Vec<String>,
}

const TEXTS: [&str; 5] = [
    include_str!("exercises/shell-form.md"),
    include_str!("exercises/tail-f.md"),
    include_str!("exercises/trap.md"),
    include_str!("exercises/background.md"),
    include_str!("exercises/health-check.md"),
];

/// The service that all exercises have.
const SERVER: &str = include_str!("exercises/server");

static EXERCISES: LazyLock<Vec<Exercise>> =
    LazyLock::new(|| TEXTS.iter().map(|text| read(text).unwrap_or_else(|why| panic!("an exercise: {why}"))).collect());

/// All of them, from the easiest.
pub fn all() -> &'static [Exercise] {
    &EXERCISES
}

/// The exercise with this name.
pub fn find(name: &str) -> Option<&'static Exercise> {
    all().iter().find(|exercise| exercise.name == name)
}

fn read(text: &str) -> Result<Exercise, String> {
    let (name, title) =
        text.lines().next().and_then(|line| line.strip_prefix("# ")?.split_once(": ")).ok_or("no title")?;
    Ok(Exercise {
        name: name.to_owned(),
        title: title.to_owned(),
        task: section(text, "Task")?.to_owned(),
        files: programs(section(text, "Files")?),
        hints: section(text, "Hints")?.lines().filter_map(|line| line.strip_prefix("- ")).map(str::to_owned).collect(),
    })
}

impl Exercise {
    /// Puts the files into the folder; what is there already stays as it is. Whether any was new.
    pub fn lay_out(&self, folder: &Path) -> Result<bool> {
        fs::create_dir_all(folder).at("create", folder)?;
        let server = ("server", SERVER);
        let mut is_new = false;
        for (file, text) in self.files.iter().map(|file| (file.file.as_str(), file.text.as_str())).chain([server]) {
            let path = folder.join(file);
            if path.exists() {
                continue;
            }
            is_new = true;
            fs::write(&path, text).at("write", &path)?;
            let mode = if text.starts_with("#!") { 0o755 } else { 0o644 };
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).at("set the mode of", &path)?;
        }
        Ok(is_new)
    }

    /// Runs what the folder's Dockerfile starts, in that folder, and looks at it as `lab check` does.
    pub fn judge(&self, lab: &Lab, folder: &Path) -> Result<Report> {
        let path = folder.join("Dockerfile");
        let text = fs::read_to_string(&path).at("read", &path)?;
        let config = build::described(&text, "Dockerfile")?;
        let words = [config.entrypoint.unwrap_or_default(), config.cmd.unwrap_or_default()].concat();
        if words.is_empty() {
            return Err(Error::invalid("the Dockerfile has neither ENTRYPOINT nor CMD"));
        }
        // For a copy of the init in PATH.
        let own = Folder::new(&[])?;
        let mut variables = lab.variables(own.path());
        for entry in config.env.unwrap_or_default() {
            let (name, value) = entry.split_once('=').unwrap_or((&entry, ""));
            variables.push((name.into(), value.into()));
        }
        let folder = folder.canonicalize().at("find", folder)?;
        lab.check(&Subject::Command { words, folder, variables, program: Some("server".into()) })
    }

    /// A hint more for each time that it was judged and is not solved: the first ones nudge.
    pub fn hint(&self, tried: usize) -> Option<&str> {
        self.hints.get(tried.min(self.hints.len().saturating_sub(1))).map(String::as_str)
    }
}

/// Whether everything is as it should be.
pub fn is_solved(report: &Report) -> bool {
    report.points.iter().all(|point| point.verdict != Verdict::Wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exercise_is_whole() {
        for exercise in all() {
            assert!(exercise.files.iter().any(|file| file.file == "Dockerfile"), "{}", exercise.name);
            assert!(exercise.hints.len() >= 3 && !exercise.task.is_empty(), "{}", exercise.name);
            assert_eq!(exercise.hint(99), exercise.hints.last().map(String::as_str));
        }
    }
}
