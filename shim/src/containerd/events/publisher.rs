//! Sends events to containerd's `Events.Forward`.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use prost::Message as _;
use rustix::event::epoll::EventFlags;

use super::journal;
use crate::Error;
use crate::containerd::proto::events::{Event, TaskOom};
use crate::containerd::proto::ttrpc::{KeyValue, Request, Status};
use crate::containerd::proto::{Any, Envelope, ForwardRequest, Timestamp};
use crate::containerd::ttrpc::client::{ANSWER_LIMIT, Client, Outcome};
use crate::error::{At as _, warn};
use crate::supervisor::poller::Poller;

/// Where containerd takes events.
const SERVICE: &str = "containerd.services.events.ttrpc.v1.Events";
/// Its one method.
const METHOD: &str = "Forward";
/// In whose namespace a call is, for containerd's own calls.
const NAMESPACE_HEADER: &str = "containerd-namespace-ttrpc";
/// How long a containerd that is away is left alone, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// How long a containerd that was away and came back is given before it gets the events that waited
/// for it. It keeps none for those who listen to it, and they have to find it again first: dockerd
/// would otherwise take for running what ended in between. Its attempts to connect lie up to three
/// seconds apart, and a fifth more by chance; then it asks for events. On a machine with nothing else
/// to do that took 4.6 seconds, on a busy one more than 6. Nothing tells who listens.
const RETURN: Duration = Duration::from_secs(12);
/// The same, from when somebody was heard who found it again: such a client asks for events at once.
const FOUND: Duration = Duration::from_secs(1);
/// How often an event that containerd refuses is sent again, each time a second later. One that
/// it will never take must not hold up all others.
const REFUSALS_MAX: u32 = 5;

/// An event on its way.
#[derive(Debug)]
struct Entry {
    /// Whose journal has it, if any.
    bundle: Option<Rc<Path>>,
    topic: &'static str,
    container: String,
    envelope: Vec<u8>,
}

/// The queue of events, and the connection they leave by.
#[derive(Debug)]
pub struct Publisher {
    /// containerd's ttrpc socket.
    address: PathBuf,
    namespace: String,
    client: Client,
    queue: VecDeque<Entry>,
    refusals: u32,
    pause: Duration,
    not_before: Option<Instant>,
    /// [`RETURN`].
    patience: Duration,
    /// When containerd last passed on what a client of its own wants.
    heard: Option<Instant>,
}

impl Publisher {
    /// For events of `namespace`, by containerd's socket `address`.
    #[must_use]
    pub fn new(address: &str, namespace: &str) -> Self {
        Self {
            address: PathBuf::from(address.trim_start_matches("unix://")),
            namespace: namespace.to_owned(),
            client: Client::default(),
            queue: VecDeque::new(),
            refusals: 0,
            pause: PAUSE.0,
            not_before: None,
            patience: RETURN,
            heard: None,
        }
    }

    /// A client of containerd's wants something: whoever listens to it has found it.
    pub fn hear_client(&mut self, now: Instant) {
        self.heard = Some(now);
        if self.client.was_lost() {
            self.not_before = None;
        }
    }

    /// Puts an event about `container` at the end of the queue and into the journal of `bundle`.
    ///
    /// OOM kills can go on for as long as containerd is away: of several in
    /// a row that were not sent, the first stands for all.
    pub fn publish<E: Event>(&mut self, bundle: &Rc<Path>, container: &str, event: &E) {
        let is_again = |entry: &Entry| entry.topic == E::TOPIC && entry.container == container;
        if E::TOPIC == TaskOom::TOPIC && self.queue.iter().skip(1).any(is_again) {
            return;
        }
        let envelope = Envelope {
            timestamp: Some(Timestamp::now()),
            namespace: self.namespace.clone(),
            topic: E::TOPIC.to_owned(),
            event: Some(Any::of(event)),
        }
        .encode_to_vec();
        // A bundle that is gone, or a full disk, must not keep the event from being sent.
        if let Err(err) = journal::append(bundle, &envelope) {
            warn("shim", &err);
        }
        self.queue.push_back(Entry {
            bundle: Some(Rc::clone(bundle)),
            topic: E::TOPIC,
            container: container.to_owned(),
            envelope,
        });
    }

    /// Whether everything was acknowledged.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// Sends the next event, if it is time. `connected` gets a new socket to watch, `watch` says
    /// what to wait for on it.
    ///
    /// # Errors
    /// What `watch` says.
    pub fn settle(
        &mut self,
        now: Instant,
        connected: impl FnOnce(&OwnedFd) -> std::io::Result<()>,
        watch: impl FnOnce(&OwnedFd, EventFlags) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        let is_time = self.not_before.is_none_or(|time| time <= now);
        if let Some(entry) = self.queue.front()
            && is_time
            && !self.client.is_busy()
        {
            self.not_before = self
                .client
                .was_lost()
                .then(|| still_returning(&self.address, self.patience, self.heard))
                .flatten()
                .map(|rest| now + rest);
            if self.not_before.is_some() {
                return self.client.settle(watch);
            }
            let request = request(&self.namespace, &entry.envelope);
            if self
                .client
                .call(&self.address, &request, connected)
                .is_err()
            {
                self.postpone(now);
            }
        }
        self.client.settle(watch)
    }

    /// The connection is ready.
    pub fn ready(&mut self, now: Instant, flags: EventFlags) {
        let outcome = self.client.ready(flags);
        self.conclude(now, outcome);
    }

