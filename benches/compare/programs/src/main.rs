//! The programs around the proxies that are compared: the upstream, an authorizer, and the load of new connections.
//!
//!     compare_tools upstream LISTEN [LISTEN]...
//!     compare_tools authorizer LISTEN CREDENTIALS
//!     compare_tools connect ADDRESS PATH CREDENTIAL CONNECTIONS SECONDS
//!
//! `upstream` is the service behind every proxy: 600 bytes of JSON, 16 KiB for a GET below `/pols/`. LISTEN is an
//! address, or `unix:` with the path of a socket. `authorizer` answers the subrequests of nginx and Envoy: 200 to
//! the values of `Authorization` that its file lists, 401 to all others. `connect` opens a connection for each
//! request, each with a whole handshake: wrk resumes sessions, which the real clients do not.
//! Only `benches/compare/run` starts this program.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a benchmark ends on anything odd"
)]

mod answers;
mod connect;

use tokio::runtime::Builder;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    match arguments.as_slice() {
        ["upstream", listen @ ..] if !listen.is_empty() => runtime.block_on(answers::upstream(listen)),
        ["authorizer", listen, credentials] => runtime.block_on(answers::authorizer(listen, credentials)),
        ["connect", address, path, credential, connections, seconds] => {
            let load = connect::Load::new(address, path, credential, seconds.parse().unwrap());
            runtime.block_on(load.run(connections.parse().unwrap()));
        }
        _ => panic!("see the head of this file"),
    }
}
