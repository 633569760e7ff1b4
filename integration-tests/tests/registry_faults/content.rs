//! Documents that are well-formed and wrong.

use super::{Fails, Row, Works, World, no_password, row};
use serde_json::{Value, json};
use teu_integration_tests::faulty::{
    Fault, Faulty, Reply, Request, blob, digest, long_digest, manifest,
};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// The manifest with a change, under its tag; documents besides, by their digests.
fn changed(world: &World, change: impl Fn(&mut Value), others: Vec<Vec<u8>>) -> Fault {
    let mut document: Value = serde_json::from_slice(&world.image.manifest).unwrap();
    change(&mut document);
    Box::new(serve(document.to_string().into_bytes(), others))
}

/// This under the tag, the others by their digests.
fn serve(
    top: Vec<u8>,
    others: Vec<Vec<u8>>,
) -> impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static {
    move |request| {
        if request.path.ends_with("/manifests/1") {
            return Some(manifest(top.clone()));
        }
        let found = others.iter().find(|bytes| {
            request.path.ends_with(&digest(bytes)) || request.path.ends_with(&long_digest(bytes))
        })?;
        Some(if request.kind == "manifest" {
            manifest(found.clone())
        } else {
            blob(found, request)
        })
    }
}

/// No request left the repository.
fn no_odd_paths(requests: &[Request], _: &[Request]) {
    let odd = requests
        .iter()
        .find(|request| request.path.contains("..") || request.path.contains("shadow"));
    assert!(odd.is_none(), "{odd:?}");
}

pub(super) fn rows(world: &World, elsewhere: &Faulty) -> Vec<Row> {
    let mut rows = descriptors(world);
    rows.extend(configurations(world));
    rows.extend(indexes(world));
    rows.extend(foreign(world, elsewhere));
    rows
}

fn descriptors(world: &World) -> Vec<Row> {
    let named = |name: &'static str| {
        changed(
            world,
            move |one| one["layers"][0]["digest"] = json!(name),
            Vec::new(),
        )
    };
    vec![
        row(
            "a digest that is a path",
            Fails(&["is not a digest"]),
            named("sha256:../../../etc/shadow"),
        )
        .requests(no_odd_paths),
        row(
            "a digest with a query",
            Fails(&["is not a digest"]),
            named("sha256:00?x=y"),
        )
        .requests(no_odd_paths),
        row(
            "a digest of an old hash",
            Fails(&["is not a digest"]),
            named("md5:d41d8cd98f00b204e9800998ecf8427e"),
        ),
        row(
            "a digest in capitals",
            Fails(&["is not a digest"]),
            named("sha256:E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855"),
        ),
        row(
            "a negative size",
            Fails(&["manifest"]),
            changed(
                world,
                |one| one["layers"][0]["size"] = json!(-1),
                Vec::new(),
            ),
        ),
        row(
            "a size of 2^70",
            Fails(&["manifest"]),
            changed(
                world,
                |one| one["layers"][0]["size"] = json!(1.2e21),
                Vec::new(),
            ),
        ),
        row(
            "a size one too small",
            Fails(&["instead of"]),
            changed(
                world,
                |one| {
                    one["layers"][0]["size"] = json!(one["layers"][0]["size"].as_u64().unwrap() - 1)
                },
                Vec::new(),
            ),
        ),
        row(
            "a size much too large",
            Fails(&["instead of"]),
            changed(
                world,
                |one| one["layers"][0]["size"] = json!(1_u64 << 40),
                Vec::new(),
            ),
        ),
        row(
            "a layer of a type that nobody knows",
            Fails(&["x/y"]),
            changed(
                world,
                |one| one["layers"][0]["mediaType"] = json!("x/y"),
                Vec::new(),
            ),
        ),
        row(
            "a layer that is called zstd and is gzip",
            Fails(&["layer"]),
            changed(
                world,
                |one| {
                    one["layers"][0]["mediaType"] =
                        json!("application/vnd.oci.image.layer.v1.tar+zstd")
                },
                Vec::new(),
            ),
        ),
        row(
            "a layer that is called a plain tar and is gzip",
            Fails(&["layer"]),
            changed(
                world,
                |one| {
                    one["layers"][0]["mediaType"] = json!("application/vnd.oci.image.layer.v1.tar")
                },
                Vec::new(),
            ),
        ),
        row(
            "a layer by the longer digest, other image",
            Works,
            changed(
                world,
                |one| one["layers"][0]["digest"] = json!(long_digest(&world.image.layer)),
                vec![world.image.layer.clone()],
            ),
        ),
        row(
            "a layer by a longer digest of other bytes",
            Fails(&["corrupt"]),
            {
                let name = format!("sha512:{}", "3".repeat(128));
                let bytes = world.image.layer.clone();
                let fault = changed(
                    world,
                    |one| one["layers"][0]["digest"] = json!(name),
                    Vec::new(),
                );
                move |request: &Request| {
                    if request.path.contains("sha512:") {
                        return Some(blob(&bytes, request));
                    }
                    fault(request)
                }
            },
        ),
        row(
            "an artifact",
            Fails(&["not an image"]),
            changed(
                world,
                |one| {
                    one["config"]["mediaType"] = json!("application/vnd.cncf.helm.config.v1+json")
                },
                Vec::new(),
            ),
        ),
        row(
            "two layers where the configuration has one",
            Fails(&["2 layers"]),
            changed(
                world,
                |one| {
                    let layer = one["layers"][0].clone();
                    one["layers"].as_array_mut().unwrap().push(layer);
                },
                Vec::new(),
            ),
        ),
    ]
}

