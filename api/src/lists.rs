//! Lists where objects belong. serde takes the fields of a struct from a list too, in order, and the tag of an enum from its
//! first item: `"packages": []` would be packages, and `["always_ask"]` a policy. The OpenAPI document allows neither.
//!
//! Looks at the kinds of values alone, by the schema of the type that a body is of. What else is wrong, serde finds.

use std::any::TypeId;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock};

use parking_lot::RwLock;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Unexpected, Visitor};
use serde_json::Value;

/// The schemas of the types that were met so far.
static KNOWN: LazyLock<RwLock<HashMap<TypeId, Arc<Value>>>> = LazyLock::new(RwLock::default);

/// Refuses what has a list where a `T` has an object.
pub fn refuse_misplaced<'de, T: JsonSchema + 'static, D: Deserializer<'de>>(value: D) -> Result<(), D::Error> {
    let schema = schema::<T>();
    Place::new(&schema, [&*schema]).deserialize(value)
}

fn schema<T: JsonSchema + 'static>() -> Arc<Value> {
    let known = KNOWN.read().get(&TypeId::of::<T>()).cloned();
    known.unwrap_or_else(|| {
        let generator = SchemaSettings::draft2020_12().for_deserialize().into_generator();
        let schema = Arc::new(generator.into_root_schema_for::<T>().to_value());
        KNOWN.write().entry(TypeId::of::<T>()).or_insert(schema).clone()
    })
}

/// A place in a body, and every schema that what is there may be of. Of the variants of an enum that is each of them: which
/// one is meant is not looked at.
struct Place<'a> {
    root: &'a Value,
    schemas: Vec<&'a Value>,
}

impl<'a> Place<'a> {
    fn new(root: &'a Value, schemas: impl IntoIterator<Item = &'a Value>) -> Self {
        let mut all = Vec::new();
        let mut open: Vec<&Value> = schemas.into_iter().collect();
        while let Some(schema) = open.pop() {
            all.push(schema);
            let referred = schema.get("$ref").and_then(|name| root.pointer(name.as_str()?.strip_prefix('#')?));
            let ways =
                ["anyOf", "oneOf", "allOf"].into_iter().filter_map(|ways| schema.get(ways)?.as_array()).flatten();
            open.extend(referred.into_iter().chain(ways));
        }
        Self { root, schemas: all }
    }

    fn is_for(&self, kind: &str) -> bool {
        self.schemas.iter().any(|schema| match schema.get("type") {
            Some(Value::Array(kinds)) => kinds.iter().any(|one| one == kind),
            Some(one) => one == kind,
            None => false,
        })
    }

    /// What is there may be anything.
    fn is_open(&self) -> bool {
        const SAYS: [&str; 7] = ["type", "const", "enum", "$ref", "anyOf", "oneOf", "allOf"];
        self.schemas.iter().any(|schema| SAYS.iter().all(|name| schema.get(name).is_none()))
    }

    fn item(&self) -> Self {
        Self::new(self.root, self.schemas.iter().filter_map(|schema| schema.get("items")))
    }

    fn field(&self, name: &str) -> Self {
        let of = |schema: &&'a Value| {
            let named = schema.get("properties").and_then(|fields| fields.get(name));
            named.or_else(|| schema.get("additionalProperties")).filter(|&schema| *schema != Value::Bool(false))
        };
        Self::new(self.root, self.schemas.iter().filter_map(of))
    }
}

impl<'de> DeserializeSeed<'de> for Place<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        // Below what may be anything there is nothing to find. It is walked through all the same: what is nested too deeply
        // ends there, and what is ignored is read to its last byte.
        let schemas = if self.is_open() { Vec::new() } else { self.schemas };
        deserializer.deserialize_any(Place { schemas, ..self })
    }
}

macro_rules! no_matter {
    ($($method:ident($type:ty);)*) => {$(
        fn $method<E: Error>(self, _: $type) -> Result<(), E> {
            Ok(())
        }
    )*};
}

impl<'de> Visitor<'de> for Place<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    no_matter! {
        visit_bool(bool);
        visit_i64(i64);
        visit_u64(u64);
        visit_f64(f64);
        visit_str(&str);
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        if self.is_for("object") && !self.is_for("array") {
            return Err(A::Error::invalid_type(Unexpected::Seq, &self));
        }
        while items.next_element_seed(self.item())?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        while let Some(name) = fields.next_key::<String>()? {
            fields.next_value_seed(self.field(&name))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Deserialize, JsonSchema)]
    struct Outer {
        #[serde(default)]
        _inner: Option<Inner>,
        #[serde(default)]
        _shapes: Vec<Shape>,
        #[serde(default)]
        _by_name: HashMap<String, Inner>,
        #[serde(default)]
        _any: Value,
        #[serde(default)]
        _pair: Option<(u8, Inner)>,
    }

    #[derive(Deserialize, JsonSchema)]
    struct Inner {
        #[serde(default)]
        _names: Vec<String>,
    }

    #[derive(Deserialize, JsonSchema)]
    #[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
    enum Shape {
        Dot,
        Within { _shape: Box<Shape>, _inner: Inner },
    }

    #[test]
    fn a_list_is_refused_where_an_object_belongs_and_nowhere_else() {
        for (body, fits) in [
            (json!({}), true),
            (json!([]), false),
            (json!({"_inner": null}), true),
            (json!({"_inner": {"_names": ["a"]}}), true),
            (json!({"_inner": [["a"]]}), false),
            (json!({"_inner": []}), false),
            (json!({"_shapes": [{"type": "dot"}]}), true),
            (json!({"_shapes": [["dot"]]}), false),
            (json!({"_shapes": [{"type": "within", "_shape": ["dot"], "_inner": {}}]}), false),
            (json!({"_shapes": [{"type": "within", "_shape": {"type": "dot"}, "_inner": []}]}), false),
            (json!({"_by_name": {"a": {}}}), true),
            (json!({"_by_name": {"a": []}}), false),
            (json!({"_by_name": []}), false),
            (json!({"_any": [[{"a": []}]]}), true),
            (json!({"_pair": [1, {"_names": []}]}), true),
            // Wrong too, and serde says so.
            (json!({"_inner": {"_names": {}}, "other": [[]]}), true),
        ] {
            let text = body.to_string();
            let found = refuse_misplaced::<Outer, _>(&mut serde_json::Deserializer::from_str(&text));
            assert_eq!(found.is_ok(), fits, "{text}: {found:?}");
            assert_eq!(refuse_misplaced::<Outer, _>(&body).is_ok(), fits, "{text}");
        }
    }

    /// Nobody reads a million brackets to the end to find that they are too many.
    #[test]
    fn what_is_nested_too_deeply_ends_where_it_is() {
        for deep in ["[".repeat(1_000), format!(r#"{{"_any": {}"#, "[".repeat(1_000))] {
            let found = refuse_misplaced::<Value, _>(&mut serde_json::Deserializer::from_str(&deep)).unwrap_err();
            assert!(found.to_string().starts_with("recursion limit exceeded"), "{found}");
        }
    }
}
