//! A server on loopback that plays back responses as they were written down, in pieces of any size.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinSet, yield_now},
};

/// What a connection does once its request has come.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    /// The whole response, head and body.
    pub(crate) bytes: Vec<u8>,
    /// Bytes of a piece.
    pub(crate) piece: usize,
    /// Stay open until the client leaves.
    pub(crate) hold: bool,
}

impl Reply {
    pub(crate) fn new(text: &str) -> Self {
        Self { bytes: text.as_bytes().to_vec(), piece: usize::MAX, hold: false }
    }

    /// A status with a JSON body.
    pub(crate) fn json(status: &str, headers: &str, body: &str) -> Self {
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}");
        Self::new(&format!("{head}\r\n{headers}connection: close\r\n\r\n{body}"))
    }

    /// The beginning of a stream.
    pub(crate) fn stream(body: &str) -> Self {
        Self::new(&format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n{body}"))
    }

    pub(crate) fn held(self) -> Self {
        Self { hold: true, ..self }
    }
}

/// A request as it came.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked {
    pub(crate) head: String,
    pub(crate) body: String,
}

/// The server; dropping it ends it. Connections beyond its replies get the last one.
pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) asked: Arc<Mutex<Vec<Asked>>>,
    /// Connections that the client closed or broke.
    pub(crate) left: watch::Receiver<usize>,
    _task: JoinSet<()>,
}

impl Server {
    pub(crate) async fn start(replies: impl IntoIterator<Item = Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let (leaving, left) = watch::channel(0);
        let mut task = JoinSet::new();
        task.spawn(serve(listener, replies.into_iter().collect(), asked.clone(), leaving));
        Self { url, asked, left, _task: task }
    }

    pub(crate) fn times(&self) -> usize {
        self.asked.lock().len()
    }
}

async fn serve(
    listener: TcpListener,
    mut replies: VecDeque<Reply>,
    asked: Arc<Mutex<Vec<Asked>>>,
    left: watch::Sender<usize>,
) {
    let mut connections = JoinSet::new();
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        let reply = if replies.len() > 1 { replies.pop_front() } else { replies.front().cloned() };
        connections.spawn(answer(socket, reply.unwrap(), asked.clone(), left.clone()));
    }
}

async fn answer(mut socket: TcpStream, reply: Reply, asked: Arc<Mutex<Vec<Asked>>>, left: watch::Sender<usize>) {
    let Some(request) = read(&mut socket).await else { return };
    asked.lock().push(request);
    for piece in reply.bytes.chunks(reply.piece) {
        if socket.write_all(piece).await.is_err() {
            break;
        }
        yield_now().await;
    }
    if reply.hold {
        let mut rest = [0; 64];
        while matches!(socket.read(&mut rest).await, Ok(n) if n > 0) {}
        left.send_modify(|n| *n += 1);
    }
}

/// Head and body of a request; none from a client that leaves before.
async fn read(socket: &mut TcpStream) -> Option<Asked> {
    let (mut seen, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        if let Some(end) = seen.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8(seen[..end].to_vec()).ok()?.to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
            if seen.len() >= end + 4 + length {
                return Some(Asked { head, body: String::from_utf8(seen.split_off(end + 4)).ok()? });
            }
        }
        match socket.read(&mut chunk).await {
            Ok(n) if n > 0 => seen.extend_from_slice(&chunk[..n]),
            _ => return None,
        }
    }
}