    /// When something is to be done even if nothing happens.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let retry = self.not_before.filter(|_| !self.queue.is_empty());
        retry.or_else(|| self.client.deadline())
    }

    /// Looks at the time.
    pub fn expire(&mut self, now: Instant) {
        let outcome = self.client.expire(now);
        self.conclude(now, outcome);
    }

    fn conclude(&mut self, now: Instant, outcome: Option<Outcome>) {
        match outcome {
            None => {}
            Some(Outcome::Lost) => self.postpone(now),
            Some(Outcome::Done) => self.acknowledged(),
            Some(Outcome::Refused(status)) => self.refused(now, &status),
        }
    }

    fn postpone(&mut self, now: Instant) {
        self.not_before = Some(now + self.pause);
        self.pause = (self.pause * 2).min(PAUSE.1);
    }

    fn refused(&mut self, now: Instant, status: &Status) {
        self.refusals += 1;
        if self.refusals <= REFUSALS_MAX {
            self.not_before = Some(now + Duration::from_secs(u64::from(self.refusals)));
            return;
        }
        if let Some(entry) = self.queue.front() {
            let text = format!(
                "containerd does not take {} of {}: {}",
                entry.topic, entry.container, status.message
            );
            warn("shim", &Error::Invalid(text));
        }
        self.acknowledged();
    }

    fn acknowledged(&mut self) {
        self.refusals = 0;
        self.pause = PAUSE.0;
        if let Some(Entry {
            bundle: Some(bundle),
            ..
        }) = self.queue.pop_front()
        {
            // The bundle is gone once containerd was told of the deletion.
            let _: Result<(), Error> = journal::acknowledge(&bundle);
        }
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
    }
}

/// How much longer than now a containerd that came back is to be left alone, whose clients were last
/// `heard` then. It makes its socket anew when it begins.
fn still_returning(socket: &Path, patience: Duration, heard: Option<Instant>) -> Option<Duration> {
    let changed = std::fs::metadata(socket).ok()?.modified().ok()?;
    // A time to come is a clock's that was set back: nothing is known then.
    let age = changed.elapsed().ok()?;
    let rest = match heard.map(|heard| heard.elapsed()) {
        Some(ago) if ago < age => FOUND.min(patience).checked_sub(ago),
        _ => patience.checked_sub(age),
    };
    rest.filter(|rest| !rest.is_zero())
}

fn request(namespace: &str, envelope: &[u8]) -> Request {
    // `ForwardRequest { envelope }` with the envelope as the bytes that it already is.
    let mut payload = Vec::with_capacity(envelope.len() + 8);
    prost::encoding::encode_key(1, prost::encoding::WireType::LengthDelimited, &mut payload);
    prost::encoding::encode_varint(envelope.len() as u64, &mut payload);
    payload.extend_from_slice(envelope);
    debug_assert!(ForwardRequest::decode(&payload[..]).is_ok());
    Request {
        service: SERVICE.to_owned(),
        method: METHOD.to_owned(),
        payload,
        timeout_nano: i64::try_from(ANSWER_LIMIT.as_nanos()).unwrap_or(i64::MAX),
        metadata: vec![KeyValue {
            key: NAMESPACE_HEADER.to_owned(),
            value: namespace.to_owned(),
        }],
    }
}

/// Sends what the journal of `bundle` still holds, but for topics in `except`; gives up
/// at `until`. For who has no loop.
///
/// # Errors
/// What the kernel says.
pub fn replay(
    address: &str,
    namespace: &str,
    bundle: &Path,
    except: &[&str],
    until: Instant,
) -> Result<(), Error> {
    // Who has no loop has no time to lose either.
    let mut publisher = Publisher {
        patience: Duration::ZERO,
        ..Publisher::new(address, namespace)
    };
    for envelope in journal::read(bundle)? {
        let event = Envelope::decode(&envelope[..]);
        if event.is_ok_and(|event| !except.contains(&event.topic.as_str())) {
            publisher.queue.push_back(Entry {
                bundle: None,
                topic: "an event",
                container: bundle.display().to_string(),
                envelope,
            });
        }
    }
    let mut poller = Poller::<()>::new().call("epoll_create1")?;
    let mut now = Instant::now();
    while !publisher.is_idle() && now < until {
        publisher
            .settle(
                now,
                |fd| poller.add(fd, (), EventFlags::IN),
                |fd, flags| poller.modify(fd, (), flags),
            )
            .call("epoll_ctl")?;
        let next = publisher.deadline().unwrap_or(until).min(until);
        let ready = poller.wait(Some(next.saturating_duration_since(now)));
        now = Instant::now();
        for ((), flags) in ready.call("epoll_wait")? {
            publisher.ready(now, flags);
        }
        publisher.expire(now);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_came_back_a_while_ago_is_not_waited_for() {
        let socket = tempfile::NamedTempFile::new().unwrap();
        let rest = still_returning(socket.path(), RETURN, None).unwrap();
        assert!(rest <= RETURN && rest > RETURN / 2, "{rest:?}");
        assert_eq!(still_returning(socket.path(), Duration::ZERO, None), None);
        let now = std::time::SystemTime::now();
        for changed in [now - RETURN, now + RETURN] {
            socket.as_file().set_modified(changed).unwrap();
            assert_eq!(still_returning(socket.path(), RETURN, None), None);
        }
        assert_eq!(still_returning(Path::new("/nosuch"), RETURN, None), None);
    }

    #[test]
    fn who_was_found_again_is_not_waited_for_long() {
        let socket = tempfile::NamedTempFile::new().unwrap();
        let rest = |heard| still_returning(socket.path(), RETURN, heard);
        let now = Instant::now();
        assert!(rest(Some(now)).unwrap() <= FOUND);
        let before = std::time::SystemTime::now() - FOUND * 3;
        socket.as_file().set_modified(before).unwrap();
        assert_eq!(rest(now.checked_sub(FOUND)), None);
        // Heard before it went away.
        assert!(rest(now.checked_sub(FOUND * 5)).unwrap() > FOUND);
    }
}
