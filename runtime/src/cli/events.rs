//! `events`.

use std::time::Duration;

use super::args::Args;
use super::{Context, container_id, duration, named};
use crate::container::events;
use crate::error::Error;

/// How often numbers are told unless `--interval` says otherwise: every five seconds.
const INTERVAL_DEFAULT: Duration = Duration::from_secs(5);

/// `events`.
pub(super) fn events(context: &Context<'_>, args: &Args) -> Result<u8, Error> {
    let id = container_id(args)?;
    let interval = args
        .value("interval")
        .map_or(Ok(INTERVAL_DEFAULT), interval)?;
    let told = if args.flag("stats") {
        events::once(&context.root, &id)
    } else {
        events::stream(&context.root, &id, interval, context.log)
    };
    named("events", &id, told).map(|()| 0)
}

fn interval(text: &str) -> Result<Duration, Error> {
    let nanos = duration::nanos(text).ok_or_else(|| {
        Error::Usage(format!(
            "invalid value {text:?} for flag --interval: parse error (a time such as 500ms, 5s or 1m30s)"
        ))
    })?;
    match u64::try_from(nanos) {
        Ok(nanos @ 1..) => Ok(Duration::from_nanos(nanos)),
        _ => Err(Error::Usage(
            "duration interval must be greater than 0".into(),
        )),
    }
}
