//! XChaCha20-Poly1305: a random nonce before the sealed bytes.

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use rand::TryRngCore;
use rand::rngs::OsRng;
use zeroize::Zeroizing;

pub type Key = Zeroizing<[u8; 32]>;
const NONCE_BYTES: usize = 24;

pub fn random_key() -> Key {
    let mut key = Zeroizing::new([0; 32]);
    fill(&mut *key);
    key
}

/// None unless it has a key's length.
pub fn key(bytes: &[u8]) -> Option<Key> {
    Some(Zeroizing::new(bytes.try_into().ok()?))
}

pub fn seal(key: &Key, plain: &[u8], bound_to: &[u8]) -> Vec<u8> {
    let mut nonce = [0; NONCE_BYTES];
    fill(&mut nonce);
    let payload = Payload { msg: plain, aad: bound_to };
    let sealed = XChaCha20Poly1305::new(key.as_slice().into()).encrypt(XNonce::from_slice(&nonce), payload);
    let sealed = sealed.expect("only a message of 256 GiB is too long");
    [nonce.as_slice(), &sealed].concat()
}

/// None where the key, the bytes or what they are bound to is another.
pub fn open(key: &Key, sealed: &[u8], bound_to: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (nonce, sealed) = sealed.split_at_checked(NONCE_BYTES)?;
    let payload = Payload { msg: sealed, aad: bound_to };
    let plain = XChaCha20Poly1305::new(key.as_slice().into()).decrypt(XNonce::from_slice(nonce), payload);
    plain.ok().map(Zeroizing::new)
}

fn fill(bytes: &mut [u8]) {
    OsRng.try_fill_bytes(bytes).expect("the kernel has randomness");
}
