//! Where package managers of sandboxes find what they install, as an operator says it: `pip=URL`.

use crate::error::{Code, failed};
use domain::packages::{Manager, Registries};
use serde::{Deserialize, Deserializer, de};
use std::str::FromStr;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registry {
    manager: Manager,
    url: String,
}

impl FromStr for Registry {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let takes = || Manager::ALL.into_iter().filter(|manager| manager.registry_variable().is_some());
        let known = || takes().map(Manager::name).collect::<Vec<_>>().join(", ");
        let (name, url) = text.split_once('=').ok_or("a registry is MANAGER=URL")?;
        let manager = takes().find(|manager| manager.name() == name);
        let manager = manager.ok_or_else(|| format!("registries can be given to {}", known()))?;
        let uri: http::Uri = url.parse().map_err(|_| "a registry's URL is https://HOST/PATH")?;
        let fine = matches!(uri.scheme_str(), Some("https" | "http"))
            && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
            && url.bytes().all(|b| b.is_ascii_graphic());
        // What is in it is seen in every sandbox.
        if !fine {
            return Err("a registry's URL is https://HOST/PATH, without a user or a password".to_owned());
        }
        Ok(Registry { manager, url: url.to_owned() })
    }
}

impl<'de> Deserialize<'de> for Registry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// One a manager.
pub fn registries(given: Vec<Registry>) -> anyhow::Result<Registries> {
    let mut registries = Registries::new();
    for Registry { manager, url } in given {
        if registries.insert(manager, url).is_some() {
            let what = format!("use --package-registries: {} has two", manager.name());
            return Err(failed(Code::Usage, what, "give each manager one registry"));
        }
    }
    Ok(registries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_is_a_manager_and_a_url() {
        let registry: Registry = "pip=https://pypi.example.com/simple".parse().unwrap();
        let all = registries(vec![registry.clone()]).unwrap();
        assert_eq!(all, [(Manager::Pip, "https://pypi.example.com/simple".to_owned())].into());
        assert!(registries(vec![registry.clone(), registry]).is_err());
        for wrong in ["", "pip", "gem=https://a.test", "pip=ftp://a.test", "npm=https://me:secret@a.test", "go=/path"] {
            assert!(wrong.parse::<Registry>().is_err(), "{wrong}");
        }
    }
}
