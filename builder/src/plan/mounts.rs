//! `RUN --mount`: fields to a typed mount.

use super::evaluate::Evaluator;
use super::filesystem::clean_absolute;
use super::outline::{self, Known};
use super::stages::given;
use super::{Mount, MountKind, Origin, Sharing};
use crate::dockerfile::instruction::{self, Text};
use crate::dockerfile::{Result, Span, suggest};
use crate::report::Problem;
use std::collections::HashMap;

/// What a mount can be.
const TYPES: [&str; 5] = ["bind", "cache", "tmpfs", "secret", "ssh"];

/// The fields of one mount with their variables replaced, taken out one by one.
struct Fields<'a> {
    kind: String,
    fields: HashMap<&'a str, String>,
    span: &'a Span,
}

impl Evaluator<'_, '_> {
    /// One `--mount`.
    pub(super) fn mount(&mut self, mount: &instruction::Mount) -> Result<Mount> {
        let mut fields = self.fields(mount)?;
        let target = fields
            .text("target")
            .map(|path| clean_absolute(&self.state.config.config.working_dir, &path));
        let parsed = match fields.kind.as_str() {
            "bind" => self.bind(&mut fields, target)?,
            "cache" => self.cache(&mut fields, target)?,
            "tmpfs" => fields.tmpfs(target)?,
            "secret" => fields.secret(target)?,
            "ssh" => fields.ssh(target, self.agents)?,
            other => {
                let near = suggest::nearest_or_begun(other, TYPES);
                let problem = fields.problem(
                    format!("unknown mount type `{other}`"),
                    "bind, cache, tmpfs, secret or ssh",
                );
                let help = near.map(|near| format!("did you mean `{near}`?"));
                return Err(problem.help(help).into());
            }
        };
        fields.finish()?;
        self.note_need(&parsed.kind);
        Ok(parsed)
    }

    /// Later fields of a name win, as aliases of one another they count as one.
    fn fields<'a>(&self, mount: &'a instruction::Mount) -> Result<Fields<'a>> {
        let mut fields = HashMap::new();
        for (key, value) in &mount.fields {
            let name = match key.as_str() {
                "src" => "source",
                "dst" | "destination" => "target",
                "ro" => "readonly",
                "rw" => "readwrite",
                other => other,
            };
            let text = Text {
                raw: value.clone().unwrap_or_else(|| "true".to_owned()),
                span: mount.span.clone(),
            };
            // `from` names a stage before any variable has a value; see `source_tree`.
            let value = if name == "from" {
                text.raw
            } else {
                self.expand(&text)?
            };
            fields.insert(name, value);
        }
        let kind = fields.remove("type").unwrap_or_else(|| "bind".to_owned());
        Ok(Fields {
            kind,
            fields,
            span: &mount.span,
        })
    }

    /// Notes what the command line can give.
    fn note_need(&mut self, kind: &MountKind) {
        let (list, id, required) = match kind {
            MountKind::Secret { id, required, .. } => {
                (&mut self.planner.outline.secrets, id, *required)
            }
            MountKind::Ssh { id, required, .. } => {
                self.agents += 1;
                (&mut self.planner.outline.ssh, id, *required)
            }
            MountKind::Bind { .. } | MountKind::Cache { .. } | MountKind::Tmpfs { .. } => return,
        };
        let known = Known::mount(id, required, &self.current);
        outline::add(list, known);
    }

    fn origin_named_by(&mut self, fields: &mut Fields<'_>) -> Result<Option<Origin>> {
        let Some(raw) = fields.text("from") else {
            return Ok(None);
        };
        let text = Text {
            raw,
            span: fields.span.clone(),
        };
        Ok(Some(self.planner.source(
            &text,
            self.index,
            &self.state.platform,
        )?))
    }

    fn bind(&mut self, fields: &mut Fields<'_>, target: Option<String>) -> Result<Mount> {
        let target = fields.needed(target)?;
        let origin = self.origin_named_by(fields)?.unwrap_or(Origin::Context);
        let source = clean_absolute("/", &fields.text("source").unwrap_or_default());
        let writable = fields.writable(false)?;
        Ok(Mount {
            target,
            kind: MountKind::Bind {
                origin,
                source,
                writable,
            },
        })
    }

    fn cache(&mut self, fields: &mut Fields<'_>, target: Option<String>) -> Result<Mount> {
        let target = fields.needed(target)?;
        let from = self.origin_named_by(fields)?;
        let sharing = match fields.text("sharing").as_deref() {
            None | Some("shared") => Sharing::Shared,
            Some("private") => Sharing::Private,
            Some("locked") => Sharing::Locked,
            Some(other) => {
                return Err(fields.problem(
                    format!("unknown sharing `{other}`"),
                    "shared, private or locked",
                ));
            }
        };
        let id = fields.text("id").filter(|id| !id.is_empty());
        let id = id.unwrap_or_else(|| target.clone());
        let kind = MountKind::Cache {
            id: match given(self.planner.options, "BUILDKIT_CACHE_MOUNT_NS") {
                Some(space) if !space.is_empty() => format!("{space}/{id}"),
                _ => id,
            },
            sharing,
            source: clean_absolute("/", &fields.text("source").unwrap_or_default()),
            writable: fields.writable(true)?,
            mode: fields.octal("mode", 0o755)?,
            uid: fields.number("uid")?,
            gid: fields.number("gid")?,
            from,
        };
        Ok(Mount { target, kind })
    }
}

