//! PEM is read or refused, and OpenSSL's queue of errors is empty afterwards: what stayed in it
//! would be taken for the next connection's.
#![no_main]

use libfuzzer_sys::fuzz_target;
use module::nginx::pem::{Certificate, Trusted};
use ngx::ffi::ERR_peek_error;

fn nothing_is_left() {
    // SAFETY: OpenSSL's own queue.
    assert_eq!(unsafe { ERR_peek_error() }, 0, "an error is left in OpenSSL's queue");
}

fuzz_target!(|data: &[u8]| {
    // Two texts with a NUL between them; or one that is certificate and key.
    let end = data.iter().position(|byte| *byte == 0);
    let (certificate, key) = end.map_or((data, data), |end| (&data[..end], &data[end + 1..]));

    let given = Certificate::parse(certificate, key).err();
    nothing_is_left();
    assert_eq!(Certificate::parse(certificate, key).err(), given);

    let trusted = Trusted::parse(certificate);
    nothing_is_left();
    let other = Trusted::parse(key);
    nothing_is_left();
    assert!(given.is_some() || trusted.is_ok(), "certificates are authorities as well");
    if let (Ok(trusted), Ok(_)) = (&trusted, &other) {
        let both = Trusted::parse(&[certificate, b"\n", key].concat());
        nothing_is_left();
        assert!(both.is_ok_and(|both| both.digest != trusted.digest));
    }
});
