//! `--metadata-file`, in the words of docker buildx.

use super::Sent;
use serde_json::{Map, Value, json};
use teu_store::Reference;

/// What became of the build, as JSON: digests and names.
pub fn metadata(sent: &Sent, names: &[Reference]) -> Value {
    let mut fields = Map::new();
    if let Some(target) = &sent.target {
        let digest = target.digest.to_string();
        fields.insert("containerimage.digest".to_owned(), json!(digest));
        fields.insert("containerimage.descriptor".to_owned(), json!(target));
    }
    if let [only] = &sent.ids[..] {
        let digest = only.to_string();
        fields.insert("containerimage.config.digest".to_owned(), json!(digest));
    }
    if !names.is_empty() {
        let list: Vec<String> = names.iter().map(ToString::to_string).collect();
        fields.insert("image.name".to_owned(), json!(list.join(",")));
    }
    Value::Object(fields)
}
