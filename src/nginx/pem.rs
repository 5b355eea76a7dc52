//! Certificates and keys that Lua gives, read from PEM by OpenSSL.

use core::ffi::{c_char, c_int, c_ulong, c_void, CStr};
use core::ptr;

use ngx::ffi::{
    BIO_free, BIO_new_mem_buf, ERR_clear_error, ERR_peek_last_error, EVP_PKEY_free,
    PEM_read_bio_PrivateKey, PEM_read_bio_X509, X509_free, BIO, EVP_PKEY, X509, X509_STORE,
};

use super::openssl;
use super::tls::{sha256, Fingerprint};

/// A certificate, counted by OpenSSL.
pub(super) struct X509Ref(pub(super) *mut X509);

impl Drop for X509Ref {
    fn drop(&mut self) {
        // SAFETY: this handle's own count.
        unsafe { X509_free(self.0) }
    }
}

/// A private key, counted by OpenSSL.
pub(super) struct KeyRef(pub(super) *mut EVP_PKEY);

impl Drop for KeyRef {
    fn drop(&mut self) {
        // SAFETY: this handle's own count.
        unsafe { EVP_PKEY_free(self.0) }
    }
}

/// Empties OpenSSL's queue of errors in the end. OpenSSL leaves some there even when all went well,
/// and the next one who looks would take them for his own.
struct NoErrors;

impl Drop for NoErrors {
    fn drop(&mut self) {
        // SAFETY: OpenSSL's own queue of errors.
        unsafe { ERR_clear_error() }
    }
}

/// A certificate of our own, with its chain and its key.
pub struct Certificate {
    pub(super) leaf: X509Ref,
    pub(super) chain: Vec<X509Ref>,
    pub(super) key: KeyRef,
}

impl Certificate {
    /// Reads PEM: the certificate, then those that lead to a trusted one; and the key.
    pub fn parse(certificate: &[u8], key: &[u8]) -> Result<Self, &'static CStr> {
        let _errors = NoErrors;
        let mut certificates = read_certificates(certificate)?.into_iter();
        let leaf = certificates.next().ok_or(c"no certificate in the PEM")?;
        let key = Bio::new(key)?.read_key().ok_or(c"no private key in the PEM")?;
        if let Some(check) = openssl::X509_check_private_key() {
            // SAFETY: both are live.
            if unsafe { check(leaf.0, key.0) } != 1 {
                return Err(c"the private key is not the certificate's");
            }
        }
        Ok(Certificate { leaf, chain: certificates.collect(), key })
    }
}

/// Authorities that are trusted.
pub struct Trusted {
    pub(super) store: *mut X509_STORE,
    /// Of the text that they were given as.
    pub digest: Fingerprint,
}

impl Drop for Trusted {
    fn drop(&mut self) {
        if let Some(free) = openssl::X509_STORE_free() {
            // SAFETY: this handle's own count.
            unsafe { free(self.store) }
        }
    }
}

impl Trusted {
    /// Reads PEM: one certificate or more.
    pub fn parse(pem: &[u8]) -> Result<Self, &'static CStr> {
        const MISSING: &CStr = c"nginx's OpenSSL has no certificate stores";
        let new = openssl::X509_STORE_new().ok_or(MISSING)?;
        let add = openssl::X509_STORE_add_cert().ok_or(MISSING)?;
        openssl::X509_STORE_free().ok_or(MISSING)?;

        let _errors = NoErrors;
        let certificates = read_certificates(pem)?;
        let digest = sha256(&[pem]).ok_or(c"no memory")?;
        if certificates.is_empty() {
            return Err(c"no certificate in the PEM");
        }
        // SAFETY: the store is fresh and dropped with the result; it counts its certificates.
        unsafe {
            let store = new();
            if store.is_null() {
                return Err(c"no memory");
            }
            let trusted = Trusted { store, digest };
            for certificate in &certificates {
                if add(trusted.store, certificate.0) != 1 {
                    return Err(c"a certificate cannot be trusted");
                }
            }
            Ok(trusted)
        }
    }
}

