//! What holds for every call: messages that are too large or no messages, health, reflection, gRPC-Web, deadlines.

use diptych_proto::v1;
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::Code;
use tonic::codec::CompressionEncoding;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::support::*;

#[tokio::test]
async fn a_message_beyond_the_limit_is_told_with_the_limit() {
    let server = Server::small().await;
    server.make(create("things")).await;
    let put = upsert("things", image_item("a", vec![0; MESSAGE_BYTES]));
    let told = refused(server.items().upsert_item(put)).await;
    assert_eq!(told.code, Code::ResourceExhausted);
    assert_eq!(told.reason, "MESSAGE_TOO_LARGE");
    assert_eq!(told.limit, Some(MESSAGE_BYTES as u64));
    // A small message that would grow beyond the limit is no way around it.
    let put = upsert("things", image_item("a", vec![0; 4 * MESSAGE_BYTES]));
    let mut zipped = server.items().send_compressed(CompressionEncoding::Gzip);
    let told = refused(zipped.upsert_item(put)).await;
    assert_eq!(told.reason, "MESSAGE_TOO_LARGE");
    server.put("things", text_item("a", "still here")).await;
}

#[tokio::test]
async fn a_reply_beyond_the_limit_is_told_with_the_limit_and_the_connection_goes_on() {
    let flags = ["--message-bytes=64KiB", "--batch-items=1024", "--queue-items=1024"];
    let server = Server::with_flags(&flags).await;
    let input = |number: usize| v1::EmbedInput {
        input: Some(v1::embed_input::Input::Text(number.to_string())),
        ..Default::default()
    };
    // Each text becomes 40 numbers of 4 bytes.
    let batch = |count| v1::BatchEmbedRequest {
        inputs: (0..count).map(input).collect(),
        ..Default::default()
    };
    let told = refused(server.embedding().batch_embed(batch(1000))).await;
    assert_eq!((told.code, told.reason.as_str()), (Code::ResourceExhausted, "MESSAGE_TOO_LARGE"));
    assert_eq!(told.limit, Some(MESSAGE_BYTES as u64));
    let reply = server.embedding().batch_embed(batch(100)).await.unwrap().into_inner();
    assert_eq!(reply.results.len(), 100);
}

#[tokio::test]
async fn a_compressed_request_is_understood() {
    let server = Server::with_things().await;
    let mut zipped = server.items().send_compressed(CompressionEncoding::Gzip);
    zipped.upsert_item(upsert("things", text_item("a", "a heart"))).await.unwrap();
}

#[tokio::test]
async fn health_knows_every_service_and_reflection_tells_them() {
    use tonic_reflection::pb::{v1 as reflection, v1alpha};
    let server = Server::start().await;
    let mut health = HealthClient::new(server.channel.clone());
    for service in ["", "live", "ready", "diptych.v1.SearchService", "diptych.v1.AdminService"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        assert_eq!(health.check(request).await.unwrap().into_inner().status, 1, "{service}");
    }
    let request = reflection::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(reflection::server_reflection_request::MessageRequest::ListServices(
            String::new(),
        )),
    };
    let mut client =
        reflection::server_reflection_client::ServerReflectionClient::new(server.channel.clone());
    let stream = client.server_reflection_info(tokio_stream::iter([request])).await.unwrap();
    let reply = stream.into_inner().message().await.unwrap().unwrap();
    let text = format!("{reply:?}");
    assert!(text.contains("diptych.v1.SearchService") && text.contains("grpc.health.v1.Health"));
    let request = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(
            v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol(
                "diptych.v1.ItemService".to_owned(),
            ),
        ),
    };
    let mut client =
        v1alpha::server_reflection_client::ServerReflectionClient::new(server.channel.clone());
    let stream = client.server_reflection_info(tokio_stream::iter([request])).await.unwrap();
    let reply = stream.into_inner().message().await.unwrap().unwrap();
    assert!(format!("{reply:?}").contains("FileDescriptorResponse"));
}

#[tokio::test]
async fn the_limits_of_the_transport_are_told() {
    let server = Server::with_flags(&[
        "--max-connections=7",
        "--streams-per-connection=8",
        "--calls-per-caller=9",
        "--header-bytes=20KiB",
        "--local-resets=10",
        "--pending-resets=11",
        "--handshake-timeout=12s",
        "--connection-age=13m",
        "--timeout=14s",
        "--stream-timeout=15m",
        "--method-timeouts=Search=5s",
    ])
    .await;
    let told = server.info().get_server_info(v1::GetServerInfoRequest {}).await.unwrap();
    let limits = told.into_inner().limits.unwrap();
    let seconds = |time: Option<prost_types::Duration>| time.unwrap().seconds;
    assert_eq!((limits.connections, limits.streams_per_connection), (7, 8));
    assert_eq!((limits.calls_per_caller, limits.header_bytes), (9, 20 << 10));
    assert_eq!((limits.local_resets, limits.pending_resets), (10, 11));
    assert_eq!((seconds(limits.handshake_timeout), seconds(limits.connection_age)), (12, 780));
    assert_eq!((seconds(limits.call_timeout), seconds(limits.stream_timeout)), (14, 900));
    let search = limits.method_timeouts.into_iter().next().unwrap();
    assert_eq!((search.method.as_str(), seconds(search.timeout)), ("Search", 5));
    assert!(limits.calls > 512);
}

