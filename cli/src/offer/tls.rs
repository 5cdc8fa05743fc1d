//! The certificates of the engine's listener, and those that it asks of clients. Read once, at start.

use super::OfferArgs;
use crate::error::{Code, Hint as _, failed};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use std::{path::Path, sync::Arc};
use tokio_rustls::TlsAcceptor;

/// How connections become TLS connections; none where no certificate was given.
pub fn acceptor(args: &OfferArgs) -> anyhow::Result<Option<TlsAcceptor>> {
    let (cert, key) = match (&args.engine_tls_cert, &args.engine_tls_key) {
        (Some(cert), Some(key)) => (cert, key),
        (None, None) if args.engine_tls_client_ca.is_none() => return Ok(None),
        _ => {
            let hint =
                "give --engine-tls-cert and --engine-tls-key together, and --engine-tls-client-ca with them only";
            return Err(failed(Code::Usage, "the engine's listener has half of what TLS needs", hint));
        }
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let config = match &args.engine_tls_client_ca {
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
    Ok(Some(TlsAcceptor::from(Arc::new(config))))
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
