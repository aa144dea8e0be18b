//! The gateway over services that play: no weights, no engine. `cargo xtask test` checks its answers against docs/openapi.json.
//!
//! Takes the address to listen on, loopback as always: `cargo run -p gateway --example fakes -- 127.0.0.1:8081`.

use std::{error::Error, sync::Arc};

#[path = "../tests/api/fake.rs"]
#[expect(dead_code, reason = "tests script it further")]
mod fake;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).ok_or("name the address to listen on, such as 127.0.0.1:8081")?;
    let fake = fake::Fake::parrot();
    let gateway = fake.gateway_of(gateway::Services { draw: vec![Arc::new(fake::Painter)], ..fake.services() });
    let listener = gateway::bind(&address).await?;
    let shutdown = async { tokio::signal::ctrl_c().await.unwrap_or(()) };
    Ok(gateway::serve(listener, gateway, shutdown).await?)
}
