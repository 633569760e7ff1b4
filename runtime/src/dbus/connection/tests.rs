//! The other side is a thread of the test, that plays its part and ends.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};

use super::*;

const PING: Call<'_> = Call {
    destination: "",
    path: "/x",
    interface: "x.y",
    member: "Ping",
};

/// Connects to `play`.
fn with_peer<T>(
    name: &str,
    play: impl FnOnce(UnixStream) + Send + 'static,
    act: impl FnOnce(Result<Connection, Error>) -> T,
) -> T {
    let path = std::env::temp_dir().join(format!("teu-runtime-dbus-{name}-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).unwrap();
    let peer = std::thread::spawn(move || play(listener.accept().unwrap().0));
    let result = act(Connection::open(&Place::File(path.clone())));
    peer.join().unwrap();
    std::fs::remove_file(path).unwrap();
    result
}

fn introduced(stream: &mut UnixStream) {
    // All that is there, in one piece, as systemd reads: a call among it would be lost.
    let mut piece = [0; 256];
    let length = stream.read(&mut piece).unwrap();
    assert_eq!(&piece[..length], b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n");
    stream
        .write_all(b"DATA\r\nOK 0123456789abcdef\r\n")
        .unwrap();
}

/// Reads one call.
fn question(stream: &mut UnixStream) -> Message {
    let mut bytes = vec![0; PREFIX_BYTES];
    stream.read_exact(&mut bytes).unwrap();
    let length = Message::length(*bytes.first_chunk().unwrap()).unwrap();
    bytes.resize(length, 0);
    stream.read_exact(&mut bytes[PREFIX_BYTES..]).unwrap();
    Message::decode(&bytes).unwrap().unwrap()
}

fn news(member: &str) -> Message {
    Message {
        path: "/x".into(),
        interface: "x.y".into(),
        member: member.into(),
        ..Message::new(Kind::Signal, 5)
    }
}

#[test]
fn a_call_is_answered_and_news_is_kept() {
    let play = |mut stream: UnixStream| {
        introduced(&mut stream);
        let asked = question(&mut stream);
        assert_eq!(
            (asked.member.as_str(), &asked.body),
            ("Ping", &vec![Value::Byte(1)])
        );
        let answer = Message {
            reply_to: asked.serial,
            body: vec![Value::text("pong")],
            ..Message::new(Kind::Reply, 6)
        };
        // News before the answer, and all in pieces.
        let mut bytes = news("Early").encode();
        bytes.extend(answer.encode());
        bytes.extend(news("Late").encode());
        for piece in bytes.chunks(7) {
            stream.write_all(piece).unwrap();
        }
    };
    with_peer("call", play, |connection| {
        let mut connection = connection.unwrap();
        let answer = connection.call(&PING, vec![Value::Byte(1)]).unwrap();
        assert_eq!(answer, [Value::text("pong")]);
        for member in ["Late", "Early"] {
            let signal = connection.signal("news", |m| m.member == member);
            assert_eq!(signal.unwrap().member, member);
        }
    });
}

#[test]
fn an_error_has_the_words_of_the_other_side() {
    let play = |mut stream: UnixStream| {
        introduced(&mut stream);
        let asked = question(&mut stream);
        let answer = Message {
            reply_to: asked.serial,
            error: "x.y.NoSuchUnit".into(),
            body: vec![Value::text("Unit a.scope not loaded.")],
            ..Message::new(Kind::Error, 6)
        };
        stream.write_all(&answer.encode()).unwrap();
    };
    with_peer("error", play, |connection| {
        let error = connection.unwrap().call(&PING, vec![]).unwrap_err();
        assert!(error.is_remote("x.y.NoSuchUnit"));
        assert_eq!(error.to_string(), "Unit a.scope not loaded.");
    });
}

#[test]
fn a_refusal_and_an_early_end_are_told_apart() {
    let refuse = |mut stream: UnixStream| {
        let mut introduction = [0; INTRODUCTION.len()];
        stream.read_exact(&mut introduction).unwrap();
        stream.write_all(b"REJECTED EXTERNAL\r\n").unwrap();
    };
    let error = with_peer("refuse", refuse, |connection| connection.unwrap_err());
    assert!(error.to_string().contains("REJECTED EXTERNAL"), "{error}");
    let error = with_peer("end", drop, |connection| connection.unwrap_err());
    assert!(
        matches!(error, Error::Closed { .. } | Error::Talk { .. }),
        "{error}"
    );
}

#[test]
fn a_message_that_is_none_ends_the_talk() {
    let play = |mut stream: UnixStream| {
        introduced(&mut stream);
        question(&mut stream);
        stream.write_all(&[b'x'; 64]).unwrap();
    };
    with_peer("noise", play, |connection| {
        let error = connection.unwrap().call(&PING, vec![]).unwrap_err();
        assert!(matches!(error, Error::Malformed { .. }), "{error}");
    });
}
