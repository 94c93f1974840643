//! The hubs that are measured, each fresh on a port of its own and ended when it is dropped.

use std::fmt::Write;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command};

use super::SERVERS_CORE;
use super::support::eventually;
use super::support::server::{Options, Server};

/// Debian's nchan.
const MODULE: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";

/// A running hub.
pub struct Peer {
    pub name: &'static str,
    pub pid: u32,
    running: Running,
    _folder: tempfile::TempDir,
}

enum Running {
    Postrider(Box<Server>),
    Nchan { child: Child, address: String },
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Self::Nchan { child, .. } = self {
            // Its worker ends with it only when it is asked to.
            let asked = Command::new("kill").arg(child.id().to_string()).status().expect("kill");
            assert!(asked.success());
            child.wait().expect("an exit");
        }
    }
}

impl Peer {
    /// postrider as it is without a configuration, but for mail.
    pub async fn postrider() -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let mut wrapper = ["taskset", "-c", SERVERS_CORE].map(str::to_owned).to_vec();
        if let Ok(other) = std::env::var("BENCH_POSTRIDER") {
            // The harness's own build comes first in what is appended: it is dropped.
            wrapper.extend(["sh", "-c", "shift; exec \"$0\" \"$@\"", &other].map(str::to_owned));
        }
        let environment: Vec<_> =
            std::env::vars().filter(|(name, _)| name.starts_with("POSTRIDER_EVENT_LOG__")).collect();
        let data_dir = Some(folder.path().join("data"));
        let server = Server::with(Options { data_dir, environment, wrapper, ..Options::default() }).await;
        let pid = server.child.id().expect("it runs");
        Self { name: "postrider", pid, running: Running::Postrider(Box::new(server)), _folder: folder }
    }

    /// nchan with one worker, which keeps what it needs for this work.
    pub async fn nchan() -> Self {
        assert!(Path::new(MODULE).exists(), "no {MODULE}: install Debian's nginx and libnginx-mod-nchan");
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let address = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").to_string();
        let file = folder.path().join("nginx.conf");
        fs::write(&file, nchan_configuration(folder.path(), &address)).expect("a file");
        let child = Command::new("taskset").args(["-c", SERVERS_CORE, "nginx", "-c"]).arg(&file).spawn();
        let child = child.expect("nginx: install Debian's nginx and libnginx-mod-nchan");
        eventually("nginx to listen", || async { TcpStream::connect(&address).ok() }).await;
        Self { name: "nchan", pid: child.id(), running: Running::Nchan { child, address }, _folder: folder }
    }

    /// How `fanbench` subscribes and publishes.
    pub fn arguments(&self, transport: &str) -> Vec<String> {
        match &self.running {
            Running::Nchan { address, .. } => {
                let place = if transport == "longpoll" { "lp" } else { "sub" };
                vec![
                    "--url".to_owned(),
                    format!("http://{address}/{place}/{{topic}}"),
                    "--publish-url".to_owned(),
                    format!("http://{address}/pub/{{topic}}"),
                ]
            }
            Running::Postrider(server) => {
                let query = if transport == "longpoll" { "&transport=long-poll&wait=60" } else { "" };
                let bearer = format!("Authorization: Bearer {}", server.token);
                [
                    "--url",
                    &format!("{}/events?topic={{topic}}{query}", server.http),
                    "--header",
                    &bearer,
                    "--publish-url",
                    &format!("{}/events", server.http),
                    "--publish-header",
                    &bearer,
                    "--publish-header",
                    "Content-Type: application/x-www-form-urlencoded",
                    "--publish-body",
                    "topic={topic_urlencoded}&data={payload_urlencoded}",
                    "--cursor",
                    "Next-Event-ID: Last-Event-ID",
                ]
                .map(str::to_owned)
                .to_vec()
            }
        }
    }
}

/// A second message while the first is on its way must not be refused, nor the next connection.
fn nchan_configuration(folder: &Path, address: &str) -> String {
    let (channel, folder) =
        ("nchan_channel_id $1; nchan_message_buffer_length 100; nchan_message_timeout 60s;", folder.display());
    let subscriber = format!("{channel} nchan_subscriber_first_message newest; nchan_subscriber_timeout 0;");
    let mut paths = String::new();
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        write!(paths, "{kind}_temp_path {folder}/{kind}; ").expect("a string takes it");
    }
    format!(
        "load_module {MODULE};
user root;
daemon off;
worker_processes 1;
worker_rlimit_nofile 20000;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 19990; multi_accept on; }}
http {{
  access_log off;
  nchan_shared_memory_size 1024M;
  keepalive_requests 100000000;
  keepalive_timeout 3600s;
  {paths}
  server {{
    listen {address} backlog=4096;
    location ~ ^/pub/(.+)$ {{ nchan_publisher http; {channel} }}
    location ~ ^/sub/(.+)$ {{ nchan_subscriber eventsource websocket; {subscriber} nchan_eventsource_ping_interval 0; }}
    location ~ ^/lp/(.+)$ {{ nchan_subscriber longpoll; {subscriber} }}
  }}
}}
"
    )
}
