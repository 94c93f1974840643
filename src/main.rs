//! The `postrider` program: see `postrider --help`.
use postrider::config::Config;
use postrider::server::Server;

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let data_dir: std::path::PathBuf = args.next().unwrap().into();
    let mut config = Config::default();
    config.http.listen = args.next().unwrap().parse().unwrap();
    config.smtp.listen = args.next().unwrap().parse().unwrap();
    let server = Server::open(config, &data_dir).await.unwrap();
    println!("{:?}", server.smtp_address());
    println!("{}", server.sign_in_link());
    let stop = tokio_util::sync::CancellationToken::new();
    let s2 = stop.clone();
    tokio::join!(server.run(stop), async move {
        tokio::signal::ctrl_c().await.unwrap();
        s2.cancel();
    });
}
