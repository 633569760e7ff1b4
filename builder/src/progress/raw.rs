//! Progress as BuildKit's `--progress=rawjson` has it: a JSON object a line, with what is new.

use super::Ending;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};
use teu_store::Digest;

/// A step as those who read the lines know it.
#[derive(Debug, Clone)]
pub(super) struct Vertex {
    digest: Digest,
    name: String,
    started: Timestamp,
}

impl Vertex {
    /// A step that starts now. Its digest is that of its number and its name, so that two alike are two.
    pub(super) fn new(number: usize, name: &str) -> Self {
        Self {
            digest: Digest::of(format!("{number} {name}").as_bytes()),
            name: name.to_owned(),
            started: Timestamp::now(),
        }
    }

    /// It runs.
    pub(super) fn begin(&self) -> Value {
        json!({ "vertexes": [self.fields()] })
    }

    /// A line of its output.
    pub(super) fn log(&self, line: &str) -> Value {
        json!({ "logs": [{
            "vertex": self.digest,
            "stream": 1,
            "data": STANDARD.encode(format!("{line}\n")),
            "timestamp": Timestamp::now().to_string(),
        }] })
    }

    /// It ended.
    pub(super) fn end(&self, ending: Ending) -> Value {
        let mut fields = self.fields();
        fields["completed"] = json!(Timestamp::now().to_string());
        match ending {
            Ending::Done => {}
            Ending::Cached => fields["cached"] = json!(true),
            Ending::Failed => fields["error"] = json!("failed"),
            Ending::Cancelled => fields["error"] = json!("canceled"),
        }
        json!({ "vertexes": [fields] })
    }

    fn fields(&self) -> Value {
        json!({
            "digest": self.digest,
            "name": self.name,
            "started": self.started.to_string(),
        })
    }
}

/// A line that belongs to no step.
pub(super) fn note(text: &str) -> Value {
    json!({ "warnings": [{ "short": STANDARD.encode(text) }] })
}
