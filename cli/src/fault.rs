//! Stops this process at a named point, when the environment asks for it. Off otherwise.

use crate::{
    env_vars,
    error::{Code, Hint as _},
};
use domain::fault::{self, Fault};

pub fn arm() -> anyhow::Result<()> {
    let Some(text) = std::env::var_os(env_vars::FAULT).filter(|text| !text.is_empty()) else { return Ok(()) };
    let text = text.to_string_lossy();
    let fault: Fault = text.parse().hint(Code::Usage, format!("understand {}", env_vars::FAULT), "unset it")?;
    fault::arm(fault, || {
        tracing::warn!("stopped at the fault point that the environment names");
        #[expect(unsafe_code, reason = "rustix signals processes, not the calling thread")]
        // SAFETY: no memory is involved. It is sent to this very thread, so nothing after it runs before the signal.
        unsafe {
            libc::raise(libc::SIGSTOP)
        };
    });
    Ok(())
}
