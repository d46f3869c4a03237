//! The one way in which secrets are sealed, in the database, on disks and in headers. Knows no file and no business word.
//!
//! AES-256-GCM. The sealed form is `nonce || cipher text`: 12 random bytes, then what the cipher gives, 16 bytes longer
//! than the content. The associated data is not stored; it binds the content to a place, so that sealed bytes that were
//! moved elsewhere do not open. A random nonce of 96 bits is safe for some billions of contents under one key.

#![forbid(unsafe_code)]

use aes_gcm::aead::{Aead as _, AeadInOut as _, KeyInit as _, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use rand::RngCore as _;
use zeroize::{Zeroize as _, Zeroizing};

/// Length of a key.
pub const KEY_BYTES: usize = 32;
/// Length of the nonce that every sealed form begins with.
pub const NONCE_BYTES: usize = 12;
/// By how much a sealed form is longer than its content.
pub const OVERHEAD_BYTES: usize = NONCE_BYTES + 16;

/// The cipher refused: the content is above 64 GiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the content is too large to be sealed")]
pub struct TooLarge;

/// Sealed with another key or for another place, or damaged; which of them cannot be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it was sealed with another key or for another place, or is damaged")]
pub struct UnsealError;

/// These bytes are no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key has {KEY_BYTES} bytes, this one has {0}")]
pub struct WrongLength(pub usize);

/// A key, ready to seal and open. Does not print, and is wiped from memory when it is dropped.
#[derive(Clone)]
pub struct SealKey(Aes256Gcm);

impl std::fmt::Debug for SealKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealKey(…)")
    }
}

impl From<&[u8; KEY_BYTES]> for SealKey {
    fn from(bytes: &[u8; KEY_BYTES]) -> Self {
        Self(Aes256Gcm::new(bytes.into()))
    }
}

impl TryFrom<&[u8]> for SealKey {
    type Error = WrongLength;

    fn try_from(bytes: &[u8]) -> Result<Self, WrongLength> {
        let bytes: &[u8; KEY_BYTES] = bytes.try_into().map_err(|_| WrongLength(bytes.len()))?;
        Ok(Self::from(bytes))
    }
}

impl SealKey {
    /// Bytes for a new key, to be stored by who asks.
    #[must_use]
    pub fn generate() -> Zeroizing<[u8; KEY_BYTES]> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        rand::rng().fill_bytes(bytes.as_mut_slice());
        bytes
    }

    /// Seals a content for a place.
    ///
    /// # Errors
    /// When the content is too large for the cipher.
    pub fn seal(&self, place: &[u8], content: &[u8]) -> Result<Vec<u8>, TooLarge> {
        let mut sealed = Vec::new();
        self.seal_onto(&mut sealed, place, content)?;
        Ok(sealed)
    }

    /// Appends the sealed form of a content, behind whatever a format has before it.
    ///
    /// # Errors
    /// When the content is too large for the cipher; nothing is appended then.
    pub fn seal_onto(&self, out: &mut Vec<u8>, place: &[u8], content: &[u8]) -> Result<(), TooLarge> {
        let mut nonce = [0; NONCE_BYTES];
        rand::rng().fill_bytes(&mut nonce);
        self.seal_with(nonce, out, place, content)
    }

    fn seal_with(
        &self,
        nonce: [u8; NONCE_BYTES],
        out: &mut Vec<u8>,
        place: &[u8],
        content: &[u8],
    ) -> Result<(), TooLarge> {
        // Before the content is in it: a vector that grows leaves a copy behind.
        out.reserve(content.len() + OVERHEAD_BYTES);
        let before = out.len();
        out.extend_from_slice(&nonce);
        let body = out.len();
        out.extend_from_slice(content);
        match self.0.encrypt_inout_detached(&Nonce::from(nonce), place, (&mut out[body..]).into()) {
            Ok(tag) => {
                out.extend_from_slice(&tag);
                Ok(())
            }
            Err(_) => {
                out[body..].zeroize();
                out.truncate(before);
                Err(TooLarge)
            }
        }
    }

    /// Opens what was sealed for this place.
    ///
    /// # Errors
    /// When another key or another place sealed it, or it is damaged.
    pub fn open(&self, place: &[u8], sealed: &[u8]) -> Result<Vec<u8>, UnsealError> {
        let (nonce, body) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or(UnsealError)?;
        self.0.decrypt(&Nonce::from(*nonce), Payload { msg: body, aad: place }).map_err(|_| UnsealError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_data_opens_only_whole_with_its_key_and_context() {
        let key = SealKey::from(&[7; KEY_BYTES]);
        let sealed = key.seal(b"here", b"secret").expect("sealed");
        assert_eq!(sealed.len(), 6 + OVERHEAD_BYTES);
        assert!(!sealed.windows(6).any(|window| window == b"secret"));
        assert_eq!(key.open(b"here", &sealed).expect("opened"), b"secret");
        assert_eq!(key.open(b"there", &sealed), Err(UnsealError));
        assert_eq!(SealKey::from(&[8; KEY_BYTES]).open(b"here", &sealed), Err(UnsealError));
        for length in 0..sealed.len() {
            assert_eq!(key.open(b"here", &sealed[..length]), Err(UnsealError), "{length} bytes");
        }
        for at in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[at] ^= 1;
            assert_eq!(key.open(b"here", &bad), Err(UnsealError), "byte {at}");
        }
    }

    #[test]
    fn each_sealing_has_a_nonce_of_its_own_and_keeps_what_stands_before_it() {
        let key = SealKey::from(&*SealKey::generate());
        let mut out = b"head".to_vec();
        key.seal_onto(&mut out, b"", b"x").expect("sealed");
        let (head, sealed) = out.split_at(4);
        assert_eq!(head, b"head");
        assert_eq!(key.open(b"", sealed).expect("opened"), b"x");
        assert_ne!(key.seal(b"", b"x").expect("sealed"), sealed);
    }

    /// Test case 16 of "The Galois/Counter Mode of Operation" (McGrew, Viega): the format is the standard's.
    #[test]
    fn the_cipher_text_is_that_of_the_standard() {
        let bytes = |text: &str| hex::decode(text).expect("hex");
        let key = bytes("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308");
        let nonce: [u8; NONCE_BYTES] = bytes("cafebabefacedbaddecaf888").try_into().expect("12 bytes");
        let place = bytes("feedfacedeadbeeffeedfacedeadbeefabaddad2");
        let content = bytes(concat!(
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72",
            "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
        ));
        let expected = bytes(concat!(
            "cafebabefacedbaddecaf888",
            "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa",
            "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
            "76fc6ece0f4e1768cddf8853bb2d551b",
        ));
        let key = SealKey::try_from(key.as_slice()).expect("a key");
        let mut sealed = Vec::new();
        key.seal_with(nonce, &mut sealed, &place, &content).expect("sealed");
        assert_eq!(sealed, expected);
        assert_eq!(key.open(&place, &expected).expect("opened"), content);
    }

    #[test]
    fn a_key_of_another_length_is_refused_and_none_is_printed() {
        assert_eq!(SealKey::try_from(&[1; 31][..]).expect_err("short"), WrongLength(31));
        let key = SealKey::try_from(&[1; KEY_BYTES][..]).expect("a key");
        assert_eq!(format!("{key:?}"), "SealKey(…)");
    }
}
