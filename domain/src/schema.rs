//! What clients see of types that the log keeps in another form. Only with the feature `schema`.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::content::{Block, Content, Json};
use crate::egress::Secret;
use crate::{Time, Usage};

macro_rules! shown {
    ($($kept:ty as $name:literal: $schema:expr;)+) => {
        $(impl JsonSchema for $kept {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                ($schema)(generator)
            }
        })+
    };
}

shown! {
    Time as "Time": |_: &mut SchemaGenerator| json_schema!({"type": "string", "format": "date-time"});
    // References are resolved before anything is shown.
    Content as "Content": Vec::<Block>::json_schema;
    Json as "Json": |_: &mut SchemaGenerator| json_schema!(true);
    // The api has a form of its own for each place.
    Usage as "Usage": |_: &mut SchemaGenerator| json_schema!(true);
    Secret as "Secret": |_: &mut SchemaGenerator| json_schema!({"type": "string", "writeOnly": true});
}
