//! What an environment is: kept with every default filled in, sent with any part left out.

use domain::packages::Manager;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{ApiError, Result};
use crate::resources::agents::tools::is_host;

const HOSTS_MAX: usize = 256;
const PACKAGES_MAX: usize = 256;
const PACKAGE_CHARS_MAX: usize = 256;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[schemars(rename = "EnvironmentConfig")]
pub enum Config {
    Cloud { networking: Networking, packages: Packages },
    SelfHosted {},
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Networking {
    #[default]
    Unrestricted,
    Limited {
        allowed_hosts: Vec<String>,
        allow_mcp_servers: bool,
        allow_package_managers: bool,
    },
}

/// What to install, in the order of the fields.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Packages {
    #[serde(rename = "type")]
    kind: PackagesKind,
    pub apt: Vec<String>,
    pub cargo: Vec<String>,
    pub gem: Vec<String>,
    pub go: Vec<String>,
    pub npm: Vec<String>,
    pub pip: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum PackagesKind {
    #[default]
    Packages,
}

#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
#[schemars(rename = "EnvironmentConfigParam")]
pub(super) enum ConfigParam {
    Cloud {
        #[serde(default)]
        networking: Option<NetworkingParam>,
        #[serde(default)]
        packages: Option<PackagesParam>,
    },
    SelfHosted {},
}

#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum NetworkingParam {
    Unrestricted {},
    Limited {
        #[serde(default)]
        allowed_hosts: Option<Vec<String>>,
        #[serde(default)]
        allow_mcp_servers: Option<bool>,
        #[serde(default)]
        allow_package_managers: Option<bool>,
    },
}

#[derive(Clone, PartialEq, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PackagesParam {
    #[serde(rename = "type", default)]
    kind: PackagesKind,
    #[serde(default)]
    apt: Option<Vec<String>>,
    #[serde(default)]
    cargo: Option<Vec<String>>,
    #[serde(default)]
    gem: Option<Vec<String>>,
    #[serde(default)]
    go: Option<Vec<String>>,
    #[serde(default)]
    npm: Option<Vec<String>>,
    #[serde(default)]
    pip: Option<Vec<String>>,
}

impl Default for Config {
    fn default() -> Self {
        Config::Cloud { networking: Networking::default(), packages: Packages::default() }
    }
}

