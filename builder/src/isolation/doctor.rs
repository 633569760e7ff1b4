//! `teu-build doctor`: which isolation builds have here, what the others lack, and which knob it is.

use super::Isolation;
use super::probe::{Finding, Tried, try_out};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// What was found out.
#[derive(Debug)]
pub struct Report {
    tried: Vec<(Isolation, Tried)>,
    runtime: Finding,
}

/// Tries every isolation with the store at `store`, each in a process of its own, and the runtime's program.
pub fn examine(store: &Path, runtime: &Path) -> Report {
    let tried = Isolation::ALL
        .into_iter()
        .map(|isolation| (isolation, try_out(isolation, store)));
    Report {
        tried: tried.collect(),
        runtime: execute(runtime),
    }
}

fn execute(runtime: &Path) -> Finding {
    let mut command = Command::new(runtime);
    let status = command
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let (works, detail) = match status {
        Ok(status) if status.success() => (true, runtime.display().to_string()),
        Ok(status) => (false, format!("{}: {status}", runtime.display())),
        Err(error) => (false, format!("execute {}: {error}", runtime.display())),
    };
    let advice =
        (!works).then(|| "install it beside teu-build, or name another by --runtime".to_owned());
    Finding {
        works,
        detail,
        advice,
    }
}

impl Report {
    /// The isolation that builds have, and what was found in it.
    fn chosen(&self) -> Option<&(Isolation, Tried)> {
        self.tried.iter().find(|(_, tried)| tried.entered.works)
    }

    /// Whether builds work here; that steps share a procfs, or have no limits, does not stop them.
    pub fn is_well(&self) -> bool {
        let works = |finding: &Option<Finding>| finding.as_ref().is_some_and(|one| one.works);
        self.runtime.works
            && self
                .chosen()
                .is_some_and(|(_, tried)| works(&tried.overlay))
    }

    /// All findings by name; those of the chosen isolation behind the isolations.
    fn findings(&self) -> Vec<(&'static str, &Finding)> {
        let isolations = self
            .tried
            .iter()
            .map(|(isolation, tried)| (isolation.name(), &tried.entered));
        let mut all: Vec<_> = isolations.collect();
        if let Some((_, tried)) = self.chosen() {
            let parts = [
                ("overlay that can be written to", &tried.overlay),
                ("procfs", &tried.procfs),
                ("cgroup", &tried.cgroup),
            ];
            let parts = parts
                .into_iter()
                .filter_map(|(name, finding)| Some((name, finding.as_ref()?)));
            all.extend(parts);
        }
        all.push(("runtime", &self.runtime));
        all
    }

    /// For people.
    pub fn text(&self) -> String {
        let chosen = self
            .chosen()
            .map_or("none", |(isolation, _)| isolation.name());
        let mut text = format!("isolation: {chosen}\n\n");
        for (name, finding) in self.findings() {
            let works = if finding.works { "yes" } else { "no" };
            let _ = writeln!(text, "{works:>4}  {name}: {}", finding.detail);
            if let Some(advice) = &finding.advice {
                let _ = writeln!(text, "      {advice}");
            }
        }
        text
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let checks = self.findings().into_iter().map(|(name, finding)| {
            json!({"name": name, "works": finding.works, "detail": finding.detail, "advice": finding.advice})
        });
        json!({
            "isolation": self.chosen().map(|(isolation, _)| isolation),
            "works": self.is_well(),
            "checks": checks.collect::<Vec<_>>(),
        })
    }
}
