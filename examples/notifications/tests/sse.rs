//! The program as a browser sees it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

/// How long an answer may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// The running program. Dropping it kills it.
struct Program {
    child: Child,
    address: String,
}

impl Program {
    fn start(url: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_notifications"))
            .args(["--url", url, "--bus", "memory:", "--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on http://").unwrap();
        Self {
            child,
            address: address.to_owned(),
        }
    }

    fn send(&self, head: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(
            stream,
            "{head}\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        stream
    }

    fn set(&self, order: &str, status: &str) {
        let head = format!("PUT /orders/{order} HTTP/1.1\r\nConnection: close");
        let body = format!("{{\"status\":\"{status}\"}}");
        let mut answer = String::new();
        let mut stream = self.send(&head, &body);
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }

    /// A browser that connects, or comes back.
    fn listen(&self, last: Option<&str>) -> Browser {
        let last = last.map_or(String::new(), |id| format!("\r\nLast-Event-ID: {id}"));
        let stream = self.send(&format!("GET /events HTTP/1.1{last}"), "");
        let mut browser = Browser(BufReader::new(stream));
        let line = || Some(browser.line()).filter(|it| !it.is_empty());
        let head: Vec<_> = std::iter::from_fn(line).collect();
        assert_eq!(head[0], "HTTP/1.1 200 OK", "{head:?}");
        let kind = "content-type: text/event-stream";
        assert!(head.iter().any(|line| line.starts_with(kind)), "{head:?}");
        browser
    }

    /// As ctrl-c does.
    fn interrupt(mut self) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-INT", &pid])
                .status()
                .unwrap()
                .success()
        );
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A stream of server-sent events.
struct Browser(BufReader<TcpStream>);

impl Browser {
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("a line in time");
        line.trim_end().to_owned()
    }

    /// The next event: its id, and what it says in short.
    fn next(&mut self) -> (String, String) {
        let (mut id, mut data) = (String::new(), None);
        loop {
            let line = self.line();
            // Between chunks, and after an event, lines are empty; sizes of chunks are ignored.
            if let Some(it) = line.strip_prefix("id: ") {
                id = it.to_owned();
            } else if let Some(it) = line.strip_prefix("data: ") {
                data = Some(serde_json::from_str::<Value>(it).unwrap());
            } else if line.is_empty()
                && let Some(change) = data.take()
            {
                let [order, version] = [&change["order"], &change["version"]];
                let [kind, status] = [&change["type"], &change["data"]["status"]];
                return (
                    id,
                    format!("{kind} {order}@{version} {status}").replace('"', ""),
                );
            }
        }
    }

    fn take(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.next().1).collect()
    }
}

#[test]
fn a_browser_that_comes_back_gets_exactly_what_it_missed() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("embedded:{}", folder.path().join("orders.redb").display());
    let program = Program::start(&url);
    // The answer may be faster than the bus: only what somebody has seen is over for those who come later.
    let mut early = program.listen(None);
    program.set("before", "placed");
    early.next();
    drop(early);

    // What happens is pushed, to everyone who is there.
    let (mut one, mut other) = (program.listen(None), program.listen(None));
    program.set("a", "placed");
    program.set("a", "paid");
    let (_, first) = one.next();
    let (last, second) = one.next();
    assert_eq!(first, "OrderPlaced a@1 placed");
    assert_eq!(second, "OrderStatusChanged a@2 paid");
    assert_eq!(other.take(2), [first, second]);

    // One goes away, and is told what it missed; then it gets what happens, once.
    drop(one);
    let missed = ["OrderStatusChanged a@3 packed", "OrderPlaced b@1 placed"];
    program.set("a", "packed");
    program.set("b", "placed");
    assert_eq!(other.take(2), missed);
    let mut one = program.listen(Some(&last));
    assert_eq!(one.take(2), missed);
    program.set("b", "paid");
    let (last, paid) = one.next();
    assert_eq!(paid, "OrderStatusChanged b@2 paid");
    assert_eq!(other.take(1), [paid]);

    // So it is when the program itself was away: the log remembers. Open streams do not hold it up.
    program.interrupt();
    let program = Program::start(&url);
    program.set("b", "packed");
    let mut one = program.listen(Some(&last));
    program.set("b", "shipped");
    let rest = [
        "OrderStatusChanged b@3 packed",
        "OrderStatusChanged b@4 shipped",
    ];
    assert_eq!(one.take(2), rest);
    // An id that is none is no reason to fail.
    program.listen(Some("nonsense"));
}

#[test]
fn the_page_needs_nothing_from_elsewhere() {
    let program = Program::start("embedded::memory:");
    let mut page = String::new();
    let mut stream = program.send("GET / HTTP/1.1\r\nConnection: close", "");
    stream.read_to_string(&mut page).unwrap();
    assert!(page.contains("content-type: text/html"));
    assert!(page.contains("new EventSource"));
    for outside in ["http://", "https://", "src=", "@import", "url("] {
        let (_, body) = page.split_once("\r\n\r\n").unwrap();
        assert!(!body.contains(outside), "{outside}");
    }
}
