//! The areas of the API that this server does not have yet: a clear answer instead of an unknown path.

use axum::routing::any;

use crate::error::ApiError;
use crate::operation::Methods;
use crate::router::{Resource, Route};

macro_rules! unbuilt {
    ($($area:literal at [$($path:literal),+]),+ $(,)?) => {
        &[$($(Route { path: $path, methods: || Methods::undescribed(any(async || ApiError::not_built($area))) }),+),+]
    };
}

pub const RESOURCE: Resource = Resource {
    name: "unbuilt",
    routes: unbuilt![
        "memory stores" at ["/v1/memory_stores", "/v1/memory_stores/{*rest}"],
        "skills" at ["/v1/skills", "/v1/skills/{*rest}"],
        "deployments" at
            ["/v1/deployments", "/v1/deployments/{*rest}", "/v1/deployment_runs", "/v1/deployment_runs/{*rest}"],
        "dreams" at ["/v1/dreams", "/v1/dreams/{*rest}"],
        "tunnels" at ["/v1/tunnels", "/v1/tunnels/{*rest}"],
        "user profiles" at ["/v1/user_profiles", "/v1/user_profiles/{*rest}"],
        "webhooks" at ["/v1/organizations/webhooks", "/v1/organizations/webhooks/{*rest}"],
        "models" at ["/v1/models", "/v1/models/{*rest}"],
    ],
};