fn configurations(world: &World) -> Vec<Row> {
    let with = |config: Vec<u8>| {
        let (name, size) = (digest(&config), config.len());
        changed(
            world,
            move |one| {
                one["config"]["digest"] = json!(name);
                one["config"]["size"] = json!(size);
            },
            vec![config],
        )
    };
    let config: Value = serde_json::from_slice(&world.image.config).unwrap();
    let changed_config = |change: &dyn Fn(&mut Value)| {
        let mut config = config.clone();
        change(&mut config);
        with(config.to_string().into_bytes())
    };
    let wrong = world.image.config.clone();
    vec![
        row(
            "a configuration of other bytes",
            Fails(&["corrupt"]),
            move |request| {
                let mut bytes = wrong.clone();
                bytes[5] ^= 1;
                (request.kind == "config").then(|| Reply::new(200).body(bytes))
            },
        ),
        row("no configuration", Fails(&["has no blob"]), |request| {
            (request.kind == "config").then(|| Reply::new(404))
        }),
        row(
            "a configuration that is no JSON",
            Fails(&["image configuration"]),
            with(b"hello".to_vec()),
        ),
        row(
            "a configuration of five megabytes",
            Fails(&["more than"]),
            changed(
                world,
                |one| one["config"]["size"] = json!(5 << 20),
                Vec::new(),
            ),
        ),
        row(
            "another layer than the configuration says",
            Fails(&["corrupt"]),
            changed_config(&|config| {
                config["rootfs"]["diff_ids"][0] = json!(format!("sha256:{}", "1".repeat(64)))
            }),
        ),
        row(
            "diff ids that are paths",
            Fails(&["is not a digest"]),
            changed_config(&|config| config["rootfs"]["diff_ids"][0] = json!("sha256:../../x")),
        ),
        row(
            "a configuration without layers",
            Fails(&["layers"]),
            changed_config(&|config| config["rootfs"]["diff_ids"] = json!([])),
        ),
        row(
            "for another machine, which is only said, other image",
            Works,
            changed_config(&|config| config["architecture"] = json!("s390x")),
        ),
    ]
}

