//! What is neither here nor in a registry: files behind URLs, git repositories.
//!
//! ```text
//! url.rs   the text of a source -> what it means; pure
//! git.rs   a repository -> a directory, by the program git, which can touch nothing else
//! http.rs  a URL -> a file, remembered with what its server says about its age
//! ```

pub mod git;
pub mod http;
mod url;

pub use url::{
    BadUrl, GitSource, HttpSource, Times, is_git, is_http, without_password, without_passwords,
};
pub use url::{git as git_source, http as http_source};
