//! Ways to a registry and into it: log-ins, mirrors, certificates, addresses; and
//! what is asked of one without fetching an image.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets the unexpected panics"
)]

mod peers;

use peers::{IDENTITY, Registry, TokenServer, stored};
use std::os::unix::fs::PermissionsExt as _;
use teu_integration_tests::command::Outcome;
use teu_integration_tests::{Scene, is_root, skip_unless};

fn store(scene: &Scene, words: &[&str]) -> Outcome {
    scene.run("teu-store", words)
}

fn digest(line: &str) -> &str {
    line.rsplit_once('@').unwrap().1
}

fn forget_everything(scene: &Scene) {
    std::fs::remove_dir_all(scene.store()).unwrap();
}

#[test]
fn a_log_in_is_checked_kept_and_forgotten() {
    let scene = Scene::new("login");
    let registry = Registry::tls(&scene, "alice", "secret");
    scene.busybox("busybox");
    let host = registry.host();
    let name = registry.name("private/app:1");
    let access = ["--cert-dir", "authority", "--authfile", "auth.json"];
    let login = |words: &[&str], input: &str| {
        let words = [&["login"], &access[..], words, &[&host]].concat();
        scene.run_with_input("teu-store", words, input.as_bytes())
    };
    login(&["-u", "alice", "--password-stdin"], "wrong\n")
        .fails(1, &["refuses the credentials of user \"alice\""]);
    assert!(!scene.path("auth.json").exists());
    login(&["--password-stdin"], "secret\n").fails(1, &["--username"]);
    login(&["-u", "alice"], "").fails(1, &["no terminal", "--password-stdin"]);
    let said = login(&["-u", "alice", "--password-stdin"], "secret\n").succeeds();
    assert_eq!(
        said,
        format!("logged in to {host} as alice, kept in auth.json")
    );
    let mode = std::fs::metadata(scene.path("auth.json"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let push = || {
        store(
            &scene,
            &[&["push", "-q"], &access[..], &["busybox", &name]].concat(),
        )
    };
    push().succeeds();
    // skopeo finds it, and we find what skopeo writes.
    scene.shell(&format!(
        "skopeo inspect --cert-dir authority --authfile auth.json docker://{name} >/dev/null"
    ));
    assert_eq!(
        store(&scene, &["logout", "--authfile", "auth.json", &host]).succeeds(),
        "removed the log-in from auth.json"
    );
    push().fails(1, &["wants a log-in"]);
    store(&scene, &["logout", "--authfile", "auth.json", &host]).fails(1, &["no log-in for"]);
    scene.shell(&format!(
        "skopeo login --cert-dir authority --authfile auth.json -u alice -p secret {host} >/dev/null"
    ));
    push().succeeds();
    store(&scene, &["logout", "--authfile", "auth.json", "--all"]).succeeds();
    push().fails(1, &["wants a log-in"]);
}

// docker-credential-helpers' protocol: store, get, erase.
#[test]
fn a_credential_helper_keeps_the_password() {
    let scene = Scene::new("credential helper");
    let registry = Registry::tls(&scene, "alice", "secret");
    scene.busybox("busybox");
    let host = registry.host();
    let helper = scene.write(
        "bin/docker-credential-test",
        "#!/bin/sh\n\
         cd \"$(dirname \"$0\")\"\n\
         case $1 in\n\
         store) cat > kept;;\n\
         get) read -r server; if grep -q \"$server\" kept 2>/dev/null; then cat kept; else echo credentials not found in native keychain; exit 1; fi;;\n\
         erase) rm kept;;\n\
         esac\n",
    );
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
    scene.write(
        "config.json",
        format!(r#"{{"credHelpers": {{"{host}": "test"}}}}"#),
    );
    let run = |words: &[&str]| {
        let mut command = scene.command("teu-store", words);
        let path = format!(
            "{}:{}",
            scene.path("bin").display(),
            std::env::var("PATH").unwrap()
        );
        command.env("PATH", path);
        teu_integration_tests::command::run_limited(
            command,
            b"",
            teu_integration_tests::command::TIME_LIMIT,
        )
    };
    let access = ["--cert-dir", "authority", "--authfile", "config.json"];
    let said = run(&[
        &["login", "-u", "alice", "-p", "secret"],
        &access[..],
        &[&host],
    ]
    .concat());
    assert!(said.succeeds().ends_with("kept in credential helper test"));
    assert!(
        !std::fs::read_to_string(scene.path("config.json"))
            .unwrap()
            .contains("auths")
    );
    let name = registry.name("app:1");
    run(&[&["push", "-q"], &access[..], &["busybox", &name]].concat()).succeeds();
    run(&["logout", "--authfile", "config.json", &host]).succeeds();
    assert!(!scene.path("bin/kept").exists());
    run(&[&["push", "-q"], &access[..], &["busybox", &name]].concat())
        .fails(1, &["wants a log-in"]);
}

#[test]
fn a_log_in_by_token_is_checked_at_the_token_server() {
    let scene = Scene::new("login by token");
    let tokens = TokenServer::new(&scene, "team/app", "alice", "secret");
    let registry = Registry::with_tokens(&scene, &tokens);
    let host = registry.host();
    let login = |password: &str| {
        store(
            &scene,
            &[
                "login",
                "--authfile",
                "auth.json",
                "-u",
                "alice",
                "-p",
                password,
                &host,
            ],
        )
    };
    login("wrong").fails(1, &["refuses the credentials"]);
    login("secret").succeeds();
    // An identity token is kept in place of the password, and good for all that follows.
    let kept = scene.shell("jq -c '.auths[]' auth.json");
    assert!(
        kept.contains(&format!("\"identitytoken\":\"{IDENTITY}\"")),
        "{kept}"
    );
    let auth = scene.shell("jq -r '.auths[].auth' auth.json | base64 -d");
    assert_eq!(auth, "alice:");
    scene.busybox("busybox");
    let name = registry.name("team/app:1");
    let access = ["--authfile", "auth.json"];
    let run = |words: &[&str]| store(&scene, &[&words[..1], &access, &words[1..]].concat());
    run(&["push", "-q", "busybox", &name]).succeeds();
    run(&["pull", "-q", &name]).succeeds();
    // One that the server takes no more is said to be one.
    scene.shell(&format!("sed -i s/{IDENTITY}/0ld/ auth.json"));
    run(&["pull", "-q", &name]).fails(1, &["the stored identity token"]);
}

/// S29: that content is here already gives nobody a right to it, nor a repository what another one has.
#[test]
fn what_is_here_already_opens_no_door() {
    let scene = Scene::new("cached content");
    let registry = Registry::tls(&scene, "alice", "secret");
    scene.busybox("busybox");
    let (one, two) = (
        registry.name("private/one:1"),
        registry.name("private/two:1"),
    );
    let access = ["--cert-dir", "authority", "--authfile", "auth.json"];
    let run = |words: &[&str]| store(&scene, &[&words[..1], &access, &words[1..]].concat());
    scene.shell("echo '{}' > auth.json");
    let creds = ["--creds", "alice:secret"];
    run(&[&["push", "-q"], &creds[..], &["busybox", &one]].concat()).succeeds();
    store(&scene, &["config", "busybox", "other", "-e", "A=1"]).succeeds();
    run(&[&["push", "-q"], &creds[..], &["other", &two]].concat()).succeeds();
    run(&[&["pull", "-q"], &creds[..], &[&one]].concat()).succeeds();
    let other = run(&[&["pull", "-q"], &creds[..], &[&two]].concat()).succeeds();
    // All of it is in the store now, and the registry still decides.
    for backend in ["erofs", "directory"] {
        let pull = |name: &str| run(&["pull", "-q", "--backend", backend, name]);
        pull(&one).fails(1, &["wants a log-in"]);
        pull(&two).fails(1, &["wants a log-in"]);
    }
    let copied = format!("docker://{one}");
    run(&["copy", "-q", &copied, "oci:out"]).fails(1, &["wants a log-in"]);
    run(&["inspect", &copied]).fails(1, &["wants a log-in"]);
    // The other repository's manifest is none of this one's.
    let strange = format!("{}@{}", registry.name("private/one"), digest(&other));
    run(&[&["pull", "-q"], &creds[..], &[&strange]].concat()).fails(1, &["private/one"]);
    assert_eq!(
        store(&scene, &["inspect", "--format", "{id}", &strange]).code(),
        1
    );
}

#[test]
fn tags_and_repositories_are_listed() {
    let scene = Scene::new("list-tags and search");
    let registry = Registry::http(&scene);
    scene.busybox("busybox");
    for name in [
        "team/app:1",
        "team/app:2",
        "team/app:latest",
        "other/tool:x",
    ] {
        store(&scene, &["push", "-q", "busybox", &registry.name(name)]).succeeds();
    }
    let app = registry.name("team/app");
    let tags = store(&scene, &["list-tags", "--format", "{tag}", &app]).succeeds();
    let mut tags: Vec<&str> = tags.lines().collect();
    tags.sort_unstable();
    assert_eq!(tags, ["1", "2", "latest"]);
    let one = ["list-tags", "--limit", "1", "--format", "{name}", &app];
    let one = store(&scene, &one).succeeds();
    assert!(one.starts_with(&format!("{app}:")) && !one.contains('\n'));
    let table = store(&scene, &["list-tags", &app]).succeeds();
    assert!(table.starts_with("TAG\n"), "{table}");
    store(&scene, &["list-tags", &registry.name("nosuch")]).fails(1, &["has no nosuch"]);
    let host = registry.host();
    let search =
        |place: &str| store(&scene, &["search", "--format", "{repository}", place]).succeeds();
    assert_eq!(search(&host), "other/tool\nteam/app");
    assert_eq!(search(&format!("{host}/too")), "other/tool");
    assert_eq!(search(&format!("{host}/nosuch")), "");
    store(&scene, &["search", "docker.io/x"]).fails(1, &["no catalog"]);
    // None of this needs a store.
    forget_everything(&scene);
    search(&host);
    assert!(!scene.store().exists());
}

#[test]
fn mirrors_are_asked_first_and_the_registry_last() {
    let scene = Scene::new("mirrors");
    let registry = Registry::http(&scene);
    let mirror = Registry::http_at(&scene, "127.0.0.1:5007");
    scene.busybox("busybox");
    let name = registry.name("team/app:1");
    let pushed = store(&scene, &["push", "-q", "busybox", &name]).succeeds();
    store(
        &scene,
        &["push", "-q", "busybox", &mirror.name("copy/team/app:1")],
    )
    .succeeds();
    scene.write(
        "registries.conf",
        "[[registry]]\nlocation = 'localhost:5000'\n[[registry.mirror]]\nlocation = '127.0.0.1:9'\ninsecure = true\n\
         [[registry.mirror]]\nlocation = '127.0.0.1:5007/copy'\n[[registry]]\nprefix = 'blocked.test'\nlocation = 'blocked.test'\nblocked = true\n",
    );
    let pull = |words: &[&str]| {
        forget_everything(&scene);
        store(
            &scene,
            &[
                &["pull", "-q", "--registries-conf", "registries.conf"],
                words,
            ]
            .concat(),
        )
    };
    assert_eq!(pull(&[&name]).succeeds(), pushed);
    pull(&["blocked.test/x"]).fails(1, &["blocked", "blocked.test"]);
    // The registry is gone: the mirror serves.
    drop(registry);
    assert_eq!(pull(&[&name]).succeeds(), pushed);
    let containerd = "server = 'http://127.0.0.1:9'\n[host.'http://127.0.0.1:5007/v2/copy']\noverride_path = true\n";
    scene.write("certs.d/localhost:5000/hosts.toml", containerd);
    forget_everything(&scene);
    scene.write("none.conf", "");
    let words = [
        "pull",
        "-q",
        "--registries-conf",
        "none.conf",
        "--hosts-dir",
        "certs.d",
        &name,
    ];
    assert_eq!(store(&scene, &words).succeeds(), pushed);
    // Everybody is gone: all are named.
    drop(mirror);
    pull(&[&name]).fails(
        1,
        &[
            "no mirror served it",
            "127.0.0.1:5007",
            "localhost:5000",
            "refused",
        ],
    );
}

#[test]
fn a_registry_that_knows_its_clients_by_certificate() {
    let scene = Scene::new("client certificates");
    let registry = Registry::with_client_certificates(&scene, "127.0.0.1:5008");
    scene.busybox("busybox");
    let name = registry.name("app:1");
    store(
        &scene,
        &[
            "push",
            "-q",
            "--cert-dir",
            "authority",
            "--retry-times",
            "0",
            "busybox",
            &name,
        ],
    )
    .fails(1, &[&name]);
    scene.shell("cp authority/ca.crt own/");
    // Made without extensions it is of version 1, which TLS libraries do not take.
    scene.shell("mkdir old && cp own/us.key authority/ca.crt old/ && openssl x509 -req -in client.csr -CA authority/ca.crt -CAkey ca.key -days 2 -out old/us.cert 2>/dev/null");
    let old = ["push", "-q", "--cert-dir", "old", "busybox", &name];
    store(&scene, &old).fails(1, &["old/us.cert", "cannot be shown"]);
    let pushed = store(
        &scene,
        &["push", "-q", "--cert-dir", "own", "busybox", &name],
    )
    .succeeds();
    scene.write(
        "certs.d/127.0.0.1:5008/hosts.toml",
        "server = 'https://127.0.0.1:5008'\nca = '../../authority/ca.crt'\nclient = [['../../own/us.cert', '../../own/us.key']]\n",
    );
    forget_everything(&scene);
    let pulled = store(&scene, &["pull", "-q", "--hosts-dir", "certs.d", &name]);
    assert_eq!(pulled.succeeds(), pushed);
}

#[test]
fn registries_at_ipv6_addresses() {
    let scene = Scene::new("IPv6");
    scene.busybox("busybox");
    {
        let registry = Registry::http_at(&scene, "[::1]:5009");
        let name = registry.name("app:1");
        let pushed = store(&scene, &["push", "-q", "busybox", &name]).succeeds();
        forget_everything(&scene);
        assert_eq!(store(&scene, &["pull", "-q", &name]).succeeds(), pushed);
    }
    let registry = Registry::with_client_certificates(&scene, "[::1]:5010");
    scene.shell("cp authority/ca.crt own/");
    scene.busybox("busybox");
    store(
        &scene,
        &[
            "push",
            "-q",
            "--cert-dir",
            "own",
            "busybox",
            &registry.name("app:1"),
        ],
    )
    .succeeds();
}

#[test]
fn artifacts_are_attached_and_listed() {
    let scene = Scene::new("attach and referrers");
    let registry = Registry::http(&scene);
    scene.busybox("busybox");
    let name = registry.name("team/app:1");
    let image = digest(&store(&scene, &["push", "-q", "busybox", &name]).succeeds()).to_owned();
    assert_eq!(
        store(&scene, &["referrers", "--format", "{digest}", &name]).succeeds(),
        ""
    );
    scene.write("bom.json", "{\"a\":1}");
    scene.write("notes.txt", "hello");
    let attach = |kind: &str, file: &str| {
        let words = [
            "attach",
            "--artifact-type",
            kind,
            "--annotation",
            "by=test",
            &name,
            file,
        ];
        digest(&store(&scene, &words).succeeds()).to_owned()
    };
    let bom = attach("application/spdx+json", "bom.json:application/json");
    let notes = attach("text/plain", "notes.txt");
    assert_eq!(attach("text/plain", "notes.txt"), notes);
    let list = |words: &[&str]| {
        let format = [
            "referrers",
            "--format",
            "{digest} {artifact_type} {annotations.by}",
        ];
        store(&scene, &[&format[..], words, &[&name]].concat()).succeeds()
    };
    let both = format!("{bom} application/spdx+json test\n{notes} text/plain test");
    assert_eq!(list(&[]), both);
    assert_eq!(
        list(&["--artifact-type", "text/plain"]),
        format!("{notes} text/plain test")
    );
    let raw = scene.shell(&format!(
        "skopeo inspect --raw --tls-verify=false docker://{}@{bom}",
        registry.name("team/app")
    ));
    let manifest: serde_json::Value = serde_json::from_str(&raw).unwrap();
    assert_eq!(manifest["subject"]["digest"], image);
    assert_eq!(manifest["layers"][0]["mediaType"], "application/json");
    assert_eq!(
        manifest["layers"][0]["annotations"]["org.opencontainers.image.title"],
        "bom.json"
    );
    // An artifact is copied like an image, and is none.
    let artifact = format!("docker://{}@{bom}", registry.name("team/app"));
    assert_eq!(
        store(&scene, &["copy", "-q", &artifact, "oci:bom:1"]).succeeds(),
        bom
    );
    store(&scene, &["copy", "-q", &artifact, "store:x"]).fails(1, &["not an image"]);
    store(
        &scene,
        &["attach", "--artifact-type", "x/y", &name, "nosuch"],
    )
    .fails(1, &["nosuch", "No such file"]);
}

/// Signs as cosign does: a text that names the image, its signature in an annotation, under a tag.
fn sign(scene: &Scene, registry: &Registry, image: &str, key: &str, about: &str) {
    scene.shell(&format!(
        r#"printf '{{"critical":{{"identity":{{"docker-reference":"x"}},"image":{{"docker-manifest-digest":"{about}"}},"type":"cosign container image signature"}},"optional":null}}' > payload
        printf '{{}}' > config
        size() {{ stat -c %s $1; }}; hash() {{ sha256sum < $1 | cut -d ' ' -f 1; }}
        signature=$(openssl dgst -sha256 -sign {key} payload | base64 -w 0)
        rm -rf signed && mkdir -p signed/blobs/sha256
        printf '{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:%s","size":%s}},"layers":[{{"mediaType":"application/vnd.dev.cosign.simplesigning.v1+json","digest":"sha256:%s","size":%s,"annotations":{{"dev.cosignproject.cosign/signature":"%s"}}}}]}}' $(hash config) $(size config) $(hash payload) $(size payload) "$signature" > manifest
        for file in payload config manifest; do cp $file signed/blobs/sha256/$(hash $file); done
        printf '{{"imageLayoutVersion":"1.0.0"}}' > signed/oci-layout
        printf '{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:%s","size":%s}}]}}' $(hash manifest) $(size manifest) > signed/index.json"#
    ));
    let to = format!(
        "docker://{}",
        registry.name(&format!("team/app:{}.sig", image.replace(':', "-")))
    );
    store(scene, &["copy", "-q", "oci:signed", &to]).succeeds();
}

#[test]
fn signatures_are_good_for_one_key_and_one_image() {
    let scene = Scene::new("verify-signature");
    let registry = Registry::http(&scene);
    scene.busybox("busybox");
    let name = registry.name("team/app:1");
    let image = digest(&store(&scene, &["push", "-q", "busybox", &name]).succeeds()).to_owned();
    for key in ["ours", "theirs"] {
        scene.shell(&format!(
            "openssl ecparam -name prime256v1 -genkey -noout -out {key}.key && openssl ec -in {key}.key -pubout -out {key}.pub 2>/dev/null"
        ));
    }
    scene.shell("openssl genrsa -out rsa.key 2048 2>/dev/null && openssl rsa -in rsa.key -pubout -out rsa.pub 2>/dev/null");
    let verify = |key: &str| store(&scene, &["verify-signature", "--key", key, &name]);
    verify("ours.pub").fails(1, &["is not signed"]);
    for key in ["ours", "rsa"] {
        sign(&scene, &registry, &image, &format!("{key}.key"), &image);
        let signed = verify(&format!("{key}.pub")).succeeds();
        assert_eq!(signed, format!("{}@{image}", registry.name("team/app")));
    }
    verify("theirs.pub").fails(1, &["no signature is good", "not of this key"]);
    verify("ours.key").fails(1, &["no public key"]);
    let other = format!("sha256:{}", "0".repeat(64));
    sign(&scene, &registry, &image, "ours.key", &other);
    verify("ours.pub").fails(1, &["signs another image"]);
    assert!(stored(&scene, "docker.io/library/busybox:latest")["id"].is_string());
}

#[test]
fn an_insecure_registry_needs_no_good_certificate() {
    let scene = Scene::new("insecure registry");
    let registry = Registry::tls(&scene, "alice", "secret");
    scene.busybox("busybox");
    let name = registry.name("app:1");
    let push = |conf: &str| {
        let access = ["--registries-conf", conf, "--creds", "alice:secret"];
        store(
            &scene,
            &[&["push", "-q"], &access[..], &["busybox", &name]].concat(),
        )
    };
    scene.write("none.conf", "");
    push("none.conf").fails(1, &["certificate is not trusted"]);
    let insecure = "[[registry]]\nlocation = 'localhost:5000'\ninsecure = true\n";
    scene.write("insecure.conf", insecure);
    push("insecure.conf").succeeds();
    scene.write("wrong.conf", "[[registry]]\nlocation = 5");
    push("wrong.conf").fails(1, &["wrong.conf"]);
    push("nosuch.conf").fails(1, &["nosuch.conf", "not found"]);
}

/// A proxy that tunnels: what it was asked for, each a line.
fn proxy(port: u16) -> std::sync::Arc<std::sync::Mutex<Vec<String>>> {
    use std::io::{BufRead as _, BufReader, Write as _};
    let asked = std::sync::Arc::<std::sync::Mutex<Vec<String>>>::default();
    let log = std::sync::Arc::clone(&asked);
    let listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let log = std::sync::Arc::clone(&log);
            std::thread::spawn(move || {
                let mut reader = BufReader::new(client.try_clone().unwrap());
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                let mut rest = String::new();
                while rest != "\r\n" {
                    rest.clear();
                    if reader.read_line(&mut rest).unwrap() == 0 {
                        return;
                    }
                }
                log.lock().unwrap().push(line.clone());
                let place = line.split(' ').nth(1).unwrap().to_owned();
                let Ok(server) = std::net::TcpStream::connect(place) else {
                    return;
                };
                (&client).write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
                let (mut up, mut down) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut reader, &mut up);
                    let _ = up.shutdown(std::net::Shutdown::Write);
                });
                let _ = std::io::copy(&mut &server, &mut down);
                let _ = down.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    asked
}

#[test]
fn proxies_are_used_but_for_whom_they_are_not() {
    let scene = Scene::new("proxy");
    skip_unless!(scene, is_root(), "an address of its own is root's");
    scene.shell("ip address add 10.9.9.9/32 dev lo");
    let registry = Registry::http_at(&scene, "10.9.9.9:5011");
    scene.busybox("busybox");
    let asked = proxy(5012);
    let name = registry.name("app:1");
    let push = |variables: &[(&str, &str)]| {
        let mut command = scene.command(
            "teu-store",
            ["push", "-q", "--plain-http", "busybox", &name],
        );
        command.envs(variables.iter().copied());
        let limit = teu_integration_tests::command::TIME_LIMIT;
        teu_integration_tests::command::run_limited(command, b"", limit).succeeds();
        std::mem::take(&mut *asked.lock().unwrap())
    };
    let through = ("HTTP_PROXY", "http://127.0.0.1:5012");
    let seen = push(&[through]);
    assert!(
        seen.iter().any(|line| line.contains("10.9.9.9:5011")),
        "{seen:?}"
    );
    for exempt in ["10.9.0.0/16", "10.9.9.9", "10.9.9.9:5011", "*"] {
        assert_eq!(
            push(&[through, ("NO_PROXY", exempt)]),
            [] as [String; 0],
            "{exempt}"
        );
    }
    assert!(!push(&[through, ("NO_PROXY", "10.8.0.0/16,other.test")]).is_empty());
}
