//! A plan from outside: the JSON that `teu-build plan` prints, or another front end writes. Believed only after it was
//! checked: positions lead backwards, and nothing stands in it that a Dockerfile could not say.

use super::build;
use super::filesystem::is_hostname;
use super::{
    CopySource, Entitlement, MountKind, Network, Operation, Options, Origin, Plan, Run, Tree,
};
use crate::remote::{self, GitSource, HttpSource};
use std::fmt::Write as _;

/// Largest plan, in bytes: a Dockerfile's text may stand in it several times.
pub const PLAN_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Most steps of a plan from outside; more than any Dockerfile makes for several platforms.
const STEPS_MAX: usize = 100_000;

/// What is wrong with a plan.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BadPlan {
    /// It is not what `teu-build plan` prints.
    #[error("it is no plan")]
    Json(#[from] serde_json::Error),
    /// It has too many steps, or no result.
    #[error(
        "it has {steps} steps and {results} results; at most {STEPS_MAX} and at least one are possible"
    )]
    Size {
        /// How many steps.
        steps: usize,
        /// How many results.
        results: usize,
    },
    /// A step.
    #[error("step {number} ({place}): {why}")]
    Step {
        /// Counts from 1.
        number: usize,
        /// As the plan calls it.
        place: String,
        /// What is wrong with it.
        why: String,
    },
    /// A result.
    #[error("its result for {platform} is no tree of the plan")]
    Result {
        /// For what it is.
        platform: String,
    },
}

/// Reads a plan. `named` is how many contexts have names. The text that comes with it has the instructions of all
/// steps, and is what their places point into.
///
/// # Errors
/// It is none, or one that could not come from a Dockerfile.
pub fn read(json: &str, options: &Options, named: usize) -> Result<(Plan, String), BadPlan> {
    let mut plan: Plan = serde_json::from_str(json)?;
    if plan.steps.len() > STEPS_MAX || plan.results.is_empty() {
        return Err(BadPlan::Size {
            steps: plan.steps.len(),
            results: plan.results.len(),
        });
    }
    for number in 0..plan.steps.len() {
        check(&plan, number, options, named).map_err(|why| BadPlan::Step {
            number: number + 1,
            place: plan.steps[number].place.clone(),
            why,
        })?;
    }
    if let Some(target) = plan
        .results
        .iter()
        .find(|target| !is_before(target.tree, plan.steps.len(), plan.images.len()))
    {
        return Err(BadPlan::Result {
            platform: target.platform.to_string(),
        });
    }
    let mut text = String::new();
    for step in &mut plan.steps {
        let begin = text.len();
        let _ = writeln!(text, "{}", step.text.trim_end());
        step.span = begin..text.len() - 1;
        if let Operation::Run(run) = &mut step.operation {
            run.proxies = proxies(run, options);
        }
    }
    Ok((plan, text))
}

/// Passwords may stand in proxies, so they are in no plan that is printed: who executes it gives its own.
fn proxies(run: &Run, options: &Options) -> Vec<String> {
    let is_set = |name: &str| {
        let mut names = run.env.iter().filter_map(|text| text.split_once('='));
        names.any(|(own, _)| own == name)
    };
    build::proxies(&options.build_args, is_set)
}

/// Whether a tree is known before the step of that number.
fn is_before(tree: Tree, step: usize, images: usize) -> bool {
    match tree {
        Tree::Empty => true,
        Tree::Image(place) => place < images,
        Tree::Step(place) => place < step,
    }
}

fn check(plan: &Plan, number: usize, options: &Options, named: usize) -> Result<(), String> {
    let step = &plan.steps[number];
    let is_known = |origin: Origin| match origin {
        Origin::Context | Origin::Remote => true,
        Origin::Named(place) => place < named,
        Origin::Tree(tree) => is_before(tree, number, plan.images.len()),
    };
    if !is_known(Origin::Tree(step.parent)) {
        return Err("it starts from a tree that is not there before it".to_owned());
    }
    let origins: Vec<Origin> = match &step.operation {
        Operation::Directory(_) => Vec::new(),
        Operation::Copy(copy) => {
            for source in &copy.sources {
                check_source(source)?;
            }
            vec![copy.origin]
        }
        Operation::Run(run) => {
            check_run(run, options)?;
            let origin = |kind: &MountKind| match kind {
                MountKind::Bind { origin, .. } => Some(*origin),
                MountKind::Cache { from, .. } => *from,
                MountKind::Tmpfs { .. } | MountKind::Secret { .. } | MountKind::Ssh { .. } => None,
            };
            let mounts = run.mounts.iter();
            mounts.filter_map(|mount| origin(&mount.kind)).collect()
        }
    };
    match origins.into_iter().all(is_known) {
        true => Ok(()),
        false => Err("it reads what is not there before it".to_owned()),
    }
}

