//! From a request to its bytes: object keys in order, no spaces. A recipe's hash is of these bytes.

use serde_json::Value;

/// Version of [`serialize`]; another way to write the same value needs another number.
pub const SERIALIZER: u32 = 1;

pub fn serialize(value: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    write(value, &mut out);
    out
}

fn write(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Object(map) => {
            // serde_json may or may not keep insertion order, by a feature any crate can turn on.
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort_unstable();
            out.push(b'{');
            for (index, key) in keys.into_iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                scalar(&Value::String(key.clone()), out);
                out.push(b':');
                write(&map[key], out);
            }
            out.push(b'}');
        }
        Value::Array(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write(item, out);
            }
            out.push(b']');
        }
        other => scalar(other, out),
    }
}

fn scalar(value: &Value, out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("writing to memory does not fail");
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_are_ordered_at_every_depth() {
        let value = json!({"b": [{"z": 1, "a": null}], "a": "x\"y"});
        assert_eq!(serialize(&value), br#"{"a":"x\"y","b":[{"a":null,"z":1}]}"#);
    }
}
