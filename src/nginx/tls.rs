//! `ngx_ssl_connection_t` and OpenSSL's objects: the TLS of a connection to a peer, its sessions,
//! certificates that Lua gives.
//!
//! OpenSSL is nginx's own. Functions that nginx itself does not use may be missing where it is
//! linked statically: these are looked up at run time (see [`optional`]).

use core::ffi::{c_int, c_long, CStr};
use core::ptr::{self, NonNull};

use ngx::ffi::{
    d2i_SSL_SESSION, i2d_SSL_SESSION, ngx_connection_t, ngx_ssl_connection_s, ngx_ssl_get_session,
    ngx_time, ERR_clear_error, EVP_DigestFinal_ex, EVP_DigestInit_ex, EVP_DigestUpdate,
    EVP_MD_CTX_free, EVP_MD_CTX_new, EVP_sha256, OPENSSL_sk_num, OPENSSL_sk_value,
    SSL_CTX_get_cert_store, SSL_SESSION_free, SSL_SESSION_up_ref, SSL_ctrl, SSL_get_certificate,
    SSL_get_servername, SSL_session_reused, SSL_set_session, SSL_set_verify_depth,
    SSL_use_PrivateKey, SSL_use_certificate, X509_digest, SSL, SSL_CTX, SSL_SESSION, X509,
};

use super::connection::Connection;
use super::openssl;
use super::pem::{Certificate, Trusted};

/// A TLS session, counted by OpenSSL.
pub struct Session(NonNull<SSL_SESSION>);

impl Clone for Session {
    fn clone(&self) -> Self {
        // SAFETY: the session is live, and the count keeps it so.
        unsafe { SSL_SESSION_up_ref(self.0.as_ptr()) };
        Session(self.0)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // SAFETY: this handle's own count.
        unsafe { SSL_SESSION_free(self.0.as_ptr()) }
    }
}

impl Session {
    /// When it ends, in seconds since the epoch: OpenSSL's own limit, or what the peer has said of
    /// its ticket where that is sooner.
    pub fn expires(&self) -> i64 {
        let times = (openssl::SSL_SESSION_get_time(), openssl::SSL_SESSION_get_timeout());
        let (Some(time), Some(timeout)) = times else { return i64::MAX };
        let session = self.0.as_ptr();
        // SAFETY: the session is live.
        unsafe {
            let said = openssl::SSL_SESSION_get_ticket_lifetime_hint()
                .and_then(|hint| c_long::try_from(hint(session)).ok())
                .filter(|hint| *hint > 0);
            let timeout = timeout(session);
            time(session).saturating_add(said.map_or(timeout, |said| said.min(timeout)))
        }
    }

    /// Whether its time is over.
    pub fn is_expired(&self) -> bool {
        self.expires() <= ngx_time()
    }

    /// Its ASN.1 form (`i2d_SSL_SESSION`).
    pub fn to_bytes(&self) -> Option<Vec<u8>> {
        // SAFETY: the session is live; the second call writes as much as the first has counted.
        unsafe {
            let len = usize::try_from(i2d_SSL_SESSION(self.0.as_ptr(), ptr::null_mut())).ok()?;
            let mut bytes = vec![0; len];
            let mut end = bytes.as_mut_ptr();
            let written = i2d_SSL_SESSION(self.0.as_ptr(), &mut end);
            (len > 0 && usize::try_from(written) == Ok(len)).then_some(bytes)
        }
    }

    /// The session of an ASN.1 form; `None` for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        // SAFETY: OpenSSL reads at most the given length. What it says of a failure must not be
        // taken for the next one's reason.
        unsafe {
            let mut at = bytes.as_ptr();
            let session =
                d2i_SSL_SESSION(ptr::null_mut(), &mut at, c_long::try_from(bytes.len()).ok()?);
            if session.is_null() {
                ERR_clear_error();
            }
            NonNull::new(session).map(Session)
        }
    }
}

/// The TLS of a connection.
#[derive(Clone, Copy)]
pub struct Tls {
    connection: NonNull<ngx_connection_t>,
    ssl: NonNull<ngx_ssl_connection_s>,
}

