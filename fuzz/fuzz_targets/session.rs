//! A TLS session from the shared zone, as DER: whatever is read is written the same way again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use module::nginx::tls::Session;
use ngx::ffi::ERR_peek_error;

fuzz_target!(|data: &[u8]| {
    let session = Session::from_bytes(data);
    // SAFETY: OpenSSL's own queue.
    assert_eq!(unsafe { ERR_peek_error() }, 0, "an error is left in OpenSSL's queue");
    let Some(session) = session else { return };

    let expires = session.expires();
    let bytes = session.to_bytes().expect("what was read can be written");
    let again = Session::from_bytes(&bytes).expect("what was written can be read");
    assert_eq!(again.to_bytes(), Some(bytes));
    assert_eq!(again.clone().expires(), expires);
});