impl Fields<'_> {
    fn problem(&self, title: String, label: &str) -> Box<Problem> {
        Box::new(Problem::new(title, self.span.clone(), label))
    }

    fn text(&mut self, key: &str) -> Option<String> {
        self.fields.remove(key)
    }

    fn needed(&self, target: Option<String>) -> Result<String> {
        match target {
            Some(path) if path != "/" => Ok(path),
            Some(_) => Err(self.problem(
                "a mount cannot cover the root directory".to_owned(),
                "target is /",
            )),
            None => Err(self.problem(
                format!("a mount of type {} needs a target", self.kind),
                "add target=PATH",
            )),
        }
    }

    fn boolean(&mut self, key: &str) -> Result<Option<bool>> {
        match self.text(key).as_deref() {
            None => Ok(None),
            Some("true" | "1") => Ok(Some(true)),
            Some("false" | "0") => Ok(Some(false)),
            Some(other) => Err(self.problem(
                format!("invalid value `{other}` for `{key}`"),
                "must be true or false",
            )),
        }
    }

    fn writable(&mut self, default: bool) -> Result<bool> {
        let (readonly, readwrite) = (self.boolean("readonly")?, self.boolean("readwrite")?);
        Ok(readwrite
            .or(readonly.map(|readonly| !readonly))
            .unwrap_or(default))
    }

    fn octal(&mut self, key: &str, default: u32) -> Result<u32> {
        let Some(text) = self.text(key) else {
            return Ok(default);
        };
        let mode = u32::from_str_radix(&text, 8)
            .ok()
            .filter(|mode| *mode <= 0o7777);
        mode.ok_or_else(|| {
            self.problem(
                format!("invalid value `{text}` for `{key}`"),
                "must be octal",
            )
        })
    }

    fn number(&mut self, key: &str) -> Result<u32> {
        let Some(text) = self.text(key) else {
            return Ok(0);
        };
        text.parse().map_err(|_| {
            self.problem(
                format!("invalid value `{text}` for `{key}`"),
                "must be a number",
            )
        })
    }

    fn tmpfs(&mut self, target: Option<String>) -> Result<Mount> {
        let target = self.needed(target)?;
        let size = match self.text("size") {
            None => None,
            Some(text) => Some(bytes(&text).ok_or_else(|| {
                self.problem(format!("invalid size `{text}`"), "write 100m or 1g")
            })?),
        };
        Ok(Mount {
            target,
            kind: MountKind::Tmpfs { size },
        })
    }

    /// A secret is a file unless only a variable was asked for.
    fn secret(&mut self, target: Option<String>) -> Result<Mount> {
        let env = self.text("env");
        let id = self.text("id").filter(|id| !id.is_empty());
        let name = target
            .as_deref()
            .and_then(|path| path.rsplit('/').next())
            .map(str::to_owned);
        let Some(id) = id.or(name).or_else(|| env.clone()) else {
            return Err(self.problem("a secret needs an id".to_owned(), "add id=NAME"));
        };
        let file = target.is_some() || env.is_none();
        let default = format!("/run/secrets/{}", id.rsplit('/').next().unwrap_or_default());
        let kind = MountKind::Secret {
            id,
            required: self.boolean("required")?.unwrap_or(false),
            env,
            file,
            mode: self.octal("mode", 0o400)?,
            uid: self.number("uid")?,
            gid: self.number("gid")?,
        };
        Ok(Mount {
            target: target.unwrap_or(default),
            kind,
        })
    }

    /// An agent's socket; the first without a target is the one that programs find by its variable.
    fn ssh(&mut self, target: Option<String>, number: usize) -> Result<Mount> {
        let kind = MountKind::Ssh {
            id: self
                .text("id")
                .filter(|id| !id.is_empty())
                .unwrap_or_else(|| "default".to_owned()),
            required: self.boolean("required")?.unwrap_or(false),
            mode: self.octal("mode", 0o600)?,
            uid: self.number("uid")?,
            gid: self.number("gid")?,
        };
        Ok(Mount {
            target: target.unwrap_or_else(|| format!("/run/buildkit/ssh_agent.{number}")),
            kind,
        })
    }

    /// What is left belongs to another type of mount.
    fn finish(self) -> Result<()> {
        match self.fields.keys().min() {
            None => Ok(()),
            Some(key) => Err(self.problem(
                format!("a mount of type {} has no option `{key}`", self.kind),
                "in this mount",
            )),
        }
    }
}

/// docker's sizes: a number with an optional b, k, m, g or t, powers of 1024.
pub fn bytes(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let lower = lower.strip_suffix('b').unwrap_or(&lower);
    let (digits, shift) = match lower.chars().last()? {
        'k' => (&lower[..lower.len() - 1], 10),
        'm' => (&lower[..lower.len() - 1], 20),
        'g' => (&lower[..lower.len() - 1], 30),
        't' => (&lower[..lower.len() - 1], 40),
        _ => (lower, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}
