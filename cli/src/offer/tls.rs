//! The certificates of the engine's listener, and those that it asks of clients. Read at start, and again when they change.

use super::OfferArgs;
use crate::error::{Code, Hint as _, failed};
use parking_lot::Mutex;
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use std::{
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

/// How connections become TLS connections. The files are looked at whenever somebody connects: what was renewed counts from
/// the next connection on, and what cannot be used changes nothing.
#[derive(Clone)]
pub struct Certificates(Arc<Inner>);

struct Inner {
    files: Files,
    loaded: Mutex<Loaded>,
}

struct Files {
    cert: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
}

struct Loaded {
    /// What the files were like when they were last used.
    stamps: Vec<Stamp>,
    /// What they were like when it was last said that they cannot be used.
    refused: Vec<Stamp>,
    acceptor: TlsAcceptor,
}

/// What tells one content of a file from another: when and how large it was written, and as which file. None: it is not
/// there.
type Stamp = Option<(i64, i64, u64, u64)>;

impl Certificates {
    /// Reads what was given; none where no certificate was.
    pub fn given(args: &OfferArgs) -> anyhow::Result<Option<Certificates>> {
        let (cert, key) = match (&args.engine_tls_cert, &args.engine_tls_key) {
            (Some(cert), Some(key)) => (cert.clone(), key.clone()),
            (None, None) if args.engine_tls_client_ca.is_none() => return Ok(None),
            _ => {
                let hint =
                    "give --engine-tls-cert and --engine-tls-key together, and --engine-tls-client-ca with them only";
                return Err(failed(Code::Usage, "the engine's listener has half of what TLS needs", hint));
            }
        };
        let files = Files { cert, key, client_ca: args.engine_tls_client_ca.clone() };
        // Before reading: what is written meanwhile is read again.
        let stamps = files.stamps();
        let loaded = Mutex::new(Loaded { stamps, refused: Vec::new(), acceptor: files.read()? });
        Ok(Some(Certificates(Arc::new(Inner { files, loaded }))))
    }

    /// With what the files hold now, or held when they could last be used.
    pub fn acceptor(&self) -> TlsAcceptor {
        let Inner { files, loaded } = &*self.0;
        let mut loaded = loaded.lock();
        let stamps = files.stamps();
        if stamps != loaded.stamps {
            match files.read() {
                Ok(acceptor) => {
                    (loaded.acceptor, loaded.stamps) = (acceptor, stamps);
                    info!("certificates were read again");
                }
                // Half of a renewal, maybe. The next connection looks again, and says nothing of the same files.
                Err(error) if loaded.refused != stamps => {
                    warn!(error = &*error as &dyn std::error::Error, "changed certificates are not used");
                    loaded.refused = stamps;
                }
                Err(_) => {}
            }
        }
        loaded.acceptor.clone()
    }
}

impl Files {
    fn stamps(&self) -> Vec<Stamp> {
        let stamp = |file: &PathBuf| {
            let file = file.metadata().ok()?;
            Some((file.mtime(), file.mtime_nsec(), file.len(), file.ino()))
        };
        [&self.cert, &self.key].into_iter().chain(&self.client_ca).map(stamp).collect()
    }

    fn read(&self) -> anyhow::Result<TlsAcceptor> {
        let Files { cert, key, client_ca } = self;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
        let config = match client_ca {
            None => config.with_no_client_auth(),
            Some(file) => {
                let mut roots = RootCertStore::empty();
                for root in certificates(file)? {
                    roots.add(root).hint(Code::Usage, format!("take {} for an authority", file.display()), HINT)?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                config.with_client_cert_verifier(verifier.build()?)
            }
        };
        let problem = || format!("read the key {}", key.display());
        let private = PrivateKeyDer::from_pem_file(key).hint(Code::Usage, problem(), HINT)?;
        let mut config = config.with_single_cert(certificates(cert)?, private).hint(
            Code::Usage,
            format!("use {} with {}", cert.display(), key.display()),
            "the key must be that of the first certificate in the file",
        )?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

const HINT: &str = "it must be a PEM file that the service may read";

fn certificates(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let problem = || format!("read the certificates {}", file.display());
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = read.hint(Code::Usage, problem(), HINT)?;
    if found.is_empty() {
        return Err(failed(Code::Usage, format!("there is no certificate in {}", file.display()), HINT));
    }
    Ok(found)
}
