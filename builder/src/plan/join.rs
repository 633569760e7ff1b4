//! Plans for several platforms as one: what they share is done once, by the cache.

use super::{MountKind, Operation, Origin, Plan, Step, Target, Tree};

impl Plan {
    /// Adds what another plan, of the same Dockerfile for another platform, does and makes.
    pub fn join(&mut self, other: Plan) {
        let shift = Shift {
            images: self.images.len(),
            steps: self.steps.len(),
        };
        self.images.extend(other.images);
        let steps = other.steps.into_iter();
        self.steps.extend(steps.map(|step| shift.step(step)));
        self.results
            .extend(other.results.into_iter().map(|target| Target {
                tree: shift.tree(target.tree),
                ..target
            }));
        for warning in other.warnings {
            if !self.warnings.contains(&warning) {
                self.warnings.push(warning);
            }
        }
        for warning in other.lint {
            let is_known = |known: &crate::lint::Warning| {
                known.span == warning.span && known.rule.name == warning.rule.name
            };
            if !self.lint.iter().any(is_known) {
                self.lint.push(warning);
            }
        }
    }

    /// Says of each step for which platform it is done.
    pub fn name_platform(&mut self) {
        let [target] = &self.results[..] else {
            return;
        };
        for step in &mut self.steps {
            step.place = format!("{} {}", target.platform, step.place);
        }
    }
}

/// How far positions move.
struct Shift {
    images: usize,
    steps: usize,
}

impl Shift {
    fn tree(&self, tree: Tree) -> Tree {
        match tree {
            Tree::Empty => Tree::Empty,
            Tree::Image(place) => Tree::Image(place + self.images),
            Tree::Step(place) => Tree::Step(place + self.steps),
        }
    }

    fn origin(&self, origin: Origin) -> Origin {
        match origin {
            Origin::Tree(tree) => Origin::Tree(self.tree(tree)),
            Origin::Context | Origin::Named(_) | Origin::Remote => origin,
        }
    }

    fn step(&self, mut step: Step) -> Step {
        step.parent = self.tree(step.parent);
        match &mut step.operation {
            Operation::Copy(copy) => copy.origin = self.origin(copy.origin),
            Operation::Directory(_) => {}
            Operation::Run(run) => {
                for mount in &mut run.mounts {
                    match &mut mount.kind {
                        MountKind::Bind { origin, .. } => *origin = self.origin(*origin),
                        MountKind::Cache { from, .. } => *from = from.map(|from| self.origin(from)),
                        MountKind::Tmpfs { .. }
                        | MountKind::Secret { .. }
                        | MountKind::Ssh { .. } => {}
                    }
                }
            }
        }
        step
    }
}