fn read_certificates(pem: &[u8]) -> Result<Vec<X509Ref>, &'static CStr> {
    let bio = Bio::new(pem)?;
    let mut certificates = Vec::new();
    while let Some(certificate) = bio.read_certificate() {
        certificates.push(certificate);
    }
    /// OpenSSL's word for the end of the text.
    const NO_START_LINE: c_ulong = 108;
    const REASON: c_ulong = 0xfff;
    // SAFETY: OpenSSL's own queue of errors.
    let end = unsafe {
        let error = ERR_peek_last_error();
        ERR_clear_error();
        error
    };
    if end & REASON != NO_START_LINE {
        return Err(c"a certificate in the PEM is damaged");
    }
    Ok(certificates)
}

/// A text that OpenSSL reads.
struct Bio<'a>(*mut BIO, core::marker::PhantomData<&'a [u8]>);

impl Drop for Bio<'_> {
    fn drop(&mut self) {
        // SAFETY: made by `new`.
        unsafe { BIO_free(self.0) };
    }
}

impl<'a> Bio<'a> {
    fn new(text: &'a [u8]) -> Result<Self, &'static CStr> {
        let len = c_int::try_from(text.len()).map_err(|_| c"the PEM is too long")?;
        // SAFETY: OpenSSL reads the text, which outlives the BIO.
        let bio = unsafe { BIO_new_mem_buf(text.as_ptr().cast(), len) };
        if bio.is_null() {
            return Err(c"no memory");
        }
        Ok(Bio(bio, core::marker::PhantomData))
    }

    fn read_certificate(&self) -> Option<X509Ref> {
        // SAFETY: the BIO is live; nobody is asked for a password.
        let read = unsafe {
            PEM_read_bio_X509(self.0, ptr::null_mut(), Some(no_password), ptr::null_mut())
        };
        (!read.is_null()).then_some(X509Ref(read))
    }

    fn read_key(&self) -> Option<KeyRef> {
        // SAFETY: as above.
        let read = unsafe {
            PEM_read_bio_PrivateKey(self.0, ptr::null_mut(), Some(no_password), ptr::null_mut())
        };
        (!read.is_null()).then_some(KeyRef(read))
    }
}

/// A worker has no terminal to ask on.
unsafe extern "C" fn no_password(_: *mut c_char, _: c_int, _: c_int, _: *mut c_void) -> c_int {
    0
}

#[cfg(test)]
mod tests {
    use ngx::ffi::ERR_peek_error;

    use super::Trusted;

    const SOUND: &str = "\
-----BEGIN CERTIFICATE-----
MIIBbzCCARWgAwIBAgIUa4Rd/Q+gewhOTZVuHZdEhMAhNbYwCgYIKoZIzj0EAwIw
DDEKMAgGA1UEAwwBYTAgFw0yNjExMjIxNzU5NDhaGA8yMTI2MTAyOTE3NTk0OFow
DDEKMAgGA1UEAwwBYTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABOXluwf4K+3t
6ggV6AtpUlTltBW7uXgleW13inW5vnIJwKg0lyUwELKv66tjh0Tpcc++zYRI8OiF
F18WmixluFOjUzBRMB0GA1UdDgQWBBQvda4jBKiEakrz/i5P3YhQ7NvhXjAfBgNV
HSMEGDAWgBQvda4jBKiEakrz/i5P3YhQ7NvhXjAPBgNVHRMBAf8EBTADAQH/MAoG
CCqGSM49BAMCA0gAMEUCIQC+0rQKRv5q9IFuDuset3QcKwoA+O4/5tmlkiqnk4d/
/wIgMTST+/ngHhxf5nmantiiVvPbnFyvgo+s/FHAvY/HHEw=
-----END CERTIFICATE-----
";

    /// OpenSSL adds one of that name to a store, though it cannot read an extension in it.
    #[test]
    fn no_error_is_left_for_others() {
        let odd = SOUND.replace("HSMEGDAWgBQv", "HSMEGDASgBQv");
        for pem in [SOUND.to_string(), SOUND.repeat(2), format!("{SOUND}{odd}"), odd.repeat(2)] {
            assert!(Trusted::parse(pem.as_bytes()).is_ok());
            // SAFETY: OpenSSL's own queue of errors.
            assert_eq!(unsafe { ERR_peek_error() }, 0);
        }
    }
}
