//! Which containers are listed.

use std::str::FromStr;

use crate::container::status::Status;
use crate::container::{Exit, Record};

/// What a container is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Filter {
    /// Its id begins so.
    Id(String),
    /// This is in its name.
    Name(String),
    /// It is made from this image, as typed, or with its tag left out.
    Image(String),
    /// Its state, in one word.
    Status(String),
    /// It has ended with this status.
    Exited(i32),
}

/// The words of [`Status::word`].
const WORDS: [&str; 6] = [
    "creating",
    "created",
    "running",
    "exited",
    "unsupervised",
    "lost",
];

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, value) = text.split_once('=').ok_or("give KIND=VALUE")?;
        match kind {
            "id" => Ok(Self::Id(value.to_owned())),
            "name" => Ok(Self::Name(value.to_owned())),
            "image" | "ancestor" => Ok(Self::Image(value.to_owned())),
            "status" if WORDS.contains(&value) => Ok(Self::Status(value.to_owned())),
            "status" => Err(format!("status is one of {}", WORDS.join(", "))),
            "exited" => value
                .parse()
                .map(Self::Exited)
                .map_err(|_| "exited is a number".to_owned()),
            _ => Err("the kinds are id, name, image, status, exited".to_owned()),
        }
    }
}

impl Filter {
    /// Whether it can only fit those that do not run.
    pub(super) fn asks_for_ended(&self) -> bool {
        match self {
            Self::Exited(_) => true,
            Self::Status(word) => word == "exited" || word == "lost",
            Self::Id(_) | Self::Name(_) | Self::Image(_) => false,
        }
    }

    fn fits(&self, record: &Record, status: &Status) -> bool {
        match self {
            Self::Id(id) => record.id.as_str().starts_with(id.as_str()),
            Self::Name(part) => record.name.as_str().contains(part.as_str()),
            Self::Image(image) => {
                let rest = record.image.strip_prefix(image.as_str());
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '@']))
            }
            Self::Status(word) => status.word() == word,
            Self::Exited(number) => {
                matches!(status, Status::Exited(Exit { status: Some(status), .. }) if status == number)
            }
        }
    }
}

/// Whether one filter of each kind fits.
pub(super) fn fits(filters: &[Filter], record: &Record, status: &Status) -> bool {
    let kind = std::mem::discriminant::<Filter>;
    filters.iter().all(|filter| {
        let mut same = filters.iter().filter(|other| kind(other) == kind(filter));
        same.any(|other| other.fits(record, status))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::folder::tests::record;

    fn fit(filters: &[&str], status: &Status) -> bool {
        let filters: Vec<Filter> = filters.iter().map(|text| text.parse().unwrap()).collect();
        let mut record = record(&"ab".repeat(32), "web-1");
        record.image = "alpine:3.20".to_owned();
        fits(&filters, &record, status)
    }

    #[test]
    fn each_kind_must_fit_and_of_a_kind_one() {
        let running = Status::Running;
        for filters in [
            &[][..],
            &["id=abab"],
            &["name=eb-"],
            &["image=alpine"],
            &["image=alpine:3.20"],
            &["ancestor=alpine"],
            &["status=running"],
            &["status=lost", "status=running"],
            &["name=other", "name=web", "id=ab"],
        ] {
            assert!(fit(filters, &running), "{filters:?}");
        }
        for filters in [
            &["id=b"][..],
            &["image=alp"],
            &["status=exited"],
            &["exited=0"],
            &["name=web", "id=b"],
        ] {
            assert!(!fit(filters, &running), "{filters:?}");
        }
        let ended = Status::Exited(Exit {
            status: Some(3),
            ..Exit::default()
        });
        assert!(fit(&["exited=3"], &ended) && !fit(&["exited=0"], &ended));
    }

    #[test]
    fn what_is_no_filter_is_said() {
        for text in ["name", "label=x", "status=up", "exited=x"] {
            assert!(text.parse::<Filter>().is_err(), "{text}");
        }
    }
}
