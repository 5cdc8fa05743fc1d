//! What can be told of a message that cannot be read: whether it is a reply, and to what. Keeps no value of it.

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use std::fmt;

/// Keys of a message as far as they were seen before it broke off.
#[derive(Default)]
pub struct Outline {
    id: Option<Value>,
    has_outcome: bool,
    has_method: bool,
}

impl Outline {
    pub fn of(said: &[u8]) -> Self {
        let mut outline = Self::default();
        // That it breaks off is known; what was seen until then is what is wanted. Values that are ignored may be of any depth.
        (&mut outline).deserialize(&mut serde_json::Deserializer::from_slice(said)).ok();
        outline
    }

    /// The request that it answers, if it surely answers one.
    pub fn replies_to(&self) -> Option<u64> {
        self.id.as_ref().filter(|_| self.has_outcome && !self.has_method)?.as_u64()
    }
}

impl<'de> DeserializeSeed<'de> for &mut Outline {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for &mut Outline {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a message")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "id" => {
                    self.id = Some(map.next_value()?);
                    continue;
                }
                "result" | "error" => self.has_outcome = true,
                "method" => self.has_method = true,
                _ => {}
            }
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}
