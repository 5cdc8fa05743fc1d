//! Which service a command talks to: a URL, or the one that announced itself in a data folder; and with which key.
//! Finds it, never starts it (`launch.rs` does).

use crate::{
    client::Client,
    config, data_dir, env_vars,
    error::{Code, Hint as _, failed},
};
use clap::Args;
use reqwest::Url;
use std::path::{Path, PathBuf};

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Service")]
pub struct Service {
    /// Base URL of the service [default: the one that runs from the data folder]
    #[arg(long, global = true, env = env_vars::URL, value_name = "URL")]
    url: Option<String>,
    /// Data folder of a service on this machine [default: ~/.local/share/steadyhand]
    #[arg(long, global = true, env = env_vars::DATA, value_name = "DIR")]
    data: Option<PathBuf>,
}

impl Service {
    pub fn data(&self) -> PathBuf {
        self.data.clone().unwrap_or_else(config::default_data_dir)
    }

    /// The URL, if one was named.
    pub fn url(&self) -> Option<&str> {
        self.url.as_deref().filter(|url| !url.is_empty())
    }

    /// A client of the service, by what is known of it now. Whether it answers shows with the first request.
    pub fn client(&self) -> anyhow::Result<Client> {
        let data = self.data();
        let base = match self.url() {
            Some(url) => parse(url)?,
            None => announced(&data)?,
        };
        let socket = is_announced(&base, &data).then(|| data_dir::api_socket(&data));
        let key = key(&base, &data, socket.is_some())?;
        Client::new(base, key, socket)
    }
}

fn parse(url: &str) -> anyhow::Result<Url> {
    let hint = format!("give --url or {} as in http://127.0.0.1:8280", env_vars::URL);
    let parsed = Url::parse(url).hint(Code::Usage, format!("understand the URL {url}"), hint.clone())?;
    if parsed.cannot_be_a_base() || !matches!(parsed.scheme(), "http" | "https") {
        return Err(failed(Code::Usage, format!("{url} is not the URL of a service"), hint));
    }
    Ok(parsed)
}

fn announced(data: &Path) -> anyhow::Result<Url> {
    let running = data_dir::running(data).ok_or_else(|| {
        failed(
            Code::Unreachable,
            format!("no service runs from {}", data.display()),
            "start it with `steadyhand serve`, or name another with --url or --data",
        )
    })?;
    Ok(Url::parse(&format!("http://{}", running.addr))?)
}

/// Whether the URL is that of the service which announced itself in the data folder. Whoever listens there now, the folder's
/// own socket leads to that service or to nobody.
fn is_announced(base: &Url, data: &Path) -> bool {
    let announced = data_dir::running(data).map(|running| running.addr.port());
    is_here(base) && base.scheme() == "http" && base.port_or_known_default() == announced
}

/// The key of the environment; for the service of the data folder else its admin key, which is never sent anywhere else.
fn key(base: &Url, data: &Path, is_own: bool) -> anyhow::Result<String> {
    if let Some(key) = std::env::var(env_vars::API_KEY).ok().filter(|key| !key.is_empty()) {
        return Ok(key);
    }
    let no_key = |why: String| {
        let hint = format!("set {} (`steadyhand key create NAME` makes a key)", env_vars::API_KEY);
        failed(Code::Usage, format!("there is no API key for {base}: {why}"), hint)
    };
    if !is_own {
        let why = format!("the admin key of {} is only sent to the service that runs from there", data.display());
        return Err(no_key(why));
    }
    let path = data_dir::admin_key(data);
    let key = std::fs::read_to_string(&path).map_err(|error| no_key(format!("read {}: {error}", path.display())))?;
    Ok(key.trim().to_owned())
}

/// Whether the URL can only lead to this machine.
pub fn is_here(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|addr| addr.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_admin_key_stays_on_this_machine() {
        for (url, here) in [
            ("http://127.0.0.1:8280", true),
            ("http://localhost:1", true),
            ("http://[::1]:8280", true),
            ("http://10.0.0.7", false),
            ("http://localhost.example.com", false),
            ("https://steadyhand.example.com", false),
        ] {
            assert_eq!(is_here(&Url::parse(url).unwrap()), here, "{url}");
        }
    }

    #[test]
    fn only_http_is_spoken() {
        for url in ["", "127.0.0.1:8280", "ftp://127.0.0.1", "localhost:8280"] {
            assert!(parse(url).is_err(), "{url}");
        }
        assert_eq!(parse("http://127.0.0.1:8280/").unwrap().as_str(), "http://127.0.0.1:8280/");
    }
}