impl Config {
    /// The config after a create, where `current` is the default of its type, or an update. Omitted parts stay.
    pub(super) fn resolve(param: ConfigParam, current: Option<&Config>) -> Result<Config> {
        let config = match (param, current) {
            (ConfigParam::SelfHosted {}, None | Some(Config::SelfHosted {})) => Config::SelfHosted {},
            (ConfigParam::Cloud { networking, packages }, None) => Config::Cloud {
                networking: networking.map_or_else(Networking::default, |param| param.over(&Networking::default())),
                packages: packages.unwrap_or_default().over(&Packages::default()),
            },
            (ConfigParam::Cloud { networking, packages }, Some(Config::Cloud { networking: net, packages: pack })) => {
                Config::Cloud {
                    networking: networking.map_or_else(|| net.clone(), |param| param.over(net)),
                    packages: packages.unwrap_or_default().over(pack),
                }
            }
            (_, Some(_)) => {
                let error = ApiError::field("config.type", "an environment cannot change its type");
                return Err(error.code("invalid_config_type_change"));
            }
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        let Config::Cloud { networking, packages } = self else { return Ok(()) };
        packages.check()?;
        let Networking::Limited { allowed_hosts, allow_package_managers, .. } = networking else { return Ok(()) };
        if allowed_hosts.len() > HOSTS_MAX {
            let problem = format!("{} hosts, at most {HOSTS_MAX} are allowed", allowed_hosts.len());
            return Err(ApiError::field("config.networking.allowed_hosts", problem));
        }
        for (n, host) in allowed_hosts.iter().enumerate() {
            if !is_host(host.strip_prefix("*.").unwrap_or(host)) {
                let at = format!("config.networking.allowed_hosts[{n}]");
                return Err(ApiError::field(at, "must be a host name like example.com or *.example.com"));
            }
        }
        if !allow_package_managers && packages.managers().iter().any(|(_, packages)| !packages.is_empty()) {
            let problem = "packages under limited networking need networking.allow_package_managers to be true";
            return Err(ApiError::field("config.packages", problem));
        }
        Ok(())
    }
}

impl NetworkingParam {
    /// An update within limited networking keeps what it omits; a change of the kind starts from the defaults.
    fn over(self, current: &Networking) -> Networking {
        match self {
            NetworkingParam::Unrestricted {} => Networking::Unrestricted,
            NetworkingParam::Limited { allowed_hosts, allow_mcp_servers, allow_package_managers } => {
                let (hosts, mcp, managers) = match current {
                    Networking::Unrestricted => (Vec::new(), false, false),
                    Networking::Limited { allowed_hosts, allow_mcp_servers, allow_package_managers } => {
                        (allowed_hosts.clone(), *allow_mcp_servers, *allow_package_managers)
                    }
                };
                Networking::Limited {
                    allowed_hosts: allowed_hosts.unwrap_or(hosts),
                    allow_mcp_servers: allow_mcp_servers.unwrap_or(mcp),
                    allow_package_managers: allow_package_managers.unwrap_or(managers),
                }
            }
        }
    }
}

impl PackagesParam {
    fn over(self, current: &Packages) -> Packages {
        let list = |given: Option<Vec<String>>, kept: &Vec<String>| given.unwrap_or_else(|| kept.clone());
        Packages {
            kind: self.kind,
            apt: list(self.apt, &current.apt),
            cargo: list(self.cargo, &current.cargo),
            gem: list(self.gem, &current.gem),
            go: list(self.go, &current.go),
            npm: list(self.npm, &current.npm),
            pip: list(self.pip, &current.pip),
        }
    }
}

impl Packages {
    /// Each manager with its packages, in the order of installation.
    pub fn managers(&self) -> [(&'static str, &[String]); 6] {
        let Self { kind: PackagesKind::Packages, apt, cargo, gem, go, npm, pip } = self;
        [("apt", apt), ("cargo", cargo), ("gem", gem), ("go", go), ("npm", npm), ("pip", pip)]
    }

    /// The lists that are not empty.
    pub fn wanted(&self) -> domain::packages::Packages {
        let lists = self.managers().into_iter().filter(|(_, packages)| !packages.is_empty());
        lists.filter_map(|(manager, packages)| Some((Manager::named(manager)?, packages.to_vec()))).collect()
    }

    fn check(&self) -> Result<()> {
        for (manager, packages) in self.managers() {
            let at = format!("config.packages.{manager}");
            if packages.len() > PACKAGES_MAX {
                let problem = format!("{} packages, at most {PACKAGES_MAX} are allowed", packages.len());
                return Err(ApiError::field(at, problem));
            }
            for (n, package) in packages.iter().enumerate() {
                let chars = package.chars().count();
                // A leading hyphen would be an option of the package manager.
                if !(1..=PACKAGE_CHARS_MAX).contains(&chars)
                    || package.starts_with('-')
                    || package.chars().any(|char| char.is_control() || char.is_whitespace())
                {
                    let problem = format!("must be a package name of 1 to {PACKAGE_CHARS_MAX} characters");
                    return Err(ApiError::field(format!("{at}[{n}]"), problem));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn resolve(param: Value, current: Option<&Config>) -> Result<Config> {
        Config::resolve(crate::body::json(param.to_string().as_bytes())?, current)
    }

    fn view(config: &Config) -> Value {
        serde_json::to_value(config).unwrap()
    }

    fn no_packages() -> Value {
        json!({"type": "packages", "apt": [], "cargo": [], "gem": [], "go": [], "npm": [], "pip": []})
    }

    #[test]
    fn a_new_config_is_fully_populated() {
        let cloud = json!({"type": "cloud", "networking": {"type": "unrestricted"}, "packages": no_packages()});
        let mut with_pip = cloud.clone();
        with_pip["packages"]["pip"] = json!(["pandas==2.2.0"]);
        let limited = json!({"type": "limited", "allowed_hosts": ["*.example.com"], "allow_mcp_servers": false,
            "allow_package_managers": false});
        let mut closed = cloud.clone();
        closed["networking"] = limited;
        for (param, expected) in [
            (json!({"type": "cloud"}), cloud.clone()),
            (json!({"type": "cloud", "networking": null, "packages": null}), cloud.clone()),
            (
                json!({"type": "cloud", "packages": {"type": "packages", "pip": ["pandas==2.2.0"], "npm": null}}),
                with_pip,
            ),
            (json!({"type": "cloud", "networking": {"type": "limited", "allowed_hosts": ["*.example.com"]}}), closed),
            (json!({"type": "self_hosted"}), json!({"type": "self_hosted"})),
        ] {
            let config = resolve(param, None).unwrap();
            assert_eq!(view(&config), expected);
            assert_eq!(resolve(expected, None).unwrap(), config);
        }
        assert_eq!(view(&Config::default()), cloud);
    }

    #[test]
    fn wrong_configs_are_refused() {
        let limited =
            |hosts: Value| json!({"type": "cloud", "networking": {"type": "limited", "allowed_hosts": hosts}});
        let packages = |packages: Value| json!({"type": "cloud", "packages": packages});
        for param in [
            json!({}),
            json!({"type": "moon"}),
            json!({"type": "self_hosted", "packages": {}}),
            json!({"type": "cloud", "extra": 1}),
            json!({"type": "cloud", "networking": {"type": "unrestricted", "allowed_hosts": []}}),
            limited(json!(["https://example.com"])),
            limited(json!(["example.com:443"])),
            limited(json!(["*"])),
            limited(json!(["a.*.com"])),
            packages(json!({"brew": []})),
            packages(json!({"pip": ["--index-url=http://x"]})),
            packages(json!({"pip": ["a b"]})),
            packages(json!({"pip": [""]})),
            json!({"type": "cloud", "networking": {"type": "limited"}, "packages": {"pip": ["a"]}}),
        ] {
            assert!(resolve(param.clone(), None).is_err(), "{param}");
        }
    }

    #[test]
    fn an_update_keeps_what_it_omits() {
        let current = json!({"type": "cloud", "packages": {"apt": ["jq"]}, "networking": {"type": "limited",
            "allowed_hosts": ["a.com"], "allow_mcp_servers": true, "allow_package_managers": true}});
        let current = resolve(current, None).unwrap();
        assert_eq!(resolve(json!({"type": "cloud"}), Some(&current)).unwrap(), current);
        let changed = json!({"type": "cloud", "networking": {"type": "limited", "allowed_hosts": []},
            "packages": {"pip": ["pytest"]}});
        let changed = view(&resolve(changed, Some(&current)).unwrap());
        assert_eq!(changed["networking"]["allowed_hosts"], json!([]));
        assert_eq!(changed["networking"]["allow_mcp_servers"], json!(true));
        assert_eq!(changed["packages"]["apt"], json!(["jq"]));
        assert_eq!(changed["packages"]["pip"], json!(["pytest"]));
        // What stays must fit what changes.
        let without_managers =
            json!({"type": "cloud", "networking": {"type": "limited", "allow_package_managers": false}});
        assert!(resolve(without_managers, Some(&current)).is_err());
        assert!(resolve(json!({"type": "self_hosted"}), Some(&current)).is_err());
        assert!(resolve(json!({"type": "cloud"}), Some(&Config::SelfHosted {})).is_err());
    }
}
