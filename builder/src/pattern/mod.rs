//! The three pattern languages of a Dockerfile, which look alike and differ.
//!
//! - [`shell`]: `${v#pattern}`: `*` and `?` match everything, `/` too; no classes.
//! - [`glob`]: COPY sources: Go's `filepath.Match`; `*` and `?` stop at `/`, classes.
//! - [`ignore`]: .dockerignore and `--exclude`: globs with `**` and `!`, last match wins.

pub mod glob;
pub mod ignore;
pub mod shell;
