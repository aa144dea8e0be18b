//! The gateway over services that play: no weights, no engine. `cargo xtask test` checks its answers against docs/openapi.json.
//!
//! Takes the address to listen on, loopback as always, and a folder for its records: `cargo run -p gateway --example fakes --
//! 127.0.0.1:8081 /tmp/fakes`.

use std::{error::Error, fs, path::Path, sync::Arc};

use gateway::{Gateway, Services};
use ledger::Ledger;

#[path = "../tests/api/fake.rs"]
#[expect(dead_code, reason = "tests script it further")]
mod fake;
#[path = "../tests/api/scripted.rs"]
mod scripted;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().ok_or("name the address to listen on, such as 127.0.0.1:8081")?;
    let folder = arguments.next().ok_or("name a folder for records, such as /tmp/fakes")?;
    let fake = fake::Fake::parrot();
    let services =
        Services { draw: vec![Arc::new(fake::Painter)], decide: vec![Arc::new(scripted::Scripted)], ..fake.services() };
    let ledger = Some(records(Path::new(&folder)).await?);
    let listener = gateway::bind(&address).await?;
    let shutdown = async { tokio::signal::ctrl_c().await.unwrap_or(()) };
    gateway::serve(listener, Gateway { ledger, ..fake.gateway_of(services) }, shutdown).await;
    Ok(())
}

/// A ledger in this folder.
async fn records(folder: &Path) -> Result<Ledger, Box<dyn Error>> {
    let (data, keys) = (folder.join("data"), folder.join("keys"));
    fs::create_dir_all(&data)?;
    fs::create_dir_all(&keys)?;
    let url = format!("sqlite:{}", data.join("ledger.db").display());
    Ok(Ledger::open(ledger::Settings::new(url, keys.join("ledger.key"))).await?)
}
