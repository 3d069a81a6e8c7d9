//! Callers that open streams and reset them, or have them reset, as fast as they can: they are told to calm down and cut off, and
//! the others do not notice.

use std::time::Duration;

use diptych_proto::v1;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::support::*;

/// What an HTTP/2 client says first: the preface and an empty SETTINGS frame.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// Types of frames.
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
/// Flags: of HEADERS that no CONTINUATION follows, and of a PING's answer.
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;
/// Error codes.
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;
/// Far above what is promised; promises are not what is tested by it.
const PATIENCE: Duration = Duration::from_secs(60);

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The head of a call, with one more header.
fn head(stream: u32, (name, value): (&str, &str)) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    // HPACK: `:method: POST` and `:scheme: http` are in its table; of the others only the names.
    let block = [
        vec![0x83, 0x86, 0x04],
        text("/diptych.v1.InfoService/GetServerInfo"),
        vec![0x01],
        text("localhost"),
        vec![0x0f, 0x10],
        text("application/grpc"),
        vec![0x00],
        text(name),
        text(value),
    ];
    frame(HEADERS, END_HEADERS, stream, &block.concat())
}

/// How a caller has its streams end.
#[derive(Debug, Clone, Copy)]
enum By {
    /// It resets them, before the server has come to them.
    Resetting,
    /// Each breaks a rule of HTTP/2, so that the server resets it.
    Breaking,
}

/// Opens so many streams at once and has them end; then asks for a sign of life. The code by which the server says goodbye, or
/// `None` when it goes on.
async fn goodbye(server: &Server, streams: u32, by: By) -> Option<u32> {
    let mut socket = TcpStream::connect(&server.address).await.unwrap();
    let mut said = PREFACE.to_vec();
    for stream in (0..streams).map(|number| 2 * number + 1) {
        match by {
            By::Resetting => {
                said.extend(head(stream, ("te", "trailers")));
                said.extend(frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes()));
            }
            // HTTP/2 has no such header.
            By::Breaking => said.extend(head(stream, ("connection", "close"))),
        }
    }
    said.extend(frame(PING, 0, 0, b"are you?"));
    let (mut read, mut write) = socket.split();
    // It may be cut off before it has said all.
    let speak = async { drop(write.write_all(&said).await) };
    let hear = async {
        loop {
            let mut head = [0; 9];
            read.read_exact(&mut head).await.expect("neither an answer nor a goodbye");
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; usize::try_from(length).unwrap()];
            read.read_exact(&mut payload).await.unwrap();
            match head[3] {
                PING if head[4] & ACK != 0 => return None,
                GOAWAY => return Some(u32::from_be_bytes(*payload[4..].first_chunk().unwrap())),
                _ => {}
            }
        }
    };
    let heard = async { tokio::join!(speak, hear).1 };
    tokio::time::timeout(PATIENCE, heard).await.unwrap()
}

async fn cuts_off(server: &Server, by: By) {
    assert_eq!(goodbye(server, 5, by).await, None, "{by:?}: some are no fault");
    let calls = async {
        for _ in 0..20 {
            server.info().get_server_info(v1::GetServerInfoRequest {}).await.unwrap();
        }
    };
    let attacks = async {
        for _ in 0..5 {
            let told = goodbye(server, 1000, by).await;
            assert_eq!(told, Some(ENHANCE_YOUR_CALM), "{by:?}");
        }
    };
    tokio::join!(calls, attacks);
}

#[tokio::test]
async fn who_opens_and_resets_streams_in_a_hurry_is_cut_off_and_others_go_on() {
    let server = Server::with_flags(&["--pending-resets=10"]).await;
    cuts_off(&server, By::Resetting).await;
}

#[tokio::test]
async fn who_has_the_server_reset_streams_again_and_again_is_cut_off_and_others_go_on() {
    let server = Server::with_flags(&["--local-resets=10"]).await;
    cuts_off(&server, By::Breaking).await;
}
