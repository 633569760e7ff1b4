//! SLSA provenance, version 1 (slsa.dev/spec/v1.0/provenance). Times are left out: they are
//! optional, and the same build says the same.

use super::{Predicate, escaped};
use crate::plan::{Options, Plan};
use crate::prepare::is_of_layout;
use serde_json::{Map, Value, json};
use teu_store::image::Platform;
use teu_store::{Digest, Reference};

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
    /// For what it was used.
    pub platform: Platform,
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
    /// What the result is for.
    pub platform: &'a Platform,
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
    if *recipe.platform != options.build_platform {
        arguments.insert("platform".to_owned(), json!(recipe.platform.to_string()));
    }
    if detail == Detail::Max {
        for (name, value) in &options.build_args {
            arguments.insert(format!("build-arg:{name}"), json!(value));
        }
    }
    let mut internal = json!({ "builderPlatform": options.build_platform.to_string() });
    if detail == Detail::Max {
        let step = |step: &crate::plan::Step| json!({ "name": step.place, "text": step.text });
        let steps: Vec<Value> = recipe.plan.steps.iter().map(step).collect();
        internal["steps"] = json!(steps);
    }
    let dependencies: Vec<Value> = recipe.materials.iter().map(dependency).collect();
    Predicate {
        kind: "https://slsa.dev/provenance/v1",
        referrer: false,
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

fn dependency(material: &Material) -> Value {
    json!({
        "uri": uri(&material.name, &material.platform),
        "digest": { material.digest.algorithm().name(): material.digest.hex() },
    })
}

/// package-url, "docker". An image that came from a layout has no name that outlives the build.
fn uri(name: &str, platform: &Platform) -> String {
    let platform = escaped(&platform.to_string());
    let named = name
        .parse::<Reference>()
        .ok()
        .filter(|_| !is_of_layout(name));
    let Some(named) = named else {
        return format!("pkg:oci/layout?platform={platform}");
    };
    let version = match (named.digest(), named.tag()) {
        (Some(digest), _) => escaped(&digest.to_string()),
        (None, tag) => tag.unwrap_or("latest").to_owned(),
    };
    format!(
        "pkg:docker/{}@{version}?platform={platform}",
        named.familiar_name()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_by_their_names() {
        let platform = "linux/amd64".parse().unwrap();
        let of = |name: &str| uri(name, &platform).replace("?platform=linux%2Famd64", "");
        assert_eq!(of("alpine"), "pkg:docker/alpine@latest");
        assert_eq!(of("h.io:5000/a/b:1"), "pkg:docker/h.io:5000/a/b@1");
        let digest = format!("sha256:{}", "a".repeat(64));
        let wanted = format!("pkg:docker/alpine@{}", digest.replace(':', "%3A"));
        assert_eq!(of(&format!("alpine@{digest}")), wanted);
        assert_eq!(of(&format!("alpine:3@{digest}")), wanted);
        assert_eq!(of(&crate::prepare::layout_name("x")), "pkg:oci/layout");
    }
}
