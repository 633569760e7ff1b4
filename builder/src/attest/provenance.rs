//! SLSA provenance, version 1 (slsa.dev/spec/v1.0/provenance). Times are left out: they are
//! optional, and the same build says the same.

use super::{Predicate, escaped};
use crate::plan::{Options, Plan};
use serde_json::{Map, Value, json};
use teu_store::Digest;
use teu_store::image::Platform;

/// What kind of build this is, for who reads provenance: a name of ours.
const BUILD_TYPE: &str = "urn:teu:dockerfile:v1";

/// How much is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// The Dockerfile's name and the images that were used.
    Min,
    /// Build arguments and steps, too.
    Max,
}

/// An image that the build used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Material {
    /// Its name in the Dockerfile.
    pub name: String,
    /// Its manifest's digest.
    pub digest: Digest,
}

/// What a build is told by.
#[derive(Debug)]
pub struct Recipe<'a> {
    /// The Dockerfile's name.
    pub dockerfile: &'a str,
    /// The command line's part.
    pub options: &'a Options,
    /// The steps.
    pub plan: &'a Plan,
    /// The images that were used.
    pub materials: &'a [Material],
}

/// How a result was built.
pub fn provenance(recipe: &Recipe<'_>, detail: Detail) -> Predicate {
    let options = recipe.options;
    let mut arguments = Map::new();
    if let Some(target) = &options.target {
        arguments.insert("target".to_owned(), json!(target));
    }
    if detail == Detail::Max {
        for (name, value) in &options.build_args {
            arguments.insert(format!("build-arg:{name}"), json!(value));
        }
    }
    let platform = &options.platform;
    let mut internal = json!({ "builderPlatform": platform.to_string() });
    if detail == Detail::Max {
        let step = |step: &crate::plan::Step| json!({ "name": step.place, "text": step.text });
        let steps: Vec<Value> = recipe.plan.steps.iter().map(step).collect();
        internal["steps"] = json!(steps);
    }
    let dependencies: Vec<Value> = recipe
        .materials
        .iter()
        .map(|material| dependency(material, platform))
        .collect();
    Predicate {
        kind: "https://slsa.dev/provenance/v1",
        content: json!({
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "configSource": { "path": recipe.dockerfile },
                    "request": { "frontend": "dockerfile.v0", "args": arguments },
                },
                "internalParameters": internal,
                "resolvedDependencies": dependencies,
            },
            "runDetails": {
                "builder": {
                    "id": "",
                    "version": { "teu-build": env!("CARGO_PKG_VERSION") },
                },
                "metadata": {},
            },
        }),
    }
}

fn dependency(material: &Material, platform: &Platform) -> Value {
    let (name, tag) = match material.name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (material.name.as_str(), "latest"),
    };
    let platform = escaped(&platform.to_string());
    json!({
        "uri": format!("pkg:docker/{name}@{tag}?platform={platform}"),
        "digest": { material.digest.algorithm().name(): material.digest.hex() },
    })
}
