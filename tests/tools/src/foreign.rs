//! Starts other projects' programs for a bounded time, and ends them by their process ids.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::recipe::Recipe;

/// A running server. Dropping it ends its processes.
#[derive(Debug)]
pub struct Foreign {
    children: Vec<Child>,
    folder: PathBuf,
    pub addr: SocketAddr,
}

impl Foreign {
    /// Starts the program and waits until it listens. The error is the output of the program.
    pub fn start(recipe: &Recipe, target: u16) -> Result<Foreign, String> {
        let mut last = String::new();
        for _ in 0..3 {
            match Foreign::try_start(recipe, target) {
                // Another process has taken the port meanwhile.
                Err(error) if error.contains("in use") => last = error,
                result => return result,
            }
        }
        Err(last)
    }

    fn try_start(recipe: &Recipe, target: u16) -> Result<Foreign, String> {
        let (port, middle) = (free_port(), free_port());
        let folder = std::env::temp_dir().join(format!("campanile-{port}-{}", std::process::id()));
        fs::create_dir(&folder).map_err(|error| error.to_string())?;
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        let mut foreign = Foreign { children: Vec::new(), folder, addr };
        let fill = |text: &str| {
            let text = text.replace("{port}", &port.to_string());
            let text = text.replace("{middle}", &middle.to_string());
            let text = text.replace("{target}", &target.to_string());
            text.replace("{folder}", &foreign.folder.display().to_string())
        };
        for (name, text) in recipe.files {
            let path = foreign.folder.join(name);
            fs::write(path, fill(text)).map_err(|error| error.to_string())?;
        }
        shell(&fill(recipe.prepare))?;
        let commands: Vec<_> = recipe.commands.iter().map(|command| fill(command)).collect();
        for (at, command) in commands.iter().enumerate() {
            let port = if at + 1 == commands.len() { port } else { middle };
            foreign.spawn(command, port)?;
        }
        Ok(foreign)
    }

    fn spawn(&mut self, command: &str, port: u16) -> Result<(), String> {
        let path = self.folder.join("log");
        let log = File::options().create(true).append(true).open(&path);
        let log = log.and_then(|log| Ok((log.try_clone()?, log)));
        let (out, err) = log.map_err(|error| error.to_string())?;
        // timeout(1) puts the program and its children into one process group, and forwards signals.
        let mut timeout = bounded(300, command);
        let child = timeout.stdout(out).stderr(err).spawn().map_err(|error| error.to_string())?;
        self.children.push(child);
        let deadline = Instant::now() + Duration::from_secs(60);
        while !is_listening(port) {
            let child = self.children.last_mut().and_then(|child| child.try_wait().ok()?);
            if child.is_some() || Instant::now() > deadline {
                let said = fs::read_to_string(path).unwrap_or_default();
                return Err(format!("does not listen; its output was: {}", said.trim()));
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        for child in self.children.iter_mut().rev() {
            let mut kill = Command::new("kill");
            let _ = kill.arg(child.id().to_string()).stderr(Stdio::null()).status();
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A shell command that ends, with all its children, after this many seconds.
fn bounded(seconds: u32, command: &str) -> Command {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin:/usr/lib/systemd";
    let mut timeout = Command::new("timeout");
    timeout.args(["-k", "1", &seconds.to_string(), "sh", "-c", command]);
    timeout.env("PATH", path).stdin(Stdio::null());
    timeout
}

/// Runs a shell command to its end. The error is what the command printed to stderr.
pub fn shell(command: &str) -> Result<String, String> {
    let output = bounded(600, command).output().map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// A port that was free a moment ago: these programs cannot report which one they took.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its number").port()
}

/// Asks the kernel: some servers serve only one connection, so a test connection would be that one.
fn is_listening(port: u16) -> bool {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(fs::read_to_string);
    let suffix = format!(":{port:04X}");
    tables.iter().flatten().flat_map(|table| table.lines()).any(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        fields.len() > 3 && fields[1].ends_with(&suffix) && fields[3] == "0A"
    })
}