fn check_run(run: &Run, options: &Options) -> Result<(), String> {
    if run.insecure && !options.allow.contains(&Entitlement::SecurityInsecure) {
        return Err("it asks for more than a sandbox: --allow security.insecure".to_owned());
    }
    let is_open = run.network == Network::Host && options.network == Network::None;
    if is_open && !options.allow.contains(&Entitlement::NetworkHost) {
        return Err(
            "it asks for the host's network, and --network=none is given: --allow network.host"
                .to_owned(),
        );
    }
    if let Some(name) = run.hostname.as_ref().filter(|name| !is_hostname(name)) {
        return Err(format!("{name:?} is no name of a machine"));
    }
    if run.args.is_empty() {
        return Err("it runs nothing".to_owned());
    }
    match &run.script {
        Some((name, _)) if !is_name(name) => Err(format!("{name:?} is no name of a script")),
        _ => Ok(()),
    }
}

/// Whether a text is the name of one file.
fn is_name(text: &str) -> bool {
    !text.is_empty() && !matches!(text, "." | "..") && !text.contains(['/', '\0'])
}

/// What is fetched must be what the same words in a Dockerfile would mean.
fn check_source(source: &CopySource) -> Result<(), String> {
    let is_good = match source {
        CopySource::Path { .. } => true,
        CopySource::Inline { name, .. } => is_name(name),
        CopySource::Http(http) => is_good_http(http),
        CopySource::Git(git) => is_good_git(git),
    };
    match is_good {
        true => Ok(()),
        false => Err(format!("a source is none that can be copied: {source:?}")),
    }
}

fn is_good_http(http: &HttpSource) -> bool {
    let read = remote::http_source(&http.url).and_then(Result::ok);
    read.is_some_and(|read| read.url == http.url) && is_name(&http.name)
}

fn is_good_git(git: &GitSource) -> bool {
    let reference = git.reference.as_deref().unwrap_or_default();
    let text = format!("{}#{reference}:{}", git.remote, git.directory);
    let read = remote::git_source(&text).and_then(Result::ok);
    read.is_some_and(|read| {
        (&read.remote, &read.reference, &read.directory)
            == (&git.remote, &git.reference, &git.directory)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn plan(steps: Value) -> String {
        let config = json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}});
        let platform = json!({"architecture": "amd64", "os": "linux"});
        json!({"images": [], "steps": steps, "results": [{"platform": platform, "tree": {"step": 0}, "config": config}], "warnings": []})
            .to_string()
    }

    fn copy(change: impl Fn(&mut Value)) -> Value {
        let mut copy = json!({"origin": "context", "sources": [{"path": {"path": "/a", "keep": null}}], "destination": "/b", "owner": null,
            "mode": null, "link": false, "parents": false, "exclude": [], "unpack": false});
        change(&mut copy);
        json!([{"parent": "empty", "operation": {"copy": copy}, "place": "p", "text": "COPY a b\n"}])
    }

    #[test]
    fn a_step_gets_no_more_than_the_command_line_gives() {
        let run = |network: &str, insecure: bool| {
            let run = json!({"args": ["true"], "env": [], "cwd": "/", "user": "", "network": network, "insecure": insecure,
                "mounts": [], "script": null});
            plan(
                json!([{"parent": "empty", "operation": {"run": run}, "place": "p", "text": "RUN true\n"}]),
            )
        };
        let none = || Options {
            network: Network::None,
            ..Options::default()
        };
        let fine = |text: &str, options: &Options| read(text, options, 0).is_ok();
        assert!(fine(&run("host", false), &Options::default()));
        assert!(fine(&run("none", false), &none()) && !fine(&run("host", false), &none()));
        let allowing = Options {
            allow: vec![Entitlement::NetworkHost],
            ..none()
        };
        assert!(fine(&run("host", false), &allowing));
        assert!(!fine(&run("none", true), &Options::default()));
    }

    #[test]
    fn what_no_dockerfile_could_say_is_refused() {
        let tried = |steps: Value| read(&plan(steps), &Options::default(), 1);
        let (good, text) = tried(copy(|_| ())).unwrap();
        assert_eq!(&text[good.steps[0].span.clone()], "COPY a b");
        let git = |remote: &str, reference: Value, directory: &str| {
            json!([{"git": {"remote": remote, "reference": reference, "directory": directory, "checksum": null,
                "submodules": false, "keep_git_dir": false, "times": "checkout"}}])
        };
        tried(copy(|copy| {
            copy["sources"] = git("https://h/r.git", json!("v1"), "")
        }))
        .unwrap();
        for (field, value) in [
            ("origin", json!({"tree": {"step": 0}})),
            ("origin", json!({"tree": {"image": 0}})),
            ("origin", json!({"named": 1})),
            (
                "sources",
                json!([{"inline": {"name": "../x", "content": ""}}]),
            ),
            (
                "sources",
                json!([{"http": {"url": "file:///etc/passwd", "name": "x", "checksum": null}}]),
            ),
            (
                "sources",
                json!([{"http": {"url": "https://h/x", "name": "../x", "checksum": null}}]),
            ),
            ("sources", git("/etc", Value::Null, "")),
            (
                "sources",
                git("https://h/r.git", json!("--upload-pack=x"), "../.."),
            ),
            ("nothing", json!(1)),
        ] {
            let change = |copy: &mut Value| copy[field] = value.clone();
            let result = tried(copy(change));
            assert!(result.is_err() || field == "nothing", "{field} {value}");
        }
        assert!(read("{}", &Options::default(), 0).is_err());
    }
}
