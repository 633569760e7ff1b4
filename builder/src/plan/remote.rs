//! ADD of what is not in the context: URLs and git repositories.

use super::CopySource;
use super::evaluate::Evaluator;
use crate::dockerfile::instruction::{Add, Source, Text, Transfer};
use crate::dockerfile::{Result, Statement};
use crate::remote;
use crate::report::Problem;

impl Evaluator<'_, '_> {
    /// What has to be fetched, and the rest of the transfer.
    pub(super) fn split_sources(
        &self,
        add: &Add,
        statement: &Statement,
    ) -> Result<(Vec<CopySource>, Transfer)> {
        let mut remote = Vec::new();
        let mut local = add.transfer.clone();
        local.sources.clear();
        for source in &add.transfer.sources {
            let fetched = match source.path() {
                Some(text) => self.remote_source(add, text)?,
                None => None,
            };
            match fetched {
                Some(fetched) => remote.push(fetched),
                None => local.sources.push(source.clone()),
            }
        }
        self.check_flags(add, &remote, statement)?;
        Ok((remote, local))
    }

    fn remote_source(&self, add: &Add, text: &Text) -> Result<Option<CopySource>> {
        let name = self.expand(text)?;
        let bad = |error: remote::BadUrl| {
            Problem::new(
                format!("`{}` cannot be added", remote::without_password(&name)),
                text.span.clone(),
                error.to_string(),
            )
        };
        let checksum = add.checksum.as_ref().map(|text| self.expand(text));
        let checksum = checksum.transpose()?.filter(|text| !text.is_empty());
        if let Some(source) = remote::git_source(&name) {
            let mut source = source.map_err(bad)?;
            source.keep_git_dir |= add.keep_git_dir.unwrap_or(false);
            if let Some(checksum) = checksum {
                source = source.with_checksum(&checksum).map_err(bad)?;
            }
            return Ok(Some(CopySource::Git(source)));
        }
        let Some(source) = remote::http_source(&name) else {
            return Ok(None);
        };
        let mut source = source.map_err(bad)?;
        if let (Some(checksum), Some(text)) = (checksum, &add.checksum) {
            if checksum.parse::<teu_store::Digest>().is_err() {
                let problem = Problem::new(
                    format!("`{checksum}` is no digest"),
                    text.span.clone(),
                    "not sha256: and 64 hexadecimal digits",
                );
                return Err(problem.into());
            }
            source.checksum = Some(checksum);
        }
        Ok(Some(CopySource::Http(source)))
    }

    fn check_flags(&self, add: &Add, remote: &[CopySource], statement: &Statement) -> Result<()> {
        if let Some(checksum) = &add.checksum
            && (remote.len() != 1 || add.transfer.sources.len() != 1)
        {
            let label = if remote.is_empty() {
                "the sources are local"
            } else {
                "there are several sources"
            };
            let title = "--checksum needs one URL or git repository";
            return Err(Problem::new(title, checksum.span.clone(), label).into());
        }
        let git = remote
            .iter()
            .any(|source| matches!(source, CopySource::Git(_)));
        if add.keep_git_dir == Some(true) && !git {
            let title = "--keep-git-dir needs a git repository";
            return Err(
                Problem::new(title, statement.span.clone(), "none of its sources is one").into(),
            );
        }
        Ok(())
    }

    /// The sources of an ADD that are fetched, as they are written.
    pub(super) fn remote_texts(&self, add: &Add) -> Result<Vec<Source>> {
        let mut texts = Vec::new();
        for source in &add.transfer.sources {
            if let Some(text) = source.path() {
                let name = self.expand(text)?;
                if remote::is_git(&name) || remote::is_http(&name) {
                    texts.push(source.clone());
                }
            }
        }
        Ok(texts)
    }
}
