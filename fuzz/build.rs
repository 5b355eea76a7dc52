//! Makes an archive of nginx's object files, so that the module can be linked into a program of
//! ours. Those parts of nginx that read what the targets give are compiled anew, with the same
//! instrumentation as the Rust code.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the fuzzer is to see into, where clang is there to show it.
const INSTRUMENTED: [&str; 5] = [
    "src/core/ngx_inet.c",
    "src/core/ngx_list.c",
    "src/core/ngx_palloc.c",
    "src/core/ngx_slab.c",
    "src/core/ngx_string.c",
];

fn main() {
    for variable in ["NGINX_SOURCE_DIR", "NGINX_BUILD_DIR"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    println!("cargo::rerun-if-changed=build.rs");

    let source = folder("NGINX_SOURCE_DIR");
    let objects = folder("NGINX_BUILD_DIR");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    println!("cargo::rerun-if-changed={}", objects.join("nginx").display());

    let mut members = Vec::new();
    collect(&objects, &mut members);

    // The fuzzer has a main of its own.
    let nginx = out.join("nginx.o");
    run(Command::new("objcopy")
        .args(["--redefine-sym", "main=nginx_main"])
        .arg(objects.join("src/core/nginx.o"))
        .arg(&nginx));
    members.retain(|member| !member.ends_with("src/core/nginx.o"));
    members.push(nginx);

    if env::var_os("CARGO_CFG_FUZZING").is_some() {
        for file in INSTRUMENTED {
            let Some(object) = instrument(&source, &objects, &out, file) else {
                println!("cargo::warning=no clang: the fuzzer does not see into nginx's own code");
                break;
            };
            members.retain(|member| !member.ends_with(Path::new(file).with_extension("o")));
            members.push(object);
        }
    }

    let archive = out.join("libnginx_objects.a");
    let _ = std::fs::remove_file(&archive);
    run(Command::new("ar").arg("rcs").arg(&archive).args(&members));

    println!("cargo::rustc-link-arg-bins=-Wl,--start-group");
    println!("cargo::rustc-link-arg-bins={}", archive.display());
    println!("cargo::rustc-link-arg-bins=-Wl,--end-group");
    for library in ["crypt", "pcre2-8", "ssl", "crypto", "z"] {
        println!("cargo::rustc-link-arg-bins=-l{library}");
    }
}

fn folder(variable: &str) -> PathBuf {
    let folder = PathBuf::from(env::var_os(variable).unwrap_or_default());
    assert!(
        folder.join("Makefile").exists() || folder.join("auto").exists(),
        "{variable} is no nginx that was built: run `make fuzz`, which builds one"
    );
    folder
}

/// All object files below `folder`.
fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(folder).expect("a folder that nginx was built in");
    for path in entries.map(|entry| entry.expect("readable").path()) {
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "o") {
            found.push(path);
        }
    }
    found.sort();
}

/// Compiles a file of nginx for the fuzzer; `None` without clang.
fn instrument(source: &Path, objects: &Path, out: &Path, file: &str) -> Option<PathBuf> {
    let clang = env::var("FUZZ_CLANG").unwrap_or_else(|_| "clang".into());
    Command::new(&clang).arg("--version").output().ok()?;
    let address = env::var("CARGO_CFG_SANITIZE").is_ok_and(|list| list.contains("address"));

    let object = out.join(Path::new(file).with_extension("o").file_name()?);
    let mut command = Command::new(clang);
    command.args(["-c", "-g", "-O1", "-fPIC", "-w", "-fsanitize=fuzzer-no-link"]);
    if address {
        // Each allocation by itself, so that whoever leaves his own is seen.
        command.args(["-fsanitize=address", "-DNGX_DEBUG_PALLOC=1"]);
    }
    for folder in ["core", "event", "event/modules", "event/quic", "os/unix"] {
        command.arg("-I").arg(source.join("src").join(folder));
    }
    command.arg("-I").arg(objects).arg(source.join(file)).arg("-o").arg(&object);
    run(&mut command);
    Some(object)
}

fn run(command: &mut Command) {
    let done = command.status().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(done.success(), "{command:?} failed");
}
