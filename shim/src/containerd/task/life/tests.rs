//! Lives, event by event.

use super::*;

fn exit(status: u32) -> Exit {
    Exit {
        status,
        at: Timestamp::default(),
    }
}

fn exec() -> Which {
    Some("e".to_owned())
}

fn running() -> Life {
    let mut life = Life::new(false);
    let mut actions = Vec::new();
    for event in [Event::Created, Event::Starting, Event::Started] {
        actions.extend(life.step(&None, event));
    }
    assert_eq!(actions, [Action::PublishStart(None)]);
    life
}

#[test]
fn an_ordinary_life() {
    let mut life = running();
    assert_eq!(
        life.step(&None, Event::Ended(exit(7))),
        [
            Action::Record(exit(7)),
            Action::PublishExit(None, exit(7)),
            Action::AnswerWaiters(None)
        ]
    );
    assert_eq!(life.phase(&None), Some(Phase::Stopped(exit(7))));
    assert!(life.permit(&None, Wish::Delete).is_ok());
}

#[test]
fn an_exit_before_the_runtime_returns_is_told_after_the_start() {
    let mut life = Life::new(false);
    life.step(&None, Event::Created);
    life.step(&None, Event::Starting);
    assert_eq!(
        life.step(&None, Event::Ended(exit(0))),
        [Action::Record(exit(0))]
    );
    assert_eq!(
        life.step(&None, Event::Started),
        [
            Action::PublishStart(None),
            Action::PublishExit(None, exit(0)),
            Action::AnswerWaiters(None)
        ]
    );
}

#[test]
fn a_process_that_ended_although_it_could_not_be_started_is_told() {
    let mut life = Life::new(false);
    life.step(&None, Event::Created);
    life.step(&None, Event::Starting);
    life.step(&None, Event::Ended(exit(1)));
    assert_eq!(
        life.step(&None, Event::NotStarted),
        [
            Action::PublishExit(None, exit(1)),
            Action::AnswerWaiters(None)
        ]
    );
}

#[test]
fn the_first_process_is_told_last() {
    let mut life = running();
    assert!(life.add("e"));
    assert!(!life.add("e"));
    life.step(&exec(), Event::Starting);
    life.step(&exec(), Event::Started);
    assert_eq!(
        life.step(&None, Event::Ended(exit(137))),
        [Action::Record(exit(137))]
    );
    assert_eq!(
        life.phase(&None),
        Some(Phase::Running),
        "not told, so not so"
    );
    assert!(life.add("late"));
    let refused = life.permit(&Some("late".into()), Wish::Start).unwrap_err();
    assert_eq!(refused.code, Code::FailedPrecondition as i32);
    assert_eq!(
        life.step(&exec(), Event::Ended(exit(9))),
        [
            Action::PublishExit(exec(), exit(9)),
            Action::AnswerWaiters(exec()),
            Action::PublishExit(None, exit(137)),
            Action::AnswerWaiters(None)
        ]
    );
}

#[test]
fn an_exec_that_could_not_be_started_releases_who_waits_for_it_and_the_first_process() {
    let mut life = running();
    life.add("e");
    life.step(&exec(), Event::Starting);
    life.step(&None, Event::Ended(exit(0)));
    assert_eq!(
        life.step(&exec(), Event::NotStarted),
        [
            Action::AnswerWaiters(exec()),
            Action::PublishExit(None, exit(0)),
            Action::AnswerWaiters(None)
        ]
    );
    assert!(life.permit(&exec(), Wish::Delete).is_ok());
}

#[test]
fn what_does_not_end_with_the_first_process_is_killed() {
    let mut life = Life::new(true);
    life.step(&None, Event::Created);
    life.step(&None, Event::Starting);
    life.step(&None, Event::Started);
    assert_eq!(
        life.step(&None, Event::Ended(exit(0)))[1],
        Action::KillOthers
    );
}

#[test]
fn who_ends_frozen_is_thawed() {
    let mut life = running();
    life.step(&None, Event::Pausing);
    assert_eq!(life.phase(&None).unwrap().status(), Status::Pausing);
    life.step(&None, Event::Paused(true));
    assert_eq!(
        life.permit(&None, Wish::Exec).unwrap_err().message,
        "cannot exec in a paused state"
    );
    assert_eq!(life.step(&None, Event::Ended(exit(137)))[1], Action::Thaw);
    let mut life = running();
    life.step(&None, Event::Pausing);
    life.step(&None, Event::Ended(exit(0)));
    assert_eq!(
        life.step(&None, Event::Paused(false)),
        [
            Action::PublishExit(None, exit(0)),
            Action::AnswerWaiters(None)
        ]
    );
}

#[test]
fn refusals_are_in_the_words_that_clients_know() {
    let created = {
        let mut life = Life::new(false);
        life.step(&None, Event::Created);
        life
    };
    let mut stopped = running();
    stopped.step(&None, Event::Ended(exit(0)));
    for (life, wish, words) in [
        (&created, Wish::Pause, "cannot pause task in created state"),
        (
            &created,
            Wish::Checkpoint,
            "cannot checkpoint a task in created state",
        ),
        (&running(), Wish::Start, "cannot start a running process"),
        (&running(), Wish::Delete, "cannot delete a running process"),
        (&running(), Wish::Resume, "cannot resume a running process"),
        (&stopped, Wish::Start, "cannot start a stopped process"),
        (&stopped, Wish::Pause, "cannot pause a stopped container"),
        (&stopped, Wish::Exec, "cannot exec in a stopped state"),
        (&stopped, Wish::Update, "cannot update a stopped container"),
    ] {
        let refused = life.permit(&None, wish).unwrap_err();
        assert_eq!(
            (refused.message.as_str(), refused.code),
            (words, Code::Unknown as i32)
        );
    }
    let missing = created.permit(&exec(), Wish::Start).unwrap_err();
    assert_eq!(missing.code, Code::NotFound as i32);
}
