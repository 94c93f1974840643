//! The `postrider` program: see `postrider --help`.
use postrider::server::{Server, ServerConfig};

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let mut config = ServerConfig {
        data_dir: args.next().unwrap().into(),
        grace: std::time::Duration::from_secs(5),
        ..Default::default()
    };
    config.http.listen = args.next().unwrap().parse().unwrap();
    let server = Server::open(config).await.unwrap();
    println!("{}", server.sign_in_link());
    let stop = tokio_util::sync::CancellationToken::new();
    let s2 = stop.clone();
    tokio::join!(server.run(stop), async move {
        tokio::signal::ctrl_c().await.unwrap();
        s2.cancel();
    });
}
