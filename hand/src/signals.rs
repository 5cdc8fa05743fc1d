//! Signals that everybody near gets, and that are not meant for whoever still has something to finish: a terminal sends Ctrl-C to
//! all of its foreground, and a supervisor of processes may send its word to end to each of them.

use std::io;

/// From now on nothing happens on Ctrl-C, on the usual word to end, and when the terminal goes. Programs that are started do not
/// take over what is caught, as they would what is ignored.
pub fn outlive() -> io::Result<()> {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        #[expect(unsafe_code, reason = "neither std nor rustix says what a signal does")]
        // SAFETY: the handler does nothing, which is safe at any moment.
        let before = unsafe { libc::signal(signal, caught as extern "C" fn(libc::c_int) as libc::sighandler_t) };
        if before == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

extern "C" fn caught(_signal: libc::c_int) {}
