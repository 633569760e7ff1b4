//! Tokens, passwords and redirects: who gets to hear them.

use super::*;

#[test]
fn a_token_is_fetched_once_and_sent_from_then_on() {
    let server = Server::new(|request, _| match request.path.as_str() {
        path if path.starts_with("/token?") => {
            Reply::new(200).body(r#"{"token":"t1","expires_in":300}"#)
        }
        _ if request.header("authorization") == Some("Bearer t1") => Reply::new(200).body(MANIFEST),
        _ => Reply::new(401).header(
            "WWW-Authenticate",
            format!(
                r#"Bearer realm="http://{}/token",service="s",scope="repository:a/b:pull""#,
                request.header("host").unwrap()
            ),
        ),
    });
    let client = server.client(Access::Pull, alice());
    assert_eq!(client.manifest("1").unwrap().bytes, MANIFEST);
    client.manifest("1").unwrap();
    let seen = server.seen();
    let paths: Vec<&str> = seen.iter().map(|request| request.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "/v2/a/b/manifests/1",
            "/token?service=s&scope=repository%3Aa%2Fb%3Apull",
            "/v2/a/b/manifests/1",
            "/v2/a/b/manifests/1"
        ]
    );
    // The password goes to the token server, and only there.
    assert_eq!(
        seen[1].header("authorization"),
        Some("Basic YWxpY2U6c2VjcmV0")
    );
    assert!(seen[0].header("authorization").is_none());
    assert!(
        seen[0]
            .header("accept")
            .unwrap()
            .contains("manifest.list.v2")
    );
}

#[test]
fn an_expired_token_is_renewed_in_the_middle() {
    let server = Server::new(|request, number| match request.path.as_str() {
        path if path.starts_with("/token?") => {
            Reply::new(200).body(format!(r#"{{"token":"t{number}"}}"#))
        }
        _ if matches!(request.header("authorization"), Some("Bearer t1")) && number < 3 => {
            Reply::new(200).body(MANIFEST)
        }
        _ if matches!(request.header("authorization"), Some("Bearer t4")) => {
            Reply::new(200).body(MANIFEST)
        }
        _ => Reply::new(401).header(
            "WWW-Authenticate",
            format!(
                r#"Bearer realm="http://{}/token""#,
                request.header("host").unwrap()
            ),
        ),
    });
    let client = server.client(Access::Pull, None);
    client.manifest("1").unwrap();
    client.manifest("1").unwrap();
    assert_eq!(server.seen().len(), 6);
}

// security.md, S18.
#[test]
fn a_hostile_realm_gets_no_request() {
    let server = Server::new(|_, _| {
        Reply::new(401).header(
            "WWW-Authenticate",
            r#"Bearer realm="http://169.254.169.254/latest/meta-data""#,
        )
    });
    let error = server
        .client(Access::Pull, alice())
        .manifest("1")
        .unwrap_err();
    assert!(matches!(error, Error::Realm { .. }), "{error}");
    assert_eq!(server.seen().len(), 1);
}

// security.md, S17.
#[test]
fn a_redirect_elsewhere_carries_no_password() {
    let bytes = content(1000);
    let body = bytes.clone();
    let cdn = Server::new(move |_, _| Reply::new(200).body(body.clone()));
    let target = cdn.host.clone();
    let server = Server::new(move |request, _| {
        if request.header("authorization").is_none() {
            return Reply::new(401).header("WWW-Authenticate", r#"Basic realm="x""#);
        }
        Reply::new(307).header("Location", format!("http://{target}/signed?x=y"))
    });
    assert_eq!(
        read_all(&server.client(Access::Pull, alice()), &bytes).unwrap(),
        bytes
    );
    assert_eq!(
        server.seen()[1].header("authorization"),
        Some("Basic YWxpY2U6c2VjcmV0")
    );
    let seen = cdn.seen();
    assert_eq!(seen.len(), 1);
    assert!(seen[0].header("authorization").is_none() && seen[0].header("cookie").is_none());
}

#[test]
fn a_401_from_elsewhere_gets_no_password_either() {
    let evil = Server::new(|_, _| Reply::new(401).header("WWW-Authenticate", r#"Basic realm="x""#));
    let target = evil.host.clone();
    let server =
        Server::new(move |_, _| Reply::new(307).header("Location", format!("http://{target}/x")));
    assert!(read_all(&server.client(Access::Pull, alice()), b"x").is_err());
    assert!(
        evil.seen()
            .iter()
            .all(|request| request.header("authorization").is_none())
    );
}

#[test]
fn wrong_and_missing_credentials_are_told_apart() {
    let server =
        Server::new(|_, _| Reply::new(401).header("WWW-Authenticate", r#"Basic realm="x""#));
    let error = server.client(Access::Pull, None).manifest("1").unwrap_err();
    assert!(matches!(error, Error::LogIn { .. }), "{error}");
    let error = server
        .client(Access::Pull, alice())
        .manifest("1")
        .unwrap_err();
    assert!(matches!(error, Error::Rejected { .. }), "{error}");
    assert!(!error.to_string().contains("secret"));
}
