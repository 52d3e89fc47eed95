//! Client cases 33 and 34: TLS and unix sockets.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::UnixListener;

use super::server::{Connection, Server};
use super::{ClientContext, client_cases};
use crate::case_result::{CaseError, CaseResult, check};

client_cases! {
    33 "tls" "GO has only insecure"
        "TLS: verified by default, SNI, own authority, client certificate, explicit insecure switch" => tls;
    34 "unix-socket" "DK; FireLens" "unix socket; recreated by a restart of the server: reconnected" => unix;
}

async fn tls(b: ClientContext) -> CaseResult {
    let Some(files) = b.options.tls.clone() else {
        return Err(CaseError::Skip(
            "needs certificates (--tls-cert, --tls-key, --ca)".into(),
        ));
    };
    let options = |server_name: &str, ca: bool, insecure: bool| {
        let client = files.client.as_ref();
        json!({ "tls": {
            "ca": if ca { json!(files.ca) } else { Value::Null }, "server_name": server_name, "insecure": insecure,
            "cert": client.map(|c| &c.0), "key": client.map(|c| &c.1),
        }})
    };
    let client_ca = files.client.as_ref().map(|_| files.ca.as_path());
    let acceptor = crate::tls::acceptor(&files.chain, &files.key, client_ca).map_err(CaseError::Skip)?;
    for (name, ca, insecure, works) in [
        ("server.example", true, false, true),
        ("another.example", true, false, false),
        ("server.example", false, false, false),
        ("another.example", false, true, true),
    ] {
        let case = format!("name {name}, authority given: {ca}, insecure: {insecure}");
        let server = Server::start().await?;
        let mut client = b.open(&server.endpoint(), options(name, ca, insecure)).await?;
        client.send(1, json!({ "seq": 1 })).await?;
        let stream = server.accept_tcp(b.reply_timeout()).await?;
        let accepted = tokio::time::timeout(b.reply_timeout(), acceptor.accept(stream)).await;
        let Ok(Ok(stream)) = accepted else {
            check(
                !works,
                format!("{case}: TLS is set up"),
                format!("{:?}", accepted.map(|r| r.map(|_| ()))),
            )?;
            continue;
        };
        let sni = stream.get_ref().1.server_name().map(str::to_owned);
        let mut conn = Connection::new(stream, b.reply_timeout());
        if works {
            check(
                sni.as_deref() == Some(name),
                format!("{case}: SNI {name}"),
                format!("{sni:?}"),
            )?;
            let message = conn.message().await?;
            conn.ack(&message).await?;
            client.expect_delivered(&[1]).await?;
        } else {
            let message = conn.maybe_message(Duration::from_secs(2)).await;
            check(message.is_none(), format!("{case}: nothing sent"), "an event")?;
        }
    }
    Ok(())
}

async fn unix(b: ClientContext) -> CaseResult {
    let folder = std::env::temp_dir().join(format!("forward-{:016x}", crate::context::random()));
    let io = |e: std::io::Error| CaseError::Skip(format!("unix socket: {e}"));
    std::fs::create_dir(&folder).map_err(io)?;
    let path = folder.join("forward.sock");
    let result = unix_at(&b, &path).await;
    let _ = std::fs::remove_dir_all(&folder);
    result
}

async fn unix_at(b: &ClientContext, path: &std::path::Path) -> CaseResult {
    let io = |e: std::io::Error| CaseError::Skip(format!("unix socket: {e}"));
    let accept = async |listener: &UnixListener| match tokio::time::timeout(
        b.reply_timeout(),
        listener.accept(),
    )
    .await
    {
        Ok(Ok((stream, _))) => Ok(Connection::new(stream, b.reply_timeout())),
        Ok(Err(e)) => Err(io(e)),
        Err(_) => Err(CaseError::fail("a connection to the unix socket", "none")),
    };
    let listener = UnixListener::bind(path).map_err(io)?;
    let mut client = b.open(&[format!("unix:{}", path.display())], json!({})).await?;
    client.send(1, json!({ "seq": 1 })).await?;
    let mut conn = accept(&listener).await?;
    let message = conn.message().await?;
    conn.ack(&message).await?;
    client.expect_delivered(&[1]).await?;
    drop((conn, listener));
    std::fs::remove_file(path).map_err(io)?;
    let listener = UnixListener::bind(path).map_err(io)?;
    client.send(2, json!({ "seq": 2 })).await?;
    let mut conn = accept(&listener).await?;
    let message = conn.message().await?;
    conn.ack(&message).await?;
    client.expect_delivered(&[2]).await
}
