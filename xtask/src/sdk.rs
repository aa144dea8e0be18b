//! The OpenAI clients' tests against `tessera serve`, started on a free port of this machine with real models.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::{
    provision::Python,
    run::{cargo, now, run, target_directory},
};

/// Loading two small models takes a second; a busy machine gets a minute.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// A drain waits for running answers; here there are none.
const STOPPED_WITHIN: Duration = Duration::from_secs(15);

pub(crate) fn test(python: &Python, models: &Path) -> Result<()> {
    let server = Server::start(models)?;
    let mut pytest = python.command(&["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/sdk"]);
    pytest.env("TESSERA_BASE_URL", server.base_url()).env("TESSERA_TEST_MODELS", models);
    let tested = run(&mut pytest);
    let stopped = server.stop();
    tested.and(stopped)
}

/// A started `tessera serve`. Dropping it kills the process.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    /// Builds and starts it, and waits until it answers.
    pub(crate) fn start(models: &Path) -> Result<Self> {
        run(&mut cargo(&["build", "--package", "cli", "--bin", "tessera"]))?;
        let address = free_address()?;
        let own = target_directory()?.join("tmp").join("sdk");
        if own.exists() {
            std::fs::remove_dir_all(&own)?;
        }
        std::fs::create_dir_all(&own)?;
        let child = Command::new(target_directory()?.join("debug").join("tessera"))
            .arg("serve")
            .arg("--model")
            .arg(models.join("SmolLM2-135M-Instruct.Q4_1.gguf"))
            .arg("--embed-model")
            .arg(models.join("minilm"))
            .args(["--listen", &address.to_string()])
            // Records and keys of its own: those of whoever runs the tests are none of a test's business.
            .env("XDG_DATA_HOME", own.join("data"))
            .env("XDG_CONFIG_HOME", own.join("config"))
            .current_dir(&own)
            .spawn()
            .context("cannot start tessera serve")?;
        let mut server = Self { child, address };
        wait_until_ready(&mut server.child, address, "tessera serve")?;
        Ok(server)
    }

    /// Where the OpenAI API is.
    pub(crate) fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Asks it to end, as a service manager does, and expects that it ends well.
    pub(crate) fn stop(mut self) -> Result<()> {
        run(Command::new("kill").args(["-TERM", &self.child.id().to_string()]))?;
        let start = now();
        while start.elapsed() < STOPPED_WITHIN {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("tessera serve ended with {status} when asked to stop"),
                None => thread::sleep(Duration::from_millis(50)),
            }
        }
        bail!("tessera serve did not end within {} s of SIGTERM", STOPPED_WITHIN.as_secs())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // After a clean stop there is nothing left to kill.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Waits until the server that `child` is answers on `address`.
pub(crate) fn wait_until_ready(child: &mut Child, address: SocketAddr, name: &str) -> Result<()> {
    let start = now();
    while start.elapsed() < READY_WITHIN {
        if let Some(status) = child.try_wait()? {
            bail!("{name} ended with {status} before it was ready");
        }
        if ready(address) {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(100));
    }
    bail!("{name} was not ready within {} s", READY_WITHIN.as_secs())
}

/// A port that was free a moment ago.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// The readiness check answers 200.
fn ready(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_millis(200))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(
            format!("GET /healthz/ready HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes(),
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that gives one answer.
    fn answers(text: &'static str) -> bool {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 512];
            let _ = stream.read(&mut request).unwrap();
            stream.write_all(text.as_bytes()).unwrap();
        });
        let found = ready(address);
        server.join().unwrap();
        found
    }

    #[test]
    fn only_a_200_is_ready() {
        assert!(answers("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"));
        assert!(!answers("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"));
        assert!(!ready(free_address().unwrap()), "nobody listens");
    }
}
