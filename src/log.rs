//! Log macros over a [`crate::nginx::log::Log`], or an `Option` of one: nothing is formatted unless
//! the level is on.

/// Writes a message at a level: `log!(log, NGX_LOG_ERR, "…", args)`.
macro_rules! log {
    ($log:expr, $level:ident, $($arg:tt)+) => {{
        let level = $crate::nginx::log::$level;
        let log = ::core::option::Option::<$crate::nginx::log::Log>::from($log);
        if let Some(log) = log.filter(|log| level <= log.level()) {
            log.write(level, ::std::format!($($arg)+).as_bytes());
        }
    }};
}

/// Writes a debug line of the http modules: `debug!(log, "…", args)`.
macro_rules! debug {
    ($log:expr, $($arg:tt)+) => {{
        let log = ::core::option::Option::<$crate::nginx::log::Log>::from($log);
        if let Some(log) = log.filter(|log| log.debugs_http()) {
            log.write($crate::nginx::log::NGX_LOG_DEBUG, ::std::format!($($arg)+).as_bytes());
        }
    }};
}

pub(crate) use {debug, log};
