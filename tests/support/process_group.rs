//! A private mail server as a group of processes, ended as a whole: masters leave their children to notice by themselves.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::PATIENCE;

/// The processes of one server. Ended when it is dropped.
#[derive(Default)]
pub struct ProcessGroup(Mutex<Option<Child>>);

impl ProcessGroup {
    pub fn run(&self, command: &mut Command) {
        let child = command.process_group(0).spawn().unwrap_or_else(|err| panic!("{command:?}: {err}"));
        *self.0.lock().unwrap() = Some(child);
    }

    /// Waits until all ports answer; no when the server ended.
    pub fn answers(&self, ports: &[u16]) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if ports.iter().all(|&port| TcpStream::connect(("127.0.0.1", port)).is_ok()) {
                return true;
            }
            if self.0.lock().unwrap().as_mut().is_none_or(|child| child.try_wait().unwrap().is_some()) {
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }

    /// Ends all its processes.
    pub fn stop(&self) {
        let Some(mut child) = self.0.lock().unwrap().take() else { return };
        let group = format!("-{}", child.id());
        let tell = |signal| Command::new("kill").args([signal, "--", &group]).status();
        let told = tell("-TERM");
        let deadline = Instant::now() + Duration::from_secs(10);
        while told.is_ok() && Instant::now() < deadline && !matches!(child.try_wait(), Ok(Some(_))) {
            std::thread::sleep(Duration::from_millis(10));
        }
        drop(child.kill());
        drop(child.wait());
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Ports that were free a moment ago.
pub fn free_ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

/// The processes that were started with this in their environment.
pub fn with_variable(name: &str, value: &str) -> Vec<u32> {
    let wanted = format!("{name}={value}").into_bytes();
    let numbers = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    numbers
        .filter(|pid| {
            // It may have ended in between, or be somebody else's.
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|&byte| byte == 0).any(|variable| variable == wanted)
        })
        .collect()
}

/// SIGTERM to each.
pub fn terminate(pids: &[u32]) {
    if !pids.is_empty() {
        // One may have ended in between.
        drop(Command::new("kill").args(pids.iter().map(u32::to_string)).status());
    }
}
