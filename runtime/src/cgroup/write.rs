//! A write to a file of a cgroup, as a value.

use std::borrow::Cow;

/// One value for one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Write {
    /// The controller the file belongs to.
    pub(crate) controller: Cow<'static, str>,
    /// The name of the file.
    pub(crate) file: Cow<'static, str>,
    /// What is written.
    pub(crate) value: String,
    /// What its absence means.
    pub(crate) absent: Absent,
    /// One of several values that bound each other: whether the kernel takes it
    /// depends on those it has already, so EINVAL means to try again after them.
    pub(crate) paired: bool,
}

/// What the absence of a file means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Absent {
    /// The limit cannot be set.
    Error,
    /// There is nothing to limit.
    Skip,
    /// Another file does it.
    Instead(Box<Write>),
}

impl Write {
    /// A write that must succeed.
    pub(crate) fn new(
        controller: impl Into<Cow<'static, str>>,
        file: impl Into<Cow<'static, str>>,
        value: impl ToString,
    ) -> Self {
        Self {
            controller: controller.into(),
            file: file.into(),
            value: value.to_string(),
            absent: Absent::Error,
            paired: false,
        }
    }

    /// The same as one of a pair.
    pub(crate) fn paired(self) -> Self {
        Self {
            paired: true,
            ..self
        }
    }

    /// The same, where a missing file is no error.
    pub(crate) fn if_there(self) -> Self {
        Self {
            absent: Absent::Skip,
            ..self
        }
    }

    /// The same, with another write where the file is missing.
    pub(crate) fn or(self, other: Self) -> Self {
        Self {
            absent: Absent::Instead(Box::new(other)),
            ..self
        }
    }
}

/// The specification writes "no limit" as -1, cgroup v2 and pids as `max`.
pub(crate) fn max_or(limit: i64) -> String {
    if limit < 0 {
        "max".to_owned()
    } else {
        limit.to_string()
    }
}
