//! The TLS settings that Lua gives for a try: verification, our own certificate, authorities.

use core::cell::RefCell;
use core::ffi::{c_int, CStr};
use core::ptr::NonNull;
use std::rc::Rc;

use super::identity::Writer;
use super::memory::Memory;
use crate::nginx::pem::{Certificate, Trusted};
use crate::nginx::pool::Pool;
use crate::nginx::tls::Tls;

/// PEM that was parsed before, by its text. Each text has a number, which tells it from others.
#[derive(Default)]
pub struct Pems {
    certificates: RefCell<Memory<Numbered<Certificate>, MAX>>,
    trusted: RefCell<Memory<Numbered<Trusted>, MAX>>,
    last: core::cell::Cell<usize>,
}

/// How many texts of each kind are remembered.
const MAX: usize = 256;

struct Numbered<T> {
    number: usize,
    value: Rc<T>,
}

/// Something parsed that lives as long as the request it was given to.
pub struct Given<T> {
    number: usize,
    value: NonNull<Rc<T>>,
}

impl<T> Clone for Given<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Given<T> {}

impl<T> Given<T> {
    fn new(from: &Numbered<T>, pool: Pool) -> Result<Self, &'static CStr> {
        let value = pool.own(from.value.clone()).ok_or(c"no memory")?;
        Ok(Given { number: from.number, value })
    }

    fn get(&self) -> &T {
        // SAFETY: the request's pool owns it, and what refers to it ends with the request.
        unsafe { self.value.as_ref() }
    }
}

impl Pems {
    fn number(&self) -> usize {
        self.last.set(self.last.get() + 1);
        self.last.get()
    }

    /// A certificate with its key, for the request whose memory `pool` is.
    pub fn certificate(
        &self,
        certificate: &[u8],
        key: &[u8],
        pool: Pool,
    ) -> Result<Given<Certificate>, &'static CStr> {
        let mut text = Writer::default();
        text.text(certificate);
        text.text(key);
        let mut known = self.certificates.try_borrow_mut().map_err(|_| c"busy")?;
        let found = known.get_or_parse(text.bytes(), || {
            let value = Rc::new(Certificate::parse(certificate, key)?);
            Ok::<_, &CStr>(Numbered { number: self.number(), value })
        })?;
        Given::new(found, pool)
    }

    /// Authorities, for the request whose memory `pool` is.
    pub fn trusted(&self, pem: &[u8], pool: Pool) -> Result<Given<Trusted>, &'static CStr> {
        let mut known = self.trusted.try_borrow_mut().map_err(|_| c"busy")?;
        let found = known.get_or_parse(pem, || {
            let value = Rc::new(Trusted::parse(pem)?);
            Ok::<_, &CStr>(Numbered { number: self.number(), value })
        })?;
        Given::new(found, pool)
    }
}

/// What Lua wants of the TLS of a try; `None` is as the location has it.
#[derive(Clone, Copy, Default)]
pub struct TryTls {
    /// Whether the peer's certificate is verified.
    pub verify: Option<bool>,
    /// How many certificates may lie between the peer's and a trusted one.
    pub depth: Option<c_int>,
    /// The certificate that we show.
    pub certificate: Option<Given<Certificate>>,
    /// The authorities that are trusted.
    pub trusted: Option<Given<Trusted>>,
}

impl TryTls {
    /// Whether the connection itself must be told something.
    pub fn is_for_connection(&self) -> bool {
        self.depth.is_some() || self.certificate.is_some() || self.trusted.is_some()
    }

    /// Tells the connection, before its handshake. False when OpenSSL refuses.
    pub fn apply(&self, tls: Tls) -> bool {
        if let Some(depth) = self.depth {
            tls.set_verify_depth(depth);
        }
        self.trusted.is_none_or(|trusted| tls.trust(trusted.get()))
            && self.certificate.is_none_or(|certificate| tls.use_certificate(certificate.get()))
    }

    /// Writes what a session is made under, in any worker. Our certificate and the verification
    /// itself are told by the connection.
    pub fn write_session_identity(&self, identity: &mut Writer) {
        identity.number(self.depth.map_or(0, |depth| 1 + depth as usize));
        identity.text(self.trusted.as_ref().map_or(&[], |trusted| &trusted.get().digest));
    }

    /// Writes what tells the connection from one with other settings.
    pub fn write_identity(&self, identity: &mut Writer) {
        identity.number(self.verify.map_or(0, |on| 1 + usize::from(on)));
        identity.number(self.depth.map_or(0, |depth| 1 + depth as usize));
        identity.number(self.certificate.map_or(0, |certificate| certificate.number));
        identity.number(self.trusted.map_or(0, |trusted| trusted.number));
    }
}
