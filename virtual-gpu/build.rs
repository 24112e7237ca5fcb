//! Makes the two things that are data here: the folder through which the one shared object is found under every library's name
//! (`sonames.txt`), and the functions that answer "not supported" (`unsupported.txt`).

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=sonames.txt");
    println!("cargo::rerun-if-changed=unsupported.txt");
    // Its state is the device: closing the last handle must not lose it.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("cargo sets OUT_DIR"))?);
    name_libraries(&out, &fs::read_to_string("sonames.txt")?)?;
    fs::write(out.join("unsupported.rs"), unsupported_functions(&fs::read_to_string("unsupported.txt")?)?)
}

/// Makes `<target>/<profile>/virtual-gpu/`, with a library for each soname that holds nothing: it names its symbol version and depends on
/// `../libvirtual_gpu.so`, where all functions are. (A link of that name would do, but for a warning about the version each time that a program
/// which is linked to libtorch starts.)
fn name_libraries(out: &Path, sonames: &str) -> io::Result<()> {
    // `OUT_DIR` is `<target>/<profile>/build/<package>-<hash>/out`.
    let profile = out.ancestors().nth(3).ok_or_else(|| io::Error::other("OUT_DIR is not inside a target folder"))?;
    let folder = profile.join("virtual-gpu");
    fs::create_dir_all(&folder)?;
    let names: Vec<(&str, Option<&str>)> = sonames
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?, words.next()))
        })
        .collect();
    for entry in fs::read_dir(&folder)? {
        let entry = entry?;
        if !names.iter().any(|&(name, _)| entry.file_name() == name) {
            fs::remove_file(entry.path())?;
        }
    }
    // The linker wants to see what is depended on, and cargo makes that only afterwards: an empty library of its name will do.
    let shared_object = out.join("libvirtual_gpu.so");
    link(&shared_object, &["-Wl,-soname,libvirtual_gpu.so".into()])?;
    for (name, version) in names {
        let mut arguments = vec![
            format!("-Wl,-soname,{name}"),
            "-Wl,--no-as-needed".into(),
            shared_object.display().to_string(),
            "-Wl,-rpath,$ORIGIN/..".into(),
        ];
        if let Some(version) = version {
            let script = out.join(format!("{name}.version"));
            fs::write(&script, format!("{version} {{ }};\n"))?;
            arguments.push(format!("-Wl,--version-script={}", script.display()));
        }
        // Made beside it and moved there: a program may be starting through it at this moment.
        let made = out.join(name);
        link(&made, &arguments)?;
        fs::rename(&made, folder.join(name))?;
    }
    Ok(())
}

/// Links a shared library without code.
fn link(library: &Path, arguments: &[String]) -> io::Result<()> {
    // The linker does not start without an object.
    let nothing = library.with_extension("c");
    fs::write(&nothing, "typedef int nothing;\n")?;
    let mut command: Command = cc::Build::new().get_compiler().to_command();
    let status = command.args(["-shared", "-nostdlib", "-o"]).arg(library).arg(&nothing).args(arguments).status()?;
    if !status.success() {
        return Err(io::Error::other(format!("the C compiler ended with {status} when it linked {}", library.display())));
    }
    Ok(())
}

/// Each library's own way to say "not supported", from its header.
fn not_supported(library: &str, symbol: &str) -> Option<i64> {
    Some(match library {
        "cudart" | "cuda" => 801,
        "cublas" | "cublasLt" => 15,
        "cudnn" => 3000,
        "cusparse" | "cusparseLt" => 10,
        "cufft" => 16,
        "cusolver" => 9,
        // cuRAND has no such code: an internal error.
        "curand" => 999,
        // The two that answer with a number of bytes give the same code as a negative one.
        "cufile" if ["cuFileRead", "cuFileWrite"].contains(&symbol) => -5007,
        "cufile" => 5007,
        "cupti" => 27,
        // NCCL and NVSHMEM have no such code: invalid usage, not supported by this build.
        "nccl" => 5,
        "nvshmem" => 8,
        "nvml" => 3,
        _ => return None,
    })
}

/// A function takes no parameters here whatever its header says: in the C calling convention of x86-64 and aarch64
/// the caller clears up, so parameters that are never read need no declaration. The answer is 64 bits wide, which
/// covers status codes, counts and structures of two codes.
fn unsupported_functions(list: &str) -> io::Result<String> {
    let mut code = String::new();
    for line in list.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        let (Some(library), Some(symbol), _wanted_by, None) = (words.next(), words.next(), words.next(), words.next()) else {
            return Err(io::Error::other(format!("unsupported.txt: not `library symbol` or `library symbol package`: {line}")));
        };
        let Some(status) = not_supported(library, symbol) else {
            return Err(io::Error::other(format!("unsupported.txt: unknown library: {line}")));
        };
        // A device without a sensor or a link answers NVML so too.
        let note = if library == "nvml" { "declined" } else { "met" };
        let _ = writeln!(
            code,
            "#[unsafe(no_mangle)]\nextern \"C\" fn {symbol}() -> i64 {{\n    crate::unsupported::{note}(\"{symbol}\");\n    {status}\n}}"
        );
    }
    Ok(code)
}
