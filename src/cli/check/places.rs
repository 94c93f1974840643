//! Whether the ports, sockets and folders can be used that the configuration names.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;

use tokio::net::TcpListener;

/// Whether a port can be listened on.
pub async fn port(address: SocketAddr) -> Result<String, String> {
    match TcpListener::bind(address).await {
        Ok(_) => Ok(format!("{address} is free")),
        Err(err) if err.kind() == ErrorKind::AddrInUse => {
            Ok(format!("{address} is in use: fine if postrider is running, else choose another"))
        }
        Err(err) => Err(format!("cannot listen on {address}: {err}")),
    }
}

/// Whether a Unix socket can be made.
pub fn unix_socket(path: &Path) -> Result<String, String> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    // Whether postrider may write there is known for sure only when it tries.
    match std::fs::metadata(folder) {
        Ok(found) if found.is_dir() && !found.permissions().readonly() => Ok(format!("{} can be made", path.display())),
        Ok(_) => Err(format!("{} is no folder in which {} could be made", folder.display(), path.display())),
        Err(err) => Err(format!("there is no folder {} for the socket: {err}", folder.display())),
    }
}

/// Whether files can be read and made in a folder that postrider makes when it needs it.
pub fn folder(path: &Path) -> Result<String, String> {
    let advice = "give it to the user that runs postrider, or remove it, and postrider makes it again";
    let wrong = |err: std::io::Error| format!("cannot use the folder {}: {err}; {advice}", path.display());
    match std::fs::read_dir(path) {
        Err(err) if err.kind() == ErrorKind::NotFound => Ok(format!("{} is made when it is needed", path.display())),
        Err(err) => Err(wrong(err)),
        Ok(_) => match tempfile::tempfile_in(path) {
            Ok(_) => Ok(format!("{} can be used", path.display())),
            Err(err) => Err(wrong(err)),
        },
    }
}