/// By the contract's own descriptors, so that a limit that is added is told or fails here.
#[tokio::test]
async fn no_limit_of_the_contract_is_left_unsaid() {
    use prost_types::FileDescriptorSet;
    let server = Server::with_flags(&["--method-timeouts=Search=5s", "--memory-bytes=64GiB"]).await;
    let told = server.info().get_server_info(v1::GetServerInfoRequest {}).await.unwrap();
    let told = told.into_inner().limits.unwrap().encode_to_vec();
    let set = FileDescriptorSet::decode(diptych_proto::FILE_DESCRIPTOR_SET).unwrap();
    let mut messages = set.file.iter().flat_map(|file| &file.message_type);
    let limits = messages.find(|message| message.name() == "Limits").unwrap();
    // What is 0 or absent is not on the wire.
    let (mut numbers, mut rest) = (Vec::new(), told.as_slice());
    while !rest.is_empty() {
        let (number, wire) = prost::encoding::decode_key(&mut rest).unwrap();
        numbers.push(i32::try_from(number).unwrap());
        let context = prost::encoding::DecodeContext::default();
        prost::encoding::skip_field(wire, number, &mut rest, context).unwrap();
    }
    let unsaid = limits.field.iter().filter(|field| !numbers.contains(&field.number()));
    let unsaid: Vec<&str> = unsaid.map(prost_types::FieldDescriptorProto::name).collect();
    assert!(unsaid.is_empty(), "{unsaid:?}");
}

/// One HTTP/1.1 request as a browser's gRPC-Web client sends it; the whole response, in lower case.
pub(crate) async fn web(server: &Server, path: &str, header: &str, body: &[u8]) -> String {
    let mut socket = tokio::net::TcpStream::connect(&server.address).await.unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/grpc-web+proto\r\n\
         x-grpc-web: 1\r\nconnection: close\r\n{header}content-length: {}\r\n\r\n",
        server.address,
        body.len()
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    socket.write_all(body).await.unwrap();
    let mut response = Vec::new();
    socket.read_to_end(&mut response).await.unwrap();
    String::from_utf8_lossy(&response).to_lowercase()
}

/// Whether a response tells this status, among its headers or in its trailers.
pub(crate) fn tells(response: &str, code: u8) -> bool {
    let header = format!("grpc-status: {code}\r\n");
    response.contains(&header) || response.contains(&header.replace(": ", ":"))
}

pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    let mut body = vec![0];
    body.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    body.extend_from_slice(message);
    body
}

#[tokio::test]
async fn grpc_web_is_answered_on_the_same_port() {
    let server = Server::start().await;
    let path = "/diptych.v1.EmbeddingService/EmbedText";
    let request = v1::EmbedTextRequest { text: "a heart".to_owned(), ..Default::default() };
    let response = web(&server, path, "", &framed(&request.encode_to_vec())).await;
    assert!(response.starts_with("http/1.1 200"), "{response}");
    assert!(tells(&response, 0), "{response}");
}

#[tokio::test]
async fn what_is_no_message_and_no_method_is_refused_with_details() {
    let server = Server::start().await;
    // Field 1 of type bytes that claims more than there is.
    let garbled = framed(&[0x0a, 0x7f, 0x00]);
    let calls = [
        ("/diptych.v1.EmbeddingService/EmbedText", garbled, Code::InvalidArgument),
        ("/diptych.v1.EmbeddingService/NoSuch", framed(&[]), Code::Unimplemented),
    ];
    for (path, body, code) in calls {
        let response = web(&server, path, "", &body).await;
        assert!(tells(&response, code as u8), "{response}");
        assert!(response.contains("grpc-status-details-bin"), "{response}");
    }
}

// Sent by hand: tonic's client gives up by itself before it could hear the answer.
#[tokio::test]
async fn a_deadline_that_cannot_be_met_is_exceeded_not_cancelled() {
    let server = Server::with_things().await;
    let search = ask("things", v1::Modality::Image, by_text("a")).encode_to_vec();
    for (timeout, code) in [("1n", Code::DeadlineExceeded), ("20S", Code::Ok)] {
        let header = format!("grpc-timeout: {timeout}\r\n");
        let path = "/diptych.v1.SearchService/Search";
        let response = web(&server, path, &header, &framed(&search)).await;
        assert!(tells(&response, code as u8), "{response}");
    }
}