fn indexes(world: &World) -> Vec<Row> {
    let own = world.image.manifest.clone();
    let entry = |bytes: &[u8], kind: &str| json!({"mediaType": kind, "digest": digest(bytes), "size": bytes.len(), "platform": {"os": "linux", "architecture": "amd64"}});
    let index = |entries: Vec<Value>| {
        json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries})
            .to_string()
            .into_bytes()
    };
    let of_own = entry(&own, "application/vnd.oci.image.manifest.v1+json");
    let mut foreign = of_own.clone();
    foreign["platform"]["architecture"] = json!("s390x");
    let mut short = of_own.clone();
    short["size"] = json!(own.len() - 1);
    let mut lost = of_own.clone();
    lost["digest"] = json!(format!("sha256:{}", "2".repeat(64)));
    let lying = of_own.clone();
    let mut chain = vec![index(vec![of_own.clone()])];
    for _ in 0..10 {
        let inner = chain.last().unwrap();
        chain.push(index(vec![entry(inner, INDEX)]));
    }
    let deep = chain.pop().unwrap();
    let twice = index(vec![of_own.clone(), of_own.clone()]);
    let other = own.clone();
    vec![
        row(
            "an index",
            Works,
            serve(index(vec![of_own.clone()]), Vec::new()),
        ),
        row(
            "an index that lists the same twice",
            Works,
            serve(twice, Vec::new()),
        ),
        row(
            "an index for other machines",
            Fails(&["nothing for linux/", "linux/s390x"]),
            serve(index(vec![foreign]), Vec::new()),
        ),
        row(
            "an index of nothing",
            Fails(&["nothing for"]),
            serve(index(Vec::new()), Vec::new()),
        ),
        row(
            "an index whose sizes are wrong",
            Fails(&["corrupt"]),
            serve(index(vec![short]), Vec::new()),
        ),
        row(
            "an index whose manifests are not there",
            Fails(&["has no team/app@sha256:22"]),
            serve(index(vec![lost]), Vec::new()),
        ),
        row(
            "an index in an index, eleven times",
            Fails(&["nested deeper"]),
            serve(deep, chain),
        ),
        row(
            "an index whose manifest is other bytes",
            Fails(&["instead of the one asked for"]),
            {
                let top = index(vec![lying]);
                move |request: &Request| {
                    if request.path.ends_with("/manifests/1") {
                        return Some(manifest(top.clone()));
                    }
                    let mut bytes = other.clone();
                    bytes.push(b' ');
                    (request.kind == "manifest").then(|| manifest(bytes))
                }
            },
        ),
    ]
}

/// Layers that are stored elsewhere (security.md, S17).
fn foreign(world: &World, elsewhere: &Faulty) -> Vec<Row> {
    let address = format!("http://{}/anything", elsewhere.host);
    let lists = move |kind: &'static str, addresses: Vec<String>| {
        let change = changed(
            world,
            |one| {
                one["layers"][0]["mediaType"] = json!(kind);
                one["layers"][0]["urls"] = json!(addresses);
            },
            Vec::new(),
        );
        move |request: &Request| {
            if request.kind == "layer" {
                return Some(Reply::new(404));
            }
            if request.header("authorization").is_none() {
                return Some(Reply::new(401).header("WWW-Authenticate", r#"Basic realm="x""#));
            }
            change(request)
        }
    };
    let kind = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    let layer = world.image.layer.clone();
    let mut wrong = layer.clone();
    wrong[100] ^= 1;
    let creds = ["--creds", "alice:secret"];
    let allowed = ["--creds", "alice:secret", "--allow-foreign-layers"];
    vec![
        row(
            "a foreign layer",
            Fails(&["foreign", "--allow-foreign-layers"]),
            lists(kind, vec![address.clone()]),
        )
        .with(&creds)
        .requests(|_, elsewhere| assert!(elsewhere.is_empty())),
        row(
            "a foreign layer that is allowed, other image",
            Works,
            lists(kind, vec![address.clone()]),
        )
        .with(&allowed)
        .elsewhere(move |_| Some(Reply::new(200).body(layer.clone())))
        .requests(|_, elsewhere| no_password(elsewhere)),
        row(
            "a foreign layer of other bytes",
            Fails(&["corrupt"]),
            lists(kind, vec![address.clone()]),
        )
        .with(&allowed)
        .elsewhere(move |_| Some(Reply::new(200).body(wrong.clone()))),
        row(
            "a foreign layer whose host wants a password",
            Fails(&["401"]),
            lists(kind, vec![address]),
        )
        .with(&allowed)
        .elsewhere(|_| Some(Reply::new(401).header("WWW-Authenticate", r#"Basic realm="x""#)))
        .requests(|_, elsewhere| no_password(elsewhere)),
        row(
            "a foreign layer in a file of this machine",
            Fails(&["not the host of a registry"]),
            lists(kind, vec!["file:///etc/shadow".into()]),
        )
        .with(&allowed),
    ]
}
