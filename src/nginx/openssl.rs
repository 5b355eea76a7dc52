//! Functions of OpenSSL that nginx itself does not use: where it is linked statically they may be
//! missing, and so they are looked up at run time instead of being asked for when the module loads.

use core::ffi::{c_int, c_long, c_uchar, c_uint, c_ulong, c_void, CStr};
use core::mem;
use std::sync::OnceLock;

use ngx::ffi::{EVP_PKEY, SSL_CTX, SSL_SESSION, X509, X509_STORE};

macro_rules! optional {
    ($($name:ident: fn($($arg:ty),*) $(-> $result:ty)?;)+) => {
        $(
            #[doc = concat!("`", stringify!($name), "`, where this OpenSSL has it.")]
            #[allow(non_snake_case)]
            pub fn $name() -> Option<unsafe extern "C" fn($($arg),*) $(-> $result)?> {
                const NAME: &CStr = match CStr::from_bytes_with_nul(
                    concat!(stringify!($name), "\0").as_bytes(),
                ) {
                    Ok(name) => name,
                    Err(_) => panic!("a name has no NUL"),
                };
                // A lookup takes more than a thousand instructions: each is made once.
                static FOUND: OnceLock<usize> = OnceLock::new();
                let found = *FOUND.get_or_init(|| {
                    // SAFETY: the name is a string.
                    unsafe { libc::dlsym(libc::RTLD_DEFAULT, NAME.as_ptr()) as usize }
                });
                // SAFETY: the types are those of OpenSSL's manual pages.
                unsafe { mem::transmute::<*mut c_void, Option<_>>(found as *mut c_void) }
            }
        )+
    };
}

optional! {
    SSL_SESSION_get_time: fn(*const SSL_SESSION) -> c_long;
    SSL_SESSION_get_timeout: fn(*const SSL_SESSION) -> c_long;
    SSL_SESSION_get_ticket_lifetime_hint: fn(*const SSL_SESSION) -> c_ulong;
    SSL_CTX_get_verify_depth: fn(*const SSL_CTX) -> c_int;
    SSL_CTX_get_options: fn(*const SSL_CTX) -> u64;
    SSL_CTX_get_ciphers: fn(*const SSL_CTX) -> *mut c_void;
    SSL_CIPHER_get_id: fn(*const c_void) -> u32;
    X509_STORE_get0_objects: fn(*const X509_STORE) -> *mut c_void;
    X509_OBJECT_get0_X509: fn(*const c_void) -> *mut X509;
    X509_OBJECT_get0_X509_CRL: fn(*const c_void) -> *mut c_void;
    X509_CRL_digest: fn(
        *const c_void, *const c_void, *mut c_uchar, *mut c_uint
    ) -> c_int;
    X509_STORE_new: fn() -> *mut X509_STORE;
    X509_STORE_free: fn(*mut X509_STORE);
    X509_STORE_add_cert: fn(*mut X509_STORE, *mut X509) -> c_int;
    X509_check_private_key: fn(*const X509, *const EVP_PKEY) -> c_int;
}