impl Tls {
    /// The TLS of `connection`, where it has begun.
    pub fn of(connection: Connection) -> Option<Self> {
        let connection = NonNull::new(connection.as_ptr())?;
        // SAFETY: the connection is live.
        let ssl = NonNull::new(unsafe { (*connection.as_ptr()).ssl })?;
        Some(Tls { connection, ssl })
    }

    fn ssl(self) -> *mut SSL {
        // SAFETY: the connection is live, and so is its TLS.
        unsafe { (*self.ssl.as_ptr()).connection }
    }

    /// The context that it was made in.
    pub fn context(self) -> Context {
        // SAFETY: as above.
        Context(unsafe { (*self.ssl.as_ptr()).session_ctx })
    }

    /// Whether the handshake is done.
    pub fn is_handshaked(self) -> bool {
        // SAFETY: as above.
        unsafe { (*self.ssl.as_ptr()).handshaked() != 0 }
    }

    /// Whether the handshake resumed a session.
    pub fn is_resumed(self) -> bool {
        // SAFETY: as above.
        unsafe { SSL_session_reused(self.ssl()) != 0 }
    }

    /// The server name that is asked for; empty for none.
    pub fn server_name(self) -> &'static [u8] {
        const HOST_NAME: c_int = 0;
        // SAFETY: as above; callers use the name while the connection lives.
        unsafe {
            let name = SSL_get_servername(self.ssl(), HOST_NAME);
            if name.is_null() {
                &[]
            } else {
                CStr::from_ptr(name).to_bytes()
            }
        }
    }

    /// The digest of our own certificate; empty for none.
    pub fn certificate_digest(self) -> Vec<u8> {
        // SAFETY: as above; the certificate belongs to the connection.
        unsafe { digest(SSL_get_certificate(self.ssl())) }
    }

    /// Offers a session to the peer. False when this connection cannot resume it.
    pub fn offer(self, session: &Session) -> bool {
        // SAFETY: both are live; OpenSSL counts its own use.
        unsafe {
            let offered = SSL_set_session(self.ssl(), session.0.as_ptr()) != 0;
            if !offered {
                ERR_clear_error();
            }
            offered
        }
    }

    /// The session that has been made just now, or the connection's.
    pub fn session(self) -> Option<Session> {
        // SAFETY: the connection is live; the result is counted for us.
        NonNull::new(unsafe { ngx_ssl_get_session(self.connection.as_ptr()) }).map(Session)
    }

    /// Shows a certificate of our own.
    pub fn use_certificate(self, certificate: &Certificate) -> bool {
        const CHAIN: c_int = 88;
        const CHAIN_CERT: c_int = 89;
        const COUNT: c_long = 1;
        // SAFETY: all are live; OpenSSL counts its own use of each.
        unsafe {
            let mut done = SSL_use_certificate(self.ssl(), certificate.leaf.0) == 1;
            // The context's chain would go with it otherwise.
            done &= SSL_ctrl(self.ssl(), CHAIN, COUNT, ptr::null_mut()) == 1;
            for extra in &certificate.chain {
                done &= SSL_ctrl(self.ssl(), CHAIN_CERT, COUNT, extra.0.cast()) == 1;
            }
            done &= SSL_use_PrivateKey(self.ssl(), certificate.key.0) == 1;
            if !done {
                ERR_clear_error();
            }
            done
        }
    }

    /// Trusts these authorities and no others.
    pub fn trust(self, trusted: &Trusted) -> bool {
        const VERIFY_CERT_STORE: c_int = 106;
        const COUNT: c_long = 1;
        // SAFETY: both are live; OpenSSL counts its own use.
        unsafe { SSL_ctrl(self.ssl(), VERIFY_CERT_STORE, COUNT, trusted.store.cast()) == 1 }
    }

    /// Limits how many certificates may lie between the peer's and a trusted one.
    pub fn set_verify_depth(self, depth: c_int) {
        // SAFETY: the connection is live.
        unsafe { SSL_set_verify_depth(self.ssl(), depth) }
    }
}

/// A TLS context of a location.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Context(*mut SSL_CTX);

