//! Other programs, measured on request: those that are installed here.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::measure::{Bench, Subject, has};

fn peers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers")
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(String::from).collect()
}

/// Compiles a program, named by its path from the folder `peers`, or prints why it is left out.
fn compiled(
    bench: &Bench,
    name: &str,
    compiler: &[&str],
    after: &[&str],
) -> io::Result<Option<String>> {
    let out = bench.directory.join(Path::new(name).file_name().unwrap_or_default());
    let mut command = Command::new(compiler[0]);
    command.args(&compiler[1..]).arg("-o").arg(&out).arg(peers().join(name)).args(after);
    match command.status() {
        Ok(status) if status.success() => Ok(Some(out.to_string_lossy().into())),
        _ => {
            crate::skip(&format!("peers: {} cannot build {name}", compiler[0]))?;
            Ok(None)
        }
    }
}

fn version(command: &str, option: &str) -> String {
    let output = Command::new(command).arg(option).output();
    let text = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let digits =
        |word: &&str| word.trim_start_matches(|it: char| !it.is_ascii_digit()).contains('.');
    let word = text.split_whitespace().find(digits).unwrap_or("");
    word.trim_start_matches(|it: char| !it.is_ascii_digit()).trim_end_matches(',').into()
}

pub fn echo(bench: &Bench) -> io::Result<Vec<Subject>> {
    let mut found = vec![Subject::floor("smol", &["smol"], &["echo"])];
    let with = |program: String| move |port: u16| words(&format!("{program} {port}"));
    if let Some(program) = compiled(bench, "libuv_echo.c", &["cc", "-O2"], &["-luv"])? {
        found.push(Subject::at_a_port("libuv", with(program))?);
    }
    if let Some(program) = compiled(bench, "../../tools/peers/echo.go", &["go", "build"], &[])? {
        let name = format!("Go {}, one thread", version("go", "version"));
        let one = move |port: u16| words(&format!("env GOMAXPROCS=1 {program} 127.0.0.1:{port}"));
        found.push(Subject::at_a_port(&name, one)?);
    }
    for (tool, option, file, label) in [
        ("node", "--version", "echo.js", "Node"),
        ("python3", "--version", "asyncio_echo.py", "asyncio, Python"),
    ] {
        if !has(tool) {
            crate::skip(&format!("peers: {tool} is not installed"))?;
            continue;
        }
        let name = format!("{label} {}", version(tool, option));
        let program = format!("{tool} {}", peers().join(file).display());
        found.push(Subject::at_a_port(&name, with(program))?);
    }
    Ok(found)
}

pub fn relays(bench: &Bench, upstream: SocketAddr) -> io::Result<Vec<Subject>> {
    let mut found = Vec::new();
    let file = |name: &str, text: String| -> io::Result<String> {
        let path = bench.directory.join(name);
        fs::write(&path, text)?;
        Ok(path.to_string_lossy().into())
    };
    if Command::new("haproxy").arg("-v").output().is_ok() {
        let port = free_port()?;
        let config = format!(
            "global\n maxconn 4000\n nbthread 1\ndefaults\n mode tcp\n timeout client 5m\n \
             timeout server 5m\n timeout connect 5s\nfrontend f\n bind 127.0.0.1:{port}\n \
             default_backend b\nbackend b\n server s {upstream}\n"
        );
        let config = file("haproxy.cfg", config)?;
        let name = format!("HAProxy {}, tcp", version("haproxy", "-v"));
        found.push(Subject::at_this_port(&name, port, words(&format!("haproxy -db -f {config}"))));
    }
    if Command::new("nginx").arg("-v").output().is_ok() {
        let port = free_port()?;
        let here = bench.directory.display();
        // Debian builds the stream module as a file of its own.
        let module = "/usr/lib/nginx/modules/ngx_stream_module.so";
        let module = if Path::new(module).exists() {
            format!("load_module {module};")
        } else {
            String::new()
        };
        let config = format!(
            "{module} daemon off; master_process off; pid {here}/nginx.pid; error_log stderr emerg; \
             events {{ worker_connections 8000; }} stream {{ server {{ listen 127.0.0.1:{port} \
             backlog=4096; proxy_pass {upstream}; proxy_half_close on; tcp_nodelay on; }} }}\n"
        );
        let config = file("nginx.conf", config.clone())?;
        let name = format!("nginx {}, stream", version("nginx", "-v"));
        found.push(Subject::at_this_port(
            &name,
            port,
            words(&format!("nginx -p {here} -c {config}")),
        ));
    }
    if Command::new("socat").arg("-V").output().is_ok() {
        found.push(Subject::at_a_port("socat, fork", |port| {
            let listen =
                format!("TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork,backlog=1024,nodelay");
            words(&format!("socat -t 30 {listen} TCP:{upstream},nodelay"))
        })?);
    }
    Ok(found)
}

fn free_port() -> io::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