/// A SHA-256.
pub type Fingerprint = [u8; 32];

impl Context {
    /// What connections of this context are made under, apart from our own certificate:
    /// authorities, revocations, protocols, ciphers, options, depth. The same settings give the same
    /// fingerprint in another process and after a reload.
    ///
    /// `None` where this OpenSSL does not tell.
    pub fn fingerprint(self) -> Option<Fingerprint> {
        const GET_MIN: c_int = 130;
        const GET_MAX: c_int = 131;
        let objects = openssl::X509_STORE_get0_objects()?;
        let certificate = openssl::X509_OBJECT_get0_X509()?;
        let revocations = (openssl::X509_OBJECT_get0_X509_CRL()?, openssl::X509_CRL_digest()?);
        let (depth, options) =
            (openssl::SSL_CTX_get_verify_depth()?, openssl::SSL_CTX_get_options()?);
        let (ciphers, id) = (openssl::SSL_CTX_get_ciphers()?, openssl::SSL_CIPHER_get_id()?);

        let mut parts: Vec<Vec<u8>> = Vec::new();
        // SAFETY: the context lives as long as the configuration, and what is asked of it
        // belongs to it.
        unsafe {
            let objects = objects(SSL_CTX_get_cert_store(self.0)).cast();
            for n in 0..OPENSSL_sk_num(objects).max(0) {
                let object = OPENSSL_sk_value(objects, n);
                parts.push(digest(certificate(object)));
                let crl = revocations.0(object);
                if !crl.is_null() {
                    let (mut bytes, mut len) = (vec![0u8; 64], 0);
                    revocations.1(crl, EVP_sha256().cast(), bytes.as_mut_ptr(), &mut len);
                    bytes.truncate(len as usize);
                    parts.push(bytes);
                }
            }
            // Hashed directories and the like list them in no order.
            parts.sort();

            let ciphers = ciphers(self.0).cast();
            for n in 0..OPENSSL_sk_num(ciphers).max(0) {
                parts.push(id(OPENSSL_sk_value(ciphers, n)).to_le_bytes().to_vec());
            }
            parts.push(depth(self.0).to_le_bytes().to_vec());
            parts.push(options(self.0).to_le_bytes().to_vec());
            for what in [GET_MIN, GET_MAX] {
                let version = ngx::ffi::SSL_CTX_ctrl(self.0, what, 0, ptr::null_mut());
                parts.push(version.to_le_bytes().to_vec());
            }

            let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            sha256(&parts)
        }
    }

    /// A number that tells it from other contexts of this cycle.
    pub fn number(self) -> usize {
        self.0 as usize
    }
}

/// The SHA-256 of some parts, each with its length.
pub(super) fn sha256(parts: &[&[u8]]) -> Option<Fingerprint> {
    // SAFETY: the context is made and freed here, and the result has the digest's length.
    unsafe {
        let sha = EVP_MD_CTX_new();
        if sha.is_null() {
            return None;
        }
        let mut done = EVP_DigestInit_ex(sha, EVP_sha256(), ptr::null_mut()) == 1;
        for part in parts {
            let len = part.len().to_le_bytes();
            done &= EVP_DigestUpdate(sha, len.as_ptr().cast(), len.len()) == 1;
            done &= EVP_DigestUpdate(sha, part.as_ptr().cast(), part.len()) == 1;
        }
        let mut result = [0; 32];
        done &= EVP_DigestFinal_ex(sha, result.as_mut_ptr(), ptr::null_mut()) == 1;
        EVP_MD_CTX_free(sha);
        done.then_some(result)
    }
}

/// The SHA-256 of a certificate; empty for none.
///
/// # Safety
/// `certificate` is null or live.
unsafe fn digest(certificate: *const X509) -> Vec<u8> {
    if certificate.is_null() {
        return Vec::new();
    }
    let (mut bytes, mut len) = (vec![0u8; 64], 0);
    // SAFETY: the buffer has room for the longest digest there is.
    unsafe { X509_digest(certificate, EVP_sha256(), bytes.as_mut_ptr(), &mut len) };
    bytes.truncate(len as usize);
    bytes
}
